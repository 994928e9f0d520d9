module @NAME@

go 1.24

require plugwasm.example/pdk v0.1.0

replace plugwasm.example/pdk => ./pdk
