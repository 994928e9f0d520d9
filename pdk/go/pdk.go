// Package pdk lets a Go program be a plugin of any host of the Extism contract.
//
//	package main
//
//	import "plugwasm.example/pdk"
//
//	//go:wasmexport greet
//	func greet() int32 {
//		return pdk.Text(func(name string) (string, error) {
//			return "Hello, " + name + "!", nil
//		})
//	}
//
//	func main() {}
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o greet.wasm
//
// and let the application grant WASI, which Go's run time needs.
//
// [Bytes], [Text] and [JSON] run a function on the input and make its result the output of the
// call. An error ends the call: the host gets its message, and the code of the first [Error] that it
// wraps, or 1. A panic ends the call with a trap.
package pdk

import (
	"encoding/json"
	"unicode/utf8"
	"unsafe"
)

// Version is the version of this kit.
const Version = "0.1.0"

// Error is an error with a return code for the host. A code of 0 is still an error.
type Error struct {
	Code    int32
	Message string
}

func (e *Error) Error() string { return e.Message }

// Fail returns an [Error].
func Fail(code int32, message string) error { return &Error{Code: code, Message: message} }

var (
	errNotUTF8   = Fail(1, "the input is not UTF-8")
	errEmptyJSON = Fail(1, "the input is empty, and should be JSON")
)

// inputError is an error of the JSON decoder.
type inputError struct{ cause error }

func (e inputError) Error() string { return "the input is not as expected: " + e.cause.Error() }
func (e inputError) Unwrap() error { return e.cause }

// Bytes runs a function on the input.
func Bytes(function func(input []byte) ([]byte, error)) int32 {
	output, err := function(Input())
	if err != nil {
		return SetError(err)
	}
	Output(output)
	return 0
}

// Text runs a function on the input, which must be UTF-8.
func Text(function func(input string) (string, error)) int32 {
	input := Input()
	if !utf8.Valid(input) {
		return SetError(errNotUTF8)
	}
	output, err := function(unsafe.String(unsafe.SliceData(input), len(input)))
	if err != nil {
		return SetError(err)
	}
	envOutputSet(uint64(textBlock(output)), uint64(len(output)))
	return 0
}

// JSON runs a function on the input, which must be JSON, and encodes the result as JSON.
func JSON[In, Out any](function func(input In) (Out, error)) int32 {
	var input In
	encoded := Input()
	if len(encoded) == 0 {
		return SetError(errEmptyJSON)
	}
	if err := json.Unmarshal(encoded, &input); err != nil {
		return SetError(inputError{err})
	}
	output, err := function(input)
	if err != nil {
		return SetError(err)
	}
	return OutputJSON(output)
}

// Input returns the input of the call.
func Input() []byte {
	size := envInputLength()
	input := make([]byte, int(size))
	to := unsafe.Pointer(unsafe.SliceData(input))
	at := uint64(0)
	for ; size-at >= 32; at += 32 {
		words := (*[4]uint64)(unsafe.Add(to, at))
		words[0] = envInputLoadU64(at)
		words[1] = envInputLoadU64(at + 8)
		words[2] = envInputLoadU64(at + 16)
		words[3] = envInputLoadU64(at + 24)
	}
	for ; size-at >= 8; at += 8 {
		*(*uint64)(unsafe.Add(to, at)) = envInputLoadU64(at)
	}
	for ; at < size; at++ {
		*(*byte)(unsafe.Add(to, at)) = byte(envInputLoadU8(at))
	}
	return input
}

// Output sets the output of the call.
func Output(output []byte) {
	block := NewBlock(output)
	envOutputSet(uint64(block), uint64(len(output)))
}

// OutputJSON sets the output of the call to a value, encoded as JSON, and returns the code to return
// from the export: 0, or that of [SetError] if the value cannot be encoded.
func OutputJSON(value any) int32 {
	encoded, err := json.Marshal(value)
	if err != nil {
		return SetError(err)
	}
	envOutputSet(uint64(NewBlock(encoded)), uint64(len(encoded)))
	return 0
}

// SetError makes the call fail with the error's message, and returns the code to return from the
// export.
func SetError(err error) int32 {
	envErrorSet(uint64(textBlock(err.Error())))
	if failure := find(err); failure != nil {
		return failure.Code
	}
	return 1
}

// find returns the first Error in the chain or tree of an error. It does what errors.As does, without
// the reflection, which makes small plugins larger.
func find(err error) *Error {
	for {
		switch one := err.(type) {
		case *Error:
			return one
		case interface{ Unwrap() error }:
			err = one.Unwrap()
			continue
		case interface{ Unwrap() []error }:
			for _, part := range one.Unwrap() {
				if failure := find(part); failure != nil {
					return failure
				}
			}
		}
		return nil
	}
}

// Block is a block of the host's memory, by its handle: what host functions take and return for
// text and bytes. 0 is none.
//
// A block given to the host's own functions is the host's from then on; one that a host function
// of the application takes or returns is the plugin's, and is to be freed.
type Block uint64

// NewBlock copies bytes into a new block; no bytes are no block. It panics if the host has no room.
func NewBlock(data []byte) Block {
	return newBlock(unsafe.Pointer(unsafe.SliceData(data)), uint64(len(data)))
}

// textBlock is NewBlock for text, without a copy of it.
func textBlock(text string) Block {
	return newBlock(unsafe.Pointer(unsafe.StringData(text)), uint64(len(text)))
}

// WebAssembly is little endian, and loads and stores words at any address.
func newBlock(from unsafe.Pointer, size uint64) Block {
	if size == 0 {
		return 0
	}
	handle := envAlloc(size)
	if handle == 0 {
		panic("pdk: the host has no memory left")
	}
	at := uint64(0)
	for ; size-at >= 32; at += 32 {
		words := (*[4]uint64)(unsafe.Add(from, at))
		envStoreU64(handle+at, words[0])
		envStoreU64(handle+at+8, words[1])
		envStoreU64(handle+at+16, words[2])
		envStoreU64(handle+at+24, words[3])
	}
	for ; size-at >= 8; at += 8 {
		envStoreU64(handle+at, *(*uint64)(unsafe.Add(from, at)))
	}
	for ; at < size; at++ {
		envStoreU8(handle+at, uint32(*(*byte)(unsafe.Add(from, at))))
	}
	return Block(handle)
}

// Reserve returns a block of so many bytes, all 0 or left from blocks that were freed.
func Reserve(size uint64) Block { return Block(envAlloc(size)) }

// Free frees the block.
func (b Block) Free() {
	if b != 0 {
		envFree(uint64(b))
	}
}

// Len returns the size of the block in bytes.
func (b Block) Len() int {
	if b == 0 {
		return 0
	}
	return int(envLength(uint64(b)))
}

// Bytes returns a copy of the block.
func (b Block) Bytes() []byte { return b.read(false) }

// Take returns a copy of the block, and frees it.
func (b Block) Take() []byte { return b.read(true) }

func (b Block) read(free bool) []byte {
	handle, size := uint64(b), uint64(b.Len())
	data := make([]byte, int(size))
	to := unsafe.Pointer(unsafe.SliceData(data))
	at := uint64(0)
	for ; size-at >= 32; at += 32 {
		words := (*[4]uint64)(unsafe.Add(to, at))
		words[0] = envLoadU64(handle + at)
		words[1] = envLoadU64(handle + at + 8)
		words[2] = envLoadU64(handle + at + 16)
		words[3] = envLoadU64(handle + at + 24)
	}
	for ; size-at >= 8; at += 8 {
		*(*uint64)(unsafe.Add(to, at)) = envLoadU64(handle + at)
	}
	for ; at < size; at++ {
		*(*byte)(unsafe.Add(to, at)) = byte(envLoadU8(handle + at))
	}
	if free && size != 0 {
		envFree(handle)
	}
	return data
}

// CallBytes calls a host function that takes and returns a block:
//
//	//go:wasmimport extism:host/user reverse
//	func reverse(pdk.Block) pdk.Block
//
// is called as pdk.CallBytes(reverse, data). Both blocks are freed.
func CallBytes(function func(Block) Block, input []byte) []byte {
	argument := NewBlock(input)
	defer argument.Free()
	return function(argument).Take()
}

// CallText is [CallBytes] for text. That the answer is UTF-8 is not checked.
func CallText(function func(Block) Block, input string) string {
	return string(CallBytes(function, []byte(input)))
}

// CallJSON is [CallBytes] for values that are encoded as JSON. It fails if the input cannot be
// encoded, or the answer cannot be decoded.
func CallJSON[Out, In any](function func(Block) Block, input In) (Out, error) {
	var output Out
	encoded, err := json.Marshal(input)
	if err != nil {
		return output, err
	}
	err = json.Unmarshal(CallBytes(function, encoded), &output)
	return output, err
}

// Config returns a value of the config, and whether it is set. An empty value counts as not set.
func Config(key string) (string, bool) {
	value := Block(envConfigGet(uint64(textBlock(key))))
	return string(value.Take()), value != 0
}

// Var returns the value of a var, which the host keeps from one call to the next, or nil.
func Var(name string) []byte {
	value := Block(envVarGet(uint64(textBlock(name))))
	if value == 0 {
		return nil
	}
	return value.Take()
}

// SetVar sets a var. An empty value removes it. The call fails if the host's limit is exceeded.
func SetVar(name string, value []byte) {
	key := textBlock(name)
	envVarSet(uint64(key), uint64(NewBlock(value)))
}

// RemoveVar removes a var.
func RemoveVar(name string) { SetVar(name, nil) }

// Level is the level of a log message.
type Level int32

// The levels.
const (
	LevelTrace Level = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
)

// Log logs a message, if the host keeps messages of that level; nothing is copied if not.
func Log(level Level, message string) {
	if int32(level) < envGetLogLevel() {
		return
	}
	text := uint64(textBlock(message))
	switch level {
	case LevelTrace:
		envLogTrace(text)
	case LevelDebug:
		envLogDebug(text)
	case LevelInfo:
		envLogInfo(text)
	case LevelWarn:
		envLogWarn(text)
	default:
		envLogError(text)
	}
}

// Request is an HTTP request.
type Request struct {
	Method  string // GET if empty
	URL     string
	Headers map[string]string
	Body    []byte
}

// Response is the answer of a server. A status that is no success (404, …) is no error.
type Response struct {
	Status  int
	Headers map[string]string // names in lower case; nil where the host does not tell them
	Body    []byte
}

// Send sends the request. The host must allow it: otherwise, and if no answer comes, the call ends
// here with the host's error.
func (r *Request) Send() Response {
	method := r.Method
	if method == "" {
		method = "GET"
	}
	headers := r.Headers
	if headers == nil {
		headers = map[string]string{}
	}
	document, err := json.Marshal(struct {
		Method  string            `json:"method"`
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
	}{method, r.URL, headers})
	if err != nil {
		panic(err) // strings can always be encoded
	}
	block := NewBlock(document)
	body := Block(envHTTPRequest(uint64(block), uint64(NewBlock(r.Body)))).Take()
	response := Response{Status: int(envHTTPStatusCode()), Body: body}
	if told := Block(envHTTPHeaders()).Take(); len(told) > 0 {
		if err := json.Unmarshal(told, &response.Headers); err != nil {
			panic("pdk: the host's response headers are not JSON: " + err.Error())
		}
	}
	return response
}
