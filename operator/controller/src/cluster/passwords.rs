//! Passwords of registries, from the Secrets that the configuration names. They are read again
//! each time, as they may have changed. Talks to the API server.

use flashjob_plugin_host::config::RegistryConfig;
use flashjob_plugin_host::{Credentials, Logins, Reference, parse_docker_config_json, places};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::cluster::answer::in_one_line;
use crate::cluster::installation::Installation;
use crate::telemetry::health::keeper::Reports;
use crate::telemetry::health::problem::{Cause, Problem, ProblemSource, Request, SECRETS};

/// Reads Secrets in the operator's own namespace, and reports those that cannot be read.
#[derive(Clone)]
pub(crate) struct SecretReader {
    pub client: Client,
    pub reports: Reports,
    pub installation: Installation,
}

/// Passwords that one reference needs: those of its registry and of the mirrors tried before it.
#[derive(Clone)]
pub(crate) struct Passwords {
    reader: SecretReader,
    /// Host of each registry that needs a password, the repository there, and the name of the
    /// Secret.
    secrets: Vec<(String, String, String)>,
}

impl Passwords {
    pub fn of(reader: SecretReader, reference: &Reference, registries: &[RegistryConfig]) -> Self {
        let secret = |host: &str| {
            registries.iter().find(|registry| registry.is_at(host))?.credentials.as_ref()
        };
        let places = places(reference, registries).into_iter();
        let secrets = places.filter_map(|(host, repository)| {
            let name = secret(&host)?.secret_name.clone();
            Some((host, repository, name))
        });
        Self { reader, secrets: secrets.collect() }
    }

    /// Returns the names of the Secrets.
    pub fn secret_names(&self) -> impl Iterator<Item = String> {
        self.secrets.iter().map(|(_, _, secret)| secret.clone())
    }

    /// Reads the current passwords from the Secrets. `user` names the object that needs them, for
    /// messages.
    ///
    /// # Errors
    /// A configured password cannot be read: the pull never becomes an anonymous one.
    pub async fn read(&self, user: &str) -> Result<Logins, PasswordError> {
        let mut logins = Vec::new();
        for (host, repository, secret) in &self.secrets {
            let read = self.credentials(secret, &format!("{host}/{repository}")).await;
            let problem = read.as_ref().err();
            let problem = problem.and_then(|error| self.problem(error, secret, host, user));
            // A success is reported too: it ends an earlier problem of this Secret.
            self.reader.reports.state(ProblemSource::Secret(secret.clone()), problem);
            logins.push((host.clone(), read?));
        }
        Ok(logins.into_iter().collect())
    }

    async fn credentials(&self, name: &str, registry: &str) -> Result<Credentials, PasswordError> {
        let namespace = &self.reader.installation.namespace;
        let object = format!("{namespace}/{name}");
        let secrets: Api<Secret> = Api::namespaced(self.reader.client.clone(), namespace);
        // A get, unlike most other reads: the right to list would show every Secret of the
        // namespace.
        let secret = match secrets.get(name).await {
            Ok(secret) => secret,
            Err(error) => {
                let registry = registry.to_owned();
                return Err(PasswordError::Read { object, registry, error });
            }
        };
        // The key of a Secret of type `kubernetes.io/dockerconfigjson`.
        let text = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
        let Some(text) = text else { return Err(PasswordError::NoKey { object }) };
        parse_docker_config_json(&text.0, registry)
            .map_err(|error| PasswordError::Form { object, message: error.to_string() })
    }

    /// Returns the problem of a Secret that is missing or may not be read, with what to do about
    /// it.
    fn problem(
        &self,
        error: &PasswordError,
        name: &str,
        registry: &str,
        user: &str,
    ) -> Option<Problem> {
        let PasswordError::Read { error, .. } = error else { return None };
        let installation = &self.reader.installation;
        let namespace = &installation.namespace;
        let kube::Error::Api(status) = error else { return None };
        match status.code {
            403 => {
                let request = Request { verb: "get", resource: SECRETS, installation };
                Some(request.problem(error))
            }
            404 => {
                let rest = format!(
                    "does not exist, and {user} needs it for registry {registry}; create it with \
                     kubectl -n {namespace} create secret docker-registry {name} \
                     --docker-server={registry} --docker-username=USER \
                     --docker-password=PASSWORD"
                );
                let object = format!("Secret {namespace}/{name}");
                Some(Problem::new(Cause::SecretMissing, object, &rest))
            }
            // The watches report an API server that fails or does not answer.
            _ => None,
        }
    }
}

/// Error of reading a configured password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error(
        "cannot read Secret {object} with the credentials of registry {registry}: {}",
        in_one_line(error)
    )]
    Read { object: String, registry: String, error: kube::Error },
    #[error(
        "Secret {object} has no key .dockerconfigjson; create it with kubectl create secret \
         docker-registry"
    )]
    NoKey { object: String },
    #[error("Secret {object}: {message}")]
    Form { object: String, message: String },
}
