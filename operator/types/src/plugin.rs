//! The host's own types of the plugin contract, independent of those generated for each version of
//! the WIT package. Each field is documented in `wit/0.3.0/plugin.wit`, the latest version.
#![allow(missing_docs, reason = "each item is documented once, in the WIT package")]

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ServedTypes;

macro_rules! contract_types {
    ($($item:item)*) => { $(
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        $item
    )* };
}

contract_types! {
    pub struct Device {
        pub uid: String,
        pub name: String,
        pub endpoint: Option<String>,
        pub device_type: String,
        pub application_type: Option<String>,
        pub reported_version: Option<String>,
        pub nodes: Vec<String>,
        pub properties: Vec<(String, String)>,
    }

    pub struct Request {
        pub namespace: String,
        pub job: String,
        pub device: Device,
        pub firmware: String,
        pub version: String,
        pub image: Option<String>,
        pub settings: String,
        pub attempt: u32,
    }

    pub enum Arg { Literal(String), ExternalAddress }

    pub enum EnvValue { Literal(String), ExternalAddress, SecretKey { slot: String, key: String } }

    pub enum Protocol { Tcp, Udp }

    pub struct Port { pub name: String, pub number: u16, pub protocol: Protocol }

    pub enum User { ImageDefault, Uid(u32), Root }

    pub struct SecretMount { pub slot: String, pub path: String }

    pub struct Scratch { pub path: String, pub mebibytes: u32 }

    pub struct FlashPod {
        pub image: String,
        pub command: Vec<Arg>,
        pub args: Vec<Arg>,
        pub env: Vec<(String, EnvValue)>,
        pub ports: Vec<Port>,
        pub needs_ip: bool,
        pub attach_device: bool,
        pub groups: Vec<u32>,
        pub capabilities: Vec<String>,
        pub user: User,
        pub secrets: Vec<SecretMount>,
        pub scratch: Vec<Scratch>,
        pub deadline_seconds: Option<u32>,
        pub working_directory: Option<String>,
    }

    pub struct Outcome {
        pub exit_code: Option<i32>,
        pub reason: String,
        pub termination_message: String,
        pub attempt: u32,
        pub reported_version: Option<String>,
    }

    #[derive(Copy)]
    pub enum Proof { Pod, ReportedVersion }

    pub enum Verdict { Flashed(Proof), Retry(String), GiveUp(String) }

    pub struct FieldError { pub path: String, pub message: String }

    pub enum PluginError {
        UnsupportedDevice(String),
        InvalidSettings(Vec<FieldError>),
        InvalidRequest(String),
        Internal(String),
    }

    pub struct PluginInfo {
        pub name: String,
        pub version: semver::Version,
        pub device_types: Vec<ServedTypes>,
        pub settings_schema: String,
    }

    pub struct FirmwareFile {
        pub device_type: String,
        pub firmware: String,
        pub version: String,
        pub settings: String,
        pub name: String,
        pub size: u64,
        pub beginning: Vec<u8>,
    }

    pub struct Inspection {
        pub version: Option<String>,
        pub project: Option<String>,
        pub chip: Option<String>,
        pub device_types: Vec<ServedTypes>,
        pub secure_version: Option<u32>,
        pub min_chip_revision: Option<String>,
        pub max_chip_revision: Option<String>,
        pub refusal: Option<String>,
    }
}

/// Maximum number of bytes of a firmware file that a plugin receives.
pub const BEGINNING_BYTES: usize = 4096;

impl Protocol {
    /// Name of the protocol in Kubernetes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedDevice(text) => write!(formatter, "unsupported device: {text}"),
            Self::InvalidRequest(text) => write!(formatter, "invalid request: {text}"),
            Self::Internal(text) => write!(formatter, "internal error: {text}"),
            Self::InvalidSettings(errors) => {
                let errors: Vec<String> = errors
                    .iter()
                    .map(|error| format!("{} {}", error.path, error.message))
                    .collect();
                write!(formatter, "invalid settings: {}", errors.join("; "))
            }
        }
    }
}
