"""Plugins as values that travel, and batches of rows.

ref              `PluginRef`: a plugin that other processes and machines can make
objects          objects that a ref refers to, by name or as pickles
pinned_manifest  a manifest with hashes and absolute paths, without secrets
map_batches      `MapBatches`: a callable for Ray, Dask, Spark
tables           record batches, tables, data frames, dicts of arrays
arrow            Arrow IPC streams
"""
