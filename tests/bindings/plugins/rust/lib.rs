//! The plugin of the round-trip tests in Rust.

mod bindings;

use bindings::*;
use plugwasm_pdk::{fail, FnResult};

pub struct Plugin;

impl Exports for Plugin {
    fn echo_everything(input: Everything) -> FnResult<Everything> {
        Ok(input)
    }

    fn echo_shape(input: Shape) -> FnResult<Shape> {
        Ok(match input {
            Shape::Circle(Circle { radius }) => Circle { radius }.into(),
            Shape::Square(square) => square.into(),
        })
    }

    fn echo_tree(input: Tree) -> FnResult<Tree> {
        Ok(input)
    }

    fn echo_expression(input: Expression) -> FnResult<Expression> {
        Ok(input)
    }

    fn echo_text(input: String) -> FnResult<String> {
        Ok(input)
    }

    fn echo_bytes(input: Vec<u8>) -> FnResult<Vec<u8>> {
        Ok(input)
    }

    fn echo_json_text(input: String) -> FnResult<String> {
        Ok(input)
    }

    fn echo_json_bytes(input: Bytes) -> FnResult<Bytes> {
        Ok(input)
    }

    fn echo_list(input: Vec<Fruit>) -> FnResult<Vec<Fruit>> {
        Ok(input)
    }

    fn echo_map(input: Scores) -> FnResult<Scores> {
        Ok(input)
    }

    fn fruit_to_json(input: Fruit) -> FnResult<Fruit> {
        Ok(input)
    }

    fn fruit_to_text(input: Fruit) -> FnResult<Fruit> {
        Ok(input)
    }

    fn negate(input: bool) -> FnResult<bool> {
        Ok(!input)
    }

    fn double(input: i32) -> FnResult<i64> {
        Ok(i64::from(input) * 2)
    }

    fn maybe(input: Option<f64>) -> FnResult<Option<f64>> {
        Ok(input)
    }

    fn nothing() -> FnResult<()> {
        Ok(host::ping()?)
    }

    fn call_host(input: Everything) -> FnResult<Everything> {
        host::visit(&input)
    }

    fn call_host_text(input: String) -> FnResult<String> {
        host::translate(&input)
    }

    fn call_host_fruit(input: Fruit) -> FnResult<bool> {
        host::eat_fruit(input)
    }

    fn call_host_bytes(input: Vec<u8>) -> FnResult<Vec<u8>> {
        host::mix_bytes(&input)
    }

    fn call_host_number(input: i64) -> FnResult<i64> {
        host::add_one(input)
    }

    fn fail(input: String) -> FnResult<()> {
        Err(fail!(7, "failed: {input}"))
    }
}
