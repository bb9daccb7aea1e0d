//! Tests that no rule reads a clock, a file or the environment, and that the modules form no cycle.
//! That none knows a client or a runtime is in Cargo.toml.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The modules, each before those that may use it.
const MODULES: [&str; 10] = [
    "schedule",
    "firmware",
    "rollout",
    "flashjob/policy",
    "flashjob/grants",
    "flashjob/labels",
    "flashjob/observed",
    "flashjob/make",
    "flashjob/plan",
    "world",
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
    let source = source();
    for path in files() {
        let name = path.strip_prefix(&source).expect("a file of the source").to_string_lossy();
        let is_in = |module: &&str| name.strip_prefix(*module).is_some_and(is_a_part);
        let Some(own) = MODULES.iter().position(is_in) else { continue };
        let text = fs::read_to_string(&path).expect("text");
        for above in &MODULES[own + 1..] {
            let word = format!("crate::{}", above.replace('/', "::"));
            let used =
                text.match_indices(&word).any(|(at, _)| ends_there(&text[at + word.len()..]));
            assert!(!used, "{name} uses {above}, which is above it");
        }
    }
}

/// Returns true for the rest of a path that is this very module's file, or below it.
fn is_a_part(rest: &str) -> bool {
    rest == ".rs" || rest.starts_with('/')
}

/// Returns true if a name ends before this text.
fn ends_there(rest: &str) -> bool {
    !rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
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
