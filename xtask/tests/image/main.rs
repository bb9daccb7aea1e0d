//! Tests of the images that this program writes: their contents are correct and the same
//! everywhere, a container engine builds the same image from the Dockerfile, and the operator's
//! image starts with the user and the root folder that it has in a cluster.

#![allow(clippy::unwrap_used, reason = "a test fails where one of its steps does")]

mod archive;
mod engine;
mod layout;
mod operator;
mod rootfs;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Root folder of this repository.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Prints to standard error why a test is skipped. The test runner captures the output of macros,
/// and shows it only for failed tests.
fn skip(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped {test}: {reason}");
}

/// Returns true if a command is installed.
fn installed(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

fn root() -> bool {
    let user = Command::new("id").arg("-u").output().unwrap();
    user.stdout == b"0\n"
}
