package main

import (
	"encoding/binary"
	"strings"

	"plugwasm.example/pdk"
)

type count struct {
	Count  uint64 `json:"count"`
	Total  uint64 `json:"total"`
	Vowels string `json:"vowels"`
}

//go:wasmexport count_vowels
func countVowels() int32 {
	vowels, set := pdk.Config("vowels")
	if !set {
		vowels = "aeiouAEIOU"
	}
	result := count{Vowels: vowels}
	for _, character := range string(pdk.Input()) {
		if strings.ContainsRune(vowels, character) {
			result.Count++
		}
	}
	if before := pdk.Var("total"); before != nil {
		result.Total = binary.LittleEndian.Uint64(before)
	}
	result.Total += result.Count
	pdk.SetVar("total", binary.LittleEndian.AppendUint64(nil, result.Total))
	return pdk.OutputJSON(result)
}

func main() {}
