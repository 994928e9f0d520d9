package main

import "plugwasm.example/pdk"

//go:wasmexport echo
func echo() int32 {
	return pdk.Bytes(func(input []byte) ([]byte, error) { return input, nil })
}

func main() {}
