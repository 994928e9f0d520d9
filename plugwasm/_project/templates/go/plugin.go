package main

import "plugwasm.example/pdk"

//go:wasmexport greet
func greet() int32 {
	return pdk.Text(func(name string) (string, error) {
		if name == "" {
			return "", pdk.Fail(2, "no name was given")
		}
		greeting, ok := pdk.Config("greeting")
		if !ok {
			greeting = "Hello"
		}
		return greeting + ", " + name + "!", nil
	})
}

func main() {}
