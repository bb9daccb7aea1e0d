//! The program in the flash Pod's image: fetches the firmware, asks the device to call back, hands the firmware over.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Without any one of these the image refuses to start.
const REQUIRED: [&str; 7] =
    ["FIRMWARE", "UUID", "HOST_ENDPOINT", "DEVICE", "APPLICATION_TYPE", "VERSION", "EXTERNAL_IP"];
/// A device certificate has at least this many bytes.
const CERTIFICATE_BYTES: usize = 700;
const PORT: u16 = 4433;

/// The environment of the container.
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::vars().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn need(&self, name: &str) -> anyhow::Result<&str> {
        self.get(name).with_context(|| format!("environment variable {name} is empty"))
    }

    fn milliseconds(&self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.get(name).and_then(|text| text.parse().ok()).unwrap_or(default))
    }

    /// A path as the container sees it; simulated containers have their files elsewhere.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(self.get("SIMULATED_ROOT").unwrap_or("/")).join(path.trim_start_matches('/'))
    }

    /// Where this process was started, as the container sees it.
    ///
    /// # Errors
    /// It was started elsewhere than in the container.
    pub fn working_directory(&self) -> anyhow::Result<PathBuf> {
        let (root, here) = (self.path("/").canonicalize()?, std::env::current_dir()?);
        let below = here
            .strip_prefix(&root)
            .with_context(|| format!("{} is not below {}", here.display(), root.display()))?;
        Ok(Path::new("/").join(below))
    }
}

/// Flashes one device.
///
/// # Errors
/// Says what went wrong; the caller writes it where Kubernetes looks for it.
pub async fn flash(environment: &Environment) -> anyhow::Result<()> {
    for name in REQUIRED {
        environment.need(name)?;
    }
    let device = environment.need("DEVICE")?.to_lowercase().replace('-', "");
    let firmware = fetch(environment, &device).await?;
    let address = environment.need("EXTERNAL_IP")?;
    // A simulated Pod shares its machine with others, so it listens on its external address alone.
    let own = environment.get("FLASHER_LISTEN").unwrap_or(address);
    let listener = TcpListener::bind((own, PORT))
        .await
        .with_context(|| format!("cannot listen on {own}:{PORT}"))?;
    let acceptor = acceptor(environment)?;
    tokio::time::sleep(environment.milliseconds("FLASHER_WAIT_MS", 2000)).await;
    ask(environment.need("HOST_ENDPOINT")?, address).await?;
    let limit = environment.milliseconds("FLASHER_CALLBACK_TIMEOUT_MS", 60_000);
    let handed =
        tokio::time::timeout(limit, hand_over(&listener, &acceptor, environment, &firmware)).await;
    handed.with_context(|| format!("the device did not call back within {limit:?}"))?
}

/// Asks the device to call back.
async fn ask(endpoint: &str, address: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    let request = client
        .post(format!("http://{endpoint}/update"))
        .header("content-type", "text/plain")
        .body(format!("ip: {address}"));
    let answer =
        request.send().await.with_context(|| format!("device {endpoint} does not answer"))?;
    ensure!(answer.status().is_success(), "device {endpoint} answers {}", answer.status());
    Ok(())
}

async fn hand_over(
    listener: &TcpListener,
    acceptor: &TlsAcceptor,
    environment: &Environment,
    firmware: &[u8],
) -> anyhow::Result<()> {
    let (stream, _) = listener.accept().await?;
    let mut stream = acceptor.accept(stream).await?;
    let certificate = read_certificate(&mut stream).await?;
    trust(environment, &certificate).await?;
    stream.write_all(firmware).await.context("the transfer broke")?;
    stream.shutdown().await.context("the transfer broke")?;
    // The device closes when it has all.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.context("the transfer broke")?;
    Ok(())
}

/// A DER certificate says its own length (X.690, section 8.1.3).
async fn read_certificate(stream: &mut (impl AsyncReadExt + Unpin)) -> anyhow::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.context("the device sent no certificate")?;
    ensure!(head[..2] == [0x30, 0x82], "the device sent something that is no certificate");
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    ensure!(
        length + head.len() >= CERTIFICATE_BYTES,
        "the device's certificate has only {} bytes",
        length + head.len()
    );
    let mut certificate = head.to_vec();
    certificate.resize(head.len() + length, 0);
    stream
        .read_exact(&mut certificate[head.len()..])
        .await
        .context("the device's certificate is cut")?;
    Ok(certificate)
}

/// Asks the attestation service, where the cluster has one.
async fn trust(environment: &Environment, certificate: &[u8]) -> anyhow::Result<()> {
    let Some(host) = environment.get("DICE_AUTH_SERVICE_SERVICE_HOST") else { return Ok(()) };
    let text = to_pem(certificate);
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    let answer = client
        .post(format!("http://{host}:8000"))
        .body(text)
        .send()
        .await
        .context("the attestation service does not answer")?;
    ensure!(answer.status().as_u16() == 200, "the device is not trusted");
    Ok(())
}

fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn acceptor(environment: &Environment) -> anyhow::Result<TlsAcceptor> {
    let (certificate, key) =
        (environment.path("/ota/certs/server.crt"), environment.path("/ota/certs/server.key"));
    let (chain, key) = if certificate.exists() {
        let chain = CertificateDer::pem_file_iter(&certificate)?.collect::<Result<Vec<_>, _>>()?;
        (chain, PrivateKeyDer::from_pem_file(&key)?)
    } else {
        let made = rcgen::generate_simple_self_signed(vec!["flasher".to_owned()])?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(anyhow::Error::msg)?;
        (vec![made.cert.der().clone()], key)
    };
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Fetches the image for platform `custom/<device>`, and takes the first file under `/firmware`.
async fn fetch(environment: &Environment, device: &str) -> anyhow::Result<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{Behaviour, Fleet, Group};
    use crate::firmware::Firmware;

    async fn device_after(behaviour: Behaviour, address: &str) -> crate::devices::Report {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fleet =
            Fleet::new(std::net::Ipv4Addr::LOCALHOST.into(), PORT, Duration::from_millis(1));
        let group = Group {
            device: "esp32".into(),
            application: "thermo".into(),
            version: "1".into(),
            count: 1,
        };
        fleet.add(&group).await.expect("a device");
        let report = fleet.reports().remove(0);
        assert!(fleet.behave(&report.id, behaviour));
        let environment = Environment(BTreeMap::new());
        let acceptor = acceptor(&environment).expect("TLS");
        let listener = TcpListener::bind((address, PORT)).await.expect("a loopback address");
        let firmware = Firmware {
            device: "esp32".into(),
            application: "thermo".into(),
            version: "2".into(),
            payload: vec![1; 200_000],
        };
        let firmware = firmware.encode().expect("encoded");
        ask(&report.endpoint, address).await.expect("asked");
        let _ = hand_over(&listener, &acceptor, &environment, &firmware).await;
        for _ in 0..1000 {
            let report = fleet.reports().remove(0);
            if report.flashed + report.refused > 0 {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the device never came to an end");
    }

    #[tokio::test]
    async fn a_device_that_calls_back_runs_the_new_firmware() {
        let report = device_after(Behaviour::default(), "127.77.1.1").await;
        assert_eq!(
            (report.version.as_str(), report.previous_version.as_str(), report.flashed),
            ("2", "1", 1)
        );
    }

    #[tokio::test]
    async fn a_device_that_cuts_the_transfer_stays_what_it_was() {
        let report =
            device_after(Behaviour { cut_transfer: true, ..Behaviour::default() }, "127.77.1.2")
                .await;
        assert_eq!((report.version.as_str(), report.flashed, report.refused), ("1", 0, 1));
    }
}
