//! The program in the flash Pod's image: fetches the firmware, asks the device to call back, hands
//! the firmware over.

mod callback;
mod image;
mod transfer;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use callback::Callback;

/// Without any one of these the image refuses to start.
const REQUIRED: [&str; 7] =
    ["FIRMWARE", "UUID", "HOST_ENDPOINT", "DEVICE", "APPLICATION_TYPE", "VERSION", "EXTERNAL_IP"];
/// Where the device calls back.
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
    let firmware = image::fetch(environment, &device).await?;
    let callback = Callback {
        endpoint: environment.need("HOST_ENDPOINT")?,
        address: environment.need("EXTERNAL_IP")?,
        limit: environment.milliseconds("FLASHER_CALLBACK_TIMEOUT_MS", 60_000),
        again: environment.milliseconds("FLASHER_ASK_AGAIN_MS", 5000),
    };
    let listener = listen(callback.address).await?;
    let acceptor = acceptor(environment)?;
    tokio::time::sleep(environment.milliseconds("FLASHER_WAIT_MS", 2000)).await;
    let caller = callback.wait(listener, &acceptor).await?;
    transfer::hand_over(caller, environment, &firmware).await
}

/// Listens on the external address, where that is this machine's, as in a simulation. To a Pod it
/// belongs to the load balancer.
async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let listener = match TcpListener::bind((address, PORT)).await {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await
        }
        bound => bound,
    };
    listener.with_context(|| format!("cannot listen for {address}:{PORT}"))
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

#[cfg(test)]
mod tests;
