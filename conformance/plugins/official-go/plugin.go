// Command conformance is the test plugin of the conformance suite in Go, with the official kit.
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/extism/go-pdk"
)

//go:wasmimport extism:host/user host_i32
func hostI32(int32) int32

//go:wasmimport extism:host/user host_i64
func hostI64(int64) int64

//go:wasmimport extism:host/user host_f32
func hostF32(float32) float32

//go:wasmimport extism:host/user host_f64
func hostF64(float64) float64

//go:wasmimport extism:host/user host_text
func hostText(uint64) uint64

//go:wasmimport extism:host/user host_bytes
func hostBytes(uint64) uint64

//go:wasmimport extism:host/user host_json
func hostJSON(uint64) uint64

//go:wasmimport conformance:host host_other
func hostOther()

func split(text string) (string, string) {
	line, rest, _ := strings.Cut(text, "\n")
	return line, rest
}

// end finishes a call: with an output, or with an error and code 1.
func end(output string, err error) int32 {
	if err != nil {
		pdk.SetError(err)
		return 1
	}
	pdk.OutputString(output)
	return 0
}

func describe(value string, set bool) int32 {
	if !set {
		return end("unset", nil)
	}
	return end("="+value, nil)
}

//go:wasmexport echo
func echo() int32 {
	pdk.Output(pdk.Input())
	return 0
}

//go:wasmexport utf8
func countCodePoints() int32 {
	text := pdk.InputString()
	if !utf8.ValidString(text) {
		return end("", errors.New("not UTF-8"))
	}
	return end(strconv.Itoa(utf8.RuneCountInString(text)), nil)
}

//go:wasmexport count_vowels
func countVowels() int32 {
	type count struct {
		Count  uint64 `json:"count"`
		Total  uint64 `json:"total"`
		Vowels string `json:"vowels"`
	}
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
		return end("", err)
	}
	return 0
}

//go:wasmexport config_get
func configGet() int32 { return describe(pdk.GetConfig(pdk.InputString())) }

//go:wasmexport var_get
func varGet() int32 {
	value := pdk.GetVar(pdk.InputString())
	return describe(string(value), value != nil)
}

//go:wasmexport var_set
func varSet() int32 {
	name, value := split(pdk.InputString())
	pdk.SetVar(name, []byte(value))
	return 0
}

//go:wasmexport var_delete
func varDelete() int32 {
	pdk.RemoveVar(pdk.InputString())
	return 0
}

//go:wasmexport fail
func fail() int32 {
	code, message := split(pdk.InputString())
	number, err := strconv.ParseInt(code, 10, 32)
	if err != nil {
		return end("", err)
	}
	pdk.SetErrorString(message)
	return int32(number)
}

//go:wasmexport panic
func crash() int32 { panic("as it was asked to") }

//go:wasmexport exit
func exit() int32 {
	number, err := strconv.Atoi(pdk.InputString())
	if err == nil {
		os.Exit(number)
	}
	return end("", err)
}

//go:wasmexport log_message
func logMessage() int32 {
	levels := map[string]pdk.LogLevel{
		"debug": pdk.LogDebug,
		"info":  pdk.LogInfo,
		"warn":  pdk.LogWarn,
		"error": pdk.LogError,
	}
	name, message := split(pdk.InputString())
	level, known := levels[name]
	if !known {
		return end("", errors.New("no such level"))
	}
	pdk.Log(level, message)
	return 0
}

//go:wasmexport add
func add() int32 {
	var input struct {
		A *int64 `json:"a"`
		B *int64 `json:"b"`
	}
	if err := pdk.InputJSON(&input); err != nil {
		return end("", err)
	}
	if input.A == nil || input.B == nil {
		return end("", errors.New("a and b are needed"))
	}
	output, err := json.Marshal(map[string]int64{"sum": *input.A + *input.B})
	return end(string(output), err)
}

//go:wasmexport http
func http() int32 {
	methods := map[string]pdk.HTTPMethod{"GET": pdk.MethodGet, "POST": pdk.MethodPost}
	name, lines := split(pdk.InputString())
	method, known := methods[name]
	if !known {
		return end("", errors.New("no such method"))
	}
	url, lines := split(lines)
	request := pdk.NewHTTPRequest(method, url)
	for {
		var line string
		if line, lines = split(lines); line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ": ")
		request.SetHeader(name, value)
	}
	response := request.SetBody([]byte(lines)).Send()
	answer, told := response.Headers()["x-answer"]
	if !told {
		answer = "-"
	}
	status := strconv.Itoa(int(response.Status()))
	return end(status+"\n"+answer+"\n"+string(response.Body()), nil)
}

//go:wasmexport call_i32
func callI32() int32 {
	value, err := strconv.ParseInt(pdk.InputString(), 10, 32)
	return end(strconv.FormatInt(int64(hostI32(int32(value))), 10), err)
}

//go:wasmexport call_i64
func callI64() int32 {
	value, err := strconv.ParseInt(pdk.InputString(), 10, 64)
	return end(strconv.FormatInt(hostI64(value), 10), err)
}

//go:wasmexport call_f32
func callF32() int32 {
	value, err := strconv.ParseFloat(pdk.InputString(), 32)
	return end(strconv.FormatFloat(float64(hostF32(float32(value))), 'f', -1, 32), err)
}

//go:wasmexport call_f64
func callF64() int32 {
	value, err := strconv.ParseFloat(pdk.InputString(), 64)
	return end(strconv.FormatFloat(hostF64(value), 'f', -1, 64), err)
}

// block runs a host function that takes and returns a block.
func block(call func(uint64) uint64) int32 {
	argument := pdk.AllocateBytes(pdk.Input())
	defer argument.Free()
	pdk.OutputMemory(pdk.FindMemory(call(argument.Offset())))
	return 0
}

//go:wasmexport call_text
func callText() int32 { return block(hostText) }

//go:wasmexport call_bytes
func callBytes() int32 { return block(hostBytes) }

//go:wasmexport call_json
func callJSON() int32 { return block(hostJSON) }

//go:wasmexport call_other
func callOther() int32 {
	hostOther()
	return 0
}

//go:wasmexport churn
func churn() int32 {
	text := pdk.InputString()
	count, err := strconv.Atoi(text)
	for range count {
		memory := pdk.Allocate(65536)
		memory.Free()
	}
	return end(text, err)
}

func main() {}
