//! Parses the settings of a plugin: from JSON to a typed value, or to an error that names the
//! invalid field.

use flashjob_plugin_sdk::{FieldError, PluginError};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// Parses settings.
///
/// # Errors
/// Names the first field that is unknown or has the wrong type, as a JSON pointer (RFC 6901).
pub fn read<T: DeserializeOwned>(settings: &Value) -> Result<T, PluginError> {
    serde_path_to_error::deserialize(settings).map_err(|error| {
        let path = pointer(error.path());
        PluginError::InvalidSettings(vec![FieldError { path, message: error.inner().to_string() }])
    })
}

fn pointer(path: &Path) -> String {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        // RFC 6901, section 3. `~` first, or the `~` of an escaped `/` would be escaped again.
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => String::new(),
    };
    path.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors are looked at")]
    struct Settings {
        codes: Vec<u16>,
    }

    #[test]
    fn a_fault_names_its_field() {
        for (settings, path) in [
            (json!({"codes": [200, "x"]}), "/codes/1"),
            (json!({"codes": 7}), "/codes"),
            (json!({"codes": [], "a/b": 1}), "/a~1b"),
            (json!([]), ""),
        ] {
            let error = read::<Settings>(&settings).expect_err("a fault");
            let PluginError::InvalidSettings(faults) = error else { panic!("{error:?}") };
            assert_eq!(faults[0].path, path, "{settings}: {faults:?}");
        }
    }
}
