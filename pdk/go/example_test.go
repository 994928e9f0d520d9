package pdk_test

import (
	"errors"
	"strings"

	"plugwasm.example/pdk"
)

// An export of text: with `//go:wasmexport greet` before it.
func ExampleText() {
	greet := func() int32 {
		return pdk.Text(func(name string) (string, error) {
			return "Hello, " + name + "!", nil
		})
	}
	_ = greet
}

func ExampleBytes() {
	reverse := func() int32 {
		return pdk.Bytes(func(data []byte) ([]byte, error) {
			for i, j := 0, len(data)-1; i < j; i, j = i+1, j-1 {
				data[i], data[j] = data[j], data[i]
			}
			return data, nil
		})
	}
	_ = reverse
}

func ExampleJSON() {
	type order struct {
		Price float64 `json:"price"`
		Count int     `json:"count"`
	}
	total := func() int32 {
		return pdk.JSON(func(o order) (float64, error) {
			if o.Count == 0 {
				return 0, pdk.Fail(2, "nothing was ordered")
			}
			return o.Price * float64(o.Count), nil
		})
	}
	_ = total
}

// An export without input.
func ExampleOutputJSON() {
	words := func() int32 {
		text, set := pdk.Config("text")
		if !set {
			return pdk.SetError(errors.New("config: text is not set"))
		}
		return pdk.OutputJSON(strings.Fields(text))
	}
	_ = words
}

// The import is declared with `//go:wasmimport extism:host/user shout` before it.
func ExampleCallText() {
	var shout func(pdk.Block) pdk.Block
	greet := func() int32 {
		return pdk.Text(func(name string) (string, error) {
			return pdk.CallText(shout, name), nil
		})
	}
	_ = greet
}

func ExampleRequest_Send() {
	fetch := func() int32 {
		return pdk.Text(func(url string) (string, error) {
			request := pdk.Request{URL: url, Headers: map[string]string{"accept": "text/plain"}}
			response := request.Send()
			if response.Status != 200 {
				return "", pdk.Fail(int32(response.Status), url+" has no text")
			}
			return string(response.Body), nil
		})
	}
	_ = fetch
}

func ExampleSetVar() {
	visit := func() int32 {
		pdk.SetVar("visitor", pdk.Input())
		pdk.Log(pdk.LevelInfo, "there was a visitor")
		return 0
	}
	_ = visit
}
