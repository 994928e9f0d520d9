"""The plugins of an application, behind `PluginSet`.

plugin_set       `PluginSet`
state            the plugins of a set at one time, in the order in which they are asked
discovery        where plugins are, and how they are read
directory        a directory that is held open while plugins are read from it
metadata         `plugin.toml` and `plugin.json`
description      what a settings page shows of one
policy           what the application grants to all, and what each gets of it
loaded_plugin    one that can be called, with its instances
isolated_plugin  one that runs in processes of its own
compile_shares   time for compiling, among those that are loaded at once
dispatch         one plugin after the other: whose fault an exception is, and which output is an answer
signatures       overloads of the methods that ask
"""
