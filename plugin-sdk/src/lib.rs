//! Write a FlashJob device plugin: implement [`Plugin`], name the type in [`export!`], build for
//! `wasm32-unknown-unknown`.
//!
//! A plugin is a pure function. It says what the container that flashes one device needs; the
//! operator decides when, where and whether it runs. Tests of a plugin are ordinary `cargo test`
//! on the host: no WebAssembly is needed for them.
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

/// Generated from `wit/0.3.0`; the canonical ABI is made of raw pointers, so this module alone may
/// be unsafe.
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

/// Functions that a device plugin provides. Each is pure: the same request, the same answer.
pub trait Plugin {
    /// Says what this plugin is.
    fn describe() -> PluginInfo;

    /// Judges settings: one JSON object. The default takes none.
    ///
    /// # Errors
    /// [`PluginError::InvalidSettings`] with every fault and its JSON pointer.
    fn validate_settings(settings: &str) -> Result<(), PluginError> {
        if settings.trim() == "{}" {
            return Ok(());
        }
        let message = "this plugin has no settings".to_owned();
        Err(PluginError::InvalidSettings(vec![FieldError { path: String::new(), message }]))
    }

    /// Says what the flash Pod for one attempt needs.
    ///
    /// # Errors
    /// The device cannot be flashed by this plugin, or the request lacks something.
    fn build(request: Request) -> Result<FlashPod, PluginError>;

    /// Says what an ended flash Pod means. The default: exit code 0 flashed the device, and the
    /// version that it reports is the proof; anything else is worth another attempt.
    ///
    /// # Errors
    /// The outcome cannot be judged.
    fn judge(_request: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        Ok(match outcome.exit_code {
            Some(0) => Verdict::Flashed(Proof::ReportedVersion),
            _ => Verdict::Retry(outcome.explanation()),
        })
    }

    /// Reads how firmware begins, before any device is flashed with it. The default reads none,
    /// and its devices are flashed with firmware that nobody inspected.
    ///
    /// # Errors
    /// The firmware cannot be judged. Firmware that must not be flashed is no error but a
    /// [`Inspection::refusal`].
    fn inspect_firmware(_file: FirmwareFile) -> Result<Option<Inspection>, PluginError> {
        Ok(None)
    }
}

impl Inspection {
    /// Firmware that says nothing of itself, and that nothing is said against.
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
    /// A container of this image, without any wish: the image's own command, no ports, no device,
    /// not root.
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
    /// Explains why the container ended: its own last words, or Kubernetes' reason where it left
    /// none.
    #[must_use]
    pub fn explanation(self) -> String {
        if self.termination_message.trim().is_empty() {
            self.reason
        } else {
            self.termination_message
        }
    }
}

/// A word of a command line, taken as it stands.
#[must_use]
pub fn literal(text: impl Into<String>) -> Arg {
    Arg::Literal(text.into())
}

/// Exports a [`Plugin`] as the component. On other targets than WebAssembly it does nothing, so
/// that tests run anywhere.
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
