//! One simulated device, and a registry with firmware for it.

pub mod plugin;
pub mod run;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use flashjob_artifacts::Digest;
use flashjob_artifacts::fake_registry::{Answer, Fake, answer};
use flashjob_flasher::Stage;
use flashjob_flasher::arguments::{Arguments, Command, Ota};
use flashjob_flasher::ota::flash;
use flashjob_flasher::outcome::{AttemptFailure, Sent};
use flashjob_simulators::devices::{Behaviour, Fleet, Group, Report, Settings};
use flashjob_simulators::firmware::Firmware;
use serde_json::json;
use tokio::sync::watch;

/// Pause before a request to the device is repeated.
pub const AGAIN: Duration = Duration::from_millis(300);

/// Returns firmware of this version and size that the device accepts.
pub fn firmware(version: &str, size: usize) -> Vec<u8> {
    let firmware = Firmware {
        device: "esp32".into(),
        application: "thermo".into(),
        version: version.into(),
        payload: vec![1; size],
    };
    firmware.encode().expect("encoded")
}

/// Content of a registry, by the last part of the URL's path.
pub type Content = Vec<(String, Vec<u8>)>;

/// Adds a blob, and returns its descriptor.
fn blob(content: &mut Content, kind: &str, bytes: Vec<u8>) -> serde_json::Value {
    let digest = Digest::of(&bytes);
    let descriptor = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
    content.push((digest.to_string(), bytes));
    descriptor
}

/// Returns the descriptor of an image with one file, for one platform, and the registry's content
/// for it.
pub fn image(architecture: &str, file: &str, bytes: &[u8]) -> (serde_json::Value, Content) {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, file, bytes).expect("written");
    let mut content = Content::new();
    let layer = archive.into_inner().expect("written");
    let layer = blob(&mut content, "application/vnd.oci.image.layer.v1.tar", layer);
    let config = json!({"os": "custom", "architecture": architecture}).to_string();
    let config =
        blob(&mut content, "application/vnd.oci.image.config.v1+json", config.into_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut descriptor = blob(&mut content, kind, manifest.to_string().into_bytes());
    descriptor["platform"] = json!({"os": "custom", "architecture": architecture});
    (descriptor, content)
}

/// Returns an index of these images, under tag 1.
pub fn index(images: Vec<(serde_json::Value, Content)>) -> Content {
    let (descriptors, contents): (Vec<_>, Vec<_>) = images.into_iter().unzip();
    let mut content: Content = contents.into_iter().flatten().collect();
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": descriptors});
    let bytes = index.to_string().into_bytes();
    content.push((Digest::of(&bytes).to_string(), bytes.clone()));
    content.push(("manifests/1".to_owned(), bytes));
    content
}

/// A device, a registry, and the options of a flash program, on their own address.
pub struct World {
    pub fleet: Fleet,
    pub registry: Fake,
    content: Arc<Mutex<Content>>,
    pub folder: tempfile::TempDir,
    pub options: Ota,
}

impl World {
    /// Creates a world whose device calls back to port `way`, or to the flash program's port.
    pub async fn new(host: &str, way: Option<u16>, behaviour: Behaviour) -> Self {
        let thermo = image("esp32", "firmware/thermo.bin", &firmware("2", 2 << 20));
        Self::with(host, way, behaviour, index(vec![thermo])).await
    }

    /// Creates the same with this content in the registry.
    pub async fn with(
        host: &str,
        way: Option<u16>,
        behaviour: Behaviour,
        content: Content,
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let content = Arc::new(Mutex::new(content));
        let served = content.clone();
        let registry =
            Fake::start(move |_, path, _| serve(&served.lock().expect("not poisoned"), path))
                .await;
        let port = free_port(host);
        let fleet = Fleet::new(Settings {
            address: Ipv4Addr::LOCALHOST.into(),
            callback_port: way.unwrap_or(port),
            reboot_ms: 1,
            receive_timeout_ms: 1000,
        });
        fleet.add(&"esp32:thermo:1=1".parse::<Group>().expect("a group")).await.expect("a device");
        let folder = tempfile::tempdir().expect("a folder");
        let report = fleet.reports().remove(0);
        assert!(fleet.behave(&report.id, behaviour));
        let world = Self {
            options: options(host, port, &report.endpoint, &registry.host, folder.path().into()),
            fleet,
            registry,
            content,
            folder,
        };
        world.policy(&json!({}));
        world
    }

    /// Publishes more content; an existing tag moves.
    pub fn publish(&self, content: Content) {
        self.content.lock().expect("not poisoned").splice(..0, content);
    }

    /// Writes the policy, with the connection settings of the registry.
    pub fn policy(&self, policy: &serde_json::Value) {
        let mut policy = policy.clone();
        policy["registries"] = json!([{"host": self.registry.host, "plainHttp": true}]);
        let file = self.folder.path().join("policy.yaml");
        std::fs::write(file, policy.to_string()).expect("written");
    }

    pub fn report(&self) -> Report {
        self.fleet.reports().remove(0)
    }

    pub fn at(&self) -> SocketAddr {
        (self.options.listen.expect("an address"), self.options.port).into()
    }

    /// Returns the program with the variables that a plugin sets, for this world.
    pub fn program(&self) -> Program {
        let options = &self.options;
        let mut command = Program::new(env!("CARGO_BIN_EXE_flashjob-flasher"));
        command.arg("ota").env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
        let folder = self.folder.path();
        command
            .env("FIRMWARE", &options.pull.firmware)
            .env("UUID", "d95c")
            .env("HOST_ENDPOINT", &options.host_endpoint)
            .env("DEVICE", &options.pull.device)
            .env("APPLICATION_TYPE", "thermo")
            .env("VERSION", "2")
            .env("EXTERNAL_IP", options.external_ip.to_string())
            .env("FLASHER_LISTEN", options.external_ip.to_string())
            .env("FLASHER_PORT", options.port.to_string())
            .env("FLASHER_WAIT", "0s")
            .env("FLASHER_REGISTRY_DIRECTORY", folder)
            .env("FLASHER_CERTIFICATES", folder)
            .env("FLASHER_TERMINATION_LOG", folder.join("termination-log"));
        command
    }

    /// Makes one attempt.
    pub async fn flash(&self) -> Result<Sent, AttemptFailure> {
        flash(&self.options, &watch::channel(Stage::Preparing).0).await
    }

    /// Waits until a condition on the device holds.
    pub async fn becomes(&self, what: &str, holds: impl Fn(&Report) -> bool) -> Report {
        for _ in 0..2000 {
            let report = self.report();
            if holds(&report) {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the device never came to this: {what}: {:?}", self.report());
    }
}

fn serve(content: &Content, path: &str) -> Answer {
    let entry = content.iter().find(|(end, _)| path.ends_with(end.as_str()));
    entry.map_or_else(|| answer(404, ""), |(_, bytes)| answer(200, bytes.clone()))
}

/// Returns the options that a plugin sets, with the timeouts of a test.
fn options(host: &str, port: u16, endpoint: &str, registry: &str, folder: PathBuf) -> Ota {
    let words = [
        "flashjob-flasher".to_owned(),
        "ota".to_owned(),
        format!("--firmware={registry}/firmware/thermo:1"),
        "--device=esp32".to_owned(),
        format!("--host-endpoint={endpoint}"),
        format!("--external-ip={host}"),
        format!("--listen={host}"),
        format!("--port={port}"),
        format!("--registry-directory={}", folder.display()),
        format!("--certificates={}", folder.display()),
        "--wait=0s".to_owned(),
        "--callback-timeout=30s".to_owned(),
        format!("--ask-again={}ms", AGAIN.as_millis()),
    ];
    let Command::Ota(options) = Arguments::try_parse_from(words).expect("options").command else {
        panic!("ota")
    };
    *options
}

fn free_port(host: &str) -> u16 {
    let address: IpAddr = host.parse().expect("an address");
    let listener = std::net::TcpListener::bind((address, 0)).expect("a loopback address");
    listener.local_addr().expect("bound").port()
}
