//! RBAC rights of the operator, and no others: one table, from which the rules for the whole
//! cluster and for one namespace are generated. The end-to-end tests run with the generated rules.

/// Scope in which a right is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// In every namespace whose FlashJobs the operator handles.
    Watched,
    /// On objects without a namespace.
    Cluster,
    /// In the operator's own namespace.
    Own,
    /// In the namespace of the Leases that kubelets renew.
    NodeLeases,
    /// In the namespace `default`, which has the events about objects without a namespace.
    Default,
}

/// Verbs on resources of one API group.
struct Right {
    scope: Scope,
    group: &'static str,
    resources: &'static str,
    /// Name of the only object to which the right applies.
    name: Option<&'static str>,
    verbs: &'static str,
    why: &'static str,
}

/// Name of the Role in the operator's namespace. It differs from the Role for the watched
/// namespace, which may be the same namespace.
const OWN: &str = "flashjob-operator-own";

/// Name of the Role in the namespace of the kubelets' Leases.
const NODE_LEASES: &str = "flashjob-operator-nodes";

const FLASHJOB: &str = "application.flashjob.nbfc.io";

const RIGHTS: &[Right] = &[
    watched(
        FLASHJOB,
        "flashjobs",
        "list, watch, create, patch, delete",
        "made and changed for a FlashRollout; finalizer; ttlSecondsAfterFinished",
    ),
    watched(FLASHJOB, "flashrollouts", "list, watch, delete", "ttlSecondsAfterFinished"),
    watched(FLASHJOB, "flashrollouts/status", "patch", "results, and all that is remembered"),
    watched(FLASHJOB, "flashjobs/status", "patch", "results"),
    watched("akri.sh", "instances", "list, watch", "devices; never changed"),
    watched(
        "",
        "pods, services",
        "list, watch, create, delete",
        "what flashes a device, and where it calls back",
    ),
    watched("policy", "poddisruptionbudgets", "create, delete", "no drain ends a flash"),
    watched("events.k8s.io", "events", "create, patch", "transitions and failures"),
    Right {
        scope: Scope::Cluster,
        group: FLASHJOB,
        resources: "deviceplugins",
        name: None,
        verbs: "list, watch, create, patch, delete",
        why: "shows which plugins are loaded; standbys and restarts take the same; one that is no \
              longer configured goes",
    },
    Right {
        scope: Scope::Cluster,
        group: FLASHJOB,
        resources: "deviceplugins/status",
        name: None,
        verbs: "patch",
        why: "the same",
    },
    Right {
        scope: Scope::Cluster,
        group: "",
        resources: "nodes",
        name: None,
        verbs: "get",
        why: "a Pod that vanished no longer runs on a node that is out of service",
    },
    Right {
        scope: Scope::NodeLeases,
        group: "coordination.k8s.io",
        resources: "leases",
        name: None,
        verbs: "get",
        why: "a kubelet that renews its Lease has ended the containers of Pods that are gone",
    },
    Right {
        scope: Scope::Default,
        group: "events.k8s.io",
        resources: "events",
        name: None,
        verbs: "create, patch",
        why: "plugins that become ready or fail: events about objects without namespace are in \
              this one",
    },
    Right {
        scope: Scope::Own,
        group: "events.k8s.io",
        resources: "events",
        name: None,
        verbs: "create, patch",
        why: "what keeps the operator from its work is told about its own Pod",
    },
    Right {
        scope: Scope::Own,
        group: "",
        resources: "secrets",
        name: None,
        verbs: "get",
        why: "passwords of registries",
    },
    Right {
        scope: Scope::Own,
        group: "coordination.k8s.io",
        resources: "leases",
        name: None,
        verbs: "create",
        why: "a name cannot be given for what is not there yet",
    },
    Right {
        scope: Scope::Own,
        group: "coordination.k8s.io",
        resources: "leases",
        name: Some("flashjob-operator"),
        verbs: "get, update",
        why: "the one operator that acts",
    },
];

const fn watched(
    group: &'static str,
    resources: &'static str,
    verbs: &'static str,
    why: &'static str,
) -> Right {
    Right { scope: Scope::Watched, group, resources, name: None, verbs, why }
}

/// Returns the rules for an operator that watches all namespaces.
pub fn cluster() -> String {
    let head = "# Rights for an operator that watches all namespaces. Made from the code by `make \
                generate`.\n";
    [
        format!(
            "{head}{}",
            role("ClusterRole", "flashjob-operator", None, &[Scope::Watched, Scope::Cluster])
        ),
        binding("ClusterRole", "flashjob-operator", None),
        role("Role", OWN, Some("flashjob-system"), &[Scope::Own]),
        binding("Role", OWN, Some("flashjob-system")),
        role("Role", NODE_LEASES, Some("kube-node-lease"), &[Scope::NodeLeases]),
        binding("Role", NODE_LEASES, Some("kube-node-lease")),
    ]
    .join("---\n")
}

/// Returns the rules for an operator that watches one namespace.
pub fn namespaced() -> String {
    let head = "# Rights for an operator that watches one namespace alone \
                (--watch-namespace fleet): apply this file INSTEAD of role.yaml, with\n\
                # \"fleet\" replaced by your namespace. The operator itself may run in another \
                namespace, here flashjob-system.\n\
                # Made from the code by `make generate`.\n";
    [
        format!("{head}{}", role("Role", "flashjob-operator", Some("fleet"), &[Scope::Watched])),
        binding("Role", "flashjob-operator", Some("fleet")),
        role("Role", NODE_LEASES, Some("kube-node-lease"), &[Scope::NodeLeases]),
        binding("Role", NODE_LEASES, Some("kube-node-lease")),
        role("ClusterRole", "flashjob-operator-deviceplugins", None, &[Scope::Cluster]),
        binding("ClusterRole", "flashjob-operator-deviceplugins", None),
        role("Role", "flashjob-operator-deviceplugins", Some("default"), &[Scope::Default]),
        binding("Role", "flashjob-operator-deviceplugins", Some("default")),
        role("Role", OWN, Some("flashjob-system"), &[Scope::Own]),
        binding("Role", OWN, Some("flashjob-system")),
    ]
    .join("---\n")
}

/// Returns the rules for each scope, with its name, from which the chart builds its roles.
pub fn of_chart() -> [(&'static str, String); 5] {
    let places = [
        ("watched", Scope::Watched),
        ("cluster", Scope::Cluster),
        ("own", Scope::Own),
        ("node-leases", Scope::NodeLeases),
        ("default", Scope::Default),
    ];
    places.map(|(name, scope)| (name, rules(&[scope])))
}

fn role(kind: &str, name: &str, namespace: Option<&str>, scopes: &[Scope]) -> String {
    format!("{}rules:\n{}", object(kind, name, namespace), rules(scopes))
}

fn rules(scopes: &[Scope]) -> String {
    let mut text = String::new();
    for right in RIGHTS.iter().filter(|right| scopes.contains(&right.scope)) {
        let Right { group, resources, verbs, why, .. } = right;
        text.push_str(&format!(
            "# {why}\n- apiGroups: [\"{group}\"]\n  resources: [{resources}]\n"
        ));
        if let Some(name) = right.name {
            text.push_str(&format!("  resourceNames: [{name}]\n"));
        }
        text.push_str(&format!("  verbs: [{verbs}]\n"));
    }
    text
}

fn binding(kind: &str, name: &str, namespace: Option<&str>) -> String {
    let object = object(&format!("{kind}Binding"), name, namespace);
    format!(
        "{object}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {name}\n\
         subjects:\n- kind: ServiceAccount\n  name: flashjob-operator\n  \
         namespace: flashjob-system\n"
    )
}

fn object(kind: &str, name: &str, namespace: Option<&str>) -> String {
    let namespace =
        namespace.map(|namespace| format!("  namespace: {namespace}\n")).unwrap_or_default();
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\n\
         metadata:\n  name: {name}\n{namespace}"
    )
}
