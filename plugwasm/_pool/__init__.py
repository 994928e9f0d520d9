"""Pools: a few instances of one plugin for any number of callers.

pool         `PluginPool`
slots        instances and the queue for them
map          many inputs, outputs in order
map_workers  threads that make the calls of a `map`
signatures   overloads of the methods of a pool
"""
