//! Connection to the cluster, with kubectl's own options. Reads the kubeconfig.

use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::cause::{self, root, without_number};
use crate::duration;
use crate::failure::{Code, Failure};

/// Time limit for connecting to the API server, unless `--request-timeout` is given.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Reason of a failure: the user lacks the right.
pub const ACCESS_DENIED: &str = "AccessDenied";
/// Reason of a failure: the object does not exist.
pub const NOT_FOUND: &str = "NotFound";
/// Reason of a failure: the CustomResourceDefinition of the kind is not installed.
pub const NOT_INSTALLED: &str = "NotInstalled";

/// Options that select the cluster and the user.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterOptions {
    /// The kubeconfig. Default: $KUBECONFIG, else ~/.kube/config, else that of the Pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Cluster of the kubeconfig, in place of the context's.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// User of the kubeconfig, in place of the context's.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// User or service account to act as.
    #[arg(long = "as", value_name = "USER")]
    act_as: Option<String>,
    /// Group to act as; repeat it for several.
    #[arg(long = "as-group", value_name = "GROUP", requires = "act_as")]
    act_as_groups: Vec<String>,
    /// Longest time for one request: 5s, 2m, 1h; 0 is without limit.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    request_timeout: Option<Duration>,
}

/// Namespace and cluster of a command that works in one namespace.
#[derive(Clone, Debug, Default, Args)]
pub struct Scope {
    /// Namespace. Default: the one of the kubeconfig's context.
    #[arg(short, long, value_name = "NAME", value_parser = namespace, help_heading = "Cluster")]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Namespaces and cluster of a command that can look at all namespaces.
#[derive(Clone, Debug, Default, Args)]
pub struct WideScope {
    /// Look at all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace", help_heading = "Cluster")]
    pub all_namespaces: bool,
    #[command(flatten)]
    scope: Scope,
}

/// A cluster, and the namespace that a command works in.
#[derive(Clone)]
pub struct Place {
    /// Client of the API server.
    pub client: Client,
    /// Namespace given on the command line, else the kubeconfig's.
    pub namespace: String,
}

impl Scope {
    /// Returns true if the command line names the namespace.
    pub fn names_namespace(&self) -> bool {
        self.namespace.is_some()
    }

    /// Returns a client and the namespace.
    ///
    /// # Errors
    /// There is no kubeconfig, or it cannot be used.
    pub async fn place(&self) -> Result<Place, Failure> {
        let config = self.cluster.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Place { client: client(config)?, namespace })
    }
}

impl WideScope {
    /// Returns a client and the namespace; none for all namespaces.
    ///
    /// # Errors
    /// There is no kubeconfig, or it cannot be used.
    pub async fn place(&self) -> Result<(Client, Option<String>), Failure> {
        let place = self.scope.place().await?;
        Ok((place.client, (!self.all_namespaces).then_some(place.namespace)))
    }

    /// Returns a client and the namespace for a command that works in one namespace only.
    ///
    /// # Errors
    /// All namespaces are requested, there is no kubeconfig, or it cannot be used.
    pub async fn one_place(&self, what: &str) -> Result<Place, Failure> {
        if self.all_namespaces {
            return Err(Failure::usage(format!("{what} is in one namespace; use -n, not -A")));
        }
        self.scope.place().await
    }
}

impl ClusterOptions {
    /// Returns a client for the cluster.
    ///
    /// # Errors
    /// There is no kubeconfig, or it cannot be used.
    pub async fn client(&self) -> Result<Client, Failure> {
        client(self.config().await?)
    }

    async fn config(&self) -> Result<Config, Failure> {
        let mut config = self.read().await?;
        // 30 s by default in kube, which a person at a prompt takes for a program that hangs.
        config.connect_timeout = Some(CONNECT_LIMIT);
        if let Some(limit) = self.request_timeout {
            let limit = (!limit.is_zero()).then_some(limit);
            (config.connect_timeout, config.read_timeout) = (limit, limit);
            // Otherwise the time that a pooled connection was idle, up to 90 s, counts as time
            // without a response.
            config.reset_reader_on_write = true;
        }
        if self.act_as.is_some() {
            config.auth_info.impersonate = self.act_as.clone();
            config.auth_info.impersonate_groups =
                (!self.act_as_groups.is_empty()).then(|| self.act_as_groups.clone());
        }
        if let Some(limit) = config.connect_timeout {
            // A process parses one command line, so the limit is set at most once.
            let _ = cause::LIMIT.set(limit);
        }
        Ok(config)
    }

    async fn read(&self) -> Result<Config, Failure> {
        let chosen = [&self.context, &self.cluster, &self.user].into_iter().any(Option::is_some);
        // Only this way also finds the service account of a Pod; options that choose a context,
        // cluster or user need a kubeconfig.
        if self.kubeconfig.is_none() && !chosen {
            return Config::infer().await.map_err(|error| unreachable(&not_inferred(&error)));
        }
        let kubeconfig = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let kubeconfig =
            kubeconfig.map_err(|error| unreachable(&unusable(&error, &self.files())))?;
        // kube sends requests without credentials for a user that the kubeconfig lacks; the answer
        // would be 401 or 403 instead of the misspelt name.
        if let Some(user) = &self.user
            && !kubeconfig.auth_infos.iter().any(|entry| entry.name == *user)
        {
            return Err(unreachable(&format!("the kubeconfig has no user {user}")));
        }
        let options = KubeConfigOptions {
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        config.map_err(|error| unreachable(&unusable(&error, &self.files())))
    }

    /// Returns the files that the kubeconfig is read from.
    fn files(&self) -> Vec<PathBuf> {
        self.kubeconfig.as_ref().map_or_else(default_files, |file| vec![file.clone()])
    }
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

/// Returns the reason why no configuration is found, neither a kubeconfig nor that of a Pod.
pub fn not_inferred(error: &InferConfigError) -> String {
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(kubeconfig) => unusable(kubeconfig, &default_files()),
        None => root(error),
    }
}

/// Parses the name of a namespace. An invalid name could change the path of an API request.
///
/// # Errors
/// The text is not a valid name.
pub fn namespace(text: &str) -> Result<String, String> {
    // A label of RFC 1123: Kubernetes demands it of the name of a namespace.
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (first, last) = (text.as_bytes().first(), text.as_bytes().last());
    let good = text.len() <= 63
        && first.is_some_and(is_inner)
        && last.is_some_and(is_inner)
        && text.bytes().all(|byte| is_inner(&byte) || byte == b'-');
    let expected = || {
        format!(
            "{text:?} is not a valid namespace; expected up to 63 lower-case letters, digits and \
             dashes, such as {:?}",
            "fleet-1"
        )
    };
    good.then(|| text.to_owned()).ok_or_else(expected)
}

fn client(config: Config) -> Result<Client, Failure> {
    Client::try_from(config).map_err(|error| unreachable(&root(&error)))
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
        KubeconfigError::ParseNoProxy(error) => {
            format!(
                "NO_PROXY in the environment cannot be read: {error}; separate hosts with one \
                 comma each, and end with a host"
            )
        }
        KubeconfigError::ParseProxyUrl(error) => {
            format!("HTTPS_PROXY, or proxy-url of the kubeconfig, is not a URL: {error}")
        }
        // The error names the file; its root cause does not.
        _ => format!("the kubeconfig cannot be used: {}", without_number(&error.to_string())),
    }
}

/// Returns the failure for a cluster that does not answer or is not configured.
pub fn unreachable(words: &str) -> Failure {
    Failure::new(
        Code::Unavailable,
        "ClusterUnreachable",
        format!("no cluster: {words}; set KUBECONFIG, --kubeconfig or --context"),
    )
}

/// Returns the failure of a request; `what` completes the sentence "cannot …".
pub fn refused(what: &str, error: &kube::Error) -> Failure {
    // Names are part of the URL's path; these errors occur before anything is sent.
    if let kube::Error::BuildRequest(_) | kube::Error::HttpError(_) = error {
        return Failure::usage(format!(
            "cannot {what}: a name on the command line is invalid: {}",
            root(error)
        ));
    }
    let kube::Error::Api(status) = error else {
        return Failure::new(
            Code::Unavailable,
            "ClusterUnreachable",
            format!(
                "cannot {what}: the API server does not answer: {}; check that the kubeconfig \
                 names the right cluster and that it is reachable, or allow more time with \
                 --request-timeout",
                root(error)
            ),
        );
    };
    let words = &status.message;
    match status.code {
        401 => Failure::new(
            Code::Unavailable,
            "Unauthorized",
            format!(
                "cannot {what}: the API server does not accept the credentials of the kubeconfig; \
                 log in again, or use another --context or --user"
            ),
        ),
        403 => Failure::new(
            Code::Unavailable,
            ACCESS_DENIED,
            format!(
                "cannot {what}: permission denied: {words}; ask whoever administers the cluster \
                 for this permission, or use another --context, --user or --namespace"
            ),
        ),
        // If the kind is not installed, the API server's 404 names no object.
        404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => {
            Failure::new(
                Code::Unavailable,
                NOT_INSTALLED,
                format!(
                    "cannot {what}: the kind is not installed in this cluster; see kubectl \
                     flashjob check"
                ),
            )
        }
        404 => Failure::new(Code::Unavailable, NOT_FOUND, format!("cannot {what}: {words}")),
        _ => Failure::new(Code::Other, "RequestRefused", format!("cannot {what}: {words}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_proxy_variable_that_cannot_be_read_is_named() {
        let of = |error| unusable(&error, &[]);
        let no_proxy = of(KubeconfigError::ParseNoProxy(kube::config::NoProxyError::EmptyValue));
        assert!(no_proxy.starts_with("NO_PROXY in the environment"), "{no_proxy}");
        let url = "http://a b".parse::<http::Uri>().expect_err("no URL");
        assert!(of(KubeconfigError::ParseProxyUrl(url)).starts_with("HTTPS_PROXY"));
    }

    #[test]
    fn a_namespace_is_a_label_and_no_path() {
        for good in ["default", "a", "hall-3", "0"] {
            assert_eq!(namespace(good), Ok(good.to_owned()));
        }
        for bad in ["", "a/b", "-a", "a-", "Hall", "a.b", "..", &"x".repeat(64)] {
            assert!(namespace(bad).is_err_and(|error| error.contains(bad)), "{bad}");
        }
    }
}
