//! Writes the CustomResourceDefinitions into a folder: `cargo run -p flashjob-api --example crds deploy/crds`.
#![allow(clippy::expect_used, reason = "a generator that fails should say where and stop")]

use std::path::Path;

use flashjob_api::{DevicePlugin, FlashJob};
use kube::CustomResourceExt;

fn main() {
    let folder = std::env::args().nth(1).expect("name a folder");
    for crd in [FlashJob::crd(), DevicePlugin::crd()] {
        let name = crd.metadata.name.clone().expect("a CRD has a name");
        let yaml = serde_saphyr::to_string(&crd).expect("a CRD is YAML");
        std::fs::write(Path::new(&folder).join(format!("{name}.yaml")), yaml).expect("the folder can be written to");
    }
}
