//! Generates files from the code: CRDs, RBAC rules, and the reference of reasons. Writes to the
//! repository; no other I/O.

mod rights;

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use flashjob_api::reason::{self, Effect};
use flashjob_api::{DevicePlugin, FlashJob, FlashRollout, rollout_reason};
use kube::CustomResourceExt;
use serde_json::Value;

/// Writes all generated files of a repository.
///
/// # Errors
/// A file cannot be written.
pub fn run(repository: &Path) -> anyhow::Result<()> {
    for crd in [FlashJob::crd(), FlashRollout::crd(), DevicePlugin::crd()] {
        let name =
            crd.metadata.name.clone().context("a CustomResourceDefinition without a name")?;
        let mut crd = serde_json::to_value(crd)?;
        signed_formats(&mut crd);
        let text = serde_saphyr::to_string(&crd)?;
        write(repository, &format!("deploy/crds/{name}.yaml"), &text)?;
        // A chart cannot include files from outside its folder.
        write(repository, &format!("deploy/chart/files/crds/{name}.yaml"), &text)?;
    }
    for (name, rules) in rights::of_chart() {
        write(repository, &format!("deploy/chart/files/rules/{name}.yaml"), &rules)?;
    }
    write(repository, "deploy/rbac/role.yaml", &rights::cluster())?;
    write(repository, "deploy/rbac/namespaced.yaml", &rights::namespaced())?;
    write(repository, "docs/reasons.md", &reasons()?)
}

/// Replaces the formats of unsigned integers by `int64`: Kubernetes does not support them, and
/// kubectl warns about them. The schema's bounds remain.
fn signed_formats(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let format = fields
                .get_mut("format")
                .filter(|format| format.as_str().is_some_and(|name| name.starts_with("uint")));
            if let Some(format) = format {
                *format = "int64".into();
            }
            fields.values_mut().for_each(signed_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(signed_formats),
        _ => {}
    }
}

fn write(repository: &Path, path: &str, text: &str) -> anyhow::Result<()> {
    std::fs::write(repository.join(path), text).with_context(|| format!("cannot write {path}"))
}

fn reasons() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Reasons\nValues of `status.devices[].reason`, their meaning, and what to do. \
         Generated from the code by\n`make generate`.\n\n\
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
    text.push_str(
        "\n## Of a FlashRollout\nWhat `status.reason` and the conditions say.\n\n\
         | reason | what happened | what to do |\n|---|---|---|\n",
    );
    for reason in rollout_reason::ALL {
        writeln!(text, "| {} | {} | {} |", reason.name, reason.meaning, reason.action)?;
    }
    Ok(text)
}
