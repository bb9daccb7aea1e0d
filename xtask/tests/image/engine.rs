//! Compares the Dockerfile's image as built by a container engine and as written by this program.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use flashjob_xtask::image::{Layout, Stage};
use serde_json::Value;

use crate::archive;
use crate::{installed, repository, root, rootfs, skip};

const REFERENCE: &str = "localhost/flashjob-operator:compared";

#[test]
fn an_engine_builds_the_same_image_from_the_dockerfile() {
    let test = "an_engine_builds_the_same_image_from_the_dockerfile";
    if !installed("buildah") {
        return skip(test, "there is no buildah; apt-get install buildah");
    }
    if !root() {
        return skip(test, "buildah needs root here; run the tests as root");
    }
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("build");
    lay_out(&built.join("image/operator"));

    let engine = folder.path().join("engine.tar");
    build(folder.path(), &built, &engine);
    let own_archive = folder.path().join("own.tar");
    let stage = Stage {
        dockerfile: repository().join("Dockerfile"),
        target: "operator".to_owned(),
        contexts: BTreeMap::from([("build".to_owned(), built)]),
        arguments: BTreeMap::from([("VERSION".to_owned(), "1.2.3-test".to_owned())]),
        architecture: "amd64".to_owned(),
    };
    Layout::new(REFERENCE, [stage.image().unwrap()]).write_tar(&own_archive).unwrap();

    let (engine, own_layout) =
        (archive::Layout::open(&engine), archive::Layout::open(&own_archive));
    assert_eq!(engine.entries(), own_layout.entries());
    assert!(own_layout.entries().len() > 10);
    assert_eq!(settings(&engine), settings(&own_layout));
    assert_eq!(
        settings(&own_layout)["config"]["Labels"]["org.opencontainers.image.version"],
        "1.2.3-test"
    );
}

/// Lays out a root folder as the build stage does, with a program that is already built.
fn lay_out(output: &Path) {
    let program = Path::new(env!("CARGO_BIN_EXE_flashjob-xtask"));
    let result = rootfs::run(&[
        "--program".as_ref(),
        program.as_ref(),
        "--output".as_ref(),
        output.as_ref(),
    ]);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let licence = output.join("usr/share/doc/flashjob-operator");
    fs::create_dir_all(&licence).unwrap();
    fs::copy(repository().join("LICENSE"), licence.join("LICENSE")).unwrap();
}

/// Builds the last stage with buildah, in a separate store, and writes it as an archive.
fn build(store: &Path, built: &Path, archive: &Path) {
    let mut context = std::ffi::OsString::from("build=");
    context.push(built);
    buildah(
        store,
        Command::new("buildah")
            .args(["build", "--isolation", "chroot", "--platform", "linux/amd64"])
            .args(["--identity-label=false", "--target", "operator", "--tag", REFERENCE])
            .args(["--build-arg", "VERSION=1.2.3-test"])
            .arg("--build-context")
            .arg(context)
            .arg(repository()),
    );
    let mut target = std::ffi::OsString::from("oci-archive:");
    target.push(archive);
    buildah(store, Command::new("buildah").args(["push", REFERENCE]).arg(target));
}

fn buildah(store: &Path, command: &mut Command) {
    let configuration = store.join("storage.conf");
    let (graph, run) = (store.join("graph"), store.join("run"));
    let text = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        graph.display(),
        run.display()
    );
    fs::write(&configuration, text).unwrap();
    let result = command
        .env("CONTAINERS_STORAGE_CONF", &configuration)
        .env_remove("STORAGE_DRIVER")
        .output()
        .unwrap();
    assert!(result.status.success(), "{command:?}: {}", String::from_utf8_lossy(&result.stderr));
}

/// Returns the part of an image's configuration that a container uses: everything but times,
/// layers and history.
fn settings(layout: &archive::Layout) -> Value {
    let mut configuration = layout.configuration();
    for field in ["created", "rootfs", "history"] {
        configuration.as_object_mut().unwrap().remove(field);
    }
    configuration
}
