//! Tests the operator's image, from the release build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use flashjob_xtask::image::{Layout, Stage};
use tar::{Archive, EntryType};

use crate::archive::{self, Entry};
use crate::{repository, root, skip};

/// Largest size of the image, uncompressed.
const SIZE: u64 = 60_000_000;

/// Writes the image for this machine's architecture; None if there is no release build.
fn written(folder: &Path) -> Option<archive::Layout> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let built = repository().join("target/image").join(architecture);
    if !built.join("image/operator/usr/share/doc/flashjob-operator/NOTICES").is_file() {
        return None;
    }
    let stage = Stage {
        dockerfile: repository().join("Dockerfile"),
        target: "operator".to_owned(),
        contexts: BTreeMap::from([("build".to_owned(), built)]),
        arguments: BTreeMap::new(),
        architecture: architecture.to_owned(),
    };
    let archive = folder.join("operator.tar");
    Layout::new("flashjob-operator", [stage.image().unwrap()]).write_tar(&archive).unwrap();
    Some(archive::Layout::open(&archive))
}

const UNBUILT: &str = "there is no release build; make docker-build CONTAINER_TOOL=layout";

#[test]
fn the_image_is_small_readable_and_licensed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(image) = written(folder.path()) else {
        return skip("the_image_is_small_readable_and_licensed", UNBUILT);
    };
    let entries = image.entries();
    let size: u64 = entries.values().map(|entry| entry.size).sum();
    assert!(size < SIZE, "{size} bytes");
    for (path, entry) in &entries {
        assert!(is_harmless(entry), "{}: {entry:?}", path.display());
    }
    for path in [
        "etc/ssl/certs/ca-certificates.crt",
        "etc/passwd",
        "usr/local/bin/flashjob-operator",
        "usr/share/doc/flashjob-operator/LICENSE",
        "usr/share/doc/flashjob-operator/NOTICES",
    ] {
        assert!(entries.contains_key(Path::new(path)), "{path}");
    }
    let configuration = image.configuration();
    assert_eq!(configuration["config"]["User"], "65532:65532");
}

/// Returns true if everybody can read the entry, only root can write it, and it has no setuid or
/// setgid bit.
fn is_harmless(entry: &Entry) -> bool {
    let expected: &[u32] = match entry.kind {
        EntryType::Directory => &[0o755],
        EntryType::Regular => &[0o644, 0o755],
        EntryType::Symlink => &[0o777],
        _ => &[],
    };
    expected.contains(&entry.mode) && entry.owner == (0, 0)
}

#[test]
fn the_operator_starts_as_its_user_on_a_read_only_root() {
    let test = "the_operator_starts_as_its_user_on_a_read_only_root";
    if !root() {
        return skip(test, "changing the root folder needs root; run the tests as root");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(image) = written(folder.path()) else {
        return skip(test, UNBUILT);
    };
    let root = unpack(&image, folder.path());
    let entrypoint = image.configuration()["config"]["Entrypoint"][0].as_str().unwrap().to_owned();
    for (argument, expected) in
        [("--version", "flashjob-operator "), ("--help", "--leader-election")]
    {
        let (success, output) = run(&root, &[&entrypoint, argument]);
        assert!(success && output.contains(expected), "{argument}: {output}");
    }
    // The operator runs until it reads its kubeconfig, which does not exist.
    let (success, output) = run(&root, &[&entrypoint, "--namespace", "flashjob-system"]);
    assert!(!success && output.contains("kubeconfig"), "{output}");
}

fn unpack(image: &archive::Layout, folder: &Path) -> PathBuf {
    let root = folder.join("root");
    for layer in image.layers() {
        Archive::new(layer.as_slice()).unpack(&root).unwrap();
    }
    root
}

/// Runs a command as the image's user, with the unpacked image as read-only root folder and no
/// other mounts.
fn run(root: &Path, command: &[&str]) -> (bool, String) {
    let script = r#"root=$1; shift
        mount --bind "$root" "$root"
        mount -o remount,bind,ro "$root"
        if touch "$root/written" 2>/dev/null; then
            echo "the root folder can be written" >&2; exit 1
        fi
        exec chroot --userspec=65532:65532 --groups= "$root" "$@""#;
    let result = Command::new("unshare")
        .args(["--mount", "sh", "-euc", script, "sh"])
        .arg(root)
        .args(command)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    let output = [result.stdout, result.stderr].concat();
    (result.status.success(), String::from_utf8_lossy(&output).into_owned())
}
