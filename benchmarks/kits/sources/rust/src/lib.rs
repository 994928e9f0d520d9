//! Programs that measure a kit: see `examples`.
