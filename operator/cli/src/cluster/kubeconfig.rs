//! Configuration of the connection to the API server: that of a kubeconfig, or else the Pod's.
//! Reads files and the environment.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use flashjob_kubeconfig::UnusableKubeconfig;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::proxy;
use crate::cause::{self, root, without_number};

/// Returns the configuration of the default kubeconfig, or else the Pod's.
///
/// # Errors
/// Neither can be used; the text says why the kubeconfig cannot. Or the proxy is invalid.
pub fn inferred() -> Result<Config, String> {
    let kubeconfig =
        read(None).and_then(|kubeconfig| configuration(kubeconfig, &KubeConfigOptions::default()));
    let mut config = match kubeconfig {
        Ok(config) => with_proxy(config)?,
        // A Pod reaches the API server of its own cluster without a proxy.
        Err(error) => Config::incluster().map_err(|_| error)?,
    };
    config.apply_debug_overrides();
    Ok(config)
}

/// Returns the configuration of a kubeconfig, by default that of [`inferred`], with the context,
/// cluster and user of the options.
///
/// # Errors
/// The kubeconfig cannot be used; the text says why.
pub fn selected(file: Option<&Path>, options: &KubeConfigOptions) -> Result<Config, String> {
    with_proxy(configuration(read(file)?, options)?)
}

fn read(file: Option<&Path>) -> Result<Kubeconfig, String> {
    let (kubeconfig, files) = match file {
        Some(file) => (Kubeconfig::read_from(file), vec![file.to_owned()]),
        None => (Kubeconfig::read(), default_files()),
    };
    kubeconfig.map_err(|error| unusable(&error, &files))
}

/// Returns the default files of the kubeconfig: those of `KUBECONFIG`, else `~/.kube/config`.
fn default_files() -> Vec<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").unwrap_or_default();
    // Like PATH, KUBECONFIG is a list of files; kubectl also treats an empty one as not set.
    let named: Vec<_> =
        std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
    match named.is_empty() {
        true => std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
        false => named,
    }
}

/// Returns the configuration that a kubeconfig describes, with its own proxy (`proxy-url`) only.
fn configuration(kubeconfig: Kubeconfig, options: &KubeConfigOptions) -> Result<Config, String> {
    let described = flashjob_kubeconfig::configuration(kubeconfig, options);
    let (mut config, proxy) = described.map_err(|error| match error {
        // These errors are not about a file of the kubeconfig.
        UnusableKubeconfig::Kubeconfig(error) => unusable(&error, &[]),
        UnusableKubeconfig::LoadUser(name) => format!("the kubeconfig has no user {name}"),
        UnusableKubeconfig::Authority(error) => {
            format!("certificate-authority of the kubeconfig is not a certificate in PEM: {error}")
        }
    })?;
    let proxy = proxy.map(|proxy| proxy::parse(&proxy).ok_or_else(invalid_proxy));
    config.proxy_url = proxy.transpose()?;
    Ok(config)
}

/// Returns the fault of a `proxy-url`, whose value may contain a password and is not repeated.
fn invalid_proxy() -> String {
    let expected = proxy::EXPECTED;
    format!("proxy-url of the kubeconfig does not name a valid proxy; set it to {expected}")
}

/// Returns the configuration with the proxy of the environment, unless it has one.
fn with_proxy(mut config: Config) -> Result<Config, String> {
    if config.proxy_url.is_none() {
        let variable = |name: &str| std::env::var(name).ok();
        config.proxy_url = proxy::of_environment(&config.cluster_url, variable)?;
    }
    if let Some(proxy) = &config.proxy_url {
        // A process connects to one cluster, so the proxy is set at most once.
        let _ = cause::PROXY.set(proxy::without_credentials(proxy));
    }
    Ok(config)
}

/// Returns the reason why a kubeconfig cannot be used; `files` are those that it is read from.
fn unusable(error: &KubeconfigError, files: &[PathBuf]) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) => match error.kind() {
            ErrorKind::InvalidData => {
                format!("the kubeconfig {} is not UTF-8 text", path.display())
            }
            _ => format!("the kubeconfig {} cannot be read: {}", path.display(), root(error)),
        },
        KubeconfigError::FindPath => "there is no kubeconfig".to_owned(),
        KubeconfigError::CurrentContextNotSet => {
            "the kubeconfig has no current context".to_owned()
        }
        KubeconfigError::LoadContext(name) => format!("the kubeconfig has no context {name}"),
        KubeconfigError::LoadClusterOfContext(name) => {
            format!("the kubeconfig has no cluster {name}")
        }
        KubeconfigError::Parse(error) => {
            // The error does not say which of several files it is about.
            let is_unread = |file: &&PathBuf| {
                matches!(Kubeconfig::read_from(file), Err(KubeconfigError::Parse(_)))
            };
            let file = files.iter().find(is_unread);
            let file = file.map_or_else(String::new, |file| format!(" {}", file.display()));
            let line =
                error.location().map_or_else(String::new, |at| format!(", line {}", at.line()));
            format!("the kubeconfig{file} is not a valid kubeconfig in YAML{line}")
        }
        // The error names the file; its root cause does not.
        _ => format!("the kubeconfig cannot be used: {}", without_number(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a kubeconfig whose cluster has these further fields.
    fn kubeconfig(fields: &str) -> Kubeconfig {
        let text = format!(
            r#"{{
                "current-context": "here",
                "contexts": [{{"name": "here", "context": {{"cluster": "fleet"}}}}],
                "clusters": [
                    {{"name": "fleet", "cluster": {{
                        "server": "https://10.1.2.3:6443"{fields}
                    }}}}
                ]
            }}"#
        );
        Kubeconfig::from_yaml(&text).expect("a kubeconfig")
    }

    #[test]
    fn what_is_missing_in_a_kubeconfig_is_named() {
        let missing = || Some("misspelt".to_owned());
        let none = KubeConfigOptions::default;
        for (options, expected) in [
            (KubeConfigOptions { context: missing(), ..none() }, "no context misspelt"),
            (KubeConfigOptions { cluster: missing(), ..none() }, "no cluster misspelt"),
            (KubeConfigOptions { user: missing(), ..none() }, "no user misspelt"),
        ] {
            let error = configuration(kubeconfig(""), &options).expect_err("refused");
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn the_kubeconfig_may_name_a_proxy_with_or_without_its_scheme() {
        for url in ["http://10.9.9.9:3128", "10.9.9.9:3128"] {
            let fields = format!(r#", "proxy-url": "{url}""#);
            let config = configuration(kubeconfig(&fields), &KubeConfigOptions::default());
            let proxy = config.expect("a configuration").proxy_url;
            assert_eq!(proxy.expect("a proxy"), "http://10.9.9.9:3128/");
        }
        let config = configuration(kubeconfig(""), &KubeConfigOptions::default());
        assert_eq!(config.expect("a configuration").proxy_url, None);
    }

    #[test]
    fn a_proxy_of_the_kubeconfig_that_cannot_be_used_is_told_without_its_password() {
        for url in ["socks5://u:secret-word@10.9.9.9:1080", "http://u:secret-word@exa mple:80"] {
            let fields = format!(r#", "proxy-url": "{url}""#);
            let config = configuration(kubeconfig(&fields), &KubeConfigOptions::default());
            assert_eq!(config.expect_err("refused"), invalid_proxy());
        }
    }

    #[test]
    fn a_kubeconfig_that_is_none_is_named_in_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config");
        for text in ["a: [", "just words", "clusters: 5\n"] {
            std::fs::write(&file, text).expect("a file");
            let error = Kubeconfig::read_from(&file).expect_err("no kubeconfig");
            let message = unusable(&error, &[folder.path().join("other"), file.clone()]);
            assert!(message.contains(&format!("the kubeconfig {}", file.display())), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
