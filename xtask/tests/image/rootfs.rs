//! Runs the script that lays out an image's root folder.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::{installed, repository, skip};

/// Runs deploy/image/rootfs.sh.
pub fn run(arguments: &[&OsStr]) -> Output {
    run_with(arguments, None)
}

fn run_with(arguments: &[&OsStr], libraries: Option<&Path>) -> Output {
    let mut command = Command::new(repository().join("deploy/image/rootfs.sh"));
    if let Some(folder) = libraries {
        command.env("LIBRARY_PATH", folder);
    }
    command.args(arguments).output().unwrap()
}

#[test]
fn a_library_that_is_missing_or_without_a_licence_stops_the_build() {
    if !installed("dpkg-query") {
        return skip("a_library_that_is_missing_…", "needs Debian or Ubuntu");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("library.c"), "int answer(void) { return 42; }").unwrap();
    fs::write(path("program.c"), "int answer(void); int main(void) { return answer(); }").unwrap();
    compile(folder.path(), &["-shared", "-fPIC", "-o", "libnowhere.so", "library.c"]);
    compile(folder.path(), &["-o", "program", "program.c", "-L.", "-lnowhere"]);

    let (program, output) = (path("program"), path("root"));
    let arguments = ["--program".as_ref(), program.as_ref(), "--output".as_ref(), output.as_ref()];
    for (libraries, named) in [
        (None, "needs the library libnowhere.so, which is not installed"),
        (Some(folder.path()), "no Debian package has this file, so its licence is not known"),
    ] {
        let result = run_with(&arguments, libraries);
        let text = String::from_utf8_lossy(&result.stderr);
        assert!(!result.status.success() && text.contains(named), "{text}");
    }
}

#[test]
fn another_base_image_brings_its_own_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_flashjob-xtask"));
    let result = run(&[
        "--program".as_ref(),
        program.as_ref(),
        "--base".as_ref(),
        "debian".as_ref(),
        "--output".as_ref(),
        folder.path().as_ref(),
    ]);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["usr"]);
    assert!(folder.path().join("usr/local/bin/flashjob-xtask").is_file());
}

fn compile(folder: &Path, arguments: &[&str]) {
    let status = Command::new("cc").args(arguments).current_dir(folder).status().unwrap();
    assert!(status.success(), "cc {arguments:?}");
}
