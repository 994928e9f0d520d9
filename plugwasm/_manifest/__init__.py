"""Resolves what an application passes as a plugin to the bytes of its modules and its grants.

model         `Manifest`, `WasmSource`, `MemoryOptions`
resolve       from a path, bytes, a URL, text or a manifest to a `PluginSpec`
parsing       JSON and TOML as plain values, within bounds
plain         from a manifest as an application writes it to built-in types
json_schema   the JSON Schema of the manifest
validation    rules of the fields
module_files  reads the modules that a manifest names
download      modules from URLs
files         reads files that the application names
limits        `Limits` and `ProcessLimits`
policy        `ManifestPolicy`: bounds for a manifest from a stranger
messages      the sentences about errors in a manifest
mistakes      hints for arguments that are no plugin
"""
