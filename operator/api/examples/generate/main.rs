//! Writes what is made from the code: `cargo run -p flashjob-api --example generate deploy docs`.
#![allow(clippy::expect_used, reason = "a generator that fails should say where and stop")]

mod rights;

use std::fmt::Write;
use std::path::Path;

use flashjob_api::reason::{self, Effect};
use flashjob_api::{DevicePlugin, FlashJob};
use kube::CustomResourceExt;

fn main() {
    let folders: Vec<String> = std::env::args().skip(1).collect();
    let [deploy, docs] = folders.as_slice() else { panic!("name two folders: for what is deployed, for the documentation") };
    let deploy = Path::new(deploy);
    for crd in [FlashJob::crd(), DevicePlugin::crd()] {
        let name = crd.metadata.name.clone().expect("a CRD has a name");
        let yaml = serde_saphyr::to_string(&crd).expect("a CRD is YAML");
        std::fs::write(deploy.join("crds").join(format!("{name}.yaml")), yaml).expect("the folder can be written to");
    }
    for (file, text) in [("role.yaml", rights::cluster()), ("namespaced.yaml", rights::namespaced())] {
        std::fs::write(deploy.join("rbac").join(file), text).expect("the folder can be written to");
    }
    std::fs::write(Path::new(docs).join("reasons.md"), reasons()).expect("the folder can be written to");
}

fn reasons() -> String {
    let mut text = String::from(
        "# Reasons\nWhat `status.devices[].reason` says, and what to do about it. Made from the code by `make generate`.\n\n\
         | reason | effect | what happened | what to do |\n|---|---|---|---|\n",
    );
    for reason in reason::ALL {
        let effect = match reason.effect {
            Effect::Waits => "the device waits",
            Effect::Attempt => "the attempt failed; tried again within backoffLimitPerDevice",
            Effect::Failed => "the device failed",
            Effect::Skipped => "the device is skipped",
        };
        let escaped = |text: &str| text.replace('|', "\\|");
        writeln!(text, "| {} | {effect} | {} | {} |", reason.name, escaped(reason.meaning), escaped(reason.action))
            .expect("a String takes text");
    }
    text
}
