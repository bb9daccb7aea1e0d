//! The command line. Each option is also an environment variable, which is how a device plugin sets
//! it; the first users' image reads the same names.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

/// Fetches firmware from a registry and hands it to one device.
#[derive(Debug, Parser)]
#[command(name = "flashjob-flasher", version)]
pub struct Arguments {
    /// The way to the device.
    #[command(subcommand)]
    pub command: Command,
    /// Where the result is written for Kubernetes, in JSON.
    #[arg(
        long,
        env = "FLASHER_TERMINATION_LOG",
        value_name = "FILE",
        default_value = "/dev/termination-log",
        global = true
    )]
    pub termination_log: PathBuf,
    /// Form of the progress on standard output.
    #[arg(long, env = "FLASHER_PROGRESS", value_enum, default_value = "text", global = true)]
    pub progress: Progress,
}

/// Ways to a device.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Over the network: asks the device to update, waits until it calls back over TLS, and sends
    /// the firmware.
    Ota(Box<Ota>),
}

/// Forms of the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Where firmware comes from.
#[derive(Clone, Debug, Args)]
pub struct Pull {
    /// The firmware: an OCI reference, as harbor.example.com/firmware/thermo:0.2.0.
    #[arg(long, env = "FIRMWARE", value_name = "REFERENCE", value_parser = word)]
    pub firmware: String,
    /// Type of the device, as esp32s3: the architecture of the firmware's platform, whose operating
    /// system is "custom".
    #[arg(long, env = "DEVICE", value_name = "TYPE", value_parser = word)]
    pub device: String,
    /// Folder with what the registry needs, each file where it is needed: `.dockerconfigjson` or
    /// `config.json` (user names and passwords), `ca.crt` (authorities of its certificate, in PEM),
    /// `policy.yaml` (`registries` and `trust`, as in the operator's configuration).
    #[arg(
        long,
        env = "FLASHER_REGISTRY_DIRECTORY",
        value_name = "FOLDER",
        default_value = "/etc/flashjob/registry"
    )]
    pub registry_directory: PathBuf,
    /// Longest time to fetch the firmware.
    #[arg(long, env = "FLASHER_FIRMWARE_TIMEOUT", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub firmware_timeout: Duration,
}

/// Options of `ota`.
#[derive(Clone, Debug, Args)]
pub struct Ota {
    /// Where the firmware comes from.
    #[command(flatten)]
    pub pull: Pull,
    /// The device's HTTP server, as 192.0.2.7 or 192.0.2.7:8080.
    #[arg(long, env = "HOST_ENDPOINT", value_name = "HOST[:PORT]", value_parser = word)]
    pub host_endpoint: String,
    /// Address that the device is told to call back.
    #[arg(long, env = "EXTERNAL_IP", value_name = "ADDRESS")]
    pub external_ip: IpAddr,
    /// Uid of the device, for messages.
    #[arg(long, env = "UUID", value_name = "UID", default_value = "")]
    pub uuid: String,
    /// Application of the device, for messages.
    #[arg(long, env = "APPLICATION_TYPE", value_name = "APPLICATION", default_value = "")]
    pub application_type: String,
    /// Version that the device reports afterwards, for messages.
    #[arg(long, env = "VERSION", value_name = "VERSION", default_value = "")]
    pub device_version: String,
    /// Local address to listen on. Default: all.
    #[arg(long, env = "FLASHER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<IpAddr>,
    /// Port to listen on. Devices call the same port of the external address.
    #[arg(long, env = "FLASHER_PORT", value_name = "PORT", default_value_t = 4433)]
    pub port: u16,
    /// Folder with `server.crt` and `server.key`, in PEM. Without these files a certificate is made,
    /// which devices that check it refuse.
    #[arg(long, env = "FLASHER_CERTIFICATES", value_name = "FOLDER", default_value = "/ota/certs")]
    pub certificates: PathBuf,
    /// Host of the attestation service, which listens on port 8000. Kubernetes sets it where the
    /// namespace has a Service dice-auth-service.
    #[arg(long, env = "DICE_AUTH_SERVICE_SERVICE_HOST", value_name = "HOST")]
    pub attestation_host: Option<String>,
    /// Fail where there is no attestation service, in place of sending to a device that nobody
    /// vouches for.
    #[arg(long, env = "FLASHER_REQUIRE_ATTESTATION")]
    pub require_attestation: bool,
    /// Who may call: any device that the attestation service trusts, or only one that calls from
    /// the address of the host endpoint. A load balancer may hide that address.
    #[arg(long, env = "FLASHER_CALLER", value_enum, default_value = "any")]
    pub caller: Caller,
    /// Pause before the device is asked first, in which the network learns the way here.
    #[arg(long, env = "FLASHER_WAIT", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub wait: Duration,
    /// Longest time until the device has called back.
    #[arg(long, env = "FLASHER_CALLBACK_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub callback_timeout: Duration,
    /// Pause before a device that has not called is asked again; it grows.
    #[arg(long, env = "FLASHER_ASK_AGAIN", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub ask_again: Duration,
    /// Longest time in which the device takes no byte: it erases flash memory meanwhile.
    #[arg(long, env = "FLASHER_STALL_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub stall_timeout: Duration,
    /// Do everything up to the request to update, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Who may call back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Caller {
    /// Any device that is trusted.
    Any,
    /// The host endpoint's address.
    Address,
}

/// A value that must not be empty.
fn word(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        word => Ok(word.to_owned()),
    }
}

/// A time, as `2s`, `500ms`, `10m`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a time; expected 500ms, 2s or 10m");
    let parsed: SignedDuration = text.trim().parse().map_err(|_| expected())?;
    parsed.try_into().map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_plugins_variables_are_enough_and_an_empty_one_is_named() {
        Arguments::command().debug_assert();
        let parse = |firmware: &str| {
            let words = [
                "flashjob-flasher",
                "ota",
                "--firmware",
                firmware,
                "--device=esp32",
                "--host-endpoint=192.0.2.1",
                "--external-ip=192.0.2.2",
                "--wait=100ms",
            ];
            Arguments::try_parse_from(words)
        };
        let Command::Ota(ota) = parse("a.b/c:1").expect("enough").command;
        assert_eq!((ota.port, ota.wait), (4433, Duration::from_millis(100)));
        let error = parse(" ").expect_err("empty").to_string();
        assert!(error.contains("--firmware"), "{error}");
    }
}
