//! Command line. Each option is also an environment variable, which is how a device plugin sets
//! it; the project's first flash image reads the same names.

mod pull;
mod serial;
mod values;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use reqwest::header::{HeaderName, HeaderValue};

pub use pull::Pull;
pub use serial::{After, Before, Serial};
use values::{duration, word};

/// Fetches firmware from a registry and hands it to one device.
#[derive(Debug, Parser)]
#[command(name = "flashjob-flasher", version)]
pub struct Arguments {
    /// The way to the device.
    #[command(subcommand)]
    pub command: Command,
    /// File for the result, in JSON, as Kubernetes reads it.
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
    /// Over HTTP: uploads the firmware to the device, or has the device fetch it from here.
    Http(Box<Http>),
    /// Over SMP, to devices with MCUboot: uploads, has the device try it, and confirms it once it
    /// runs.
    Smp(Box<Smp>),
    /// Over a serial port, to Espressif chips: writes the flash memory through the chip's ROM
    /// loader, compares its MD5, and restarts the chip.
    Serial(Box<Serial>),
}

/// Forms of the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Arguments {
    /// Parses the command line and the environment variables of this process. An empty variable
    /// counts as unset.
    ///
    /// # Errors
    /// An option is missing or invalid, or help is requested.
    pub fn read() -> Result<Self, clap::Error> {
        let command = Self::command();
        let command = command.mut_args(filled).mut_subcommands(|way| way.mut_args(filled));
        Self::from_arg_matches(&command.try_get_matches()?)
    }
}

/// Returns the options that an error is about, each with the variable by which plugins set it.
/// `words` are the arguments of the command line.
pub fn variables<'a>(
    error: &clap::Error,
    mut words: impl Iterator<Item = &'a str>,
) -> Vec<(String, String)> {
    // clap's errors name the option only, but plugins set variables.
    let mut command = Arguments::command();
    command.build();
    let Some(way) = words.find_map(|word| command.find_subcommand(word)) else {
        return Vec::new();
    };
    let named =
        [ContextKind::InvalidArg, ContextKind::PriorArg].into_iter().flat_map(|kind| match error
            .get(kind)
        {
            Some(ContextValue::String(one)) => vec![one.clone()],
            Some(ContextValue::Strings(all)) => all.clone(),
            _ => Vec::new(),
        });
    let pairs = named.filter_map(|named| {
        // Such as `--port <PORT>`.
        let option = named.split(' ').next()?.to_owned();
        let mut arguments = way.get_arguments();
        let is_option = |argument: &&Arg| argument.get_long() == option.strip_prefix("--");
        let variable = arguments.find(is_option)?.get_env()?.to_string_lossy().into_owned();
        Some((option, variable))
    });
    pairs.collect()
}

/// Returns the argument, without its variable if that is set but empty.
fn filled(argument: Arg) -> Arg {
    let value = argument.get_env().and_then(std::env::var_os);
    match value.is_some_and(|value| value.is_empty()) {
        // A plugin may set a variable empty, and clap would parse that as a value.
        true => argument.env(None::<&'static str>),
        false => argument,
    }
}

/// Options of `ota`.
#[derive(Clone, Debug, Args)]
pub struct Ota {
    /// Source of the firmware.
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
    #[arg(
        long,
        env = "FLASHER_PORT",
        value_name = "PORT",
        default_value_t = 4433,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub port: u16,
    /// Folder with `server.crt` and `server.key`, in PEM. Without these files a certificate is
    /// made, which devices that check it refuse.
    #[arg(
        long,
        env = "FLASHER_CERTIFICATES",
        value_name = "FOLDER",
        default_value = "/ota/certs"
    )]
    pub certificates: PathBuf,
    /// Host of the attestation service, which listens on port 8000. Kubernetes sets it where the
    /// namespace has a Service dice-auth-service.
    #[arg(long, env = "DICE_AUTH_SERVICE_SERVICE_HOST", value_name = "HOST")]
    pub attestation_host: Option<String>,
    /// Fail where there is no attestation service, in place of sending to a device that nobody
    /// vouches for.
    #[arg(long, env = "FLASHER_REQUIRE_ATTESTATION")]
    pub require_attestation: bool,
    /// Devices that may call: any that the attestation service trusts, or only one that calls from
    /// the address of the host endpoint. A load balancer may hide that address.
    #[arg(long, env = "FLASHER_CALLER", value_enum, default_value = "any")]
    pub caller: Caller,
    /// Pause before the device is asked first, in which the network learns the way here.
    #[arg(
        long,
        env = "FLASHER_WAIT",
        value_name = "TIME",
        default_value = "2s",
        value_parser = duration
    )]
    pub wait: Duration,
    /// Longest time until the device has called back.
    #[arg(
        long,
        env = "FLASHER_CALLBACK_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = duration
    )]
    pub callback_timeout: Duration,
    /// Pause before a device that has not called is asked again; it grows.
    #[arg(
        long,
        env = "FLASHER_ASK_AGAIN",
        value_name = "TIME",
        default_value = "5s",
        value_parser = duration
    )]
    pub ask_again: Duration,
    /// Longest time in which the device takes no byte: it erases flash memory meanwhile.
    #[arg(
        long,
        env = "FLASHER_STALL_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = duration
    )]
    pub stall_timeout: Duration,
    /// Do everything up to the request to update, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Devices that may call back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Caller {
    /// Any device that is trusted.
    Any,
    /// The host endpoint's address.
    Address,
}

/// Options of `http`.
#[derive(Clone, Debug, Args)]
pub struct Http {
    /// Source of the firmware.
    #[command(flatten)]
    pub pull: Pull,
    /// The device's HTTP server, as 192.0.2.7 or 192.0.2.7:8080.
    #[arg(long, env = "HOST_ENDPOINT", value_name = "HOST[:PORT]", value_parser = word)]
    pub host_endpoint: String,
    /// Version that the device reports afterwards.
    #[arg(long, env = "VERSION", value_name = "VERSION", default_value = "")]
    pub device_version: String,
    /// Way in which the device gets the firmware.
    #[arg(long, env = "FLASHER_HTTP_BODY", value_enum, default_value = "raw")]
    pub body: Body,
    /// Method of the request.
    #[arg(long, env = "FLASHER_HTTP_METHOD", default_value = "POST", value_parser = method)]
    pub method: reqwest::Method,
    /// Path of the request, with its query. With --body url the text {url} in it becomes the
    /// address of the firmware, percent-encoded.
    #[arg(long, env = "FLASHER_HTTP_PATH", value_name = "PATH", default_value = "/update")]
    pub path: String,
    /// Field of a form that has the file.
    #[arg(long, env = "FLASHER_HTTP_FIELD", value_name = "NAME", default_value = "file")]
    pub field: String,
    /// Header of the request; repeat it for several.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub header: Vec<(HeaderName, HeaderValue)>,
    /// Status codes that mean success.
    #[arg(
        long,
        env = "FLASHER_HTTP_SUCCESS",
        value_name = "CODES",
        value_delimiter = ',',
        default_value = "200,201,202,204",
        value_parser = clap::value_parser!(u16).range(100..=599)
    )]
    pub success: Vec<u16>,
    /// Folder with the device's `username` and `password`. Without these files nobody logs in.
    #[arg(
        long,
        env = "FLASHER_LOGIN_DIRECTORY",
        value_name = "FOLDER",
        default_value = "/etc/flashjob/device"
    )]
    pub login_directory: PathBuf,
    /// Path that answers JSON with the device's version. Without it nothing is proven here.
    #[arg(long, env = "FLASHER_HTTP_VERSION_PATH", value_name = "PATH")]
    pub version_path: Option<String>,
    /// Pointer to the version in that JSON (RFC 6901), as /ver. Empty: the whole answer is the
    /// version.
    #[arg(
        long,
        env = "FLASHER_HTTP_VERSION_POINTER",
        value_name = "POINTER",
        default_value = "",
        value_parser = pointer
    )]
    pub version_pointer: String,
    /// Longest time from the transfer until the device reports the version.
    #[arg(
        long,
        env = "FLASHER_RESTART_TIMEOUT",
        value_name = "TIME",
        default_value = "2m",
        value_parser = duration
    )]
    pub restart_timeout: Duration,
    /// Longest time for the transfer.
    #[arg(
        long,
        env = "FLASHER_TRANSFER_TIMEOUT",
        value_name = "TIME",
        default_value = "10m",
        value_parser = duration
    )]
    pub transfer_timeout: Duration,
    /// With --body url: address that the device fetches from.
    #[arg(long, env = "EXTERNAL_IP", value_name = "ADDRESS")]
    pub external_ip: Option<IpAddr>,
    /// With --body url: local address to listen on. Default: all.
    #[arg(long, env = "FLASHER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<IpAddr>,
    /// With --body url: port to listen on.
    #[arg(
        long,
        env = "FLASHER_HTTP_PORT",
        value_name = "PORT",
        default_value_t = 8080,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub port: u16,
    /// With --body url: longest time until the device begins to fetch.
    #[arg(
        long,
        env = "FLASHER_CALLBACK_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = duration
    )]
    pub callback_timeout: Duration,
    /// Do everything up to the request, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `smp`.
#[derive(Clone, Debug, Args)]
pub struct Smp {
    /// Source of the firmware.
    #[command(flatten)]
    pub pull: Pull,
    /// The device's SMP server on UDP, as 192.0.2.7; port 1337 unless another is named.
    #[arg(
        long,
        env = "HOST_ENDPOINT",
        value_name = "HOST[:PORT]",
        value_parser = word,
        required_unless_present = "port"
    )]
    pub host_endpoint: Option<String>,
    /// Serial port of the device, in place of UDP.
    #[arg(long, env = "UDEV_DEVNODE", value_name = "FILE", conflicts_with = "host_endpoint")]
    pub port: Option<PathBuf>,
    /// Speed of the serial port, in bits a second.
    #[arg(long, env = "FLASHER_BAUD", value_name = "BAUD", default_value_t = 115_200)]
    pub baud: u32,
    /// Version that the device reports afterwards; must be the one in the header of the image.
    #[arg(long, env = "VERSION", value_name = "VERSION", default_value = "")]
    pub device_version: String,
    /// Number of the image, on devices with several.
    #[arg(long, env = "FLASHER_IMAGE_NUMBER", value_name = "NUMBER", default_value_t = 0)]
    pub image_number: u32,
    /// Longest time for one answer; the first part of an upload erases a slot meanwhile.
    #[arg(
        long,
        env = "FLASHER_ANSWER_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = duration
    )]
    pub answer_timeout: Duration,
    /// Longest time from the restart until the device runs the new image: the boot loader swaps
    /// the slots meanwhile.
    #[arg(
        long,
        env = "FLASHER_RESTART_TIMEOUT",
        value_name = "TIME",
        default_value = "2m",
        value_parser = duration
    )]
    pub restart_timeout: Duration,
    /// Do everything up to the upload, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Ways in which a device gets firmware over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Body {
    /// As the body of the request.
    Raw,
    /// As a file in a form (multipart/form-data).
    Multipart,
    /// The device is told an address, and fetches it.
    Url,
}

fn method(text: &str) -> Result<reqwest::Method, String> {
    let methods = [reqwest::Method::GET, reqwest::Method::POST, reqwest::Method::PUT];
    let matching_method =
        methods.into_iter().find(|method| method.as_str().eq_ignore_ascii_case(text));
    matching_method.ok_or_else(|| format!("{text:?} is not GET, POST or PUT"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let expected = || format!("{text:?} is not a header; expected NAME: VALUE");
    let (name, value) = text.split_once(':').ok_or_else(expected)?;
    let name = name.trim().parse().map_err(|_| expected())?;
    let value = value.trim().parse().map_err(|_| expected())?;
    Ok((name, value))
}

/// Parses a JSON pointer (RFC 6901); an empty one refers to the whole document.
fn pointer(text: &str) -> Result<String, String> {
    match text.is_empty() || text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a JSON pointer; expected one such as /{text}")),
    }
}

#[cfg(test)]
mod tests {
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
        let Command::Ota(ota) = parse("a.b/c:1").expect("enough").command else { panic!("ota") };
        assert_eq!((ota.port, ota.wait), (4433, Duration::from_millis(100)));
        let error = parse(" ").expect_err("empty").to_string();
        assert!(error.contains("--firmware"), "{error}");
    }

    #[test]
    fn an_error_has_the_variable_of_each_option_that_it_is_about_on_its_way() {
        for (line, expected) in [
            ("x ota --firmware=a --device=b --external-ip=c", "--external-ip EXTERNAL_IP"),
            ("x serial --firmware=a --device=b", "--port UDEV_DEVNODE"),
            ("x smp --device=b --port=/dev/a --host-endpoint=c", "--host-endpoint HOST_ENDPOINT"),
            ("x smp --device=b --port=/dev/a --host-endpoint=c", "--port UDEV_DEVNODE"),
            ("x http --port=0", "--port FLASHER_HTTP_PORT"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let error = Arguments::try_parse_from(&words).expect_err("an error");
            let pairs = variables(&error, words.into_iter());
            let descriptions: Vec<String> =
                pairs.iter().map(|(option, variable)| format!("{option} {variable}")).collect();
            assert!(
                descriptions.iter().any(|text| text == expected),
                "{line}: {descriptions:?} {error}"
            );
        }
    }
}
