//! Reads the contents of an OCI archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tar::Archive;

/// An archive's files by name.
pub struct Layout(BTreeMap<PathBuf, Vec<u8>>);

/// A file, folder or link of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub kind: tar::EntryType,
    pub mode: u32,
    pub owner: (u64, u64),
    /// Digest of a file's content, or target of a link.
    pub content: String,
    pub size: u64,
}

impl Layout {
    pub fn open(path: &Path) -> Self {
        let mut archive = Archive::new(File::open(path).unwrap());
        let mut files = BTreeMap::new();
        for file in archive.entries().unwrap() {
            let mut file = file.unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            files.insert(file.path().unwrap().components().collect(), content);
        }
        Self(files)
    }

    pub fn index(&self) -> Value {
        serde_json::from_slice(&self.0[Path::new("index.json")]).unwrap()
    }

    fn blob(&self, descriptor: &Value) -> &[u8] {
        let name = descriptor["digest"].as_str().unwrap();
        let content = &self.0[&Path::new("blobs").join(name.replace(':', "/"))];
        assert_eq!(digest(content), name);
        content
    }

    pub fn json(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(self.blob(descriptor)).unwrap()
    }

    /// Returns the configuration of the only image.
    pub fn configuration(&self) -> Value {
        let manifest = self.json(&self.index()["manifests"][0]);
        self.json(&manifest["config"])
    }

    /// Returns the uncompressed layers of the only image, after comparing them with the digests in
    /// its configuration.
    pub fn layers(&self) -> Vec<Vec<u8>> {
        let manifest = self.json(&self.index()["manifests"][0]);
        let digests = self.configuration()["rootfs"]["diff_ids"].as_array().unwrap().clone();
        let layers = manifest["layers"].as_array().unwrap().iter().map(|descriptor| {
            let mut layer = Vec::new();
            GzDecoder::new(self.blob(descriptor)).read_to_end(&mut layer).unwrap();
            layer
        });
        let layers: Vec<_> = layers.collect();
        let layer_digests: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        assert_eq!(Value::from(layer_digests), Value::from(digests));
        layers
    }

    /// Returns all entries of the only image's layers, without the root folder, which not every
    /// engine writes.
    pub fn entries(&self) -> BTreeMap<PathBuf, Entry> {
        let mut entries = BTreeMap::new();
        for layer in self.layers() {
            for entry in Archive::new(layer.as_slice()).entries().unwrap() {
                let (path, entry) = read(entry.unwrap());
                entries.insert(path, entry);
            }
        }
        entries.remove(Path::new(""));
        entries
    }
}

fn read(mut entry: tar::Entry<&[u8]>) -> (PathBuf, Entry) {
    let path = entry.path().unwrap();
    let path = path.strip_prefix("/").unwrap_or(&path).components().collect();
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    let content = match entry.link_name().unwrap() {
        Some(target) => target.display().to_string(),
        None => digest(&content),
    };
    let header = entry.header();
    let owner = (header.uid().unwrap(), header.gid().unwrap());
    let (kind, mode) = (header.entry_type(), header.mode().unwrap() & 0o7777);
    (path, Entry { kind, mode, owner, content, size: header.size().unwrap() })
}

fn digest(content: &[u8]) -> String {
    let digits =
        Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{digits}")
}
