//! The way to the cluster, by kubectl's own options. Reads the kubeconfig.

use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::failure::{Code, Failure};

/// Which cluster, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterOptions {
    /// The kubeconfig. Default: $KUBECONFIG, else ~/.kube/config, else that of the Pod.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long)]
    context: Option<String>,
}

impl ClusterOptions {
    /// A client for the cluster.
    ///
    /// # Errors
    /// There is no kubeconfig, or it cannot be used.
    pub async fn client(&self) -> Result<Client, Failure> {
        let config = self.config().await?;
        Client::try_from(config).map_err(|error| unreachable(&error.to_string()))
    }

    async fn config(&self) -> Result<Config, Failure> {
        if self.kubeconfig.is_none() && self.context.is_none() {
            return Config::infer().await.map_err(|error| unreachable(&error.to_string()));
        }
        let kubeconfig = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let kubeconfig = kubeconfig.map_err(|error| unreachable(&error.to_string()))?;
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        config.map_err(|error| unreachable(&error.to_string()))
    }
}

/// The cluster does not answer, or nobody says where it is.
pub fn unreachable(words: &str) -> Failure {
    Failure::new(
        Code::Unavailable,
        "ClusterUnreachable",
        format!("no cluster: {words}; set KUBECONFIG, --kubeconfig or --context"),
    )
}
