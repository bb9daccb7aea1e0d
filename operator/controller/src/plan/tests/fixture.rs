//! What the tests of this folder are made of: a world with one plugin, jobs from JSON, devices.

use std::sync::Arc;

use flashjob_api::{FINALIZER, FlashJob};
use flashjob_plugin_host::Digest;
use flashjob_plugin_host::types::{Arg, EnvValue, FlashPod, Port, Protocol, User};
use serde_json::{Value, json};

use crate::make::Grants;
use crate::observed::{JobKey, PluginView, ReadyPlugin};
use crate::world::{Rules, World};

pub fn key(name: &str) -> JobKey {
    JobKey { namespace: "fleet".into(), name: name.into() }
}

pub fn digest() -> Digest {
    Digest::of(b"a plugin")
}

pub fn plugin(name: &str, kind: &str) -> PluginView {
    PluginView {
        name: name.into(),
        reference: format!("registry.example/{name}:1"),
        device_types: vec![kind.parse().expect("a device type")],
        any_type: false,
        ready: Ok(ReadyPlugin { digest: digest(), version: "1.0.0".into() }),
        settings: serde_json::Map::new(),
        locked_settings: serde_json::Map::new(),
        grants: Arc::new(Grants::default()),
    }
}

pub fn world() -> World {
    World::new(vec![plugin("esp32", "esp32"), plugin("usb", "usb")], Rules::default())
}

/// A FlashJob named `name`; `spec` is laid over the least that a spec needs.
pub fn job(name: &str, uids: &[&str], spec: &Value) -> FlashJob {
    let mut full = json!({"uuid": uids, "firmware": "registry.example/firmware:2", "version": "2"});
    json_patch::merge(&mut full, spec);
    let metadata = json!({"name": name, "namespace": "fleet", "uid": format!("uid-of-{name}"), "generation": 1,
        "resourceVersion": "1", "finalizers": [FINALIZER]});
    serde_json::from_value(json!({"metadata": metadata, "spec": full})).expect("a FlashJob")
}

/// An answer with one port, and the version in the environment.
pub fn flash_pod(version: &str) -> FlashPod {
    FlashPod {
        image: "registry.example/flasher:1".into(),
        command: Vec::new(),
        args: vec![Arg::ExternalAddress],
        env: vec![("VERSION".into(), EnvValue::Literal(version.into()))],
        ports: vec![Port { name: "ota".into(), number: 4433, protocol: Protocol::Tcp }],
        needs_ip: false,
        attach_device: false,
        groups: Vec::new(),
        capabilities: Vec::new(),
        user: User::ImageDefault,
        secrets: Vec::new(),
        scratch: Vec::new(),
        deadline_seconds: None,
    }
}
