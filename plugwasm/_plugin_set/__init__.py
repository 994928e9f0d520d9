"""The plugins of an application, behind `PluginSet`.

plugin_set       `PluginSet`
arguments        checks of the arguments of a set
catalog          the plugins that a set has: found, loaded, and changed
state            the plugins of a set at one time, in the order in which they are called
changes          one change at a time, and what a reload has changed
watching         the thread that reloads in the background
discovery        sources: where plugins are, and how they are read
directory        a directory that is held open while plugins are read from it
files            files of a directory that are plugins: modules and scripts
metadata         `plugin.toml` and `plugin.json`
loading          from sources to entries of the state
compile_shares   how plugins that are loaded at once share the time for compiling
policy           what the application grants to all plugins, and what each gets
loaded_plugin    a plugin that can be called, with its instances
isolated_plugin  a plugin that runs in processes of its own
dispatch         one plugin after the other: which output is an answer, whose fault an error is
description      what a settings page shows of a plugin
signatures       overloads of the methods that call hooks
"""
