//! OCI image layout: the images of one reference, as a folder, or as an archive that
//! `ctr images import`, podman, skopeo and Docker 25 read. Writes files.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use oci_spec::distribution::Reference;
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, Config, ConfigBuilder, Descriptor, HistoryBuilder,
    ImageConfiguration, ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder,
    MediaType, OciLayoutBuilder, Os, PlatformBuilder, RootFsBuilder, Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::Image;
use super::layer::{self, Layer};

/// Annotation with which containerd names an imported image.
const ANNOTATION_CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Images of one reference, one for each architecture.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Name and tag, such as `localhost/flashjob-operator:0.1.0`.
    pub reference: String,
    /// One image for each architecture.
    pub images: Vec<Image>,
    /// Time of all files and of the image, in seconds since 1970. Default: 0.
    pub time: u64,
}

/// Files of a layout by their path.
type Files = BTreeMap<String, Vec<u8>>;

impl Layout {
    /// Returns a layout with timestamp 0.
    pub fn new(reference: impl Into<String>, images: impl IntoIterator<Item = Image>) -> Self {
        Self { reference: reference.into(), images: images.into_iter().collect(), time: 0 }
    }

    /// Writes the layout as an archive, and returns the digest of the image, or of the index if
    /// there are several images.
    ///
    /// # Errors
    /// The reference is malformed, there is no image or two have the same architecture, or a file
    /// cannot be read or written.
    pub fn write_tar(&self, path: &Path) -> anyhow::Result<String> {
        let (files, digest) = self.files()?;
        let location = path.display();
        let file = File::create(path).with_context(|| format!("{location}: cannot be written"))?;
        let mut archive = Builder::new(BufWriter::new(file));
        for folder in ["blobs/", "blobs/sha256/"] {
            let mut header = self.header(0o755, EntryType::Directory);
            archive.append_data(&mut header, folder, [].as_slice())?;
        }
        for (name, content) in &files {
            let mut header = self.header(0o644, EntryType::Regular);
            header.set_size(content.len() as u64);
            archive
                .append_data(&mut header, name, content.as_slice())
                .with_context(|| format!("{location}: cannot be written"))?;
        }
        archive.into_inner()?.flush().with_context(|| format!("{location}: cannot be written"))?;
        Ok(digest)
    }

    /// Writes the layout as a folder, replacing an existing layout, and returns the digest as
    /// [`Layout::write_tar`] does.
    ///
    /// # Errors
    /// As [`Layout::write_tar`]; or the folder holds something other than a layout.
    pub fn write_folder(&self, path: &Path) -> anyhow::Result<String> {
        let (files, digest) = self.files()?;
        let location = path.display();
        if path.join("oci-layout").is_file() {
            fs::remove_dir_all(path).with_context(|| format!("{location}: cannot be replaced"))?;
        }
        let empty = fs::read_dir(path).map_or(true, |mut items| items.next().is_none());
        ensure!(
            empty,
            "{location}: contains something other than an image layout; remove it or choose \
             another folder"
        );
        fs::create_dir_all(path.join("blobs/sha256"))
            .with_context(|| format!("{location}: cannot be created"))?;
        for (name, content) in &files {
            let path = path.join(name);
            fs::write(&path, content)
                .with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Ok(digest)
    }

    fn header(&self, mode: u32, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(self.time);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header
    }

    /// Returns all files of the layout, and the digest of the image or of the index of images.
    fn files(&self) -> anyhow::Result<(Files, String)> {
        let reference: Reference = self.reference.parse().with_context(|| {
            format!(
                "{}: is not an image reference; expected one such as registry/name:tag",
                self.reference
            )
        })?;
        ensure!(
            reference.digest().is_none(),
            "{reference}: the reference of a new image has no digest"
        );
        let mut files = Files::new();
        let mut manifests = Vec::new();
        for image in &self.images {
            manifests.push(self.add_image(&mut files, image)?);
        }
        ensure!(!manifests.is_empty(), "{reference}: no image is given");
        let mut architectures: Vec<_> =
            self.images.iter().map(|image| &image.architecture).collect();
        architectures.sort();
        ensure!(
            architectures.windows(2).all(|pair| pair[0] != pair[1]),
            "{reference}: two images for the same architecture are given"
        );
        let mut top = match manifests.as_slice() {
            [one] => one.clone(),
            _ => add_blob(&mut files, MediaType::ImageIndex, &index(manifests)?)?,
        };
        let digest = top.digest().to_string();
        let tag = reference.tag().unwrap_or("latest");
        top.set_annotations(Some(HashMap::from([
            (ANNOTATION_REF_NAME.to_owned(), tag.to_owned()),
            (ANNOTATION_CONTAINERD_NAME.to_owned(), reference.whole()),
        ])));
        files.insert("index.json".to_owned(), json(&index(vec![top])?)?);
        let version = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
        files.insert("oci-layout".to_owned(), json(&version)?);
        Ok((files, digest))
    }

    /// Adds layer, configuration and manifest of an image.
    fn add_image(&self, files: &mut Files, image: &Image) -> anyhow::Result<Descriptor> {
        let layer = layer::pack(&image.copies, self.time)?;
        let configuration = self.configuration(image, &layer)?;
        let configuration = add_blob(files, MediaType::ImageConfig, &configuration)?;
        let layer = add_bytes(files, MediaType::ImageLayerGzip, layer.compressed)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(configuration)
            .layers(vec![layer])
            .build()?;
        let mut descriptor = add_blob(files, MediaType::ImageManifest, &manifest)?;
        let platform = PlatformBuilder::default()
            .os(Os::Linux)
            .architecture(Arch::from(image.architecture.as_str()))
            .build()?;
        descriptor.set_platform(Some(platform));
        Ok(descriptor)
    }

    fn configuration(&self, image: &Image, layer: &Layer) -> anyhow::Result<ImageConfiguration> {
        let created = Timestamp::from_second(i64::try_from(self.time)?)?.to_string();
        let history = HistoryBuilder::default().created(created.clone()).build()?;
        let files = RootFsBuilder::default()
            .typ("layers")
            .diff_ids(vec![layer.diff_id.clone()])
            .build()?;
        Ok(ImageConfigurationBuilder::default()
            .created(created)
            .architecture(Arch::from(image.architecture.as_str()))
            .os(Os::Linux)
            .config(settings(image)?)
            .rootfs(files)
            .history(vec![history])
            .build()?)
    }
}

fn settings(image: &Image) -> anyhow::Result<Config> {
    let mut config = ConfigBuilder::default().build()?;
    config.set_user(image.user.clone());
    if !image.env.is_empty() {
        let env = image.env.iter().map(|(name, value)| format!("{name}={value}"));
        config.set_env(Some(env.collect()));
    }
    if !image.entrypoint.is_empty() {
        config.set_entrypoint(Some(image.entrypoint.clone()));
    }
    if !image.labels.is_empty() {
        config.set_labels(Some(image.labels.clone().into_iter().collect()));
    }
    Ok(config)
}

fn index(manifests: Vec<Descriptor>) -> anyhow::Result<oci_spec::image::ImageIndex> {
    Ok(ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()?)
}

fn add_blob(
    files: &mut Files,
    kind: MediaType,
    content: &impl Serialize,
) -> anyhow::Result<Descriptor> {
    add_bytes(files, kind, json(content)?)
}

fn add_bytes(files: &mut Files, kind: MediaType, content: Vec<u8>) -> anyhow::Result<Descriptor> {
    let digest = layer::hex(&Sha256::digest(&content));
    let descriptor = Descriptor::new(kind, content.len() as u64, digest.parse::<Sha256Digest>()?);
    files.insert(format!("blobs/sha256/{digest}"), content);
    Ok(descriptor)
}

/// Serializes JSON with sorted keys: the types' maps are unordered, and the digests depend on the
/// bytes.
fn json(content: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut value = serde_json::to_value(content)?;
    value.sort_all_objects();
    Ok(serde_json::to_vec(&value)?)
}
