//! Test that the code that decides knows no client, no runtime and no clock.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn plan_observed_and_make_import_no_client_no_runtime_and_no_clock() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let forbidden = [
        "kube::Client",
        "kube::Api",
        "kube::client",
        "kube::runtime",
        "tokio",
        "Timestamp::now",
        "SystemTime",
        "Instant::",
    ];
    let mut files = Vec::new();
    for room in ["plan", "observed", "make"] {
        collect(&source.join(room), &mut files);
    }
    for path in &files {
        let text = fs::read_to_string(path).expect("text");
        for word in forbidden {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
    let of_a_subfolder = |path: &PathBuf| path.ends_with("observed/pod/state.rs");
    assert!(files.iter().any(of_a_subfolder), "subfolders were not looked into: {files:?}");
}

/// All files of a folder and of those below it, but for tests.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the room is there") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true if path.ends_with("tests") => {}
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}
