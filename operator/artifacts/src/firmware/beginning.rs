//! Fetches the first bytes of an image's firmware without the rest. Sends requests to registries.

use std::collections::HashMap;
use std::io::{self, BufReader, Cursor, Read};

use oci_client::manifest::OciImageManifest;
use tokio::sync::mpsc;

use super::layer::{Found, find_beginning};
use super::{Firmware, LAYER_BYTES, MANIFEST_BYTES};
use crate::{Digest, Layer, RegistryError, Source, image_manifest, layer_of};

/// Bytes of a layer that are fetched first: archive headers and the first bytes of a file.
const START_BYTES: usize = 64 << 10;
/// Capacity of the channel of layer chunks that wait to be unpacked.
const PIECES: usize = 4;

/// Part of each layer that is searched for firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The start of the layer, whose digest cannot be checked; the whole layer only if no firmware
    /// begins in its start. A file that follows another one in its layer is not found.
    Start,
    /// The whole layer, with its digest checked.
    Whole,
}

/// First bytes of the firmware file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Its path in the image.
    pub name: String,
    /// Its whole size, in bytes.
    pub size: u64,
    /// Its first bytes.
    pub bytes: Vec<u8>,
    /// True if the whole layer was searched and its digest checked.
    pub is_certain: bool,
}

/// Reads the first bytes of firmware, and caches those whose layers were hashed: refused firmware
/// is looked up repeatedly, but fetched once.
#[derive(Debug)]
pub struct Beginnings {
    /// Maximum number of bytes of a file.
    most: usize,
    /// Firmware of hashed layers, by the digest of the manifest; None: the manifest has no
    /// firmware.
    hashed: HashMap<Digest, Option<Beginning>>,
}

impl Beginnings {
    /// Creates an empty cache that keeps at most this many bytes of each file.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, hashed: HashMap::new() }
    }

    /// Removes the entries of all other firmware, such as what the same tag named before.
    pub fn keep_those_of(&mut self, firmware: &Firmware) {
        let is_platform = |digest: &Digest| firmware.platforms.iter().any(|(_, of)| of == digest);
        self.hashed.retain(|digest, _| firmware.digest == *digest || is_platform(digest));
    }

    /// Reads the first bytes of the firmware of a manifest. If several layers have firmware, the
    /// last one counts, as in any image. Returns None if the manifest has no file that could be
    /// flashed.
    ///
    /// # Errors
    /// The registry does not have the manifest or the layer, or does not answer.
    pub async fn read(
        &mut self,
        source: &mut Source<'_>,
        digest: &Digest,
        part: Part,
    ) -> Result<Option<Beginning>, RegistryError> {
        if let Some(hashed) = self.hashed.get(digest) {
            return Ok(hashed.clone());
        }
        let (file, is_certain) = beginning(source, digest, part, self.most).await?;
        // The start of a layer has no digest of its own, so a registry could answer differently
        // next time.
        if is_certain {
            self.hashed.insert(digest.clone(), file.clone());
        }
        Ok(file)
    }
}

/// Returns the firmware file, and true if only whole layers were needed to find it or to find
/// none.
async fn beginning(
    source: &mut Source<'_>,
    digest: &Digest,
    part: Part,
    most: usize,
) -> Result<(Option<Beginning>, bool), RegistryError> {
    let what = source.what(&digest.to_string());
    let (_, bytes) =
        source.manifest_bytes(&digest.to_string(), Some(digest), MANIFEST_BYTES).await?;
    let OciImageManifest { layers, .. } = image_manifest(&bytes, &what)?;
    let mut is_certain = true;
    // Later layers replace files of earlier ones, so the last layer is searched first.
    for layer in layers.iter().rev() {
        let layer = match layer_of(layer, &what, LAYER_BYTES) {
            // Firmware of this size cannot be flashed.
            Err(RegistryError::TooLarge { .. }) => return Ok((None, is_certain)),
            layer => layer?,
        };
        let mut search = match part == Part::Start && layer.size > START_BYTES {
            true => search_start(source, &layer, most).await?,
            false => Search::CutOff,
        };
        let is_whole = matches!(search, Search::CutOff);
        if is_whole {
            search = search_layer(source, &layer, most).await?;
        }
        // A layer whose start was believed to have no firmware makes the result uncertain, too.
        is_certain &= is_whole;
        match search {
            Search::Found(Found { name, size, beginning: bytes, .. }) => {
                return Ok((Some(Beginning { name, size, bytes, is_certain }), is_certain));
            }
            Search::Nothing => {}
            Search::CutOff | Search::Unreadable => return Ok((None, is_certain)),
        }
    }
    Ok((None, is_certain))
}

/// Result of the search for firmware in a layer.
enum Search {
    /// The layer has firmware.
    Found(Found),
    /// The layer has no firmware.
    Nothing,
    /// Firmware may follow after the part that was searched.
    CutOff,
    /// The layer cannot be unpacked.
    Unreadable,
}

async fn search_start(
    source: &mut Source<'_>,
    layer: &Layer,
    most: usize,
) -> Result<Search, RegistryError> {
    let start = source.blob_start(layer, START_BYTES).await?;
    let mut rest = start.as_slice();
    let (file, end) = find_beginning(&mut rest, most);
    Ok(match (file, end) {
        (Some(file), _) => Search::Found(file),
        // Data that is not an archive fails before its start is used up.
        (None, _) if rest.is_empty() => Search::CutOff,
        (None, Ok(())) => Search::Nothing,
        (None, Err(_)) => Search::Unreadable,
    })
}

/// Searches a layer while it is downloaded, without storing it.
async fn search_layer(
    source: &mut Source<'_>,
    layer: &Layer,
    most: usize,
) -> Result<Search, RegistryError> {
    let (to, pieces) = mpsc::channel(PIECES);
    let pieces = Pieces { pieces, piece: Cursor::default() };
    // Decompression blocks, and the download must continue meanwhile; the channel bounds what
    // waits.
    let searching =
        tokio::task::spawn_blocking(move || find_beginning(BufReader::new(pieces), most));
    // An error here drops the result of the search: its bytes were not proven by the digest.
    source.forward(layer, to).await?;
    Ok(match searching.await {
        Ok((Some(file), Ok(()))) => Search::Found(file),
        Ok((None, Ok(()))) => Search::Nothing,
        Ok((_, Err(_))) | Err(_) => Search::Unreadable,
    })
}

/// Blocking reader of a layer's bytes while they arrive.
struct Pieces {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Cursor<Vec<u8>>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = Cursor::new(piece),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::fake_registry::{Fake, answer};
    use crate::{Logins, Reference};

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, *content).expect("written");
        }
        archive.into_inner().expect("written")
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("written")
    }

    /// Bytes that do not compress.
    fn noise(first: u8, length: usize) -> Vec<u8> {
        let mut state = u32::from(first) | 1;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::once(first).chain((1..length).map(next)).collect()
    }

    /// Starts a registry that has an image with these layers; returns it with the manifest's
    /// digest.
    async fn serve(layers: &[Vec<u8>]) -> (Fake, Digest) {
        serve_instead(layers, layers).await
    }

    /// Like `serve`, but serves other layers in place of those that the manifest names.
    async fn serve_instead(layers: &[Vec<u8>], served: &[Vec<u8>]) -> (Fake, Digest) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| {
                let (digest, size) = (Digest::of(layer), layer.len());
                serde_json::json!({"mediaType": "layer", "digest": digest, "size": size})
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "x", "digest": Digest::of(b"{}"), "size": 2},
            "layers": descriptors,
        })
        .to_string();
        let digest = Digest::of(manifest.as_bytes());
        let mut files = HashMap::from([(format!("manifests/{digest}"), manifest.into_bytes())]);
        for (layer, served) in layers.iter().zip(served) {
            files.insert(format!("blobs/{}", Digest::of(layer)), served.clone());
        }
        let fake = Fake::start(move |_, path, _| {
            let file = path.strip_prefix("/v2/a/b/").and_then(|path| files.get(path));
            file.map_or_else(|| answer(404, ""), |file| answer(200, file.clone()))
        })
        .await;
        (fake, digest)
    }

    /// Reads the first four bytes of that firmware.
    async fn read_from(
        fake: &Fake,
        digest: &Digest,
        part: Part,
        beginnings: &mut Beginnings,
    ) -> Result<Option<Beginning>, RegistryError> {
        let reference: Reference = format!("{}/a/b:1", fake.host).parse().expect("a reference");
        let (registries, logins) = ([fake.config()], Logins::none());
        let source = Source::of(&reference, &registries, &logins).expect("a client");
        beginnings.read(&mut source.expect("a registry"), digest, part).await
    }

    /// Reads the first four bytes of the firmware of an image with these layers.
    async fn read(layers: &[Vec<u8>], part: Part) -> Result<Option<Beginning>, RegistryError> {
        let (fake, digest) = serve(layers).await;
        read_from(&fake, &digest, part, &mut Beginnings::new(4)).await
    }

    #[tokio::test]
    async fn a_layer_that_was_hashed_is_fetched_again_only_after_other_firmware() {
        let layer = archive(&[("firmware/a.bin", &noise(7, 200 << 10))]);
        let (fake, digest) = serve(&[layer]).await;
        let fetched = || fake.asked().iter().filter(|(path, _)| path.contains("/blobs/")).count();
        let mut beginnings = Beginnings::new(4);
        for (part, expected) in
            [(Part::Start, 1), (Part::Whole, 2), (Part::Start, 2), (Part::Whole, 2)]
        {
            let file = read_from(&fake, &digest, part, &mut beginnings).await.expect("read");
            assert_eq!(file.map(|file| file.name).as_deref(), Some("firmware/a.bin"));
            assert_eq!(fetched(), expected, "{part:?}");
        }
        let firmware =
            |digest: &Digest| Firmware { digest: digest.clone(), platforms: Vec::new() };
        for (now, expected) in [(&digest, 2), (&Digest::of(b"what the tag has now"), 3)] {
            beginnings.keep_those_of(&firmware(now));
            read_from(&fake, &digest, Part::Whole, &mut beginnings).await.expect("read");
            assert_eq!(fetched(), expected, "{now}");
        }
    }

    #[tokio::test]
    async fn the_firmware_is_the_file_of_the_last_layer_that_has_one() {
        let layers = [
            compressed(&archive(&[("firmware/a.bin", b"old one")])),
            archive(&[("firmware/b.bin", b"other"), ("firmware/a.bin", b"new")]),
            compressed(&archive(&[("etc/readme", b"firmware")])),
        ];
        for part in [Part::Start, Part::Whole] {
            let beginning = read(&layers, part).await.expect("read").expect("found");
            let expected = Beginning {
                name: "firmware/a.bin".into(),
                size: 3,
                bytes: b"new".into(),
                is_certain: true,
            };
            assert_eq!(beginning, expected);
        }
        let none = read(&layers[2..], Part::Start).await.expect("read");
        assert_eq!(none, None);
    }

    #[tokio::test]
    async fn of_a_large_layer_the_start_suffices_and_what_comes_later_is_seen_in_the_whole() {
        let (first, later) = (noise(7, 200 << 10), noise(9, 200 << 10));
        let tar = archive(&[("firmware/b.bin", &first), ("firmware/a.bin", &later)]);
        for layer in [compressed(&tar), tar] {
            let layers = [layer];
            let start = read(&layers, Part::Start).await.expect("read").expect("found");
            assert_eq!((start.name.as_str(), start.size), ("firmware/b.bin", 200 << 10));
            assert_eq!((start.bytes.as_slice(), start.is_certain), (&first[..4], false));
            let whole = read(&layers, Part::Whole).await.expect("read").expect("found");
            assert_eq!((whole.name.as_str(), whole.is_certain), ("firmware/a.bin", true));
            assert_eq!(whole.bytes, later[..4]);
        }
    }

    #[tokio::test]
    async fn a_file_that_begins_after_the_start_is_found_in_the_whole_layer_and_in_one_before() {
        let (first, later) = (noise(7, 300 << 10), noise(9, 200 << 10));
        let hidden = archive(&[("etc/large", &first), ("firmware/a.bin", &later)]);
        let above = archive(&[("etc/large", &first)]);
        for layers in [
            vec![hidden.clone()],
            vec![compressed(&hidden)],
            vec![hidden.clone(), compressed(&above)],
            vec![compressed(&hidden), above.clone()],
        ] {
            let beginning = read(&layers, Part::Start).await.expect("read").expect("found");
            assert_eq!((beginning.name.as_str(), beginning.size), ("firmware/a.bin", 200 << 10));
            assert_eq!((beginning.bytes.as_slice(), beginning.is_certain), (&later[..4], true));
        }
        assert_eq!(read(&[above], Part::Start).await.expect("read"), None);
    }

    #[tokio::test]
    async fn what_is_no_archive_is_not_fetched_to_its_end_and_a_forged_layer_shows_nothing() {
        let (fake, digest) = serve(&[noise(7, 300 << 10)]).await;
        let blobs =
            |fake: &Fake| fake.asked().iter().filter(|(path, _)| path.contains("/blobs/")).count();
        let mut beginnings = Beginnings::new(4);
        let none = read_from(&fake, &digest, Part::Start, &mut beginnings).await.expect("read");
        assert_eq!((none, blobs(&fake)), (None, 1));
        let hidden = archive(&[("etc/large", &noise(7, 200 << 10)), ("firmware/a.bin", b"new")]);
        let mut forged = hidden.clone();
        let last = hidden.windows(3).rposition(|bytes| bytes == b"new").expect("there");
        forged[last] = b'N';
        let (fake, digest) = serve_instead(&[hidden], &[forged]).await;
        let error = read_from(&fake, &digest, Part::Start, &mut beginnings).await;
        assert!(matches!(error, Err(RegistryError::Tampered { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn what_nobody_could_flash_is_left_to_who_flashes_it() {
        let mut cut = archive(&[("firmware/a.bin", &[7; 2000])]);
        cut.truncate(1000);
        for layer in [cut, b"\x28\xb5\x2f\xfd".to_vec(), b"no archive".to_vec()] {
            assert_eq!(read(&[layer], Part::Start).await.expect("read"), None);
        }
    }
}
