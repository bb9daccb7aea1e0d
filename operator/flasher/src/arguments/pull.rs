//! Options for fetching the firmware, which all subcommands have.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{duration, word};

/// Source of the firmware.
#[derive(Clone, Debug, Args)]
pub struct Pull {
    /// The firmware: an OCI reference, as harbor.example.com/firmware/thermo:0.2.0.
    #[arg(long, env = "FIRMWARE", value_name = "REFERENCE", value_parser = word)]
    pub firmware: String,
    /// Type of the device, as esp32s3: the architecture of the firmware's platform, whose
    /// operating system is "custom".
    #[arg(long, env = "DEVICE", value_name = "TYPE", value_parser = word)]
    pub device: String,
    /// Folder with what the registry needs, each file where it is needed: `.dockerconfigjson` or
    /// `config.json` (user names and passwords), `ca.crt` (authorities of its certificate, in
    /// PEM), `policy.yaml` (`registries` and `trust`, as in the operator's configuration).
    #[arg(
        long,
        env = "FLASHER_REGISTRY_DIRECTORY",
        value_name = "FOLDER",
        default_value = "/etc/flashjob/registry"
    )]
    pub registry_directory: PathBuf,
    /// Longest time to fetch the firmware.
    #[arg(
        long,
        env = "FLASHER_FIRMWARE_TIMEOUT",
        value_name = "TIME",
        default_value = "10m",
        value_parser = duration
    )]
    pub firmware_timeout: Duration,
}
