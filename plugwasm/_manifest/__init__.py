"""From what an application passes as a plugin to its modules' bytes and its grants.

model         `Manifest`, `WasmSource`, `MemoryOptions`
resolve       path, bytes, URL, text or manifest to a `PluginSpec`
parsing       JSON and TOML as plain values, within bounds
validation    rules of the fields
module_files  the modules that a manifest names
download      modules from URLs
files         files that the application names, and what is in them
limits        `Limits` and `ProcessLimits`
policy        `ManifestPolicy`: what a stranger's manifest may ask for
messages      what is wrong with a manifest
mistakes      what was passed as a plugin and is none
"""
