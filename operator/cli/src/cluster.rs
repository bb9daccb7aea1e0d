//! Connection to the cluster, with kubectl's own options. [`kubeconfig`] reads its configuration.

pub mod kubeconfig;
mod proxy;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flashjob_rules::flashjob::policy::is_dns_label;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

use crate::cause::{self, root};
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
        let config = self.cluster.config()?;
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
        client(self.config()?)
    }

    fn config(&self) -> Result<Config, Failure> {
        let mut config = self.read()?;
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

    fn read(&self) -> Result<Config, Failure> {
        let chosen = [&self.context, &self.cluster, &self.user].into_iter().any(Option::is_some);
        // Only `inferred` also finds the service account of a Pod; options that choose a context,
        // cluster or user need a kubeconfig.
        let config = match self.kubeconfig.is_none() && !chosen {
            true => kubeconfig::inferred(),
            false => {
                let options = KubeConfigOptions {
                    context: self.context.clone(),
                    cluster: self.cluster.clone(),
                    user: self.user.clone(),
                };
                kubeconfig::selected(self.kubeconfig.as_deref(), &options)
            }
        };
        config.map_err(|error| unreachable(&error))
    }
}

/// Parses the name of a namespace. An invalid name could change the path of an API request.
///
/// # Errors
/// The text is not a valid name.
pub fn namespace(text: &str) -> Result<String, String> {
    let expected = || {
        format!(
            "{text:?} is not a valid namespace; expected up to 63 lower-case letters, digits and \
             dashes, such as {:?}",
            "fleet-1"
        )
    };
    is_dns_label(text).then(|| text.to_owned()).ok_or_else(expected)
}

fn client(config: Config) -> Result<Client, Failure> {
    Client::try_from(config).map_err(|error| unreachable(&root(&error)))
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
        return Failure::new(Code::Unavailable, "ClusterUnreachable", unanswered(what, error));
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

/// Returns the message about a request that got no answer, or one that cannot be read. The cause
/// may be one of the proxy.
fn unanswered(what: &str, error: &kube::Error) -> String {
    let right_proxy = match cause::PROXY.get() {
        None => "",
        Some(_) => {
            "that this is the right proxy (proxy-url of the kubeconfig, else HTTPS_PROXY and \
             NO_PROXY), "
        }
    };
    let reachable = match error {
        kube::Error::SerdeError(_) => "",
        _ => " and that it is reachable, or allow more time with --request-timeout",
    };
    format!(
        "cannot {what}: {}; check {right_proxy}that the kubeconfig names the right \
         cluster{reachable}",
        cause::no_answer(error)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_label_and_no_path() {
        for good in ["default", "a", "hall-3", "0"] {
            assert_eq!(namespace(good), Ok(good.to_owned()));
        }
        for bad in ["", "a/b", "-a", "a-", "Hall", "a.b", "..", &"x".repeat(64)] {
            assert!(namespace(bad).is_err_and(|error| error.contains(bad)), "{bad}");
        }
    }

    #[test]
    fn an_answer_that_is_not_one_of_an_api_server_is_not_told_as_none() {
        let page = serde_json::from_str::<u8>("<html>").expect_err("no JSON");
        let failure = refused("list FlashJobs", &kube::Error::SerdeError(page));
        assert_eq!((failure.code, failure.reason), (Code::Unavailable, "ClusterUnreachable"));
        let expected = "cannot list FlashJobs: the answer cannot be read: expected value at line \
                        1 column 1; check that the kubeconfig names the right cluster";
        assert_eq!(failure.message, expected);
    }
}
