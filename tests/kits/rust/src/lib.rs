//! Plugins that test the kit: see `examples`.
