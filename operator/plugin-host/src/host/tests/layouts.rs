//! Image layouts: folders and archives.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flashjob_artifacts::fake_registry::manifest;
use flashjob_artifacts::trust::BUNDLE;
use flashjob_artifacts::trust::testing::{BOTH, Keys};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::{Bench, reason, unsigned};
use crate::config::{PullPolicy, RequiredKeys, TrustEntry};
use crate::host::LoadError;
use crate::{Digest, RegistryError, Signature, Verified};

pub(super) const COMPONENT: &[u8] = b"component";

/// Files of a layout in memory.
#[derive(Clone)]
pub(super) struct Files {
    pub blobs: Vec<Vec<u8>>,
    pub entries: Vec<Value>,
}

impl Files {
    /// Returns one component with tag 0.1.0, and the digest of its manifest.
    pub fn new() -> (Self, Digest) {
        let mut files = Self { blobs: vec![COMPONENT.to_vec()], entries: Vec::new() };
        let digest = files.add(manifest(COMPONENT, COMPONENT.len()).as_bytes(), Some("0.1.0"));
        (files, digest)
    }

    pub fn add(&mut self, manifest: &[u8], name: Option<&str>) -> Digest {
        let digest = Digest::of(manifest);
        self.blobs.push(manifest.to_vec());
        let mut entry = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": manifest.len(),
        });
        if let Some(name) = name {
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        self.entries.push(entry);
        digest
    }

    /// Adds a signature where its form is stored.
    pub fn sign(&mut self, of: &Digest, signature: &Signature) {
        let empty = json!({
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"),
            "size": 2,
        });
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": empty,
        });
        let name = match signature {
            Signature::Simple { payload, signature, .. } => {
                let payload = STANDARD.decode(payload).expect("base64");
                manifest["layers"] = json!([{
                    "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                    "digest": Digest::of(&payload), "size": payload.len(),
                    "annotations": {"dev.cosignproject.cosign/signature": signature},
                }]);
                self.blobs.push(payload);
                Some(format!("sha256-{}.sig", of.hex()))
            }
            Signature::Bundle(bundle) => {
                manifest["layers"] = json!([{
                    "mediaType": BUNDLE, "digest": Digest::of(bundle.as_bytes()),
                    "size": bundle.len(),
                }]);
                manifest["subject"] = json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": of,
                    "size": 1,
                });
                self.blobs.push(bundle.clone().into_bytes());
                None
            }
        };
        self.add(manifest.to_string().as_bytes(), name.as_deref());
    }

    fn all(&self) -> Vec<(String, Vec<u8>)> {
        let index =
            json!({"schemaVersion": 2, "manifests": self.entries}).to_string().into_bytes();
        let blobs = self
            .blobs
            .iter()
            .map(|blob| (format!("blobs/sha256/{}", Digest::of(blob).hex()), blob.clone()));
        let marker = br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec();
        blobs
            .chain([("index.json".to_owned(), index), ("oci-layout".to_owned(), marker)])
            .collect()
    }

    pub fn folder(&self, at: &Path) -> PathBuf {
        let folder = at.join("layout");
        std::fs::create_dir_all(folder.join("blobs/sha256")).expect("a folder");
        for (name, bytes) in self.all() {
            std::fs::write(folder.join(name), bytes).expect("written");
        }
        folder
    }

    pub fn archive(&self, writer: impl Write, prefix: &str) {
        let mut archive = tar::Builder::new(writer);
        for (name, bytes) in self.all() {
            archive
                .append_data(&mut header(bytes.len()), format!("{prefix}{name}"), bytes.as_slice())
                .expect("appended");
        }
        archive.into_inner().expect("finished").flush().expect("flushed");
    }
}

pub(super) fn header(size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header
}

pub(super) async fn obtain(bench: &Bench, path: &Path, rest: &str) -> Result<Verified, LoadError> {
    bench.obtain(&format!("oci-layout://{}{rest}", path.display()), PullPolicy::Always).await
}

/// Returns a bench that trusts layouts with a signature of the first key.
pub(super) fn bench(keys: &Keys) -> Bench {
    let trust = keys.trust(&BOTH, RequiredKeys::Any, &[0]).into_iter();
    let of_layouts = |entry: TrustEntry| TrustEntry { pattern: "oci-layout/**".into(), ..entry };
    Bench::new(trust.map(of_layouts).collect())
}

/// Obtains the component from a folder that is removed afterwards; returns true if it is signed.
async fn is_signed(bench: &Bench, files: &Files) -> Result<bool, LoadError> {
    let folder = files.folder(bench.folder.path());
    let obtained = obtain(bench, &folder, ":0.1.0").await;
    std::fs::remove_dir_all(folder).expect("removed");
    obtained.map(|verified| verified.signed())
}

#[tokio::test]
async fn a_component_is_read_from_a_folder_an_archive_and_a_packed_one_by_tag_and_by_digest() {
    let (files, digest) = Files::new();
    let bench = Bench::new(unsigned("oci-layout/**"));
    let (tar, packed) =
        (bench.folder.path().join("plain.tar"), bench.folder.path().join("packed.tar.gz"));
    files.archive(std::fs::File::create(&tar).expect("a file"), "");
    files.archive(
        GzEncoder::new(std::fs::File::create(&packed).expect("a file"), Compression::fast()),
        "./",
    );
    for path in [files.folder(bench.folder.path()), tar, packed] {
        for rest in [":0.1.0".to_owned(), format!("@{digest}"), format!(":0.1.0@{digest}")] {
            let verified = obtain(&bench, &path, &rest).await.expect("obtained");
            assert_eq!(
                (verified.content(), verified.digest(), verified.signed()),
                (COMPONENT, &digest, false)
            );
            std::fs::remove_dir_all(bench.folder.path().join("cache")).expect("emptied");
        }
    }
}

#[tokio::test]
async fn an_archive_of_several_gzip_members_is_read_to_its_end() {
    let (files, digest) = Files::new();
    let bench = Bench::new(unsigned("oci-layout/**"));
    let mut archive = Vec::new();
    files.archive(&mut archive, "");
    // Parallel compressors and `cat` write such files.
    let mut members = Vec::new();
    for part in archive.chunks(700) {
        let mut encoder = GzEncoder::new(&mut members, Compression::fast());
        encoder.write_all(part).expect("written");
        encoder.finish().expect("finished");
    }
    let path = bench.folder.path().join("members.tar.gz");
    std::fs::write(&path, members).expect("written");
    let verified = obtain(&bench, &path, ":0.1.0").await.expect("obtained");
    assert_eq!((verified.content(), verified.digest()), (COMPONENT, &digest));
}

#[tokio::test]
async fn what_is_missing_changed_ambiguous_or_too_large_is_refused_by_its_name() {
    let (mut files, digest) = Files::new();
    let large = manifest(&[0; 1001], 1001);
    files.add(large.as_bytes(), Some("large"));
    files.add(
        br#"{
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": []
        }"#,
        Some("index"),
    );
    files.add(b"one", Some("registry.example/a:twice"));
    files.add(b"two", Some("twice"));
    let bench = Bench::new(unsigned("oci-layout/**"));
    let folder = files.folder(bench.folder.path());
    for (rest, expected) in [
        (":0.2.0".to_owned(), "NotFound"),
        (format!("@{}", Digest::of(b"nothing")), "NotFound"),
        (":large".to_owned(), "TooLarge"),
        (":index".to_owned(), "NotAPlugin"),
        (":twice".to_owned(), "NotAPlugin"),
    ] {
        assert_eq!(reason(obtain(&bench, &folder, &rest).await), expected, "{rest}");
    }
    for changed in [Digest::of(COMPONENT), digest] {
        std::fs::write(folder.join("blobs/sha256").join(changed.hex()), b"other")
            .expect("written");
        assert_eq!(reason(obtain(&bench, &folder, ":0.1.0").await), "DigestMismatch");
    }
    std::fs::remove_file(folder.join("oci-layout")).expect("removed");
    assert_eq!(reason(obtain(&bench, &folder, ":0.1.0").await), "LayoutUnreadable");
    assert_eq!(
        reason(obtain(&bench, Path::new("/nonexistent"), ":0.1.0").await),
        "LayoutUnreadable"
    );
}

#[tokio::test]
async fn an_archive_gives_plain_files_alone_and_is_not_read_without_end() {
    let (files, digest) = Files::new();
    let bench = Bench::new(unsigned("oci-layout/**"));
    let path = bench.folder.path().join("links.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&path).expect("a file"));
    for (name, bytes) in files.all() {
        // The component is a link to a file with its bytes, in the archive and on disk.
        if name.ends_with(Digest::of(COMPONENT).hex()) {
            std::fs::write(bench.folder.path().join("elsewhere"), &bytes).expect("written");
            archive
                .append_data(&mut header(bytes.len()), "elsewhere", bytes.as_slice())
                .expect("appended");
            for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
                let mut link = header(0);
                link.set_entry_type(kind);
                archive.append_link(&mut link, &name, "elsewhere").expect("appended");
            }
        } else {
            archive
                .append_data(&mut header(bytes.len()), name, bytes.as_slice())
                .expect("appended");
        }
    }
    archive.into_inner().expect("finished");
    assert_eq!(reason(obtain(&bench, &path, ":0.1.0").await), "NotFound");
    let path = bench.folder.path().join("large.tar");
    let mut file = std::fs::File::create(&path).expect("a file");
    let mut large = header(300 << 20);
    large.set_path("other").expect("a name");
    large.set_cksum();
    file.write_all(large.as_bytes()).expect("written");
    file.seek(SeekFrom::Current(300 << 20)).expect("a hole");
    files.archive(file, "");
    let error =
        obtain(&bench, &path, &format!("@{digest}")).await.map(|_| ()).expect_err("refused");
    assert!(error.to_string().contains("256 MiB"), "{error}");
    std::fs::write(&path, b"\x1f\x8bno gzip").expect("written");
    assert_eq!(reason(obtain(&bench, &path, ":0.1.0").await), "LayoutUnreadable");
}

#[tokio::test]
async fn an_archive_whose_limit_is_between_two_files_is_not_read_as_if_it_ended_there() {
    let (files, digest) = Files::new();
    let bench = Bench::new(unsigned("oci-layout/**"));
    let path = bench.folder.path().join("large.tar");
    let mut file = std::fs::File::create(&path).expect("a file");
    // One file that, with its header, is exactly as long as what is read.
    let size = (256 << 20) - 512;
    let mut large = header(size);
    large.set_path("other").expect("a name");
    large.set_cksum();
    file.write_all(large.as_bytes()).expect("written");
    file.seek(SeekFrom::Current(i64::try_from(size).expect("a size"))).expect("a hole");
    files.archive(file, "");
    let error =
        obtain(&bench, &path, &format!("@{digest}")).await.map(|_| ()).expect_err("refused");
    assert_eq!(error.reason(), "LayoutUnreadable", "{error}");
    assert!(error.to_string().contains("256 MiB"), "{error}");
}

#[tokio::test]
async fn signatures_in_a_layout_count_in_both_forms_and_those_of_others_do_not() {
    let keys = Keys::new();
    let (files, digest) = Files::new();
    let bench = bench(&keys);
    let outcome = async |signatures: &[Signature]| {
        let mut files = files.clone();
        signatures.iter().for_each(|signature| files.sign(&digest, signature));
        is_signed(&bench, &files).await.map_err(|error| error.reason())
    };
    assert_eq!(outcome(&[]).await, Err("Unsigned"));
    assert_eq!(outcome(&[keys.simple(0, &digest)]).await, Ok(true));
    assert_eq!(outcome(&[keys.signed_bundle(0, &digest)]).await, Ok(true));
    assert_eq!(outcome(&[keys.simple(1, &digest)]).await, Err("WrongKey"));
    assert_eq!(outcome(&[keys.signed_bundle(0, &Digest::of(b"other"))]).await, Err("OtherDigest"));
}

#[tokio::test]
async fn an_index_with_more_manifests_than_are_searched_for_signatures_is_refused() {
    let keys = Keys::new();
    let (files, digest) = Files::new();
    let bench = bench(&keys);
    // The plugin, the others, and the signature as the last entry.
    let outcome = async |others: u32| {
        let mut files = files.clone();
        for number in 0..others {
            files.add(&number.to_le_bytes(), None);
        }
        files.sign(&digest, &keys.signed_bundle(0, &digest));
        is_signed(&bench, &files).await.map_err(|error| error.to_string())
    };
    let error = outcome(511).await.expect_err("refused");
    for expected in ["more than 512 manifests", "/layout", "into an empty layout"] {
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(outcome(510).await, Ok(true));
}

#[tokio::test]
async fn a_layout_with_more_signatures_than_are_examined_is_signed_if_one_of_those_is_good() {
    let keys = Keys::new();
    let (files, digest) = Files::new();
    let trust = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    let trust = trust
        .into_iter()
        .map(|entry| TrustEntry { pattern: "oci-layout/**".into(), ..entry })
        .collect();
    let bench = Bench::new(trust);
    let Signature::Bundle(by_another) = keys.signed_bundle(1, &digest) else { panic!("a bundle") };
    // The number of others before the good signature. Each has another number of spaces at its
    // end.
    let outcome = async |others: usize| {
        let mut files = files.clone();
        let good = [keys.signed_bundle(0, &digest)];
        let other =
            |spaces: usize| Signature::Bundle(format!("{by_another}{}", " ".repeat(spaces)));
        let signatures = (0..others).map(other).chain(good).chain((others..64).map(other));
        signatures.for_each(|signature| files.sign(&digest, &signature));
        let folder = files.folder(bench.folder.path());
        let obtained = obtain(&bench, &folder, ":0.1.0").await;
        std::fs::remove_dir_all(folder).expect("removed");
        obtained.map(|verified| verified.signed())
    };
    assert!(outcome(63).await.expect("the last one that is examined"));
    let error = outcome(64).await.expect_err("it is not examined");
    assert_eq!(error.reason(), "SignaturesUnavailable", "{error}");
    for expected in ["/layout@sha256:", "65 attachments, but only 64 signatures"] {
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_layout_is_trusted_by_its_path_and_never_by_what_it_calls_its_content() {
    let (mut files, _) = Files::new();
    files.add(
        manifest(COMPONENT, COMPONENT.len()).as_bytes(),
        Some("registry.example/flashjob/esp32:0.1.0"),
    );
    let mut bench = Bench::new(unsigned("registry.example/**"));
    let folder = files.folder(bench.folder.path());
    assert_eq!(reason(obtain(&bench, &folder, ":0.1.0").await), "NotTrusted");
    bench.trust = unsigned("oci-layout/nonexistent/**");
    assert_eq!(reason(obtain(&bench, &folder, ":0.1.0").await), "NotTrusted");
    bench.trust = unsigned(&format!("oci-layout{}", folder.display()));
    obtain(&bench, &folder, ":0.1.0").await.expect("trusted");
}

#[tokio::test]
async fn what_was_read_from_a_layout_is_there_without_it_unless_it_is_always_asked() {
    let keys = Keys::new();
    let (mut files, digest) = Files::new();
    files.sign(&digest, &keys.signed_bundle(0, &digest));
    let bench = bench(&keys);
    let folder = files.folder(bench.folder.path());
    let reference = format!("oci-layout://{}:0.1.0", folder.display());
    bench.obtain(&reference, PullPolicy::IfNotPresent).await.expect("obtained");
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(bench.obtain(&reference, PullPolicy::IfNotPresent).await.expect("cached").signed());
    let error =
        bench.obtain(&reference, PullPolicy::Always).await.map(|_| ()).expect_err("it is gone");
    assert!(matches!(error, LoadError::Fetch(RegistryError::Layout { .. })), "{error}");
}
