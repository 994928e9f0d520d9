module plugwasm.example/pdk

go 1.24
