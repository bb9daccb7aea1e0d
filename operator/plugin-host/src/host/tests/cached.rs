//! Tampered caches: an entry with a wrong digest is fetched again, and never trusted.

use std::path::Path;

use flashjob_artifacts::fake_registry::{Fake, manifest};
use flashjob_artifacts::trust::testing::{BOTH, Keys};

use super::mirrors::{COMPONENT, mirror, signed};
use super::{Bench, reason};
use crate::Digest;
use crate::Signature;
use crate::config::{PullPolicy, RequiredKeys};

/// Returns a warm cache of a signed component, the registry that it came from, and the folder of
/// keys.
async fn warm() -> (Bench, Fake, Keys) {
    let keys = Keys::new();
    let digest = Digest::of(manifest(COMPONENT, COMPONENT.len()).as_bytes());
    let Signature::Bundle(bundle) = keys.signed_bundle(0, &digest) else { panic!("a bundle") };
    let registry = mirror(signed(&bundle)).await;
    let mut trust = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    trust[0].pattern = format!("{}/**", registry.host);
    let mut bench = Bench::new(trust);
    bench.registries = vec![registry.config()];
    assert!(
        bench
            .obtain(&reference(&registry), PullPolicy::IfNotPresent)
            .await
            .expect("obtained")
            .signed()
    );
    (bench, registry, keys)
}

fn reference(registry: &Fake) -> String {
    format!("{}/a/b:1", registry.host)
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).expect("written");
}

#[tokio::test]
async fn a_warm_cache_needs_no_registry() {
    let (bench, registry, _keys) = warm().await;
    let reference = reference(&registry);
    let request_count = registry.asked().len();
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Never] {
        assert!(bench.obtain(&reference, policy).await.expect("cached").signed());
    }
    assert_eq!(registry.asked().len(), request_count);
}

#[tokio::test]
async fn what_changed_in_the_cache_is_fetched_again_and_refused_where_nothing_is_fetched() {
    for part in ["blobs", "signatures"] {
        let (bench, registry, _keys) = warm().await;
        let reference = reference(&registry);
        let folder = bench.folder.path().join("cache").join(part);
        for file in files(&folder) {
            let good = std::fs::read(&file).expect("read");
            flip(&file);
            // An unreadable signature counts as absent; an altered one is reported as such.
            let expected: &[&str] = if part == "blobs" {
                &["NotCached"]
            } else {
                &["Unsigned", "SignatureBroken", "WrongKey"]
            };
            let refused = reason(bench.obtain(&reference, PullPolicy::Never).await);
            assert!(expected.contains(&refused), "{}: {refused}", file.display());
            let request_count = registry.asked().len();
            let again =
                bench.obtain(&reference, PullPolicy::IfNotPresent).await.expect("fetched again");
            assert_eq!((again.content(), again.signed()), (COMPONENT, true));
            assert!(registry.asked().len() > request_count, "{} was believed", file.display());
            assert_eq!(std::fs::read(&file).expect("read"), good, "the cache is put right");
        }
    }
}

#[tokio::test]
async fn a_tag_that_points_elsewhere_in_the_cache_leads_to_nothing_that_is_not_trusted() {
    let (bench, registry, _keys) = warm().await;
    let reference = reference(&registry);
    let cache = bench.folder.path().join("cache");
    let other = manifest(b"evil", 4);
    for blob in [other.as_bytes(), b"evil"] {
        std::fs::write(cache.join("blobs").join(Digest::of(blob).hex()), blob).expect("written");
    }
    for tag in files(&cache.join("tags")) {
        std::fs::write(tag, Digest::of(other.as_bytes()).to_string()).expect("written");
    }
    assert_eq!(reason(bench.obtain(&reference, PullPolicy::Never).await), "Unsigned");
}
