module plugwasm.dev/pdk

go 1.24
