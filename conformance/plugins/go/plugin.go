// Command conformance is the test plugin of the conformance suite in Go.
package main

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"plugwasm.example/pdk"
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
func hostText(pdk.Block) pdk.Block

//go:wasmimport extism:host/user host_bytes
func hostBytes(pdk.Block) pdk.Block

//go:wasmimport extism:host/user host_json
func hostJSON(pdk.Block) pdk.Block

//go:wasmimport conformance:host host_other
func hostOther()

func split(text string) (string, string) {
	line, rest, _ := strings.Cut(text, "\n")
	return line, rest
}

func describe(value string, set bool) (string, error) {
	if !set {
		return "unset", nil
	}
	return "=" + value, nil
}

//go:wasmexport echo
func echo() int32 {
	return pdk.Bytes(func(input []byte) ([]byte, error) { return input, nil })
}

//go:wasmexport utf8
func countCodePoints() int32 {
	return pdk.Text(func(text string) (string, error) {
		return strconv.Itoa(utf8.RuneCountInString(text)), nil
	})
}

//go:wasmexport count_vowels
func countVowels() int32 {
	type count struct {
		Count  uint64 `json:"count"`
		Total  uint64 `json:"total"`
		Vowels string `json:"vowels"`
	}
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

//go:wasmexport config_get
func configGet() int32 {
	return pdk.Text(func(key string) (string, error) { return describe(pdk.Config(key)) })
}

//go:wasmexport var_get
func varGet() int32 {
	return pdk.Text(func(name string) (string, error) {
		value := pdk.Var(name)
		return describe(string(value), value != nil)
	})
}

//go:wasmexport var_set
func varSet() int32 {
	return pdk.Text(func(lines string) (string, error) {
		name, value := split(lines)
		pdk.SetVar(name, []byte(value))
		return "", nil
	})
}

//go:wasmexport var_delete
func varDelete() int32 {
	return pdk.Text(func(name string) (string, error) {
		pdk.RemoveVar(name)
		return "", nil
	})
}

//go:wasmexport fail
func fail() int32 {
	return pdk.Text(func(lines string) (string, error) {
		code, message := split(lines)
		number, err := strconv.ParseInt(code, 10, 32)
		if err != nil {
			return "", err
		}
		return "", pdk.Fail(int32(number), message)
	})
}

//go:wasmexport panic
func crash() int32 { panic("as it was asked to") }

//go:wasmexport exit
func exit() int32 {
	return pdk.Text(func(code string) (string, error) {
		number, err := strconv.Atoi(code)
		if err == nil {
			os.Exit(number)
		}
		return "", err
	})
}

//go:wasmexport log_message
func logMessage() int32 {
	return pdk.Text(func(lines string) (string, error) {
		level, message := split(lines)
		for number, name := range []string{"trace", "debug", "info", "warn", "error"} {
			if name == level {
				pdk.Log(pdk.Level(number), message)
				return "", nil
			}
		}
		return "", errors.New("no such level")
	})
}

type numbers struct {
	A *int64 `json:"a"`
	B *int64 `json:"b"`
}

type sum struct {
	Sum int64 `json:"sum"`
}

//go:wasmexport add
func add() int32 {
	return pdk.JSON(func(input numbers) (sum, error) {
		if input.A == nil || input.B == nil {
			return sum{}, errors.New("a and b are needed")
		}
		return sum{*input.A + *input.B}, nil
	})
}

//go:wasmexport http
func http() int32 {
	return pdk.Text(func(lines string) (string, error) {
		request := pdk.Request{Headers: map[string]string{}}
		request.Method, lines = split(lines)
		request.URL, lines = split(lines)
		for {
			var line string
			if line, lines = split(lines); line == "" {
				break
			}
			name, value, _ := strings.Cut(line, ": ")
			request.Headers[name] = value
		}
		request.Body = []byte(lines)
		response := request.Send()
		answer, told := response.Headers["x-answer"]
		if !told {
			answer = "-"
		}
		return strconv.Itoa(response.Status) + "\n" + answer + "\n" + string(response.Body), nil
	})
}

// number runs a function on a decimal number.
func number[T any](parse func(string) (T, error), format func(T) string, call func(T) T) int32 {
	return pdk.Text(func(text string) (string, error) {
		value, err := parse(text)
		return format(call(value)), err
	})
}

//go:wasmexport call_i32
func callI32() int32 {
	return number(
		func(text string) (int32, error) {
			value, err := strconv.ParseInt(text, 10, 32)
			return int32(value), err
		},
		func(value int32) string { return strconv.FormatInt(int64(value), 10) },
		hostI32,
	)
}

//go:wasmexport call_i64
func callI64() int32 {
	return number(
		func(text string) (int64, error) { return strconv.ParseInt(text, 10, 64) },
		func(value int64) string { return strconv.FormatInt(value, 10) },
		hostI64,
	)
}

//go:wasmexport call_f32
func callF32() int32 {
	return number(
		func(text string) (float32, error) {
			value, err := strconv.ParseFloat(text, 32)
			return float32(value), err
		},
		func(value float32) string { return strconv.FormatFloat(float64(value), 'f', -1, 32) },
		hostF32,
	)
}

//go:wasmexport call_f64
func callF64() int32 {
	return number(
		func(text string) (float64, error) { return strconv.ParseFloat(text, 64) },
		func(value float64) string { return strconv.FormatFloat(value, 'f', -1, 64) },
		hostF64,
	)
}

//go:wasmexport call_text
func callText() int32 {
	return pdk.Text(func(text string) (string, error) { return pdk.CallText(hostText, text), nil })
}

//go:wasmexport call_bytes
func callBytes() int32 {
	return pdk.Bytes(func(data []byte) ([]byte, error) { return pdk.CallBytes(hostBytes, data), nil })
}

//go:wasmexport call_json
func callJSON() int32 {
	return pdk.JSON(func(input numbers) (sum, error) { return pdk.CallJSON[sum](hostJSON, input) })
}

//go:wasmexport call_other
func callOther() int32 {
	hostOther()
	return 0
}

//go:wasmexport churn
func churn() int32 {
	return pdk.Text(func(text string) (string, error) {
		count, err := strconv.Atoi(text)
		for range count {
			pdk.Reserve(65536).Free()
		}
		return text, err
	})
}

func main() {}
