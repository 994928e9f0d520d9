package main

import "plugwasm.example/pdk"

//go:wasmexport hello
func hello() int32 {
	pdk.Output([]byte("Hello, " + string(pdk.Input()) + "!"))
	return 0
}

func main() {}
