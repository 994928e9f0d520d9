use plugwasm_pdk::*;
use serde::Serialize;

#[derive(Serialize)]
struct Count {
    count: u64,
    total: u64,
    vowels: String,
}

#[plugin_fn]
pub fn count_vowels(text: String) -> FnResult<Json<Count>> {
    let vowels = config::get("vowels")?.unwrap_or_else(|| "aeiouAEIOU".into());
    let count = text.chars().filter(|&character| vowels.contains(character)).count() as u64;
    let before = var::get::<Vec<u8>>("total")?.and_then(|bytes| bytes.try_into().ok());
    let total = count + before.map_or(0, u64::from_le_bytes);
    var::set("total", total.to_le_bytes().to_vec())?;
    Ok(Json(Count { count, total, vowels }))
}
