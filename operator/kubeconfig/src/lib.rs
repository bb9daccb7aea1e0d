//! Configuration of the connection to an API server, from a kubeconfig. Reads the files that the
//! kubeconfig names, but not the environment.
//!
//! kube's own function, [`Config::from_custom_kubeconfig`], cannot be used: it adds the proxy of
//! `HTTPS_PROXY`, compares `NO_PROXY` with that proxy in place of the API server, and fails if
//! `NO_PROXY` ends with a comma or contains blanks. The operator uses no proxy of the environment
//! for the API server, and kubectl flashjob reads these variables as kubectl does.
#![deny(missing_docs)]

use kube::Config;
use kube::config::{
    AuthInfo, Cluster, ExecAuthCluster, KubeConfigOptions, Kubeconfig, KubeconfigError,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

/// Reason why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableKubeconfig {
    /// The kubeconfig is missing, malformed or incomplete.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The kubeconfig does not contain the user of the options.
    #[error("the kubeconfig has no user {0}")]
    LoadUser(String),
    /// The certificates of the cluster's authority are malformed.
    #[error("the certificate-authority of its cluster is not PEM: {0}")]
    Authority(#[from] pem::Error),
}

/// Cluster, user and namespace that a context and the options select.
struct Selection {
    cluster: Cluster,
    user: AuthInfo,
    namespace: Option<String>,
}

/// Returns the configuration that a kubeconfig describes, with the context, cluster and user of
/// the options, by default those of its current context.
///
/// The configuration has no proxy. The cluster's `proxy-url` is returned beside it, unless it is
/// empty: each program decides which proxies it supports. It may contain a password.
///
/// # Errors
/// The kubeconfig does not contain a name that is selected, the cluster's URL is missing or
/// invalid, or the certificates of its authority cannot be read.
pub fn configuration(
    kubeconfig: Kubeconfig,
    options: &KubeConfigOptions,
) -> Result<(Config, Option<String>), UnusableKubeconfig> {
    let Selection { cluster, mut user, namespace } = select(kubeconfig, options)?;
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
    let url = url.parse::<http::Uri>().map_err(KubeconfigError::ParseClusterUrl)?;

    let mut config = Config::new(url);
    if let Some(namespace) = namespace {
        config.default_namespace = namespace;
    }
    config.root_cert = authorities;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or_default();
    config.disable_compression = cluster.disable_compression.unwrap_or_default();
    config.tls_server_name = cluster.tls_server_name;
    config.auth_info = user;
    Ok((config, cluster.proxy_url.filter(|proxy| !proxy.is_empty())))
}

fn select(
    kubeconfig: Kubeconfig,
    options: &KubeConfigOptions,
) -> Result<Selection, UnusableKubeconfig> {
    // With a misspelt name, requests would be sent without credentials, and the answer would be
    // 401 or 403.
    if let Some(user) = &options.user
        && !kubeconfig.auth_infos.iter().any(|entry| entry.name == *user)
    {
        return Err(UnusableKubeconfig::LoadUser(user.clone()));
    }
    let name = options.context.clone().or(kubeconfig.current_context);
    let name = name.ok_or(KubeconfigError::CurrentContextNotSet)?;
    let context = kubeconfig.contexts.into_iter().find(|context| context.name == name);
    let context = context.and_then(|context| context.context);
    let context = context.ok_or_else(|| KubeconfigError::LoadContext(name))?;
    let name = options.cluster.clone().unwrap_or(context.cluster);
    let cluster = kubeconfig.clusters.into_iter().find(|cluster| cluster.name == name);
    let cluster = cluster.and_then(|cluster| cluster.cluster);
    let cluster = cluster.ok_or_else(|| KubeconfigError::LoadClusterOfContext(name))?;
    // As in kubectl, a user of the context that is missing is one without credentials.
    let user = options.user.clone().or(context.user).and_then(|name| {
        let user = kubeconfig.auth_infos.into_iter().find(|user| user.name == name);
        user.and_then(|user| user.auth_info)
    });
    Ok(Selection { cluster, user: user.unwrap_or_default(), namespace: context.namespace })
}

/// Returns the certificates of a file in PEM, each in DER.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, pem::Error> {
    let certificates = CertificateDer::pem_slice_iter(pem);
    certificates.map(|certificate| certificate.map(|der| der.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::process::Command;

    use super::*;

    /// Variable that is set for the child process that has proxies in its environment.
    const CHILD: &str = "FLASHJOB_TEST_PROXIES";
    const THIS_TEST: &str = "tests::proxies_of_the_environment_are_not_used";

    /// Returns a kubeconfig with two contexts; the cluster of the current one has these further
    /// fields.
    fn kubeconfig(fields: &str) -> Kubeconfig {
        let text = format!(
            r#"{{
                "current-context": "here",
                "contexts": [
                    {{"name": "there", "context": {{"cluster": "other", "user": "nobody"}}}},
                    {{"name": "here", "context": {{
                        "cluster": "fleet", "user": "robot", "namespace": "devices"
                    }}}}
                ],
                "clusters": [
                    {{"name": "other", "cluster": {{
                        "server": "https://10.9.9.9:6443", "proxy-url": ""
                    }}}},
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
    fn the_current_context_decides_what_the_options_do_not() {
        let fields = r#", "tls-server-name": "kubernetes", "proxy-url": "http://10.9.9.9:3128",
            "certificate-authority-data":
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFRSUQKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=""#;
        let described = configuration(kubeconfig(fields), &KubeConfigOptions::default());
        let (config, proxy) = described.expect("a configuration");
        assert_eq!(config.cluster_url, "https://10.1.2.3:6443/");
        assert_eq!(config.default_namespace, "devices");
        assert_eq!(config.auth_info.token_file.as_deref(), Some("/token"));
        assert_eq!(config.tls_server_name.as_deref(), Some("kubernetes"));
        assert_eq!(config.root_cert, Some(vec![vec![1, 2, 3]]));
        assert_eq!(config.proxy_url, None);
        assert_eq!(proxy.as_deref(), Some("http://10.9.9.9:3128"));

        let (cluster, user) = (Some("other".to_owned()), Some("robot".to_owned()));
        let context = Some("there".to_owned());
        for (options, namespace, token) in [
            (KubeConfigOptions { context, ..Default::default() }, "default", None),
            (KubeConfigOptions { cluster, user, context: None }, "devices", Some("/token")),
        ] {
            let described = configuration(kubeconfig(""), &options);
            let (config, proxy) = described.expect("a configuration");
            assert_eq!(config.cluster_url, "https://10.9.9.9:6443/");
            assert_eq!(config.default_namespace, namespace);
            assert_eq!(config.auth_info.token_file.as_deref(), token);
            assert_eq!(proxy, None);
        }
    }

    #[test]
    fn what_is_missing_in_a_kubeconfig_is_named() {
        let missing = || Some("misspelt".to_owned());
        let none = KubeConfigOptions::default;
        for (options, expected) in [
            (KubeConfigOptions { context: missing(), ..none() }, "current context: misspelt"),
            (KubeConfigOptions { cluster: missing(), ..none() }, "cluster of context: misspelt"),
            (KubeConfigOptions { user: missing(), ..none() }, "no user misspelt"),
        ] {
            let error = configuration(kubeconfig(""), &options).expect_err("refused").to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn a_malformed_certificate_is_refused_with_its_cause() {
        let fields =
            r#", "certificate-authority-data": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==""#;
        let described = configuration(kubeconfig(fields), &KubeConfigOptions::default());
        let error = described.expect_err("refused");
        assert!(matches!(error, UnusableKubeconfig::Authority(_)), "{error}");
        assert!(error.source().is_some_and(|cause| cause.is::<pem::Error>()), "{error}");
    }

    #[test]
    fn proxies_of_the_environment_are_not_used() {
        if std::env::var_os(CHILD).is_some() {
            let described = configuration(kubeconfig(""), &KubeConfigOptions::default());
            let (config, proxy) = described.expect("a configuration");
            assert_eq!((config.proxy_url, proxy), (None, None));
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
