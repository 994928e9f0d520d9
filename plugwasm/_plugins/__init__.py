"""The plugins of an application, behind `PluginSet`.

state           the plugins of a set at one time, in the order in which they are asked
description     what a settings page shows of one
loaded          one that is compiled, with its instances
ceiling         what the application grants to all, and what each gets of it
asking          what is an answer, and whose fault an exception is
discovery       where plugins are, and how they are read
plugin_file     what their authors say of them
"""
