//! Options of `preview`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cluster::Scope;
use crate::source::{RegistryOptions, TrustOptions};

/// Show what would be created.
#[derive(Debug, Args)]
pub struct Preview {
    /// Name of a FlashJob of the cluster.
    #[arg(value_name = "NAME", conflicts_with = "file")]
    pub(super) name: Option<String>,
    /// A FlashJob, in YAML or JSON; names that the API server's uid is part of are those of an
    /// example.
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Only the device of the FlashJob with this uid, or whose uid begins so; repeat it for
    /// several.
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    pub(super) uid: Vec<String>,
    /// Akri's Instances, in YAML or JSON, as kubectl get instances.akri.sh -o yaml writes them.
    /// With --file and --plugin no cluster is asked.
    #[arg(long, value_name = "FILE")]
    pub(super) instances: Option<PathBuf>,
    /// A plugin: a file, or a reference as in the operator's configuration; repeat it for several.
    /// Default: those of the operator's configuration.
    #[arg(long, value_name = "FILE|REFERENCE")]
    pub(super) plugin: Vec<String>,
    /// The external address, which the load balancer gives.
    #[arg(long, value_name = "ADDRESS", default_value = "192.0.2.1")]
    pub(super) address: IpAddr,
    #[command(flatten)]
    pub(super) registry: RegistryOptions,
    #[command(flatten)]
    pub(super) trust: TrustOptions,
    #[command(flatten)]
    pub(super) scope: Scope,
}
