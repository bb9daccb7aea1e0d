//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Keeps the firmware of fleets of microcontrollers current.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "/etc/flashjob/config.yaml", env = "FLASHJOB_CONFIG")]
    pub config: PathBuf,
    /// Folder for fetched and compiled plugins; nobody else may write into it.
    #[arg(long, default_value = "/var/cache/flashjob", env = "FLASHJOB_CACHE_FOLDER")]
    pub cache: PathBuf,
    /// Watch this namespace alone. Default: all.
    #[arg(long, env = "FLASHJOB_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// The operator's own namespace, where registry credentials are. Default: the kubeconfig's.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, default_value = "0.0.0.0:8081", env = "FLASHJOB_HEALTH_ADDRESS")]
    pub health_address: SocketAddr,
    /// End when standard input does: for whoever starts the operator as a child.
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}
