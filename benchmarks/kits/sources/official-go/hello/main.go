package main

import "github.com/extism/go-pdk"

//go:wasmexport hello
func hello() int32 {
	pdk.OutputString("Hello, " + pdk.InputString() + "!")
	return 0
}

func main() {}
