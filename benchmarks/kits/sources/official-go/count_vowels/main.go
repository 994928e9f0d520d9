package main

import (
	"encoding/binary"
	"strings"

	"github.com/extism/go-pdk"
)

type count struct {
	Count  uint64 `json:"count"`
	Total  uint64 `json:"total"`
	Vowels string `json:"vowels"`
}

//go:wasmexport count_vowels
func countVowels() int32 {
	vowels, set := pdk.GetConfig("vowels")
	if !set {
		vowels = "aeiouAEIOU"
	}
	result := count{Vowels: vowels}
	for _, character := range pdk.InputString() {
		if strings.ContainsRune(vowels, character) {
			result.Count++
		}
	}
	if before := pdk.GetVar("total"); before != nil {
		result.Total = binary.LittleEndian.Uint64(before)
	}
	result.Total += result.Count
	pdk.SetVar("total", binary.LittleEndian.AppendUint64(nil, result.Total))
	if err := pdk.OutputJSON(result); err != nil {
		pdk.SetError(err)
		return 1
	}
	return 0
}

func main() {}
