//! Converts a plugin's answer to options of the flash program, with a registry.

use std::process::{Command as Program, Stdio};
use std::sync::Arc;

use clap::Parser;
use flashjob_artifacts::fake_registry::{Fake, answer};
use flashjob_flasher::arguments::{Arguments, Command};
use flashjob_plugin_sdk::{Arg, Device, EnvValue, Plugin, Request};
use serde_json::{Value, json};

use super::{image, index};

/// Bytes that do not compress (Marsaglia's xorshift).
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// Request to a plugin about a device, and the folder that its flash program reads.
pub struct DeviceRequest {
    pub request: Request,
    pub folder: tempfile::TempDir,
}

impl DeviceRequest {
    /// Creates a request for a device at this endpoint, and a registry with this file as firmware.
    pub async fn new(device_type: &str, endpoint: String, settings: &Value, file: &[u8]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let content = Arc::new(index(vec![image(device_type, "firmware/a.bin", file)]));
        let registry = Fake::start(move |_, path, _| {
            let entry = content.iter().find(|(end, _)| path.ends_with(end.as_str()));
            entry.map_or_else(|| answer(404, ""), |(_, bytes)| answer(200, bytes.clone()))
        })
        .await;
        let folder = tempfile::tempdir().expect("a folder");
        let policy = json!({"registries": [{"host": registry.host, "plainHttp": true}]});
        std::fs::write(folder.path().join("policy.yaml"), policy.to_string()).expect("written");
        let request = Request {
            namespace: "fleet".into(),
            job: "job".into(),
            device: Device {
                uid: "uid".into(),
                name: "akri-1".into(),
                endpoint: Some(endpoint),
                device_type: device_type.into(),
                application_type: None,
                reported_version: None,
                nodes: Vec::new(),
                properties: Vec::new(),
            },
            firmware: format!("{}/firmware/a:1", registry.host),
            version: "2.0.0".into(),
            image: Some("registry.example/flasher:1".into()),
            settings: settings.to_string(),
            attempt: 1,
        };
        Self { request, folder }
    }

    /// Returns the arguments and variables of the container that the plugin builds.
    fn container<P: Plugin>(&self, address: &str) -> (Vec<String>, Vec<(String, String)>) {
        let flash = P::build(self.request.clone()).expect("built");
        let literal = |arg: Arg| match arg {
            Arg::Literal(text) => text,
            Arg::ExternalAddress => address.to_owned(),
        };
        let words = flash.command.into_iter().skip(1).chain(flash.args).map(literal).collect();
        let variables = flash.env.into_iter().map(|(name, value)| match value {
            EnvValue::Literal(value) => (name, value),
            EnvValue::ExternalAddress => (name, address.to_owned()),
            EnvValue::SecretKey(..) => panic!("{name} is a Secret's"),
        });
        (words, variables.collect())
    }

    /// Returns the command that the plugin builds, with these words appended. Variables are passed
    /// as options, because all tests share one process.
    pub fn command<P: Plugin>(&self, address: &str, more: &[String]) -> Command {
        let (arguments, variables) = self.container::<P>(address);
        let mut words = vec!["flashjob-flasher".to_owned()];
        words.extend(arguments);
        for (name, value) in variables {
            let option = match name.as_str() {
                "FIRMWARE" => "--firmware",
                "HOST_ENDPOINT" => "--host-endpoint",
                "EXTERNAL_IP" => "--external-ip",
                "DEVICE" => "--device",
                "VERSION" => "--device-version",
                "UDEV_DEVNODE" => "--port",
                "UUID" => continue,
                name => panic!("{name} is no variable of the flash program"),
            };
            words.push(format!("{option}={value}"));
        }
        words.push(format!("--registry-directory={}", self.folder.path().display()));
        words.extend_from_slice(more);
        Arguments::try_parse_from(words).expect("options").command
    }

    /// Returns the program as the container runs it, after these words.
    pub fn program<P: Plugin>(&self, address: &str, before: &[&str]) -> Program {
        let (arguments, variables) = self.container::<P>(address);
        let mut words: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
        words.push(env!("CARGO_BIN_EXE_flashjob-flasher").to_owned());
        words.extend(arguments);
        let mut program = Program::new(words.remove(0));
        program.args(words).env_clear().envs(variables);
        program.stdout(Stdio::piped()).stderr(Stdio::piped());
        let folder = self.folder.path();
        program
            .env("FLASHER_REGISTRY_DIRECTORY", folder)
            .env("FLASHER_LOGIN_DIRECTORY", folder)
            .env("FLASHER_TERMINATION_LOG", folder.join("termination-log"));
        program
    }
}
