//! Tests that no rule reads a clock, a file or the environment, and that the modules keep their
//! order. That none knows a client or a runtime is in Cargo.toml.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flashjob_xtask::modules::uses;

/// The modules, each before those that may use it.
const MODULES: [&str; 10] = [
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

#[test]
fn a_module_uses_only_those_before_it() {
    let uses = uses(&source().join("lib.rs")).expect("uses");
    let rule = "crate::flashjob::plan::guards";
    assert!(uses[rule].contains("crate::flashjob::plan::draft"), "the uses were not found");
    for (module, used) in uses {
        let Some(own) = place(&module) else { continue };
        for used in used {
            let is_before = place(&used).is_none_or(|place| place <= own);
            assert!(is_before, "{module} uses {used}, which is above it");
        }
    }
}

/// Place of the part of the crate to which a module belongs; None: it belongs to none.
fn place(module: &str) -> Option<usize> {
    let is_part = |part: &&str| {
        module.strip_prefix(*part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    MODULES.iter().position(is_part)
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files, but for tests.
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
