//! Settings, and the presets of common open firmwares.

use flashjob_plugin_sdk::{FieldError, PluginError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Names of the presets. A device type that begins with one of them uses it by default.
pub const PRESETS: [&str; 4] = ["wled", "tasmota", "esphome", "shelly"];

/// Settings for updating devices of one kind. All have defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Name of the preset that the other settings override; `none` for no preset.
    preset: Option<String>,
    body: Option<String>,
    method: Option<String>,
    path: Option<String>,
    field: Option<String>,
    headers: Map<String, Value>,
    success: Vec<u16>,
    version_path: Option<String>,
    version_pointer: Option<String>,
    restart_seconds: Option<u32>,
    pub image: Option<String>,
    pub login: bool,
    pub registry_access: bool,
}

/// Returns the settings of a preset, from the documentation of each firmware.
fn preset(name: &str) -> Option<Value> {
    Some(match name {
        // kno.wled.ge, "JSON API"; the form of its page /update.
        "wled" => json!({
            "body": "multipart", "path": "/update", "field": "update",
            "versionPath": "/json/info", "versionPointer": "/ver",
        }),
        // tasmota.github.io, "Commands": OtaUrl, Upgrade and Status 2.
        "tasmota" => json!({
            "body": "url", "method": "GET",
            // `Backlog` separates commands by semicolons and takes blanks, which a query has to
            // encode.
            "path": "/cm?cmnd=Backlog%20OtaUrl%20{url}%3BUpgrade%201",
            "versionPath": "/cm?cmnd=Status%202", "versionPointer": "/StatusFWR/Version",
            "restartSeconds": 300,
        }),
        // esphome.io, "OTA Update via Web Server". It does not report its version in JSON.
        "esphome" => json!({"body": "multipart", "path": "/update", "field": "update"}),
        // shelly-api-docs.shelly.cloud, first generation, "/ota" and "/shelly".
        "shelly" => json!({
            "body": "url", "method": "GET", "path": "/ota?url={url}",
            "versionPath": "/shelly", "versionPointer": "/fw", "restartSeconds": 300,
        }),
        "none" => json!({}),
        _ => return None,
    })
}

impl Settings {
    /// Parses settings for a device type, on top of the preset.
    ///
    /// # Errors
    /// Names each invalid setting.
    pub fn read(text: &str, device_type: &str) -> Result<Self, PluginError> {
        let fault = |path: &str, message: String| {
            PluginError::InvalidSettings(vec![FieldError { path: path.to_owned(), message }])
        };
        let Ok(Value::Object(object)) = serde_json::from_str(text) else {
            return Err(fault("", "expected one JSON object".into()));
        };
        let by_type = PRESETS.iter().find(|name| device_type.starts_with(**name)).copied();
        let name = match object.get("preset") {
            Some(Value::String(name)) => Some(name.as_str()),
            Some(_) => return Err(fault("/preset", "expected the name of a preset".into())),
            None => by_type,
        };
        let base = name.map_or_else(|| Some(json!({})), preset).ok_or_else(|| {
            fault("/preset", format!("unknown preset; supported are {}, none", PRESETS.join(", ")))
        })?;
        let Value::Object(mut merged) = base else { return Err(fault("", "no preset".into())) };
        merged.extend(object);
        let settings: Self = flashjob_flash_program::settings::read(&Value::Object(merged))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), PluginError> {
        let mut faults = Vec::new();
        let mut fault = |path: &str, message: &str| {
            faults.push(FieldError { path: path.to_owned(), message: message.to_owned() });
        };
        let is_one = |text: &Option<String>, choices: &[&str]| {
            text.as_ref().is_none_or(|text| choices.contains(&text.as_str()))
        };
        if !is_one(&self.body, &["raw", "multipart", "url"]) {
            fault("/body", "expected raw, multipart or url");
        }
        if !is_one(&self.method, &["GET", "POST", "PUT"]) {
            fault("/method", "expected GET, POST or PUT");
        }
        for (name, path) in [("/path", &self.path), ("/versionPath", &self.version_path)] {
            if path.as_ref().is_some_and(|path| !path.starts_with('/')) {
                fault(name, "expected a path that begins with a slash");
            }
        }
        if self.fetches() && !self.path.as_ref().is_some_and(|path| path.contains("{url}")) {
            fault(
                "/path",
                "with body url it must contain {url}, the placeholder for the URL of the firmware",
            );
        }
        if self.version_pointer.is_some() && self.version_path.is_none() {
            fault("/versionPointer", "versionPath is missing, to whose response it applies");
        }
        if self.headers.values().any(|value| !value.is_string()) {
            fault("/headers", "expected strings");
        }
        if self.success.iter().any(|code| !(100..600).contains(code)) {
            fault("/success", "expected HTTP status codes such as 200");
        }
        if self.image.as_ref().is_some_and(String::is_empty) {
            fault("/image", "expected the reference of a container image");
        }
        if faults.is_empty() { Ok(()) } else { Err(PluginError::InvalidSettings(faults)) }
    }

    /// Returns true if the device fetches the firmware.
    pub fn fetches(&self) -> bool {
        self.body.as_deref() == Some("url")
    }

    /// Returns the options of the flash program.
    pub fn arguments(&self) -> Vec<String> {
        let texts = [
            ("--body", &self.body),
            ("--method", &self.method),
            ("--path", &self.path),
            ("--field", &self.field),
            ("--version-path", &self.version_path),
            ("--version-pointer", &self.version_pointer),
        ];
        let mut words: Vec<String> = texts
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
            .collect();
        for (name, value) in &self.headers {
            words.push(format!("--header={name}: {}", value.as_str().unwrap_or_default()));
        }
        if !self.success.is_empty() {
            let codes: Vec<String> = self.success.iter().map(u16::to_string).collect();
            words.push(format!("--success={}", codes.join(",")));
        }
        words.extend(self.restart_seconds.map(|time| format!("--restart-timeout={time}s")));
        words
    }
}
