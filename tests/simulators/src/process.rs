//! What all simulators' processes share: logging, the TLS provider, and an end that comes with their starter's.

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Sets up logging and TLS.
pub fn prepare() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Waits for SIGINT, SIGTERM or, where asked to, the end of standard input.
///
/// # Errors
/// Signals cannot be listened to.
pub async fn told_to_end(with_stdin: bool) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        () = stdin_ends(with_stdin) => {}
    }
    Ok(())
}

/// Waits for the end of standard input; for ever where not asked to.
pub async fn stdin_ends(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let mut bytes = [0; 64];
    while tokio::io::stdin().read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}
