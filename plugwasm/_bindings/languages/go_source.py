"""Parts of bindings for Go that are the same for all schemas."""

from __future__ import annotations

__all__ = ["FAILS", "HELPERS", "HOST"]

FAILS = ["\tif err != nil {", "\t\treturn pdk.SetError(err)", "\t}"]

HOST = """\
type hostFunctions struct{}

// Host has the functions of the host.
var Host hostFunctions"""

HELPERS = {
    "readObject": """\
func readObject(data []byte, into any, required ...string) error {
	var found map[string]json.RawMessage
	if err := json.Unmarshal(data, &found); err != nil {
		return err
	}
	for _, name := range required {
		if value, ok := found[name]; !ok || string(value) == "null" {
			return fmt.Errorf("the property %q is missing", name)
		}
	}
	return json.Unmarshal(data, into)
}
""",
    "readJSON": """\
func readJSON[T any](data []byte, nullable bool) (T, error) {
	var value T
	if !utf8.Valid(data) {
		return value, errors.New("the input is not UTF-8")
	}
	if !nullable && string(bytes.TrimSpace(data)) == "null" {
		return value, errors.New("the input is null")
	}
	err := json.Unmarshal(data, &value)
	return value, err
}
""",
    "readTextAs": """\
func readTextAs[T any, P interface {
	*T
	UnmarshalText([]byte) error
}](data []byte) (T, error) {
	var value T
	err := P(&value).UnmarshalText(data)
	return value, err
}
""",
    "readText": """\
func readText(data []byte) (string, error) {
	if !utf8.Valid(data) {
		return "", errors.New("the input is not UTF-8")
	}
	return string(data), nil
}
""",
}
