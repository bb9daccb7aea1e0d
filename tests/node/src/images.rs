//! Images of the node: the operator's as users build it, the simulated flash image with access to
//! the registry, and what each Pod begins with. Nothing is pulled: they are taken into containerd
//! under the names that Pods use.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use flashjob_testbed::process::{repository, script, sibling};
use flashjob_testbed::registry::{PASSWORD, Registry, USER};
use flashjob_testbed::testbed::FLASHER_IMAGE;
use flashjob_xtask::image::{Copy, Image, Layout};

use crate::runtime::{PAUSE, Runtime};

/// Name under which the tests build and install the operator's image.
pub const OPERATOR: &str = "registry.example/fleet/flashjob-operator:test";
/// Authorities that the simulated flash image trusts.
const REGISTRY_CA: &str = "/etc/registry-ca.pem";

/// Archive of the operator's image, below the repository.
const OPERATOR_ARCHIVE: &str = "target/image/node-test.tar";

/// Builds the programs of the node and the operator's image, where they are not up to date.
///
/// # Errors
/// One cannot be built; its own words are on standard error.
pub fn build() -> anyhow::Result<()> {
    script("tests/node/build.sh")?;
    script("tests/control-plane/build.sh")?;
    helm()?;
    build_operator()
}

/// Path of helm, which is built once.
///
/// # Errors
/// It cannot be built.
pub fn helm() -> anyhow::Result<String> {
    script("tests/helm/build.sh")
}

/// Builds the operator's image as `make docker-build` does.
fn build_operator() -> anyhow::Result<()> {
    let mut make = Command::new("make");
    make.args(["--silent", "docker-build", &format!("IMG={OPERATOR}"), "CONTAINER_TOOL=layout"]);
    // Cargo's variables of this run are not meant for another.
    for (name, _) in std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME")
    }) {
        make.env_remove(name);
    }
    make.env("OUTPUT", OPERATOR_ARCHIVE).current_dir(repository());
    let output = make.output().context("make")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "make docker-build: {said}");
    Ok(())
}

/// Takes all images into containerd.
///
/// # Errors
/// One cannot be written or imported.
pub async fn import(
    runtime: &Runtime,
    programs: &Path,
    folder: &Path,
    registry: &Registry,
    authority: &Path,
) -> anyhow::Result<()> {
    let operator = repository().join(OPERATOR_ARCHIVE);
    runtime.import(&operator).await.context("the operator's image")?;
    let archive = folder.join("image.tar");
    let pause = Copy { source: programs.join("pause"), destination: "/pause".to_owned() };
    let pause =
        Image { copies: vec![pause], entrypoint: vec!["/pause".to_owned()], ..Image::default() };
    Layout::new(PAUSE, [pause]).write_tar(&archive)?;
    runtime.import(&archive).await.context("the first container's image")?;
    Layout::new(FLASHER_IMAGE, [flasher(folder, registry, authority)?]).write_tar(&archive)?;
    runtime.import(&archive).await.context("the simulated flash image")?;
    std::fs::remove_file(&archive)?;
    Ok(())
}

/// Names no user, as the users' own flash image.
fn flasher(folder: &Path, registry: &Registry, authority: &Path) -> anyhow::Result<Image> {
    let root = folder.join("flasher");
    let mut layout = Command::new(repository().join("deploy/image/rootfs.sh"));
    let program = folder.join("stripped/flasher");
    std::fs::create_dir_all(folder.join("stripped"))?;
    // Symbols of a debug build are most of it.
    let mut strip = Command::new("strip");
    let stripped = strip.arg("-o").arg(&program).arg(sibling("flasher")?).status();
    ensure!(stripped.context("strip")?.success(), "strip failed");
    layout.arg("--program").arg(&program).arg("--output").arg(&root);
    let output = layout.output().context("rootfs.sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the simulated flash image's files: {said}");
    let mut image = Image::of_folder(root);
    image.copies.push(Copy { source: authority.to_owned(), destination: REGISTRY_CA.to_owned() });
    image.entrypoint = vec!["/usr/local/bin/flasher".to_owned()];
    image.env = [
        ("REGISTRY_CA_FILE", REGISTRY_CA.to_owned()),
        ("REGISTRY_USER", USER.to_owned()),
        ("REGISTRY_PASSWORD", PASSWORD.to_owned()),
        ("REGISTRY_MIRRORS", format!("harbor.nbfc.io={}", registry.host)),
        ("FLASHER_WAIT_MS", "100".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    Ok(image)
}
