//! Pushes plugins and firmware to the registry, as their authors would.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use flashjob_simulators::firmware::Firmware;
use flate2::Compression;
use flate2::write::GzEncoder;
use oci_client::Reference;
use oci_client::client::{Config, ImageLayer};
use oci_client::manifest::OciManifest;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::registry::Registry;

/// Pushes a component, and returns the reference with its digest.
///
/// # Errors
/// The file cannot be read, or the registry refuses.
pub async fn push_plugin(registry: &Registry, file: &Path, name: &str) -> anyhow::Result<String> {
    let component =
        std::fs::read(file).with_context(|| format!("component {}", file.display()))?;
    let reference: Reference = format!("{}/{name}", registry.host).parse()?;
    let layer = ImageLayer::new(component, "application/wasm".to_owned(), None);
    let config = Config::new(b"{}".to_vec(), "application/vnd.oci.empty.v1+json".to_owned(), None);
    let client = registry.client()?;
    client.push(&reference, &[layer], config, &registry.auth(), None).await?;
    let digest = client.fetch_manifest_digest(&reference, &registry.auth()).await?;
    Ok(format!("{}/{}@{digest}", registry.host, reference.repository()))
}

/// Pushes firmware as an image for several device types, platform `custom/<device>` each, and
/// returns the digest of its index.
///
/// # Errors
/// The registry refuses.
pub async fn push_firmware(
    registry: &Registry,
    name: &str,
    firmwares: &[Firmware],
) -> anyhow::Result<String> {
    let file = |firmware: &Firmware| Ok((firmware.device.clone(), firmware.encode()?));
    let files = firmwares.iter().map(file).collect::<anyhow::Result<Vec<_>>>()?;
    push_files(registry, name, &files).await
}

/// Pushes an image with any file for each device type, whatever the file is really for, and
/// returns the digest of its index.
///
/// # Errors
/// The registry refuses.
pub async fn push_files(
    registry: &Registry,
    name: &str,
    files: &[(String, Vec<u8>)],
) -> anyhow::Result<String> {
    let client = registry.client()?;
    let reference: Reference = format!("{}/{name}", registry.host).parse()?;
    let mut entries = Vec::new();
    for (device, file) in files {
        let layer = ImageLayer::oci_v1_gzip(layer(file)?, None);
        let config = json!({
            "os": "custom", "architecture": device, "rootfs": {"type": "layers", "diff_ids": []},
            "config": {},
        });
        let config = Config::new(
            config.to_string().into_bytes(),
            "application/vnd.oci.image.config.v1+json".to_owned(),
            None,
        );
        let one: Reference = format!(
            "{}/{}:{}-{device}",
            registry.host,
            reference.repository(),
            reference.tag().unwrap_or("latest"),
        )
        .parse()?;
        client.push(&one, &[layer], config, &registry.auth(), None).await?;
        let (manifest, digest) = client
            .pull_manifest_raw(
                &one,
                &registry.auth(),
                &["application/vnd.oci.image.manifest.v1+json"],
            )
            .await?;
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": manifest.len(),
            "platform": {"os": "custom", "architecture": device},
        }));
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
    });
    let index: OciManifest = serde_json::from_value(index)?;
    client.push_manifest(&reference, &index).await?;
    Ok(client.fetch_manifest_digest(&reference, &registry.auth()).await?)
}

fn layer(file: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(file.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, "firmware/firmware.bin", file)?;
    let mut encoder = archive.into_inner()?;
    encoder.flush()?;
    Ok(encoder.finish()?)
}

/// Firmware whose payload of 128 KiB is unique to its device type, application and version.
#[must_use]
pub fn firmware(device: &str, application: &str, version: &str) -> Firmware {
    let seed = Sha256::digest(format!("{device}/{application}/{version}").as_bytes());
    let payload = seed.iter().copied().cycle().take(128 << 10).collect();
    Firmware {
        device: device.to_owned(),
        application: application.to_owned(),
        version: version.to_owned(),
        payload,
    }
}
