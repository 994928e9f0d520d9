module @NAME@

go 1.24

require plugwasm.dev/pdk v0.1.0

replace plugwasm.dev/pdk => ./pdk
