//! Firmware in a registry: its device types and its signatures. A microcontroller's platform has
//! the operating system `custom` and the device type as its architecture.

mod beginning;
mod layer;

use oci_client::manifest::{ImageIndexEntry, OciImageIndex, OciImageManifest, OciManifest};
use serde::Deserialize;

use crate::config::TrustEntry;
use crate::trust::{self, entry};
use crate::{Digest, MANIFEST_BYTES, Reference, RegistryError, Source, TrustError, layer_of};
pub use beginning::{Beginning, Beginnings, Part};
pub use layer::{File, UnreadableLayer, extract};

/// Operating system of a microcontroller's platform.
const SYSTEM: &str = "custom";
/// Largest layer of a firmware image that is fetched, in bytes.
pub const LAYER_BYTES: usize = 64 << 20;
/// Largest image configuration that is read, in bytes.
const CONFIG_BYTES: usize = 1 << 20;

/// Platform of an image: operating system and architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Operating system.
    pub system: String,
    /// Architecture.
    pub architecture: String,
}

impl Platform {
    /// Returns true if firmware for this platform is for a device type: `custom/esp32-s3` is for
    /// `ESP32S3`.
    #[must_use]
    pub fn is_for(&self, device_type: &str) -> bool {
        // Akri, build tools and people write the same chip as ESP32-S3, esp32_s3 and esp32s3.
        let normalized_name = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
        self.system == SYSTEM
            && normalized_name(&self.architecture) == normalized_name(device_type)
    }

    /// Returns the platform of a device type.
    #[must_use]
    pub fn of_device(device_type: &str) -> Self {
        Self { system: SYSTEM.to_owned(), architecture: device_type.to_owned() }
    }

    /// Returns the device type of the platform; None for the platform of a computer.
    #[must_use]
    pub fn device_type(&self) -> Option<&str> {
        (self.system == SYSTEM).then_some(self.architecture.as_str())
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.system, self.architecture)
    }
}

/// Returns the platforms of an index, each with the digest of its manifest as the index gives it.
pub fn platforms(index: &OciImageIndex) -> impl Iterator<Item = (Platform, &str)> {
    let named = |entry: &ImageIndexEntry| {
        let platform = entry.platform.as_ref()?;
        let (system, architecture) = (platform.os.to_string(), platform.architecture.to_string());
        Some(Platform { system, architecture })
    };
    index.manifests.iter().filter_map(move |entry| Some((named(entry)?, entry.digest.as_str())))
}

/// Reads the platform that the configuration of an image names; None for an artifact without such
/// a configuration.
///
/// # Errors
/// The configuration cannot be fetched.
pub async fn platform_of_image(
    source: &mut Source<'_>,
    manifest: &OciImageManifest,
    reference: &Reference,
) -> Result<Option<Platform>, RegistryError> {
    #[derive(Deserialize)]
    struct Configuration {
        os: String,
        architecture: String,
    }
    let config = layer_of(&manifest.config, &reference.to_string(), CONFIG_BYTES)?;
    let bytes = source.blob(&config).await?;
    let platform = |Configuration { os: system, architecture }| Platform { system, architecture };
    // oras and similar tools push an artifact with an empty configuration, which names no
    // platform.
    Ok(serde_json::from_slice(&bytes).ok().map(platform))
}

/// Metadata of firmware in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// Digest of the index, or of the only manifest.
    pub digest: Digest,
    /// Platforms, each with the digest of its manifest; empty if the firmware names none.
    pub platforms: Vec<(Platform, Digest)>,
}

/// Resolves a reference, and reads the platforms of the firmware. The firmware itself is not
/// fetched.
///
/// # Errors
/// The registry does not answer, does not have the reference, or has something else under it.
pub async fn look_up(
    source: &mut Source<'_>,
    reference: &Reference,
) -> Result<Firmware, RegistryError> {
    let expected = reference.digest();
    let tag_or_digest =
        expected.map(ToString::to_string).or_else(|| reference.tag().map(str::to_owned));
    let tag_or_digest = tag_or_digest.unwrap_or_default();
    let what = source.what(&tag_or_digest);
    let form = |message: String| RegistryError::Form { what: what.clone(), message };
    let (digest, bytes) = source.manifest_bytes(&tag_or_digest, expected, MANIFEST_BYTES).await?;
    let parsed: OciManifest = serde_json::from_slice(&bytes)
        .map_err(|error| form(format!("its manifest cannot be read: {error}")))?;
    // Builders write an index even for one platform, and a plain manifest without one.
    let platforms = match parsed {
        OciManifest::Image(manifest) => {
            let platform = platform_of_image(source, &manifest, reference).await?;
            platform.map(|platform| (platform, digest.clone())).into_iter().collect()
        }
        OciManifest::ImageIndex(index) => platforms(&index)
            .map(|(platform, digest)| {
                let digest = digest.parse().map_err(|error: crate::InvalidDigest| {
                    form(format!("its index has an invalid digest for {platform}: {error}"))
                })?;
                Ok((platform, digest))
            })
            .collect::<Result<_, RegistryError>>()?,
    };
    Ok(Firmware { digest, platforms })
}

/// Reason why the signatures do not prove that firmware may be used.
#[derive(Debug, thiserror::Error)]
pub enum UnverifiedFirmware {
    /// The registry did not answer the request for signatures.
    #[error("the signatures of firmware {reference} cannot be fetched: {source}")]
    Signatures {
        /// The firmware.
        reference: String,
        /// Error of the registry.
        source: RegistryError,
    },
    /// The policy does not allow the firmware.
    #[error("firmware {reference} is not trusted by the policy: {source}")]
    Trust {
        /// The firmware.
        reference: String,
        /// Reason for the refusal.
        source: TrustError,
    },
}

/// Checks that one of these manifests has the signatures that the policy demands. A signature of
/// an index covers all its manifests, a signature of a manifest only that manifest. Returns true
/// if the policy demands a signature.
///
/// # Errors
/// No manifest has the signatures, one has more of them than are fetched, or the registry does not
/// answer.
pub async fn verify(
    source: &mut Source<'_>,
    reference: &Reference,
    trust: &[TrustEntry],
    digests: &[&Digest],
) -> Result<bool, UnverifiedFirmware> {
    let unavailable = |source: RegistryError| UnverifiedFirmware::Signatures {
        reference: reference.to_string(),
        source,
    };
    let (mut refusal, mut broken, mut beyond_limit) = (None, None, None);
    for digest in digests {
        let mut signatures = Vec::new();
        let demanded = entry(reference, trust).and_then(|entry| entry.cosign.as_ref());
        for form in demanded.iter().flat_map(|cosign| &cosign.forms) {
            match source.signatures(digest, *form).await {
                Ok(answer) => {
                    signatures.extend(answer.fetched);
                    beyond_limit = beyond_limit.or(answer.beyond_limit);
                }
                // Signatures in another form, or of another manifest, may suffice.
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        match trust::check(reference, digest, trust, false, &signatures) {
            Ok(signed) => return Ok(signed),
            // The refusal of the index is reported, because that is what people sign.
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    // A signature that was not fetched may be the required one. An error comes first, as a retry
    // may succeed.
    if let Some(error) = broken.or(beyond_limit) {
        return Err(unavailable(error));
    }
    refusal.map_or(Ok(false), |source| {
        Err(UnverifiedFirmware::Trust { reference: reference.to_string(), source })
    })
}

#[cfg(test)]
mod tests {
    use super::Platform;

    #[test]
    fn the_architecture_of_a_platform_is_the_device_type_in_any_spelling_and_no_other() {
        for (architecture, device, is_same) in [
            ("esp32s3", "ESP32-S3", true),
            ("esp32_s3", "esp32s3", true),
            ("esp32", "esp32s3", false),
            ("esp32s3", "esp32", false),
        ] {
            assert_eq!(
                Platform::of_device(architecture).is_for(device),
                is_same,
                "{architecture} for {device}"
            );
        }
    }
}
