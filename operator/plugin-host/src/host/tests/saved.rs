//! Image layouts in the form that `cosign save` writes.

use std::path::Path;

use flashjob_artifacts::trust::testing::Keys;
use serde_json::json;

use super::layouts::{COMPONENT, Files, bench, header, obtain};
use super::{Bench, reason};
use crate::host::LoadError;
use crate::{Digest, Signature, Verified};

/// Converts the index to the form that cosign 3.1 writes: kinds instead of names, and no bundles.
fn saved(mut files: Files) -> Files {
    files.entries.retain_mut(|entry| {
        let kind = match entry["annotations"]["org.opencontainers.image.ref.name"].as_str() {
            Some(name) if name.ends_with(".sig") => "sigs",
            Some(_) => "image",
            None => return false,
        };
        entry["annotations"] = json!({"kind": format!("dev.cosignproject.cosign/{kind}")});
        true
    });
    files
}

/// Obtains the artifact from a folder and from an archive, and returns for each whether it is
/// signed.
async fn outcome(
    bench: &Bench,
    files: &Files,
    digest: &Digest,
) -> [Result<bool, &'static str>; 2] {
    let folder = files.folder(bench.folder.path());
    let archive = bench.folder.path().join("layout.tar");
    files.archive(std::fs::File::create(&archive).expect("a file"), "./");
    let mut outcomes = [Ok(false); 2];
    for (outcome, path) in outcomes.iter_mut().zip([&folder, &archive]) {
        *outcome = obtain_new(bench, path, digest)
            .await
            .map(|verified| verified.signed())
            .map_err(|error| error.reason());
    }
    std::fs::remove_dir_all(folder).expect("removed");
    outcomes
}

/// Obtains the artifact with an empty cache.
async fn obtain_new(bench: &Bench, path: &Path, digest: &Digest) -> Result<Verified, LoadError> {
    let _ = std::fs::remove_dir_all(bench.folder.path().join("cache"));
    obtain(bench, path, &format!("@{digest}")).await
}

#[tokio::test]
async fn what_cosign_saved_is_verified_in_both_forms_and_signatures_of_others_do_not_count() {
    let keys = Keys::new();
    let (files, digest) = Files::new();
    let bench = bench(&keys);
    let (own_bundle, other_bundle) =
        (keys.signed_bundle(0, &digest), keys.signed_bundle(1, &digest));
    let elsewhere = Digest::of(b"other");
    for (signatures, expected) in [
        (vec![], Err("Unsigned")),
        (vec![keys.simple(0, &digest)], Ok(true)),
        (vec![own_bundle.clone()], Ok(true)),
        (vec![keys.simple(1, &digest), other_bundle.clone(), own_bundle], Ok(true)),
        (vec![keys.simple(1, &digest), other_bundle], Err("WrongKey")),
        (vec![keys.simple(0, &elsewhere)], Err("OtherDigest")),
        (vec![keys.signed_bundle(0, &elsewhere)], Err("OtherDigest")),
    ] {
        let mut files = files.clone();
        signatures.iter().for_each(|signature| files.sign(&digest, signature));
        assert_eq!(outcome(&bench, &saved(files), &digest).await, [expected; 2], "{signatures:?}");
    }
}

#[tokio::test]
async fn a_changed_blob_of_a_saved_signature_is_refused() {
    let keys = Keys::new();
    let (files, digest) = Files::new();
    let bench = bench(&keys);
    for signature in [keys.simple(0, &digest), keys.signed_bundle(0, &digest)] {
        let mut files = files.clone();
        files.sign(&digest, &signature);
        let files = saved(files);
        // The signature itself, then the manifest around it.
        for blob in [files.blobs.len() - 2, files.blobs.len() - 1] {
            let folder = files.folder(bench.folder.path());
            let file = folder.join("blobs/sha256").join(Digest::of(&files.blobs[blob]).hex());
            let text = String::from_utf8_lossy(&files.blobs[blob]);
            // In the signed content, and in the manifests around it.
            let changed = text
                .replace("\"schemaVersion\":2", "\"schemaVersion\":1")
                .replace("signatures", "Signatures")
                .replace("cosign", "Cosign");
            assert_ne!(text, changed);
            std::fs::write(file, changed).expect("written");
            let error =
                obtain_new(&bench, &folder, &digest).await.map(|_| ()).expect_err("refused");
            assert_eq!(error.reason(), "SignaturesUnavailable", "{error}");
            assert!(error.to_string().contains("was changed"), "{error}");
            std::fs::remove_dir_all(folder).expect("removed");
        }
    }
}

#[tokio::test]
async fn blobs_sign_the_image_alone_that_the_index_says_was_saved() {
    let keys = Keys::new();
    let (mut files, digest) = Files::new();
    for signature in [keys.simple(0, &digest), keys.signed_bundle(0, &digest)] {
        files.sign(&digest, &signature);
    }
    let (bench, mut files) = (bench(&keys), saved(files));
    assert_eq!(outcome(&bench, &files, &digest).await, [Ok(true); 2]);
    files.entries[0]["digest"] = json!(Digest::of(b"another image"));
    assert_eq!(outcome(&bench, &files, &digest).await, [Err("Unsigned"); 2]);
    files.entries[0]["digest"] = json!(digest);
    files.entries[0]["annotations"] = json!({});
    assert_eq!(outcome(&bench, &files, &digest).await, [Err("Unsigned"); 2]);
}

#[tokio::test]
async fn of_two_manifests_with_saved_signatures_none_is_taken() {
    let keys = Keys::new();
    let (mut files, digest) = Files::new();
    files.sign(&digest, &keys.simple(0, &digest));
    files.sign(&digest, &keys.simple(1, &digest));
    let bench = bench(&keys);
    assert_eq!(outcome(&bench, &saved(files), &digest).await, [Err("SignaturesUnavailable"); 2]);
}

#[tokio::test]
async fn what_is_large_a_link_or_named_otherwise_is_no_signature_and_too_many_blobs_are_refused() {
    let keys = Keys::new();
    let (mut files, digest) = Files::new();
    let Signature::Bundle(bundle) = keys.signed_bundle(0, &digest) else { panic!("a bundle") };
    files.sign(&digest, &Signature::Bundle(bundle));
    let (bench, mut files) = (bench(&keys), saved(files));
    let manifest = files.blobs.pop().expect("the bundle's manifest");
    let name = format!("blobs/sha256/{}", Digest::of(&manifest).hex());
    let folder = files.folder(bench.folder.path());
    std::fs::create_dir(folder.join("blobs/sha256").join(Digest::of(b"a folder").hex()))
        .expect("a folder");
    std::fs::write(folder.join("blobs/sha256/signature"), &manifest).expect("written");
    assert_eq!(reason(obtain_new(&bench, &folder, &digest).await), "Unsigned", "another name");
    std::os::unix::fs::symlink("signature", folder.join(&name)).expect("a link");
    assert_eq!(reason(obtain_new(&bench, &folder, &digest).await), "Unsigned", "a link");
    std::fs::remove_file(folder.join(&name)).expect("removed");
    let large = [manifest.as_slice(), &[b' '; 64 << 10]].concat();
    std::fs::write(folder.join("blobs/sha256").join(Digest::of(&large).hex()), &large)
        .expect("written");
    assert_eq!(reason(obtain_new(&bench, &folder, &digest).await), "Unsigned", "a large one");
    std::fs::write(folder.join(&name), &manifest).expect("written");
    obtain_new(&bench, &folder, &digest).await.expect("signed");
    for number in 0..8192 {
        std::fs::write(folder.join(format!("blobs/sha256/{number}")), "").expect("written");
    }
    let many = obtain_new(&bench, &folder, &digest).await.map(|_| ()).expect_err("refused");
    assert!(many.to_string().contains("more than 8192 files"), "{many}");
    std::fs::remove_dir_all(folder).expect("removed");

    let mut bytes = Vec::new();
    files.archive(&mut bytes, "");
    // Before the two empty blocks that end an archive.
    bytes.truncate(bytes.len() - 1024);
    let mut writer = tar::Builder::new(bytes);
    writer
        .append_data(&mut header(manifest.len()), "signature", manifest.as_slice())
        .expect("appended");
    let mut link = header(0);
    link.set_entry_type(tar::EntryType::Link);
    writer.append_link(&mut link, &name, "signature").expect("appended");
    let archive = bench.folder.path().join("links.tar");
    std::fs::write(&archive, writer.into_inner().expect("finished")).expect("written");
    assert_eq!(
        reason(obtain_new(&bench, &archive, &digest).await),
        "Unsigned",
        "a link in an archive"
    );

    files.blobs.push(manifest);
    assert_eq!(outcome(&bench, &files, &digest).await, [Ok(true); 2]);
    files.blobs.extend((0..513_u32).map(|number| number.to_le_bytes().to_vec()));
    assert_eq!(
        outcome(&bench, &files, &digest).await,
        [Err("SignaturesUnavailable"); 2],
        "more small blobs than are looked at"
    );
    assert!(files.blobs.iter().any(|blob| blob == COMPONENT), "and not for want of the component");
}
