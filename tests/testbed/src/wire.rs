//! A proxy between the operator and the API server that copies bytes and reads none of them: TLS
//! passes through, so the two negotiate HTTP/2 as they do without it. A test freezes or closes its
//! connections. [`crate::Proxy`] reads requests, and speaks only HTTP/1.1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::control_plane::ControlPlane;

/// Fault of all connections that are open when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Frozen,
    Closed,
}

/// A running proxy.
pub struct Wire {
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
    /// Starts a proxy for the API server. Operators that start from now on connect to it.
    ///
    /// # Errors
    /// The operator's kubeconfig cannot be written, or no port is free.
    pub async fn start(control_plane: &mut ControlPlane) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        // The API server's certificate is valid for this address too.
        let cluster = json!({
            "server": format!("https://{}", listener.local_addr()?),
            "certificate-authority": control_plane.authority,
        });
        control_plane.redirect_operator(&cluster)?;
        let connections = Arc::new(AtomicUsize::new(0));
        let faults = watch::Sender::new(None);
        let server = control_plane.address();
        let task = tokio::spawn(accept(listener, server, connections.clone(), faults.clone()));
        Ok(Self { connections, faults, task })
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
