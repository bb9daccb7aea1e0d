//! Tests that the modules of no crate use each other in a cycle.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use flashjob_xtask::modules::{cycle, uses};
use serde::Deserialize;

/// Folders of the crates that still have cycles.
const UNTIDY: [&str; 6] = [
    "operator/api",
    "operator/controller",
    "tests/bench",
    "tests/node",
    "tests/simulators",
    "tests/testbed",
];

/// The workspace, as far as it is read from `cargo metadata`.
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
    let repository = repository();
    let mut cycles = Vec::new();
    for root in roots(repository)? {
        if UNTIDY.iter().any(|folder| root.starts_with(repository.join(folder))) {
            continue;
        }
        let cycle = cycle(uses(&root)?);
        cycles.extend(cycle.map(|cycle| format!("{}: {}", root.display(), cycle.join(" -> "))));
    }
    assert!(cycles.is_empty(), "modules use each other in a cycle:\n{}", cycles.join("\n"));
    Ok(())
}

/// The root file of each library and program of the workspace.
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
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}
