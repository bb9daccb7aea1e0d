//! The way from a plugin's answer to the options of the flash program, with a registry.

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

/// Request to a plugin about a device, with the folder that its flash program reads.
pub struct Asked {
    pub request: Request,
    pub folder: tempfile::TempDir,
}

impl Asked {
    /// A device at this endpoint, and a registry that has this file as its firmware.
    pub async fn new(device_type: &str, endpoint: String, settings: &Value, file: &[u8]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let content = Arc::new(index(vec![image(device_type, "firmware/a.bin", file)]));
        let registry = Fake::start(move |_, path, _| {
            let found = content.iter().find(|(end, _)| path.ends_with(end.as_str()));
            found.map_or_else(|| answer(404, ""), |(_, bytes)| answer(200, bytes.clone()))
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

    /// The command that the plugin makes, with these words after it. Variables are options here, as
    /// tests share one process.
    pub fn command<P: Plugin>(&self, address: &str, more: &[String]) -> Command {
        let flash = P::build(self.request.clone()).expect("built");
        let literal = |arg: Arg| match arg {
            Arg::Literal(text) => text,
            Arg::ExternalAddress => address.to_owned(),
        };
        let mut words = vec!["flashjob-flasher".to_owned()];
        words.extend(flash.command.into_iter().skip(1).chain(flash.args).map(literal));
        for (name, value) in flash.env {
            let value = match value {
                EnvValue::Literal(value) => value,
                EnvValue::ExternalAddress => address.to_owned(),
                EnvValue::SecretKey(..) => panic!("{name} is a Secret's"),
            };
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
}
