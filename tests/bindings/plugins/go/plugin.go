// The plugin of the round-trip tests in Go.

package main

import "plugwasm.example/pdk"

// Plugin implements the plugin's functions.
type Plugin struct{}

func (Plugin) EchoEverything(input Everything) (Everything, error) {
	return input, nil
}

func (Plugin) EchoShape(input Shape) (Shape, error) {
	switch value := input.Value.(type) {
	case Circle:
		return Shape{Circle{Radius: value.Radius}}, nil
	default:
		return Shape{value}, nil
	}
}

func (Plugin) EchoTree(input Tree) (Tree, error) {
	return input, nil
}

func (Plugin) EchoExpression(input Expression) (Expression, error) {
	return input, nil
}

func (Plugin) EchoText(input string) (string, error) {
	return input, nil
}

func (Plugin) EchoBytes(input []byte) ([]byte, error) {
	return input, nil
}

func (Plugin) EchoJsonText(input string) (string, error) {
	return input, nil
}

func (Plugin) EchoJsonBytes(input []byte) ([]byte, error) {
	return input, nil
}

func (Plugin) EchoList(input []Fruit) ([]Fruit, error) {
	if len(input) == 0 {
		return nil, nil // written as an empty list
	}
	return input, nil
}

func (Plugin) EchoMap(input Scores) (Scores, error) {
	return input, nil
}

func (Plugin) FruitToJson(input Fruit) (Fruit, error) {
	return input, nil
}

func (Plugin) FruitToText(input Fruit) (Fruit, error) {
	return input, nil
}

func (Plugin) Negate(input bool) (bool, error) {
	return !input, nil
}

func (Plugin) Double(input int32) (int64, error) {
	return int64(input) * 2, nil
}

func (Plugin) Maybe(input *float64) (*float64, error) {
	return input, nil
}

func (Plugin) Nothing() error {
	return Host.Ping()
}

func (Plugin) CallHost(input Everything) (Everything, error) {
	return Host.Visit(input)
}

func (Plugin) CallHostText(input string) (string, error) {
	return Host.Translate(input)
}

func (Plugin) CallHostFruit(input Fruit) (bool, error) {
	return Host.EatFruit(input)
}

func (Plugin) CallHostBytes(input []byte) ([]byte, error) {
	return Host.MixBytes(input)
}

func (Plugin) CallHostNumber(input int64) (int64, error) {
	return Host.AddOne(input)
}

func (Plugin) Fail(input string) error {
	return pdk.Fail(7, "failed: "+input)
}

func main() {}
