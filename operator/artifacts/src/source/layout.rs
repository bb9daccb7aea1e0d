//! An OCI image layout (image specification 1.1, "Image Layout"): a folder, or a tar archive of
//! one. Reads files.

mod archive;
mod blobs;
mod files;
mod saved;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_client::manifest::OciImageManifest;
use serde::Deserialize;

use super::attachment::{refers, signature_layers};
use crate::config::SignatureForm;
use crate::reference::LAYOUT;
use crate::registry::{
    Claim, Index, MANIFEST_BYTES, PREDICATE, Referrer, Referrers, SIGNATURE_BYTES, none_if_absent,
    read,
};
use crate::{Digest, RegistryError};
use blobs::{REFERRER_BYTES, REFERRERS, blob};
use files::{Files, Wanted};

/// Annotation with which an index names a manifest: a tag, or a whole reference.
const NAME: &str = "org.opencontainers.image.ref.name";
const MARKER: &str = "oci-layout";
const MARKER_BYTES: usize = 4 << 10;
const INDEX: &str = "index.json";

/// Image layout on disk.
pub(crate) struct Layout {
    path: PathBuf,
    /// Entries of the index, which is read once.
    index: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Entries {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Entry {
    fn is_called(&self, tag: &str) -> bool {
        let name = self.annotations.as_ref().and_then(|annotations| annotations.get(NAME));
        name.is_some_and(|name| {
            name == tag
                || name
                    .rsplit_once(':')
                    .is_some_and(|(place, last)| place.contains('/') && last == tag)
        })
    }

    fn may_be_a_signature(&self, form: SignatureForm) -> bool {
        let annotations = self.annotations.as_ref();
        let predicate = annotations.and_then(|annotations| annotations.get(PREDICATE));
        let claim = Claim::of(form, self.artifact_type.as_deref(), predicate.map(String::as_str));
        // The limit on the manifests that are read leaves no room for those of unknown types.
        matches!(claim, Claim::Signature | Claim::Nothing)
            && usize::try_from(self.size).is_ok_and(|size| size <= REFERRER_BYTES)
    }
}

impl Layout {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), index: None }
    }

    /// Reads a manifest by its tag in the index, or by its digest.
    pub async fn manifest_bytes(
        &mut self,
        tag_or_digest: &str,
        limit: usize,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        // A digest is looked up among the blobs directly: a manifest need not be in the index.
        let digest = match tag_or_digest.parse() {
            Ok(digest) => digest,
            Err(_) => self.tagged(tag_or_digest).await?,
        };
        let bytes = self.blob(&digest, limit).await?;
        Ok((digest, bytes))
    }

    /// Reads a blob, and checks its digest.
    pub async fn blob(&self, digest: &Digest, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let (name, what) = (blob(digest), self.what(&digest.to_string()));
        let bytes = self.files(Wanted::from([(name.clone(), limit)])).await?.remove(&name);
        let bytes = bytes.ok_or_else(|| self.has_no(&name))?;
        let actual = Digest::of(&bytes);
        if actual == *digest { Ok(bytes) } else { Err(RegistryError::Tampered { what, actual }) }
    }

    /// Reads the manifest that holds the simple signatures of a manifest: by their tag, or as
    /// cosign saves them.
    pub async fn simple_signatures(
        &mut self,
        digest: &Digest,
        tag: &str,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        if let Some((_, bytes)) = none_if_absent(self.manifest_bytes(tag, SIGNATURE_BYTES).await)?
        {
            return Ok(Some(bytes));
        }
        let Some(saved) = self.saved_signatures(digest).await? else { return Ok(None) };
        self.blob(&saved, SIGNATURE_BYTES).await.map(Some)
    }

    /// Lists the referrers of a manifest that may be signatures in one form: manifests in the index
    /// with this subject, the entries of the referrers' tag, and blobs beside an image that cosign
    /// saved.
    pub async fn referrers(
        &mut self,
        digest: &Digest,
        form: SignatureForm,
    ) -> Result<Referrers, RegistryError> {
        let mut referrers = self.with_subject(digest, form).await?;
        let tag = format!("sha256-{}", digest.hex());
        if let Some((_, bytes)) = none_if_absent(self.manifest_bytes(&tag, SIGNATURE_BYTES).await)?
        {
            referrers
                .extend(read::<Index>(&bytes, &self.what(&tag))?.manifests.into_iter().flatten());
        }
        // cosign does not list bundles in the index, so the blobs themselves are searched, too.
        referrers.extend(self.saved_referrers(digest, form).await?);
        Ok(Referrers::of(referrers, form))
    }

    async fn with_subject(
        &mut self,
        subject: &Digest,
        form: SignatureForm,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let candidates = self.index().await?.iter().filter(|entry| entry.may_be_a_signature(form));
        let digests: Vec<Digest> =
            candidates.filter_map(|entry| entry.digest.parse().ok()).collect();
        let wanted: Wanted = digests.iter().map(|digest| (blob(digest), REFERRER_BYTES)).collect();
        // The limit bounds the bytes that are read. An omitted manifest could be the signature.
        if wanted.len() > REFERRERS {
            return Err(self.unreadable(&format!(
                "more than {REFERRERS} manifests in its index, each of which may be a signature; \
                 copy only this plugin and its signatures into an empty layout"
            )));
        }
        let mut manifests = self.files(wanted).await?;
        let referrers = digests.iter().filter(|digest| {
            manifests.remove(&blob(digest)).is_some_and(|bytes| signs(&bytes, subject, form))
        });
        Ok(referrers.map(referrer).collect())
    }

    async fn tagged(&mut self, tag: &str) -> Result<Digest, RegistryError> {
        let several = "have this tag; append @sha256:… to select one";
        let tagged = self.one(|entry| entry.is_called(tag), tag, several).await?;
        tagged.ok_or_else(|| self.has_no(&format!("manifest with tag {tag}")))
    }

    /// Returns the only manifest in the index that fulfils a condition; several are an error.
    async fn one(
        &mut self,
        holds: impl Fn(&Entry) -> bool,
        tag_or_digest: &str,
        several: &str,
    ) -> Result<Option<Digest>, RegistryError> {
        let what = self.what(tag_or_digest);
        let form = |message: String| RegistryError::Form { what: what.clone(), message };
        let mut digests: Vec<String> = self
            .index()
            .await?
            .iter()
            .filter(|entry| holds(entry))
            .map(|entry| entry.digest.clone())
            .collect();
        digests.sort();
        // An index may list one manifest several times, which is not ambiguous.
        digests.dedup();
        match digests.as_slice() {
            [] => Ok(None),
            [digest] => digest
                .parse()
                .map(Some)
                .map_err(|error: crate::InvalidDigest| form(error.to_string())),
            digests => Err(form(format!("{} manifests in its index {several}", digests.len()))),
        }
    }

    async fn index(&mut self) -> Result<&[Entry], RegistryError> {
        if self.index.is_none() {
            let mut files = self
                .files(Wanted::from([
                    (MARKER.to_owned(), MARKER_BYTES),
                    (INDEX.to_owned(), MANIFEST_BYTES),
                ]))
                .await?;
            let what = format!("image layout {}", self.path.display());
            let marker: Marker = read(
                &files
                    .remove(MARKER)
                    .ok_or_else(|| self.unreadable("it has no file oci-layout"))?,
                &what,
            )?;
            // Later minor versions must stay compatible; version 2 could name blobs differently.
            if !marker.image_layout_version.starts_with("1.") {
                return Err(self.unreadable(&format!(
                    "its version is {}, expected 1.0.0",
                    marker.image_layout_version
                )));
            }
            let index: Entries = read(
                &files
                    .remove(INDEX)
                    .ok_or_else(|| self.unreadable("it has no file index.json"))?,
                &what,
            )?;
            self.index = Some(index.manifests);
        }
        Ok(self.index.as_deref().unwrap_or_default())
    }

    /// Reads files of the layout, and omits those that do not exist.
    async fn files(&self, limits: Wanted) -> Result<Files, RegistryError> {
        self.reading(move |path| {
            if path.is_dir() { files::read(path, &limits) } else { archive::read(path, &limits) }
        })
        .await
    }

    /// Reads on a thread where blocking is allowed.
    async fn reading(
        &self,
        read: impl FnOnce(&Path) -> std::io::Result<Files> + Send + 'static,
    ) -> Result<Files, RegistryError> {
        let path = self.path.clone();
        // The layout may be on a slow network volume, and must not stop the other tasks of this
        // thread.
        let reading = tokio::task::spawn_blocking(move || read(&path));
        reading
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| self.unreadable(&error.to_string()))
    }

    fn unreadable(&self, message: &str) -> RegistryError {
        RegistryError::Layout { path: self.path.clone(), message: message.to_owned() }
    }

    fn has_no(&self, what: &str) -> RegistryError {
        RegistryError::NotInLayout { path: self.path.clone(), what: what.to_owned() }
    }

    pub fn what(&self, tag_or_digest: &str) -> String {
        let separator = if tag_or_digest.contains(':') { '@' } else { ':' };
        format!("{LAYOUT}://{}{separator}{tag_or_digest}", self.path.display())
    }
}

/// Returns true if these bytes are a manifest with that subject, and with a signature in this form.
/// Each manifest that is examined later costs another pass through an archive.
fn signs(bytes: &[u8], subject: &Digest, form: SignatureForm) -> bool {
    serde_json::from_slice::<OciImageManifest>(bytes).is_ok_and(|manifest| {
        refers(&manifest, subject) && !signature_layers(&manifest, form).is_empty()
    })
}

/// Returns a referrer that was found by its content.
fn referrer(digest: &Digest) -> Referrer {
    Referrer { digest: digest.to_string(), artifact_type: None, predicate: None }
}
