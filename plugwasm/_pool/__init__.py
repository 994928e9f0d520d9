"""Pools: a few instances of one plugin for any number of callers.

pool         `PluginPool`
slots        the slots, and the queue of the callers that wait for one
claim        a slot, and the chain of claims that says whose it is
lease        a plugin of a pool for several calls
map          many inputs, outputs in order
map_workers  threads that make the calls of a `map`
signatures   overloads of the methods of a pool
"""
