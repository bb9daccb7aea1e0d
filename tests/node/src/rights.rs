//! Comparison of the rights that an installation has with those that it used. Reads roles and
//! bindings of the cluster, and the API server's audit log.

use std::collections::BTreeSet;

use flashjob_testbed::audit;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::Node;

/// One verb on one resource in one scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Namespace in which it applies; `None` for all, and for cluster-scoped resources.
    pub namespace: Option<String>,
    /// API group.
    pub group: String,
    /// Resource, with its subresource after a slash.
    pub resource: String,
    /// Name of the only object to which it applies; `None` for all objects.
    pub name: Option<String>,
    /// Verb.
    pub verb: String,
}

/// ServiceAccount of an operator.
#[derive(Clone, Debug)]
pub struct Account {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Account {
    fn is(&self, subject: &Subject) -> bool {
        subject.kind == "ServiceAccount"
            && subject.name == self.name
            && subject.namespace.as_deref() == Some(&self.namespace)
    }

    /// Returns the account's user name at the API server.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// Returns the rights that bindings grant to an account.
///
/// # Errors
/// The API server does not answer.
pub async fn granted(node: &Node, account: &Account) -> anyhow::Result<BTreeSet<Right>> {
    let everything = ListParams::default();
    let cluster_roles = Api::<ClusterRole>::all(node.client.clone()).list(&everything).await?;
    let roles = Api::<Role>::all(node.client.clone()).list(&everything).await?;
    let rules_of = |reference: &RoleRef, namespace: Option<&str>| -> Vec<PolicyRule> {
        let rules = if reference.kind == "ClusterRole" {
            cluster_roles
                .iter()
                .find(|role| role.name_any() == reference.name)
                .and_then(|role| role.rules.clone())
        } else {
            let is = |role: &&Role| {
                role.name_any() == reference.name && role.namespace().as_deref() == namespace
            };
            roles.iter().find(is).and_then(|role| role.rules.clone())
        };
        rules.unwrap_or_default()
    };
    let mut rights = BTreeSet::new();
    for binding in Api::<ClusterRoleBinding>::all(node.client.clone()).list(&everything).await? {
        if binding.subjects.iter().flatten().any(|subject| account.is(subject)) {
            rules_of(&binding.role_ref, None).iter().for_each(|rule| add(&mut rights, rule, None));
        }
    }
    for binding in Api::<RoleBinding>::all(node.client.clone()).list(&everything).await? {
        if binding.subjects.iter().flatten().any(|subject| account.is(subject)) {
            let namespace = binding.namespace();
            let rules = rules_of(&binding.role_ref, namespace.as_deref());
            rules.iter().for_each(|rule| add(&mut rights, rule, namespace.as_deref()));
        }
    }
    Ok(rights)
}

fn add(rights: &mut BTreeSet<Right>, rule: &PolicyRule, namespace: Option<&str>) {
    let names = rule.resource_names.clone().unwrap_or_default();
    let names: Vec<Option<String>> =
        if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                rights.extend(names.iter().map(|name| Right {
                    namespace: namespace.map(str::to_owned),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    verb: verb.clone(),
                }));
            }
        }
    }
}

/// Compares an account's rights with its requests in the audit log: returns rights that it never
/// used, and requests that were forbidden.
///
/// # Errors
/// The API server does not answer, or the log cannot be read.
pub async fn differences(node: &Node, account: &Account) -> anyhow::Result<Vec<String>> {
    let log = &node.control_plane.audit_log;
    let used = audit::requests(log, &account.user())?;
    let covers = |right: &Right, request: &audit::Request| {
        right.verb == request.verb
            && right.group == request.group
            && right.resource == request.resource
            && right.namespace.as_ref().is_none_or(|namespace| *namespace == request.namespace)
            && right.name.as_ref().is_none_or(|name| *name == request.name)
    };
    let granted = granted(node, account).await?;
    anyhow::ensure!(!granted.is_empty(), "{} has no rights at all", account.user());
    let unused = granted.iter().filter(|right| !used.iter().any(|request| covers(right, request)));
    let mut differences: Vec<String> =
        unused.map(|right| format!("granted and never used: {right:?}")).collect();
    let forbidden = audit::forbidden(log, &account.user())?;
    differences.extend(
        forbidden.into_iter().map(|request| format!("asked for and not granted: {request}")),
    );
    Ok(differences)
}
