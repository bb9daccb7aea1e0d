//! Settings of the plugin.

use flashjob_plugin_sdk::{FieldError, PluginError};
use serde::Deserialize;

/// Settings, all with defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Settings {
    image_number: Option<u32>,
    baud: Option<u32>,
    restart_seconds: Option<u32>,
    pub image: Option<String>,
    pub registry_access: bool,
}

impl Settings {
    /// Parses settings.
    ///
    /// # Errors
    /// Names the invalid settings.
    pub fn read(text: &str) -> Result<Self, PluginError> {
        let fault = |path: &str, message: String| {
            PluginError::InvalidSettings(vec![FieldError { path: path.to_owned(), message }])
        };
        let Ok(object) = serde_json::from_str(text) else {
            return Err(fault("", "expected one JSON object".into()));
        };
        let settings: Self = flashjob_flash_program::settings::read(&object)?;
        if settings.image.as_ref().is_some_and(String::is_empty) {
            return Err(fault("/image", "expected the reference of a container image".into()));
        }
        for (path, value) in
            [("/baud", settings.baud), ("/restartSeconds", settings.restart_seconds)]
        {
            if value == Some(0) {
                return Err(fault(path, "expected at least 1".into()));
            }
        }
        Ok(settings)
    }

    /// Returns the options of the flash program.
    pub fn arguments(&self) -> Vec<String> {
        let options = [
            self.image_number.map(|number| format!("--image-number={number}")),
            self.baud.map(|baud| format!("--baud={baud}")),
            self.restart_seconds.map(|time| format!("--restart-timeout={time}s")),
        ];
        options.into_iter().flatten().collect()
    }
}
