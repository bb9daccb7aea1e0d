//! Image layouts that no tool writes, and the rules that their contents must keep once read.

use std::collections::BTreeSet;
use std::path::Path;

use super::layout::Layout;
use super::{Place, Source};
use crate::config::every_form;
use crate::registry::{MANIFEST_BYTES, SIGNATURES, image_manifest, layer_of};
use crate::{Digest, RegistryError};

/// Limit that is small enough for short fuzzer inputs to reach it.
const LIMIT: usize = 4096;

/// File of a layout: its name and its content.
type File<'a> = (&'a str, &'a [u8]);
/// The digests of a manifest and its first layer, and the number of signatures in each form; or
/// the reason of the error.
type Outcome = Result<(Digest, Digest, Vec<Result<usize, &'static str>>), &'static str>;

/// Reads the bytes as a layout's archive, then as a layout's files, from an archive and from a
/// folder.
///
/// # Errors
/// The folder cannot be written.
///
/// # Panics
/// A result breaks a rule.
pub async fn layout(bytes: &[u8], folder: &Path) -> std::io::Result<()> {
    let archive = folder.join("layout.tar");
    std::fs::write(&archive, bytes)?;
    let _ = ask(&archive, "0.1.0").await;
    let Some(files) = files(bytes) else { return Ok(()) };
    std::fs::write(&archive, packed(&files)?)?;
    let unpacked = folder.join("layout");
    unpack(&files, &unpacked)?;
    let digests =
        files.iter().filter_map(|(name, _)| digest(name)).map(|digest| digest.to_string());
    for tag_or_digest in digests.take(2).chain(["0.1.0".to_owned()]) {
        assert_eq!(
            ask(&archive, &tag_or_digest).await,
            ask(&unpacked, &tag_or_digest).await,
            "archive and folder differ in {tag_or_digest}"
        );
    }
    Ok(())
}

/// Reads everything from a layout that is needed to obtain an artifact.
async fn ask(path: &Path, tag_or_digest: &str) -> Outcome {
    let mut source = Source(Place::Layout(Layout::new(path)));
    let reason = |error: RegistryError| error.reason();
    let (digest, bytes) =
        source.manifest_bytes(tag_or_digest, None, MANIFEST_BYTES).await.map_err(reason)?;
    assert_eq!(Digest::of(&bytes), digest, "a manifest has its digest");
    let manifest = image_manifest(&bytes, "the manifest").map_err(reason)?;
    let Some(layer) = manifest.layers.first() else { return Err("no layer") };
    let layer = layer_of(layer, "the manifest", LIMIT).map_err(reason)?;
    let content = source.blob(&layer).await.map_err(reason)?;
    assert!(content.len() <= LIMIT, "a blob of {} bytes is read", content.len());
    assert_eq!(Digest::of(&content), layer.digest, "a blob has its digest");
    let mut counts = Vec::new();
    for form in every_form() {
        let signatures = source.signatures(&digest, form).await.map_err(reason);
        let count = signatures.map(|signatures| signatures.fetched.len());
        // Simple signatures are in two places, each with this limit.
        assert!(count.unwrap_or_default() <= 2 * SIGNATURES, "{count:?}");
        counts.push(count);
    }
    Ok((digest, layer.digest, counts))
}

/// Splits the input into files at empty lines; each begins with a line that has its name. Accepts
/// only names that occur in a layout, each once: an archive could hold others that a folder
/// cannot.
fn files(bytes: &[u8]) -> Option<Vec<File<'_>>> {
    let mut names = BTreeSet::new();
    let text = std::str::from_utf8(bytes).ok()?;
    text.split("\n\n")
        .map(|file| {
            let (name, content) = file.split_once('\n').unwrap_or((file, ""));
            let is_known = ["oci-layout", "index.json"].contains(&name) || digest(name).is_some();
            (is_known && names.insert(name)).then_some((name, content.as_bytes()))
        })
        .collect()
}

fn digest(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok()
}

fn packed(files: &[File<'_>]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, *content)?;
    }
    archive.into_inner()
}

fn unpack(files: &[File<'_>], folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder.join("blobs/sha256"))?;
    files.iter().try_for_each(|(name, content)| std::fs::write(folder.join(name), content))
}
