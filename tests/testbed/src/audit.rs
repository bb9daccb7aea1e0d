//! Requests of one user, read from the API server's audit log.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde_json::Value;

/// A request about objects of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Verb, as in RBAC rules.
    pub verb: String,
    /// API group; empty for the core.
    pub group: String,
    /// Resource, with its subresource after a slash.
    pub resource: String,
    /// Namespace; empty for cluster-scoped objects and for requests across all namespaces.
    pub namespace: String,
    /// Name; empty for lists and creates.
    pub name: String,
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, namespace, name } = self;
        write!(formatter, "{verb} {resource}.{group} {name} in namespace {namespace:?}")
    }
}

impl Request {
    fn of(entry: &Value) -> Self {
        let object = &entry["objectRef"];
        let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (resource, subresource) = (part(&object["resource"]), part(&object["subresource"]));
        Self {
            verb: part(&entry["verb"]),
            group: part(&object["apiGroup"]),
            resource: if subresource.is_empty() {
                resource
            } else {
                format!("{resource}/{subresource}")
            },
            namespace: part(&object["namespace"]),
            name: part(&object["name"]),
        }
    }
}

/// Requests of a user that the API server allowed, without duplicates. A server-side apply that
/// created its object counts as a create too, because it needed that right.
///
/// # Errors
/// The log cannot be read.
pub fn requests(log: &Path, user: &str) -> anyhow::Result<HashSet<Request>> {
    let entries = entries(log, user)?;
    let allowed = entries.iter().filter(|entry| decided(entry, "allow")).map(|entry| {
        let request = Request::of(entry);
        let creates = request.verb == "patch" && entry["responseStatus"]["code"] == 201;
        let create = creates.then(|| Request { verb: "create".to_owned(), ..request.clone() });
        [Some(request), create]
    });
    let allowed = allowed.flatten().flatten();
    Ok(allowed.filter(|request| !request.resource.is_empty()).collect())
}

/// Requests of a user that RBAC denied. An API server that has just started does not know the RBAC
/// rules yet: a request that it denies at first and allows later counts as allowed.
///
/// # Errors
/// The log cannot be read.
pub fn forbidden(log: &Path, user: &str) -> anyhow::Result<Vec<Request>> {
    let entries = entries(log, user)?;
    // Names are not compared: each object of a kind has its own.
    let right = |entry: &Value| Request { name: String::new(), ..Request::of(entry) };
    let allowed: HashSet<Request> =
        entries.iter().filter(|entry| decided(entry, "allow")).map(right).collect();
    let missing = entries
        .iter()
        .filter(|entry| decided(entry, "forbid") && !allowed.contains(&right(entry)));
    Ok(missing.map(Request::of).collect())
}

/// Audit log entries of a user.
///
/// # Errors
/// The log cannot be read.
pub fn entries(log: &Path, user: &str) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(log)?;
    // The last line may be incomplete: the API server may be writing it.
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(entries.filter(|entry| entry["user"]["username"] == user).collect())
}

/// Returns true if authorization decided so. A quota answers 403 too, but only after
/// authorization.
fn decided(entry: &Value, decision: &str) -> bool {
    entry["annotations"]["authorization.k8s.io/decision"] == decision
}
