//! Images written by this program: what is in them, that they are the same everywhere, that a
//! container engine builds the same from the Dockerfile, and that the operator's starts as the
//! user and with the root folder that it gets in a cluster.

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

/// Says on standard error why a test is skipped. The test runner captures what macros print, and
/// shows it of failed tests alone.
fn skip(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped {test}: {reason}");
}

/// Returns whether a command is installed.
fn installed(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

fn root() -> bool {
    let user = Command::new("id").arg("-u").output().unwrap();
    user.stdout == b"0\n"
}
