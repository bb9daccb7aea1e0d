//! Tests that there are no cycles between modules, and that the modules of operator/rules keep
//! their order.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use flashjob_xtask::modules::{cycle, uses};
use serde::Deserialize;

/// The modules of operator/rules, each before those that may use it.
const RULES: [&str; 10] = [
    "crate::schedule",
    "crate::firmware",
    "crate::rollout",
    "crate::flashjob::policy",
    "crate::flashjob::grants",
    "crate::flashjob::labels",
    "crate::flashjob::observed",
    "crate::flashjob::make",
    "crate::flashjob::plan",
    "crate::world",
];

/// Workspace, reduced to the used fields of `cargo metadata`.
#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

#[test]
fn the_modules_of_no_crate_use_each_other_in_a_cycle() -> anyhow::Result<()> {
    let mut cycles = Vec::new();
    for root in roots(repository())? {
        let cycle = cycle(uses(&root)?);
        cycles.extend(cycle.map(|cycle| format!("{}: {}", root.display(), cycle.join(" -> "))));
    }
    assert!(cycles.is_empty(), "modules use each other in a cycle:\n{}", cycles.join("\n"));
    Ok(())
}

#[test]
fn a_module_of_the_rules_uses_only_those_before_it() -> anyhow::Result<()> {
    let uses = uses(&repository().join("operator/rules/src/lib.rs"))?;
    let rule = "crate::flashjob::plan::guards";
    assert!(uses[rule].contains("crate::flashjob::plan::draft"), "the uses were not found");
    for (module, used) in uses {
        let Some(module_place) = place(&module) else { continue };
        for used in used {
            let is_before = place(&used).is_none_or(|place| place <= module_place);
            assert!(is_before, "{module} uses {used}, which is above it");
        }
    }
    Ok(())
}

/// Returns the index of the part of the crate that a module belongs to; None if it belongs to
/// none.
fn place(module: &str) -> Option<usize> {
    let is_part = |part: &&str| {
        module.strip_prefix(*part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    RULES.iter().position(is_part)
}

/// Returns the root file of each library and program of the workspace.
fn roots(repository: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = metadata.current_dir(repository).output().context("cargo metadata")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {}: {complaint}", output.status);
    let workspace: Workspace = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let targets = workspace.packages.into_iter().flat_map(|package| package.targets);
    let is_crate = |target: &Target| {
        target.kind.iter().any(|kind| ["lib", "rlib", "cdylib", "bin"].contains(&kind.as_str()))
    };
    Ok(targets.filter(is_crate).map(|target| target.src_path).collect())
}

fn repository() -> &'static Path {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder)
}
