// Command json is a plugin in standard Go, to measure what a plugin with a language's run time
// costs. It parses a JSON document, sorts the names in it, and writes it anew.
package main

import (
	"encoding/binary"
	"encoding/json"
)

//go:wasmimport extism:host/env input_length
func inputLength() uint64

//go:wasmimport extism:host/env input_load_u8
func inputLoadU8(at uint64) uint32

//go:wasmimport extism:host/env input_load_u64
func inputLoadU64(at uint64) uint64

//go:wasmimport extism:host/env alloc
func alloc(size uint64) uint64

//go:wasmimport extism:host/env store_u8
func storeU8(at uint64, value uint32)

//go:wasmimport extism:host/env store_u64
func storeU64(at, value uint64)

//go:wasmimport extism:host/env output_set
func outputSet(block, size uint64)

//go:wasmimport extism:host/env error_set
func errorSet(block uint64)

func input() []byte {
	bytes := make([]byte, inputLength())
	at := 0
	for ; len(bytes)-at >= 8; at += 8 {
		binary.LittleEndian.PutUint64(bytes[at:], inputLoadU64(uint64(at)))
	}
	for ; at < len(bytes); at++ {
		bytes[at] = byte(inputLoadU8(uint64(at)))
	}
	return bytes
}

func block(bytes []byte) uint64 {
	if len(bytes) == 0 {
		return 0
	}
	handle := alloc(uint64(len(bytes)))
	at := 0
	for ; len(bytes)-at >= 8; at += 8 {
		storeU64(handle+uint64(at), binary.LittleEndian.Uint64(bytes[at:]))
	}
	for ; at < len(bytes); at++ {
		storeU8(handle+uint64(at), uint32(bytes[at]))
	}
	return handle
}

//go:wasmexport sort
func sort() int32 {
	var document any
	if err := json.Unmarshal(input(), &document); err != nil {
		errorSet(block([]byte(err.Error())))
		return 1
	}
	sorted, err := json.Marshal(document)
	if err != nil {
		errorSet(block([]byte(err.Error())))
		return 1
	}
	outputSet(block(sorted), uint64(len(sorted)))
	return 0
}

func main() {}
