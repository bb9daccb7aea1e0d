//! A proxy between the operator and the API server that copies bytes and reads none of them: TLS
//! passes through, so the two negotiate HTTP/2 as they do without it. A test freezes or closes its
//! connections. [`crate::Proxy`] reads requests, and speaks only HTTP/1.1.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Fault of all connections that are open when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Frozen,
    Closed,
}

/// A running proxy.
pub struct Wire {
    /// The operator's kubeconfig, with the proxy's address instead of the API server's.
    pub kubeconfig: PathBuf,
    connections: Arc<AtomicUsize>,
    faults: watch::Sender<Option<Fault>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    /// Starts a proxy for the API server that this kubeconfig names.
    ///
    /// # Errors
    /// The kubeconfig cannot be read, or no port is free.
    pub async fn start(kubeconfig: &Path) -> anyhow::Result<Self> {
        let mut config: Value = serde_json::from_slice(&std::fs::read(kubeconfig)?)?;
        let server = &mut config["clusters"][0]["cluster"]["server"];
        let address = server.as_str().and_then(|url| url.strip_prefix("https://"));
        let address = address.context("the kubeconfig names no HTTPS server")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        // The API server's certificate is valid for this address too.
        *server = json!(format!("https://{}", listener.local_addr()?));
        let wired_kubeconfig = kubeconfig.with_extension("wired");
        std::fs::write(&wired_kubeconfig, serde_json::to_vec_pretty(&config)?)?;
        let connections = Arc::new(AtomicUsize::new(0));
        let faults = watch::Sender::new(None);
        let task = tokio::spawn(accept(listener, address, connections.clone(), faults.clone()));
        Ok(Self { kubeconfig: wired_kubeconfig, connections, faults, task })
    }

    /// Stops copying on all open connections and keeps them open, as a firewall does that forgot
    /// them: the kernel still acknowledges what is sent. New connections work.
    pub fn freeze(&self) {
        self.faults.send_replace(Some(Fault::Frozen));
    }

    /// Closes all open connections, frozen ones too, without the end that TLS and HTTP/2 expect.
    pub fn cut(&self) {
        self.faults.send_replace(Some(Fault::Closed));
    }

    /// Returns the number of connections that the operator has opened so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    server: String,
    connections: Arc<AtomicUsize>,
    faults: watch::Sender<Option<Fault>>,
) {
    while let Ok((client, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        // A receiver regards earlier faults as seen, so they do not concern this connection.
        tokio::spawn(carry(client, server.clone(), faults.subscribe()));
    }
}

/// Copies bytes both ways until a side closes the connection, or until a fault.
async fn carry(mut client: TcpStream, server: String, mut faults: watch::Receiver<Option<Fault>>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    // Nagle's algorithm (RFC 896) would delay small frames. Neither program uses it.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        fault = faults.changed() => if fault.is_err() { return },
    }
    // Both streams stay open, and nothing is copied.
    while *faults.borrow_and_update() != Some(Fault::Closed) {
        if faults.changed().await.is_err() {
            return;
        }
    }
}
