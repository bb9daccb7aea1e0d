//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Parser};

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
    /// The operator's own namespace, where its Lease and the registry credentials are. Default:
    /// the kubeconfig's.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// ConfigMap from which the configuration file is mounted: named in the advice on an incomplete
    /// configuration, not read.
    #[arg(long, default_value = "flashjob-operator-config", env = "FLASHJOB_CONFIG_MAP")]
    pub config_map: String,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, default_value = "0.0.0.0:8081", env = "FLASHJOB_HEALTH_ADDRESS")]
    pub health_address: SocketAddr,
    /// Act only while holding the Lease flashjob-operator in the operator's own namespace. Without
    /// it there must never be a second process.
    #[arg(long, default_value_t = true, action = ArgAction::Set, env = "FLASHJOB_LEADER_ELECTION")]
    pub leader_election: bool,
    /// For how long the Lease is held without being renewed; a successor waits as long after a
    /// crash. Of it the last 6 s are not used.
    #[arg(
        long,
        default_value_t = 15,
        // Of 9 s the fence leaves 3, and the Lease is renewed every 2 s.
        value_parser = clap::value_parser!(u16).range(9..=3600),
        env = "FLASHJOB_LEASE_DURATION_SECONDS"
    )]
    pub lease_duration_seconds: u16,
    /// For how many seconds what was ready may fail before /readyz says so.
    #[arg(long, default_value_t = 30, hide = true)]
    pub unready_after_seconds: u64,
    /// End when standard input does: for whoever starts the operator as a child.
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}
