"""The plugins of an application, behind `PluginSet`.

state           the plugins of a set at one time, in the order in which they are asked
description     what a settings page shows of one
apart           one that runs in processes of its own
loaded          one that can be called, with its instances
shares          the time for compiling, among those that are loaded at once
ceiling         what the application grants to all, and what each gets of it
asking          one plugin after the other: what is an answer, and whose fault an exception is; for tasks, in a thread
signatures      what type checkers see of that
discovery       where plugins are, and how they are read
plugin_file     what their authors say of them
"""
