//! The firmware out of its image in a registry.

use std::io::Read;

use anyhow::{Context, bail};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use super::Environment;

/// Fetches the image for platform `custom/<device>`, and takes the first file under `/firmware`.
pub(super) async fn fetch(environment: &Environment, device: &str) -> anyhow::Result<Vec<u8>> {
    let name = environment.need("FIRMWARE")?;
    let reference: Reference = mirrored(environment, name)
        .parse()
        .with_context(|| format!("FIRMWARE {name:?} is not a reference"))?;
    let mut config = ClientConfig::default();
    if let Some(file) = environment.get("REGISTRY_CA_FILE") {
        config
            .extra_root_certificates
            .push(Certificate { encoding: CertificateEncoding::Pem, data: std::fs::read(file)? });
    }
    let wanted = device.to_owned();
    config.platform_resolver = Some(Box::new(move |entries| {
        let fits = |entry: &&oci_client::manifest::ImageIndexEntry| {
            entry.platform.as_ref().is_some_and(|platform| {
                platform.os.to_string() == "custom"
                    && platform.architecture.to_string().replace('-', "") == wanted
            })
        };
        entries.iter().find(fits).map(|entry| entry.digest.clone())
    }));
    let client = Client::try_from(config)?;
    let auth = match (environment.get("REGISTRY_USER"), environment.get("REGISTRY_PASSWORD")) {
        (Some(user), Some(password)) => RegistryAuth::Basic(user.to_owned(), password.to_owned()),
        _ => RegistryAuth::Anonymous,
    };
    let (manifest, _) = client
        .pull_image_manifest(&reference, &auth)
        .await
        .with_context(|| format!("cannot pull {name} for {device}"))?;
    for layer in &manifest.layers {
        let mut blob = Vec::new();
        client
            .pull_blob(&reference, layer, &mut blob)
            .await
            .with_context(|| format!("cannot pull {name}"))?;
        if let Some(firmware) = first_firmware(&blob)? {
            return Ok(firmware);
        }
    }
    bail!("{name} has no file under /firmware")
}

/// In a test the registry of a reference may stand elsewhere: `REGISTRY_MIRRORS=host=other,…`.
fn mirrored(environment: &Environment, name: &str) -> String {
    let mirrors = environment.get("REGISTRY_MIRRORS").unwrap_or_default().split(',');
    let mut pairs = mirrors.filter_map(|pair| pair.split_once('='));
    let found = pairs.find_map(|(host, other)| {
        Some(format!("{other}/{}", name.strip_prefix(host)?.strip_prefix('/')?))
    });
    found.unwrap_or_else(|| name.to_owned())
}

fn first_firmware(layer: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let plain: Box<dyn Read> = if layer.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::read::GzDecoder::new(layer))
    } else {
        Box::new(layer)
    };
    let mut archive = tar::Archive::new(plain);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let inside = path.strip_prefix("/").unwrap_or(&path).starts_with("firmware");
        if inside && entry.header().entry_type().is_file() {
            let mut firmware = Vec::new();
            entry.read_to_end(&mut firmware)?;
            return Ok(Some(firmware));
        }
    }
    Ok(None)
}
