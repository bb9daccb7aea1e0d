//! Objects of the API, decoded from JSON values. An error names the field, in terms of JSON.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Decodes an object from a value.
///
/// # Errors
/// The value is no such object; the error has the field and what is wrong with it.
pub fn decode<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let words = worded(&error.inner().to_string());
        match error.path().to_string().as_str() {
            // The path of the object itself.
            "." => words,
            field => format!("{field}: {words}"),
        }
    })
}

/// Rewords an error of serde, which has types of Rust, in terms of JSON.
fn worded(error: &str) -> String {
    if let Some(field) = error.strip_prefix("missing field ") {
        return format!("the field {} is missing", field.trim_matches('`'));
    }
    let mismatch = ["invalid type: ", "invalid value: "]
        .into_iter()
        .find_map(|prefix| error.strip_prefix(prefix)?.split_once(", expected "));
    match mismatch {
        Some((found, expected)) => format!("it is {}; expected {}", value(found), kind(expected)),
        None => error.to_owned(),
    }
}

fn value(description: &str) -> String {
    let (name, value) = description.split_once(' ').unwrap_or((description, ""));
    let value = value.trim_matches('`');
    match name {
        "integer" => format!("the number {value}"),
        "floating" => format!("the number {}", value.trim_start_matches("point `")),
        "boolean" => value.to_owned(),
        "string" => format!("the text {value}"),
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "null" => "null".to_owned(),
        _ => description.to_owned(),
    }
}

fn kind(expected: &str) -> &str {
    let is_whole = |name: &str| {
        let digits = name.strip_prefix(['i', 'u']);
        digits.is_some_and(|digits| digits == "size" || digits.parse::<u8>().is_ok())
    };
    match expected {
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "true or false",
        number if is_whole(number) => "a whole number",
        number if number.starts_with(['f']) && number[1..].parse::<u8>().is_ok() => "a number",
        object if object.starts_with("struct ") => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use flashjob_api::FlashJob;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_flashjob_is_told_by_its_field_and_without_types_of_rust() {
        let spec = json!({"uuid": ["a"], "firmware": "a:1", "version": "1"});
        for (field, wrong, expected) in [
            ("firmware", json!(5), "spec.firmware: it is the number 5; expected a string"),
            ("version", json!(1.5), "spec.version: it is the number 1.5; expected a string"),
            ("version", json!({}), "spec.version: it is an object; expected a string"),
            (
                "suspend",
                json!("no"),
                "spec.suspend: it is the text \"no\"; expected true or false",
            ),
            (
                "parallelism",
                json!("x"),
                "spec.parallelism: it is the text \"x\"; expected a whole",
            ),
            ("uuid", json!("a"), "spec.uuid: it is the text \"a\"; expected a list"),
            ("uuid", json!([true]), "spec.uuid[0]: it is true; expected a string"),
        ] {
            let mut spec = spec.clone();
            spec[field] = wrong;
            let job = json!({"metadata": {"name": "a"}, "spec": spec});
            let error = decode::<FlashJob>(job).err().unwrap_or_default();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = decode::<FlashJob>(json!({"metadata": {}})).err();
        assert_eq!(error.as_deref(), Some("the field spec is missing"));
        let error = decode::<FlashJob>(json!({"metadata": {}, "spec": "a"})).err();
        assert_eq!(error.as_deref(), Some("spec: it is the text \"a\"; expected an object"));
    }
}
