//! Configuration of the connection to the API server: the kubeconfig's, or else the Pod's. Reads
//! files and the environment.
//!
//! Proxies of the environment are for the registries: the API server is in the operator's own
//! cluster.

use flashjob_kubeconfig::UnusableKubeconfig;
use kube::Config;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Neither a kubeconfig nor the configuration of a Pod can be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "no configuration of a cluster was found: in the Pod: {in_cluster}; in the kubeconfig: \
     {kubeconfig}; set KUBECONFIG, or run inside a cluster"
)]
pub struct NoCluster {
    in_cluster: Box<InClusterError>,
    // Of the two, a mistake of a person is more likely here.
    #[source]
    kubeconfig: Box<UnusableKubeconfig>,
}

/// Reads the configuration.
///
/// # Errors
/// There is none that can be used.
pub fn read() -> Result<Config, NoCluster> {
    let kubeconfig = Kubeconfig::read().map_err(UnusableKubeconfig::from);
    let mut config = match kubeconfig.and_then(of_kubeconfig) {
        Ok(config) => config,
        Err(kubeconfig) => Config::incluster().map_err(|in_cluster| NoCluster {
            in_cluster: Box::new(in_cluster),
            kubeconfig: Box::new(kubeconfig),
        })?,
    };
    config.apply_debug_overrides();
    Ok(config)
}

/// Returns the configuration that the current context of a kubeconfig describes. Only the
/// kubeconfig itself can name a proxy (`proxy-url`).
fn of_kubeconfig(kubeconfig: Kubeconfig) -> Result<Config, UnusableKubeconfig> {
    let described = flashjob_kubeconfig::configuration(kubeconfig, &KubeConfigOptions::default());
    let (mut config, proxy) = described?;
    let proxy =
        proxy.map(|proxy| proxy.parse::<http::Uri>().map_err(KubeconfigError::ParseProxyUrl));
    config.proxy_url = proxy.transpose()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_may_name_a_proxy() {
        let kubeconfig = |proxy: &str| {
            let text = format!(
                r#"{{
                    "current-context": "here",
                    "contexts": [{{"name": "here", "context": {{"cluster": "fleet"}}}}],
                    "clusters": [{{"name": "fleet", "cluster": {{
                        "server": "https://10.1.2.3:6443", "proxy-url": "{proxy}"
                    }}}}]
                }}"#
            );
            Kubeconfig::from_yaml(&text).expect("a kubeconfig")
        };
        let config = of_kubeconfig(kubeconfig("http://10.9.9.9:3128")).expect("a configuration");
        assert_eq!(config.proxy_url.expect("a proxy"), "http://10.9.9.9:3128/");
        let error = of_kubeconfig(kubeconfig("not a proxy")).expect_err("refused").to_string();
        assert!(error.starts_with("failed to parse proxy url"), "{error}");
    }
}
