//! Tests that no rule reads a clock, a file or the environment. That none depends on a client or a
//! runtime follows from Cargo.toml.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[test]
fn no_rule_reads_a_clock_a_file_or_the_environment() {
    let forbidden =
        ["::now()", ".elapsed()", "std::fs", "std::env", "std::net::Tcp", "std::thread"];
    let files = files();
    for path in &files {
        let text = fs::read_to_string(path).expect("text");
        for word in forbidden {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
    let of_a_subfolder = |path: &PathBuf| path.ends_with("observed/pod/state.rs");
    assert!(files.iter().any(of_a_subfolder), "subfolders were not looked into: {files:?}");
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files except tests.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let collected = collect(&source(), &mut files);
    assert!(collected.is_ok(), "{collected:?}");
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true if path.ends_with("tests") => {}
            true => collect(&path, files)?,
            false if path.ends_with("tests.rs") => {}
            false => files.push(path),
        }
    }
    Ok(())
}
