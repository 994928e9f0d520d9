package main

import "plugwasm.example/pdk"

//go:wasmexport hello
func hello() int32 {
	return pdk.Text(func(name string) (string, error) { return "Hello, " + name + "!", nil })
}

func main() {}
