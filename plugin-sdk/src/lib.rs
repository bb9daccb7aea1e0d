//! SDK for FlashJob device plugins: implement [`Plugin`], pass the type to [`export!`], and build
//! for `wasm32-unknown-unknown`.
//!
//! A plugin is a pure function: it describes the container that flashes one device. The operator
//! decides when, where and whether that container runs. A plugin is tested with an ordinary
//! `cargo test` on the host; the tests need no WebAssembly.
//!
//! ```
//! use flashjob_plugin_sdk::{Device, FlashPod, Plugin, PluginError, PluginInfo, Request, literal};
//!
//! struct Toaster;
//!
//! impl Plugin for Toaster {
//!     fn describe() -> PluginInfo {
//!         PluginInfo {
//!             name: "toaster".into(),
//!             version: "0.1.0".into(),
//!             device_types: vec!["toaster".into()],
//!             settings_schema: "{}".into(),
//!         }
//!     }
//!
//!     fn build(request: Request) -> Result<FlashPod, PluginError> {
//!         Ok(FlashPod {
//!             args: vec![literal(request.firmware)],
//!             ..FlashPod::new("registry.example/toaster-flasher:1")
//!         })
//!     }
//! }
//!
//! flashjob_plugin_sdk::export!(Toaster);
//! ```
#![deny(missing_docs)]

pub mod log;

/// Bindings generated from `wit/0.3.0`. The canonical ABI passes raw pointers, so this is the only
/// module that may contain unsafe code.
#[doc(hidden)]
#[allow(unsafe_code, missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/0.3.0",
        world: "inspecting-plugin",
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "flashjob_plugin_sdk::bindings",
        additional_derives: [PartialEq],
    });
}

pub use bindings::flashjob::plugin::types::{
    Arg, Device, EnvValue, FieldError, FirmwareFile, FlashPod, Inspection, Outcome, PluginError,
    PluginInfo, Port, Proof, Protocol, Request, User, Verdict,
};

/// Functions that a device plugin implements. Each is pure: the same input always gives the same
/// result.
pub trait Plugin {
    /// Returns the plugin's name, version, device types and settings schema.
    fn describe() -> PluginInfo;

    /// Validates the settings, which are one JSON object. The default accepts only the empty
    /// object.
    ///
    /// # Errors
    /// [`PluginError::InvalidSettings`] lists every invalid field with its JSON pointer.
    fn validate_settings(settings: &str) -> Result<(), PluginError> {
        if settings.trim() == "{}" {
            return Ok(());
        }
        let message = "this plugin has no settings".to_owned();
        Err(PluginError::InvalidSettings(vec![FieldError { path: String::new(), message }]))
    }

    /// Returns the specification of the flash Pod for one attempt.
    ///
    /// # Errors
    /// The plugin cannot flash this device, or the request lacks a required value.
    fn build(request: Request) -> Result<FlashPod, PluginError>;

    /// Judges a flash Pod that has ended. By default, exit code 0 means that the device was
    /// flashed, and the version that it then reports is the proof; any other outcome asks for
    /// another attempt.
    ///
    /// # Errors
    /// The outcome cannot be judged.
    fn judge(_request: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        Ok(match outcome.exit_code {
            Some(0) => Verdict::Flashed(Proof::ReportedVersion),
            _ => Verdict::Retry(outcome.explanation()),
        })
    }

    /// Inspects firmware by its first bytes, before any device is flashed with it. The default
    /// returns `None`: devices are then flashed with firmware that was not inspected.
    ///
    /// # Errors
    /// The firmware cannot be judged. Firmware that must not be flashed is not an error: give the
    /// reason in [`Inspection::refusal`].
    fn inspect_firmware(_file: FirmwareFile) -> Result<Option<Inspection>, PluginError> {
        Ok(None)
    }
}

impl Inspection {
    /// Creates an inspection in which no property of the firmware is known, and no reason to
    /// refuse it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: None,
            project: None,
            chip: None,
            device_types: Vec::new(),
            secure_version: None,
            min_chip_revision: None,
            max_chip_revision: None,
            refusal: None,
        }
    }
}

impl Default for Inspection {
    fn default() -> Self {
        Self::new()
    }
}

impl FlashPod {
    /// Creates a container of this image with the defaults: the image's own command, no ports, no
    /// attached device, and a user that is not root.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            ports: Vec::new(),
            needs_ip: false,
            attach_device: false,
            groups: Vec::new(),
            capabilities: Vec::new(),
            user: User::ImageDefault,
            secrets: Vec::new(),
            scratch: Vec::new(),
            deadline_seconds: None,
            working_directory: None,
        }
    }
}

impl Outcome {
    /// Returns why the container ended: its termination message, or Kubernetes' reason if that
    /// message is empty.
    #[must_use]
    pub fn explanation(self) -> String {
        if self.termination_message.trim().is_empty() {
            self.reason
        } else {
            self.termination_message
        }
    }
}

/// Returns an argument that the container receives exactly as given: Kubernetes expands nothing in
/// it.
#[must_use]
pub fn literal(text: impl Into<String>) -> Arg {
    Arg::Literal(text.into())
}

/// Exports a [`Plugin`] as a WebAssembly component. On other targets it exports nothing, so that
/// tests run anywhere.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::PluginInfo = <$plugin as $crate::Plugin>::describe;

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the exported functions are the canonical ABI")]
        const _: () = {
            struct Component;

            impl $crate::bindings::exports::flashjob::plugin::device_plugin::Guest for Component {
                fn describe() -> $crate::PluginInfo {
                    <$plugin as $crate::Plugin>::describe()
                }
                fn validate_settings(settings: String) -> Result<(), $crate::PluginError> {
                    <$plugin as $crate::Plugin>::validate_settings(&settings)
                }
                fn build(
                    request: $crate::Request,
                ) -> Result<$crate::FlashPod, $crate::PluginError> {
                    <$plugin as $crate::Plugin>::build(request)
                }
                fn judge(
                    request: $crate::Request,
                    outcome: $crate::Outcome,
                ) -> Result<$crate::Verdict, $crate::PluginError> {
                    <$plugin as $crate::Plugin>::judge(request, outcome)
                }
            }

            impl $crate::bindings::exports::flashjob::plugin::firmware_inspector::Guest
                for Component
            {
                fn inspect_firmware(
                    file: $crate::FirmwareFile,
                ) -> Result<Option<$crate::Inspection>, $crate::PluginError> {
                    <$plugin as $crate::Plugin>::inspect_firmware(file)
                }
            }

    $crate::bindings::export_component!(Component with_types_in $crate::bindings);
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Smallest;

    impl Plugin for Smallest {
        fn describe() -> PluginInfo {
            PluginInfo {
                name: "smallest".into(),
                version: "0.1.0".into(),
                device_types: vec!["x".into()],
                settings_schema: "{}".into(),
            }
        }

        fn build(_: Request) -> Result<FlashPod, PluginError> {
            Ok(FlashPod::new("image"))
        }
    }

    #[test]
    fn a_plugin_takes_no_settings_unless_it_says_so() {
        assert!(Smallest::validate_settings("{}").is_ok());
        assert!(matches!(
            Smallest::validate_settings(r#"{"a":1}"#),
            Err(PluginError::InvalidSettings(_))
        ));
    }

    #[test]
    fn a_plugin_that_says_nothing_of_firmware_leaves_it_uninspected() {
        let file = FirmwareFile {
            device_type: "x".into(),
            firmware: "registry.example/firmware:1".into(),
            version: "1".into(),
            settings: "{}".into(),
            name: "firmware/x.bin".into(),
            size: 1,
            beginning: vec![0],
        };
        assert_eq!(Smallest::inspect_firmware(file), Ok(None));
    }

    #[test]
    fn a_retry_always_says_why() {
        let failed = |message: &str| Outcome {
            exit_code: Some(1),
            reason: "OOMKilled".into(),
            termination_message: message.into(),
            attempt: 1,
            reported_version: None,
        };
        assert_eq!(failed("no route to device").explanation(), "no route to device");
        assert_eq!(failed("\n").explanation(), "OOMKilled");
    }
}
