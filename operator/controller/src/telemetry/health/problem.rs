//! Problems that keep the operator from working, with messages that say what to do. Pure.

use kube::runtime::watcher;

use crate::cluster::answer::in_one_line;
use crate::cluster::installation::Installation;

/// Kind of a problem: the reason of its event and the label of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The API server forbids a request.
    RightMissing,
    /// A CustomResourceDefinition is not installed.
    DefinitionMissing,
    /// The operator's own namespace does not exist.
    NamespaceMissing,
    /// The API server does not accept the operator's credentials.
    NotAuthenticated,
    /// The API server answers with another error.
    RequestRefused,
    /// An answer cannot be decoded.
    AnswerInvalid,
    /// The API server does not answer.
    ApiServerUnreachable,
    /// There is no configuration file.
    ConfigurationMissing,
    /// A changed configuration file is refused.
    ConfigurationRefused,
    /// The configuration names no plugin.
    PluginsMissing,
    /// No entry of `trust` matches a plugin.
    TrustMissing,
    /// A Secret that the configuration names does not exist.
    SecretMissing,
    /// An installed definition lacks fields that this operator uses, or has them with another
    /// type.
    DefinitionOutdated,
    /// A DevicePlugin belongs to another installation.
    DevicePluginNotOwned,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 14] = [
        Self::RightMissing,
        Self::DefinitionMissing,
        Self::NamespaceMissing,
        Self::NotAuthenticated,
        Self::RequestRefused,
        Self::AnswerInvalid,
        Self::ApiServerUnreachable,
        Self::ConfigurationMissing,
        Self::ConfigurationRefused,
        Self::PluginsMissing,
        Self::TrustMissing,
        Self::SecretMissing,
        Self::DefinitionOutdated,
        Self::DevicePluginNotOwned,
    ];

    /// Returns the CamelCase name that events and metrics use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RightMissing => "RightMissing",
            Self::DefinitionMissing => "DefinitionMissing",
            Self::NamespaceMissing => "NamespaceMissing",
            Self::NotAuthenticated => "NotAuthenticated",
            Self::RequestRefused => "RequestRefused",
            Self::AnswerInvalid => "AnswerInvalid",
            Self::ApiServerUnreachable => "ApiServerUnreachable",
            Self::ConfigurationMissing => "ConfigurationMissing",
            Self::ConfigurationRefused => "ConfigurationRefused",
            Self::PluginsMissing => "PluginsMissing",
            Self::TrustMissing => "TrustMissing",
            Self::SecretMissing => "SecretMissing",
            Self::DefinitionOutdated => "DefinitionOutdated",
            Self::DevicePluginNotOwned => "DevicePluginNotOwned",
        }
    }
}

/// An API resource, as RBAC rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Plural name in lower case.
    pub plural: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
}

/// FlashJobs.
pub const FLASH_JOBS: Resource = Resource { plural: "flashjobs", group: flashjob_api::GROUP };
/// FlashRollouts.
pub const FLASH_ROLLOUTS: Resource =
    Resource { plural: "flashrollouts", group: flashjob_api::GROUP };
/// Akri's Instances.
pub const INSTANCES: Resource = Resource { plural: "instances", group: "akri.sh" };
/// Pods.
pub const PODS: Resource = Resource { plural: "pods", group: "" };
/// Services.
pub const SERVICES: Resource = Resource { plural: "services", group: "" };
/// DevicePlugins, which have no namespace.
pub const DEVICE_PLUGINS: Resource =
    Resource { plural: "deviceplugins", group: flashjob_api::GROUP };
/// The operator's Lease.
pub const LEASES: Resource = Resource { plural: "leases", group: "coordination.k8s.io" };
/// Secrets with passwords of registries.
pub const SECRETS: Resource = Resource { plural: "secrets", group: "" };

/// Resources that are watched.
pub const WATCHED: [Resource; 6] =
    [FLASH_JOBS, FLASH_ROLLOUTS, INSTANCES, PODS, SERVICES, DEVICE_PLUGINS];

impl std::fmt::Display for Resource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.group {
            "" => formatter.write_str(self.plural),
            group => write!(formatter, "{}.{group}", self.plural),
        }
    }
}

/// Part of the operator that reports a problem or its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemSource {
    /// The election.
    Lease,
    /// A watch.
    Watch(Resource),
    /// The configuration file.
    Configuration,
    /// A Secret with a registry's password.
    Secret(String),
    /// The DevicePlugin of a plugin.
    DevicePlugin(String),
    /// An installed CustomResourceDefinition.
    Definition(Resource),
}

impl ProblemSource {
    /// Returns true if a problem of this part keeps the operator from working at all.
    #[must_use]
    pub fn blocks(&self) -> bool {
        matches!(self, Self::Lease | Self::Watch(_))
    }
}

/// A problem. Reports with the same cause and object are one problem, whichever part sends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Kind of the problem.
    pub cause: Cause,
    /// Object that the problem is about.
    pub object: String,
    /// `<object>: <what is wrong>: <cause>; <what to do>`, in one line.
    pub message: String,
}

impl Problem {
    /// Returns a problem whose message begins with the object.
    #[must_use]
    pub fn new(cause: Cause, object: impl Into<String>, rest: &str) -> Self {
        let object = object.into();
        let message = format!("{object}: {rest}").lines().collect::<Vec<_>>().join(" ");
        Self { cause, object, message }
    }
}

/// Suffix that the chart gives to the Role for the operator's own namespace. The rest of the name,
/// like that of the next one, is chosen by the release.
const OWN_IN_CHART: &str = "-own";
/// Suffix that the chart gives to the ClusterRole for DevicePlugins.
const DEVICE_PLUGINS_IN_CHART: &str = "-deviceplugins";
/// Name that the chart gives to the ClusterRole of an operator that watches all namespaces.
const ALL_NAMESPACES_IN_CHART: &str = "flashjob-operator-all-namespaces";

/// The role that grants a right, with its binding.
struct GrantingRole {
    /// Kind, name and namespace in deploy/rbac.
    role: String,
    /// Name in the Helm chart, or a part of it.
    in_chart: String,
}

/// A request that the operator depends on.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Verb, as RBAC rules name it.
    pub verb: &'static str,
    /// Resource of the request.
    pub resource: Resource,
    /// Installation that sends the request.
    pub installation: &'a Installation,
}

impl Request<'_> {
    /// Returns the problem behind a failed request.
    #[must_use]
    pub fn problem(&self, error: &kube::Error) -> Problem {
        let Self { verb, resource, .. } = self;
        let words = in_one_line(error);
        let code = match error {
            kube::Error::Api(status) => status.code,
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                let rest = format!(
                    "the answer to {verb} cannot be decoded: {words}; check whether there is \
                     a proxy in front of the API server, and whether the \
                     CustomResourceDefinition has the same version as the operator"
                );
                return Problem::new(Cause::AnswerInvalid, resource.to_string(), &rest);
            }
            // The token could not be obtained, from its file or from the program in the
            // kubeconfig.
            kube::Error::Auth(_) => return not_authenticated(&words),
            _ => return unreachable(&words),
        };
        match code {
            401 => not_authenticated(&words),
            403 => self.right_missing(&words),
            // A list answers 404 only for an unknown kind: a namespace that does not exist gives
            // an empty list.
            404 => self.not_found(&words),
            code => Problem::new(
                Cause::RequestRefused,
                format!("{verb} {resource}"),
                &format!(
                    "the API server answers with an error: {words} (HTTP status {code}); see its \
                     log"
                ),
            ),
        }
    }

    /// Returns the namespace in which the permission is needed; None for all namespaces, or if the
    /// resource has none.
    fn namespace(&self) -> Option<&str> {
        match self.resource {
            LEASES | SECRETS => Some(&self.installation.namespace),
            DEVICE_PLUGINS => None,
            _ => self.installation.watched.as_deref(),
        }
    }

    fn right_missing(&self, words: &str) -> Problem {
        let Self { verb, resource, installation } = self;
        let place = self
            .namespace()
            .map_or_else(|| "in the cluster".to_owned(), |name| format!("in namespace {name}"));
        let file = if installation.watched.is_some() { "namespaced" } else { "role" };
        let GrantingRole { role, in_chart } = self.granting_role();
        let rest = format!(
            "the right to {verb} them {place} is missing: {words}; grant it with {role} and its \
             binding (deploy/rbac/{file}.yaml; in the chart both have {in_chart})"
        );
        let object = format!("{verb} {resource}");
        Problem {
            message: Problem::new(Cause::RightMissing, resource.to_string(), &rest).message,
            cause: Cause::RightMissing,
            object,
        }
    }

    /// Returns the role that grants the right.
    fn granting_role(&self) -> GrantingRole {
        let Installation { namespace, watched, .. } = self.installation;
        let (role, in_chart) = match (self.resource, watched) {
            (LEASES | SECRETS, _) => (
                format!("Role flashjob-operator-own in namespace {namespace}"),
                format!("the suffix {OWN_IN_CHART}"),
            ),
            (DEVICE_PLUGINS, Some(_)) => (
                "ClusterRole flashjob-operator-deviceplugins".to_owned(),
                format!("the suffix {DEVICE_PLUGINS_IN_CHART}"),
            ),
            (_, Some(watched)) => (
                format!("Role flashjob-operator in namespace {watched}"),
                // The chart cuts this name, so that a suffix fits.
                format!("the prefix {}", namespace.chars().take(40).collect::<String>()),
            ),
            (_, None) => (
                "ClusterRole flashjob-operator".to_owned(),
                format!("the name {ALL_NAMESPACES_IN_CHART}"),
            ),
        };
        GrantingRole { role, in_chart }
    }

    fn not_found(&self, words: &str) -> Problem {
        let Self { verb, resource, installation } = self;
        let install = match resource.group {
            flashjob_api::GROUP => {
                "install it with kubectl apply --server-side -f deploy/crds (make install), or \
                 with the chart's CRDs"
            }
            "akri.sh" => "install Akri (https://docs.akri.sh), which includes it",
            // Leases are built in, so the namespace is missing.
            "coordination.k8s.io" => {
                let name = &installation.namespace;
                return Problem::new(
                    Cause::NamespaceMissing,
                    format!("Namespace {name}"),
                    &format!(
                        "does not exist, and the operator keeps its Lease there: {words}; create \
                         it with kubectl create namespace {name}, or set --namespace"
                    ),
                );
            }
            _ => {
                let rest = format!("the API server does not serve them: {words}; see its log");
                return Problem::new(Cause::RequestRefused, format!("{verb} {resource}"), &rest);
            }
        };
        Problem::new(
            Cause::DefinitionMissing,
            format!("CustomResourceDefinition {resource}"),
            &format!("is not installed: {words}; {install}"),
        )
    }
}

fn not_authenticated(words: &str) -> Problem {
    let rest = format!(
        "does not accept the operator's credentials: {words}; check the token of its \
         ServiceAccount, or its kubeconfig"
    );
    Problem::new(Cause::NotAuthenticated, "API server", &rest)
}

/// Returns the problem that the API server does not answer.
#[must_use]
pub fn unreachable(words: &str) -> Problem {
    let rest = format!(
        "does not answer: {words}; check whether it is running, and whether the network and its \
         policies let the operator reach it"
    );
    Problem::new(Cause::ApiServerUnreachable, "API server", &rest)
}

/// Returns the problem behind a failed watch. None if its resourceVersion has expired (HTTP status
/// 410): the watch then lists again, as the protocol requires.
#[must_use]
pub fn of_watch(
    error: &watcher::Error,
    resource: Resource,
    installation: &Installation,
) -> Option<Problem> {
    let request = |verb| Request { verb, resource, installation };
    let is_expired =
        |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 410);
    match error {
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error)
            if is_expired(error) =>
        {
            None
        }
        watcher::Error::InitialListFailed(error) => Some(request("list").problem(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            Some(request("watch").problem(error))
        }
        watcher::Error::WatchError(status) if status.code == 410 => None,
        watcher::Error::WatchError(status) => {
            Some(request("watch").problem(&kube::Error::Api(status.clone())))
        }
        watcher::Error::NoResourceVersion => Some(Problem::new(
            Cause::AnswerInvalid,
            resource.to_string(),
            "a list has no resourceVersion; check whether there is a proxy in front of the API \
             server",
        )),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn installation(watched: Option<&str>) -> Installation {
        Installation {
            namespace: "ops".into(),
            watched: watched.map(str::to_owned),
            config_map: "config".into(),
        }
    }

    fn problem(
        code: u16,
        verb: &'static str,
        resource: Resource,
        watched: Option<&str>,
    ) -> Problem {
        let status = Status::failure("the server's words", "").with_code(code);
        let installation = installation(watched);
        Request { verb, resource, installation: &installation }
            .problem(&kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_missing_right_is_named_with_its_verb_resource_namespace_and_the_role_that_grants_it() {
        let missing = problem(403, "watch", FLASH_JOBS, None);
        assert_eq!(missing.cause, Cause::RightMissing);
        assert_eq!(
            missing.message,
            "flashjobs.application.flashjob.nbfc.io: the right to watch them in the cluster is \
             missing: the server's words; grant it with ClusterRole flashjob-operator and its \
             binding (deploy/rbac/role.yaml; in the chart both have the name \
             flashjob-operator-all-namespaces)"
        );
        for (resource, watched, expected) in [
            (
                PODS,
                Some("fleet"),
                [
                    "in namespace fleet is missing",
                    "Role flashjob-operator in namespace fleet",
                    "namespaced.yaml; in the chart both have the prefix ops)",
                ],
            ),
            (
                LEASES,
                None,
                [
                    "in namespace ops is missing",
                    "Role flashjob-operator-own in namespace ops",
                    "role.yaml; in the chart both have the suffix -own)",
                ],
            ),
            (
                DEVICE_PLUGINS,
                Some("fleet"),
                [
                    "in the cluster is missing",
                    "ClusterRole flashjob-operator-deviceplugins",
                    "namespaced.yaml; in the chart both have the suffix -deviceplugins)",
                ],
            ),
        ] {
            let message = problem(403, "list", resource, watched).message;
            assert!(expected.iter().all(|part| message.contains(part)), "{message}");
        }
        // Each missing permission is a problem of its own, although the cause is the same.
        assert_ne!(missing.object, problem(403, "list", FLASH_JOBS, None).object);
    }

    #[test]
    fn the_chart_names_its_roles_as_the_messages_say() {
        let roles = include_str!("../../../../../deploy/chart/templates/rbac.yaml");
        let names = include_str!("../../../../../deploy/chart/templates/_helpers.tpl");
        for suffix in [OWN_IN_CHART, DEVICE_PLUGINS_IN_CHART] {
            assert!(roles.contains(&format!("(printf \"%s{suffix}\"")), "{suffix}");
        }
        assert!(names.lines().any(|line| line == ALL_NAMESPACES_IN_CHART));
        // Name of the Role in the watched namespace.
        let begin = r#"$words := printf "%s-%s" .Release.Namespace"#;
        assert!(names.contains(begin) && names.contains("trunc 40"));
    }

    #[test]
    fn a_kind_that_is_not_installed_is_named_with_the_way_to_install_it() {
        let akri = problem(404, "list", INSTANCES, None);
        assert_eq!(akri.cause, Cause::DefinitionMissing);
        assert!(akri.message.contains("instances.akri.sh") && akri.message.contains("Akri ("));
        let message = problem(404, "list", DEVICE_PLUGINS, None).message;
        assert!(
            message.contains("make install") && message.contains("deviceplugins.application"),
            "{message}"
        );
        let namespace = problem(404, "create", LEASES, None);
        assert_eq!(namespace.cause, Cause::NamespaceMissing);
        assert!(namespace.message.contains("kubectl create namespace ops"), "{namespace:?}");
    }

    #[test]
    fn a_watch_that_is_too_old_is_no_problem_and_a_silent_api_server_is_one_for_all() {
        let status = Status::failure("too old", "Expired").with_code(410);
        let installation = installation(None);
        let error = watcher::Error::WatchError(Box::new(status));
        assert_eq!(of_watch(&error, PODS, &installation), None);
        let silent = || {
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            watcher::Error::InitialListFailed(kube::Error::Service(Box::new(refused)))
        };
        let of_pods = of_watch(&silent(), PODS, &installation);
        assert_eq!(of_pods, of_watch(&silent(), SERVICES, &installation));
        assert_eq!(of_pods.map(|problem| problem.cause), Some(Cause::ApiServerUnreachable));
    }

    #[test]
    fn every_cause_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
    }
}
