//! Configuration of the connection to the API server: the kubeconfig's, or else the Pod's. Reads
//! files and the environment.
//!
//! kube's own function adds a proxy from the environment, and fails if it cannot read that proxy or
//! `NO_PROXY`, whose usual spellings it does not all accept. Those proxies are for the registries:
//! the API server is in the operator's own cluster.

use kube::Config;
use kube::config::{Context, ExecAuthCluster, InClusterError, Kubeconfig, KubeconfigError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

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

/// Reason why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableKubeconfig {
    /// The kubeconfig is missing, malformed or incomplete.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The certificates of the cluster's authority are malformed.
    #[error("the certificate-authority of its cluster is not PEM: {0}")]
    Authority(#[from] pem::Error),
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
    let name = kubeconfig.current_context.ok_or(KubeconfigError::CurrentContextNotSet)?;
    let context = kubeconfig.contexts.into_iter().find(|context| context.name == name);
    let context: Context = context
        .and_then(|context| context.context)
        .ok_or_else(|| KubeconfigError::LoadContext(name))?;
    let cluster = kubeconfig.clusters.into_iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster
        .and_then(|cluster| cluster.cluster)
        .ok_or_else(|| KubeconfigError::LoadClusterOfContext(context.cluster.clone()))?;
    // As in kubectl, a user that is missing is one without credentials.
    let user = context.user.as_ref().and_then(|name| {
        let users = kubeconfig.auth_infos.into_iter();
        users.filter(|user| user.name == *name).find_map(|user| user.auth_info)
    });
    let mut user = user.unwrap_or_default();
    // This conversion reads the certificates, which may be in a file.
    let described = ExecAuthCluster::try_from(&cluster)?;
    let authorities = described.certificate_authority_data.as_deref().map(certificates);
    let authorities = authorities.transpose()?;
    if let Some(exec) = &mut user.exec
        && exec.provide_cluster_info
    {
        exec.cluster = Some(described);
    }
    let url = cluster.server.ok_or(KubeconfigError::MissingClusterUrl)?;
    let proxy = cluster.proxy_url.filter(|proxy| !proxy.is_empty());
    let proxy =
        proxy.map(|proxy| proxy.parse::<http::Uri>().map_err(KubeconfigError::ParseProxyUrl));

    let url = url.parse::<http::Uri>().map_err(KubeconfigError::ParseClusterUrl)?;
    let mut config = Config::new(url);
    if let Some(namespace) = context.namespace {
        config.default_namespace = namespace;
    }
    config.root_cert = authorities;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or_default();
    config.disable_compression = cluster.disable_compression.unwrap_or_default();
    config.tls_server_name = cluster.tls_server_name;
    config.proxy_url = proxy.transpose()?;
    config.auth_info = user;
    Ok(config)
}

/// Returns the certificates of a file in PEM, each in DER.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, pem::Error> {
    let certificates = CertificateDer::pem_slice_iter(pem);
    certificates.map(|certificate| certificate.map(|der| der.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Variable that is set for the child process that has proxies in its environment.
    const CHILD: &str = "FLASHJOB_TEST_PROXIES";
    const THIS_TEST: &str =
        "cluster::configuration::tests::proxies_of_the_environment_do_not_concern_the_api_server";

    /// Returns a kubeconfig whose cluster has these further fields.
    fn kubeconfig(fields: &str) -> Kubeconfig {
        let text = format!(
            r#"{{
                "current-context": "here",
                "contexts": [
                    {{"name": "there", "context": {{"cluster": "none"}}}},
                    {{"name": "here", "context": {{
                        "cluster": "fleet", "user": "robot", "namespace": "devices"
                    }}}}
                ],
                "clusters": [
                    {{"name": "fleet", "cluster": {{
                        "server": "https://10.1.2.3:6443"{fields}
                    }}}}
                ],
                "users": [{{"name": "robot", "user": {{"tokenFile": "/token"}}}}]
            }}"#
        );
        Kubeconfig::from_yaml(&text).expect("a kubeconfig")
    }

    #[test]
    fn the_current_context_decides_cluster_user_and_namespace() {
        let fields = r#", "tls-server-name": "kubernetes", "proxy-url": "http://10.9.9.9:3128",
            "certificate-authority-data":
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFRSUQKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=""#;
        let config = of_kubeconfig(kubeconfig(fields)).expect("a configuration");
        assert_eq!(config.cluster_url, "https://10.1.2.3:6443/");
        assert_eq!(config.default_namespace, "devices");
        assert_eq!(config.auth_info.token_file.as_deref(), Some("/token"));
        assert_eq!(config.tls_server_name.as_deref(), Some("kubernetes"));
        assert_eq!(config.root_cert, Some(vec![vec![1, 2, 3]]));
        let proxy = config.proxy_url.expect("the kubeconfig names one");
        assert_eq!(proxy, "http://10.9.9.9:3128/");
    }

    #[test]
    fn what_is_missing_in_a_kubeconfig_is_said() {
        let mut without_context = kubeconfig("");
        without_context.current_context = Some("elsewhere".to_owned());
        let error = of_kubeconfig(without_context).expect_err("refused").to_string();
        assert!(error.contains("elsewhere"), "{error}");
        let mut without_cluster = kubeconfig("");
        without_cluster.current_context = Some("there".to_owned());
        let error = of_kubeconfig(without_cluster).expect_err("refused").to_string();
        assert!(error.contains("none"), "{error}");
    }

    #[test]
    fn proxies_of_the_environment_do_not_concern_the_api_server() {
        if std::env::var_os(CHILD).is_some() {
            let config = of_kubeconfig(kubeconfig("")).expect("a configuration");
            assert_eq!(config.proxy_url, None);
            return;
        }
        for (proxy, without) in [
            ("http://127.0.0.1:9", "10.0.0.0/8,"),
            ("http://127.0.0.1:9", "localhost 10.0.0.1"),
            (" http://127.0.0.1:9 ", ""),
            ("not a proxy", "*,"),
        ] {
            // The environment of this process is that of the other tests, too.
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args([THIS_TEST, "--exact"])
                .env(CHILD, "1")
                .env("HTTPS_PROXY", proxy)
                .env("NO_PROXY", without)
                .output()
                .expect("it runs");
            let shown = String::from_utf8_lossy(&output.stdout);
            let has_passed = output.status.success() && shown.contains("1 passed");
            assert!(has_passed, "{proxy:?} {without:?}: {shown}");
        }
    }
}
