module plugwasm.example/json

go 1.24
