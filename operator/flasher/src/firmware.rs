//! Firmware from an OCI image: the platform `custom/<device type>`, and in it the file under
//! `/firmware`. Everything is fetched by digest and hashed, and, if a policy demands it, its
//! signature is verified before the first request to the device.
//!
//! The file is unpacked before the first request, so that a device that receives it never has to
//! wait. The layer is freed while it is unpacked, so that layer and file are never both in memory
//! completely.

mod access;

use bytes::Bytes;
use flashjob_artifacts::firmware::{
    self, File, LAYER_BYTES, Platform, UnreadableLayer, UnverifiedFirmware, platform_of_image,
    platforms,
};
use flashjob_artifacts::{Digest, MANIFEST_BYTES, Reference, Source, image_manifest, layer_of};
use oci_client::manifest::{OciImageIndex, OciImageManifest, OciManifest};

use crate::arguments::Pull;
use crate::outcome::{AttemptFailure, Code};
use access::Access;

/// Firmware that was fetched and verified.
#[derive(Debug)]
pub struct Firmware {
    /// Digest of the manifest for this type of device.
    pub digest: Digest,
    /// Name of the file in the image.
    pub name: String,
    /// Content of the file; not empty.
    pub bytes: Bytes,
    /// True if a signature was required and found.
    pub signed: bool,
}

impl Firmware {
    /// Returns the size of the file, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Fetches the firmware for a device type, within the timeout.
///
/// # Errors
/// The firmware cannot be fetched, is for another device type, or is not trusted.
pub async fn fetch(pull: &Pull) -> Result<Firmware, AttemptFailure> {
    let fetched = tokio::time::timeout(pull.firmware_timeout, fetch_untimed(pull)).await;
    fetched.unwrap_or_else(|_| {
        let message = format!(
            "firmware {} could not be fetched within {:?}",
            pull.firmware, pull.firmware_timeout
        );
        Err(AttemptFailure::new(Code::FirmwareUnavailable, message))
    })
}

async fn fetch_untimed(pull: &Pull) -> Result<Firmware, AttemptFailure> {
    let reference: Reference = pull.firmware.parse().map_err(|error| {
        AttemptFailure::new(Code::BadConfiguration, "FIRMWARE is invalid").because(error)
    })?;
    let access = Access::read(&pull.registry_directory, &reference)?;
    let unavailable = |error| {
        let message = format!("firmware {reference} cannot be fetched");
        AttemptFailure::new(Code::FirmwareUnavailable, message).because(error)
    };
    let source =
        Source::of(&reference, &access.registries, &access.logins).map_err(unavailable)?;
    let mut source = source.ok_or_else(|| {
        AttemptFailure::new(
            Code::BadConfiguration,
            "FIRMWARE is a file; expected an OCI reference",
        )
    })?;
    let expected = reference.digest();
    let tag_or_digest = expected
        .map(ToString::to_string)
        .or_else(|| reference.tag().map(str::to_owned))
        .unwrap_or_default();
    let (top, bytes) = source
        .manifest_bytes(&tag_or_digest, expected, MANIFEST_BYTES)
        .await
        .map_err(unavailable)?;
    let parsed: OciManifest = serde_json::from_slice(&bytes)
        .map_err(|error| broken(&reference, "its manifest cannot be read").because(error))?;
    let (digest, manifest) = match parsed {
        OciManifest::Image(manifest) => {
            check_platform(&mut source, &manifest, &reference, &pull.device).await?;
            (top.clone(), manifest)
        }
        OciManifest::ImageIndex(index) => {
            let digest = platform(&index, &reference, &pull.device)?;
            let (digest, bytes) = source
                .manifest_bytes(&digest.to_string(), Some(&digest), MANIFEST_BYTES)
                .await
                .map_err(unavailable)?;
            let manifest =
                image_manifest(&bytes, &source.what(&digest.to_string())).map_err(unavailable)?;
            (digest, manifest)
        }
    };
    // The signature is over a manifest, so it is verified before any layer is fetched.
    let signed = verify(&mut source, &reference, &access, &[&top, &digest]).await?;
    // If several layers have the same file, the last one counts, as in any image.
    for layer in manifest.layers.iter().rev() {
        let layer = layer_of(layer, &reference.to_string(), LAYER_BYTES).map_err(unavailable)?;
        let layer = source.blob(&layer).await.map_err(unavailable)?;
        // Only one layer is in memory at a time: the Pod's memory limit must hold the largest one.
        if let Some(File { name, bytes }) = extract(layer, &reference)? {
            // A transfer of no bytes would seem successful.
            if bytes.is_empty() {
                return Err(broken(&reference, &format!("its file {name} is empty")));
            }
            return Ok(Firmware { digest, name, bytes: bytes.into(), signed });
        }
    }
    Err(broken(&reference, "it has no file under /firmware"))
}

/// Returns the failure for malformed firmware.
fn broken(reference: &Reference, words: &str) -> AttemptFailure {
    AttemptFailure::new(Code::FirmwareUnavailable, format!("firmware {reference}: {words}"))
}

/// Returns the digest of the manifest for a device type.
fn platform(
    index: &OciImageIndex,
    reference: &Reference,
    device: &str,
) -> Result<Digest, AttemptFailure> {
    let Some((_, digest)) = platforms(index).find(|(platform, _)| platform.is_for(device)) else {
        let platform_names: Vec<String> =
            platforms(index).map(|(platform, _)| platform.to_string()).collect();
        return Err(no_platform(reference, device, &platform_names.join(", ")));
    };
    digest
        .parse()
        .map_err(|error| broken(reference, "its index has an invalid digest").because(error))
}

fn no_platform(reference: &Reference, device: &str, platform_names: &str) -> AttemptFailure {
    let platform = Platform::of_device(device);
    let message = format!(
        "firmware {reference} has no image for {platform}, only for {platform_names}; build it \
         for this platform, or set another device type"
    );
    AttemptFailure::new(Code::NoPlatform, message)
}

/// Checks the platform of an image without an index, which its configuration names. An artifact
/// without a platform is accepted, because its author named none.
async fn check_platform(
    source: &mut Source<'_>,
    manifest: &OciImageManifest,
    reference: &Reference,
    device: &str,
) -> Result<(), AttemptFailure> {
    let platform = platform_of_image(source, manifest, reference).await.map_err(|error| {
        broken(reference, "its image configuration cannot be fetched").because(error)
    })?;
    match platform {
        Some(platform) if !platform.is_for(device) => {
            Err(no_platform(reference, device, &platform.to_string()))
        }
        _ => Ok(()),
    }
}

/// Verifies the signatures that the policy demands. Returns true if it demands one.
async fn verify(
    source: &mut Source<'_>,
    reference: &Reference,
    access: &Access,
    digests: &[&Digest],
) -> Result<bool, AttemptFailure> {
    // Without a policy, signatures are not demanded; an existing but broken policy is an error
    // before.
    if access.trust.is_empty() {
        return Ok(false);
    }
    let verified = firmware::verify(source, reference, &access.trust, digests).await;
    verified.map_err(|error| {
        let code = match &error {
            // A registry that fails says nothing about the signature, so this is retried.
            UnverifiedFirmware::Signatures { .. } => Code::FirmwareUnavailable,
            UnverifiedFirmware::Trust { .. } => Code::FirmwareNotTrusted,
        };
        AttemptFailure::new(code, error.to_string())
    })
}

/// Extracts the firmware from a layer.
fn extract(layer: Vec<u8>, reference: &Reference) -> Result<Option<File>, AttemptFailure> {
    firmware::extract(layer).map_err(|error| match error {
        UnreadableLayer::Zstandard | UnreadableLayer::TooLarge { .. } => {
            broken(reference, &error.to_string())
        }
        UnreadableLayer::Archive(error) => {
            broken(reference, "one of its layers cannot be unpacked").because(error)
        }
    })
}

#[cfg(test)]
mod tests;
