//! Images of the node: the operator's image as users build it, the flash image with access to the
//! registry, and the pause image of each Pod. Nothing is pulled: they are imported into containerd
//! under the names that Pods use.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use flashjob_testbed::process::{repository, script};
use flashjob_testbed::registry::Registry;
use flashjob_testbed::simulators::write_access;
use flashjob_testbed::testbed::FLASHER_IMAGE;
use flashjob_xtask::image::{Copy, Image, Layout};

use crate::runtime::{PAUSE, Runtime};

/// Name under which the tests build and install the operator's image.
pub const OPERATOR: &str = "registry.example/fleet/flashjob-operator:test";
/// Entrypoint of the flash image.
const ENTRYPOINT: [&str; 2] = ["/usr/local/bin/flashjob-flasher", "ota"];
/// Folder in which the flash image looks for the files to access its registry.
const ACCESS: &str = "/etc/flashjob/registry";

/// Path of the archive of the operator's image, relative to the repository.
const OPERATOR_ARCHIVE: &str = "target/image/node-test.tar";

/// Variable that says that `node-prepare` has built everything: test programs that run at the same
/// time would overwrite the image under each other.
const PREPARED: &str = "FLASHJOB_NODE_PREPARED";

/// Builds the node's programs and the operator's image, unless `node-prepare` did.
///
/// # Errors
/// A build fails; its errors are on standard error.
pub fn build() -> anyhow::Result<()> {
    if std::env::var_os(PREPARED).is_some() {
        return Ok(());
    }
    script("tests/node/build.sh")?;
    script("tests/control-plane/build.sh")?;
    helm()?;
    build_operator()
}

/// Returns the path of helm, which is built once.
///
/// # Errors
/// helm cannot be built.
pub fn helm() -> anyhow::Result<String> {
    script("tests/helm/build.sh")
}

/// Builds the operator's image as `make docker-build` does.
fn build_operator() -> anyhow::Result<()> {
    let mut make = Command::new("make");
    make.args(["--silent", "docker-build", &format!("IMG={OPERATOR}"), "CONTAINER_TOOL=layout"]);
    // Cargo's variables of this run are not meant for the nested build.
    for (name, _) in std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME")
    }) {
        make.env_remove(name);
    }
    make.env("OUTPUT", OPERATOR_ARCHIVE).current_dir(repository());
    // Optimization across crates makes the programs a little faster, and takes minutes here.
    make.env("CARGO_PROFILE_RELEASE_LTO", "off");
    let output = make.output().context("make")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "make docker-build: {stderr}");
    Ok(())
}

/// Imports all images into containerd.
///
/// # Errors
/// An image cannot be written or imported.
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
    runtime.import(&archive).await.context("the flash image")?;
    std::fs::remove_file(&archive)?;
    Ok(())
}

/// Returns the product's flash image with access to the registry. It specifies no user, like the
/// users' own image.
fn flasher(folder: &Path, registry: &Registry, authority: &Path) -> anyhow::Result<Image> {
    let mut image = Image { entrypoint: ENTRYPOINT.map(str::to_owned).into(), ..Image::default() };
    let root = format!("target/image/{}/image/flasher", image.architecture);
    let access = folder.join("firmware-access");
    write_access(&access, registry, authority)?;
    image.copies = vec![
        Copy { source: repository().join(root), destination: "/".to_owned() },
        Copy { source: access, destination: ACCESS.to_owned() },
    ];
    // A device may hold its transfer for a test, as long as an attempt takes by default.
    let variables = [("FLASHER_WAIT", "100ms"), ("FLASHER_STALL_TIMEOUT", "15m")];
    image.env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Ok(image)
}
