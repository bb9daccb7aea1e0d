//! On-disk cache of fetched artifacts and compiled code. Every entry is hashed again when it is
//! read; one whose hash does not match counts as absent.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Digest, Signature};

/// Folder of the cache. No other process may write into it, because compiled code from it is
/// executed.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        // The folder may be an empty volume, as after each start of a Pod with emptyDir.
        for part in ["blobs", "tags", "signatures", "compiled"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Returns a manifest or component by its digest.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.blob_path(digest)).ok()?;
        // A damaged entry is fetched again, in place of an error that somebody would have to
        // repair.
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> std::io::Result<()> {
        put(&self.blob_path(digest), bytes)
    }

    /// Returns the digest that a reference last resolved to.
    pub fn resolved(&self, reference: &str) -> Option<Digest> {
        std::fs::read_to_string(self.tag_path(reference)).ok()?.trim().parse().ok()
    }

    pub fn put_resolved(&self, reference: &str, digest: &Digest) -> std::io::Result<()> {
        put(&self.tag_path(reference), digest.to_string().as_bytes())
    }

    /// Returns the cached signatures of a digest. They are not trusted for being cached: every
    /// load verifies them.
    pub fn signatures(&self, repository: &str, digest: &Digest) -> Vec<Signature> {
        let bytes = std::fs::read(self.signatures_path(repository, digest)).unwrap_or_default();
        // Signatures that cannot be read count as none cached, so the registry is asked for them.
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub fn put_signatures(
        &self,
        repository: &str,
        digest: &Digest,
        signatures: &[Signature],
    ) -> std::io::Result<()> {
        put(&self.signatures_path(repository, digest), &serde_json::to_vec(signatures)?)
    }

    /// Returns the code compiled for exactly this engine. The returned bytes are the ones that
    /// were hashed.
    pub fn compiled(&self, digest: &Digest, engine: &str) -> Option<Vec<u8>> {
        let mut code = std::fs::read(self.compiled_path(digest, engine)).ok()?;
        // The file is read only once: it could change between hashing and loading.
        let begin = code.iter().position(|byte| *byte == b'\n')? + 1;
        let expected: Digest =
            std::str::from_utf8(&code[..begin]).ok()?.trim_end().parse().ok()?;
        code.drain(..begin);
        (Digest::of(&code) == expected).then_some(code)
    }

    /// Writes digest and code to one file: after two concurrent writes the file holds the code and
    /// the digest of the same writer.
    pub fn put_compiled(&self, digest: &Digest, engine: &str, code: &[u8]) -> std::io::Result<()> {
        let begin = format!("{}\n", Digest::of(code)).into_bytes();
        put(&self.compiled_path(digest, engine), &[begin.as_slice(), code].concat())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.hex())
    }

    fn signatures_path(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.folder
            .join("signatures")
            .join(Digest::of(format!("{repository}@{digest}").as_bytes()).hex())
    }

    fn tag_path(&self, reference: &str) -> PathBuf {
        // A reference has slashes and may exceed the 255 bytes of a file name, so its digest is
        // the name.
        self.folder.join("tags").join(Digest::of(reference.as_bytes()).hex())
    }

    fn compiled_path(&self, digest: &Digest, engine: &str) -> PathBuf {
        self.folder.join("compiled").join(format!("{}-{engine}.cwasm", digest.hex()))
    }
}

/// Writes to a temporary file and renames it, so that no reader sees a partial file.
fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    // Nothing is synced to disk: an entry that a power failure truncates fails its hash.
    file.persist(path)?;
    Ok(())
}

/// Returns a key that distinguishes the compiled code of incompatible engines.
pub(crate) fn engine_key(engine: &wasmtime::Engine) -> String {
    // Its algorithm may change between Rust versions; then everything is compiled once more.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back_for_the_same_engine_and_repository() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("opened");
        let digest = Digest::of(b"component");
        cache.put_blob(&digest, b"component").expect("stored");
        cache.put_compiled(&digest, "engine", b"code\nmore").expect("stored");
        assert_eq!(cache.blob(&digest).as_deref(), Some(&b"component"[..]));
        assert_eq!(cache.compiled(&digest, "engine").as_deref(), Some(&b"code\nmore"[..]));
        assert_eq!(cache.compiled(&digest, "other"), None);
    }

    #[test]
    fn a_blob_and_compiled_code_are_a_miss_whichever_bit_flipped_and_wherever_they_were_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("opened");
        let digest = Digest::of(b"component");
        cache.put_blob(&digest, b"component").expect("stored");
        cache.put_compiled(&digest, "engine", b"code").expect("stored");
        for path in [cache.blob_path(&digest), cache.compiled_path(&digest, "engine")] {
            let good = std::fs::read(&path).expect("read");
            let flipped = (0..good.len() * 8).map(|bit| {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                bad
            });
            for bad in flipped.chain((0..good.len()).map(|end| good[..end].to_vec())) {
                std::fs::write(&path, &bad).expect("written");
                let is_blob = path == cache.blob_path(&digest);
                assert_eq!(
                    if is_blob { cache.blob(&digest) } else { cache.compiled(&digest, "engine") },
                    None,
                    "{bad:?}"
                );
            }
        }
    }
}
