//! Writes the files that are made from the code: definitions, rights, reference of reasons. Writes into the repository; no other I/O.

mod rights;

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use flashjob_api::reason::{self, Effect};
use flashjob_api::{DevicePlugin, FlashJob};
use kube::CustomResourceExt;

/// Writes all generated files of a repository.
///
/// # Errors
/// A file cannot be written.
pub fn run(repository: &Path) -> anyhow::Result<()> {
    for crd in [FlashJob::crd(), DevicePlugin::crd()] {
        let name =
            crd.metadata.name.clone().context("a CustomResourceDefinition without a name")?;
        write(repository, &format!("deploy/crds/{name}.yaml"), &serde_saphyr::to_string(&crd)?)?;
    }
    write(repository, "deploy/rbac/role.yaml", &rights::cluster())?;
    write(repository, "deploy/rbac/namespaced.yaml", &rights::namespaced())?;
    write(repository, "docs/reasons.md", &reasons()?)
}

fn write(repository: &Path, path: &str, text: &str) -> anyhow::Result<()> {
    std::fs::write(repository.join(path), text).with_context(|| format!("cannot write {path}"))
}

fn reasons() -> anyhow::Result<String> {
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
        writeln!(
            text,
            "| {} | {effect} | {} | {} |",
            reason.name,
            escaped(reason.meaning),
            escaped(reason.action)
        )?;
    }
    Ok(text)
}
