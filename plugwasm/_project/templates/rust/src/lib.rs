use plugwasm_pdk::*;

#[plugin_fn]
pub fn greet(name: String) -> FnResult<String> {
    if name.is_empty() {
        return Err(fail!(2, "no name was given"));
    }
    let greeting = config::get("greeting")?.unwrap_or_else(|| "Hello".into());
    Ok(format!("{greeting}, {name}!"))
}
