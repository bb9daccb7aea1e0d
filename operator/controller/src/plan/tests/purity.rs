//! What decides knows no client, no runtime and no clock.

use std::fs;
use std::path::Path;

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
    let mut looked_at = 0;
    for room in ["plan", "observed", "make"] {
        for entry in fs::read_dir(source.join(room)).expect("the room is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(&path).expect("text");
            looked_at += 1;
            for word in forbidden {
                assert!(!text.contains(word), "{} names {word}", path.display());
            }
        }
    }
    assert!(looked_at > 15, "only {looked_at} files were found");
}
