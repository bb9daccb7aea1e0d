//! Refusals by the API server, and their consequence for the device that the object is for.

use jiff::Timestamp;
use kube_core::Status;

/// The API server's refusal of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of the object that was refused.
    pub object: Refused,
    /// Consequence for the device.
    pub meaning: Meaning,
    /// The API server's message.
    pub message: String,
    /// Time of the latest refusal of the object.
    pub at: Timestamp,
}

/// A kind of object that can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A flash Service.
    Service,
    /// A flash Pod.
    Pod,
}

/// Consequence of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The same object will be refused again: it is invalid, or a policy forbids it.
    Final,
    /// It may be accepted later, once another object exists that others create.
    MayPass,
    /// A quota is exhausted: the device waits as long as objects of ours in the namespace use it.
    Quota {
        /// Time since when none of our objects uses it. None: at least one does.
        unused_since: Option<Timestamp>,
    },
}

impl Refusal {
    /// Reads the response to a create. None: it is no refusal of this object, and the same request
    /// may succeed on a retry.
    #[must_use]
    pub fn of(object: Refused, status: &Status, at: Timestamp) -> Option<Self> {
        let meaning = match status.code {
            400 | 422 => Meaning::Final,
            403 => forbidden(status)?,
            400..=499 if is_denied_by_policy(status) => Meaning::Final,
            // Otherwise 429 and 5xx say nothing about the object: the API server or a webhook is
            // overloaded or away.
            _ => return None,
        };
        Some(Self { object, meaning, message: status.message.clone(), at })
    }
}

/// Returns true if a policy denies the object. The author of a policy chooses the code of its
/// denials: 401, 403, 413 or 422 for a ValidatingAdmissionPolicy, any for a webhook. The API server
/// itself means something else by most of these codes, and it names the policy or the webhook, in
/// quotes, in the message only.
fn is_denied_by_policy(status: &Status) -> bool {
    ["' denied request", "\" denied the request"].iter().any(|end| status.message.contains(end))
}

/// Consequence of a 403. Except for a namespace that is being terminated, the API server gives the
/// cause only as text. The texts are those of Kubernetes' own admission plugins (ResourceQuota,
/// ServiceAccount, Priority); whatever else forbids an object, such as LimitRange, Pod Security, a
/// policy or a webhook, will forbid the same object again.
fn forbidden(status: &Status) -> Option<Meaning> {
    let says = |words: &str| status.message.contains(words);
    let causes = status.details.iter().flat_map(|details| &details.causes);
    if causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating") {
        return Some(Meaning::MayPass);
    }
    // Permissions that the operator lacks, as happens briefly after an API server has started, are
    // no fault of the job.
    if says(" cannot create resource ") {
        return None;
    }
    // "status unknown": the quota controller has not computed the usage of a new ResourceQuota
    // yet.
    if says("exceeded quota: ") || says("status unknown for quota: ") {
        return Some(Meaning::Quota { unused_since: None });
    }
    let missing = says("error looking up service account ") || says("no PriorityClass with name ");
    Some(if missing { Meaning::MayPass } else { Meaning::Final })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(code: u16, message: &str) -> Option<Meaning> {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        Refusal::of(Refused::Pod, &status, Timestamp::UNIX_EPOCH).map(|refusal| refusal.meaning)
    }

    #[test]
    fn a_quota_is_a_turn_to_wait_for() {
        for message in [
            "pods \"a\" is forbidden: exceeded quota: compute, requested: requests.memory=64Mi, \
             used: requests.memory=1Gi, limited: requests.memory=1Gi",
            "services \"a\" is forbidden: exceeded quota: lb, requested: \
             services.loadbalancers=1, used: services.loadbalancers=2, limited: \
             services.loadbalancers=2",
            "pods \"a\" is forbidden: status unknown for quota: compute, resources: pods",
        ] {
            assert_eq!(meaning(403, message), Some(Meaning::Quota { unused_since: None }));
        }
    }

    #[test]
    fn what_the_same_object_meets_again_is_final() {
        for (code, message) in [
            (422, "Service \"a\" is invalid: spec.ports[0].port: Invalid value: 0"),
            (400, "strict decoding error"),
            (
                403,
                "pods \"a\" is forbidden: failed quota: compute: must specify limits.memory for: \
                 flash",
            ),
            (
                403,
                "pods \"a\" is forbidden: maximum memory usage per Container is 32Mi, but limit \
                 is 64Mi",
            ),
            (
                403,
                "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": \
                 runAsNonRoot != true",
            ),
            (
                403,
                "admission webhook \"validate.kyverno.svc-fail\" denied the request: label team \
                 is missing",
            ),
        ] {
            assert_eq!(meaning(code, message), Some(Meaning::Final), "{message}");
        }
    }

    #[test]
    fn a_denial_by_a_policy_is_final_whatever_code_its_author_chose() {
        let policy = "pods \"b\" is forbidden: ValidatingAdmissionPolicy 'sites' with binding \
                      'all-sites' denied request: label site is missing";
        for code in [401, 403, 413, 422] {
            assert_eq!(meaning(code, policy), Some(Meaning::Final), "{code}");
        }
        assert_eq!(meaning(401, "Unauthorized"), None, "of the operator's own token");
        let webhook = "admission webhook \"pods.example.com\" denied the request: no owner";
        for code in [400, 404, 405, 409, 429] {
            assert_eq!(meaning(code, webhook), Some(Meaning::Final), "{code}");
        }
        assert_eq!(meaning(500, webhook), None, "it may have failed while it decided");
    }

    #[test]
    fn a_conflict_that_no_policy_causes_refuses_no_object() {
        let conflict = "Operation cannot be fulfilled on resourcequotas \"most\": the object has \
                        been modified";
        assert_eq!(meaning(409, conflict), None);
        assert_eq!(meaning(409, "services \"b\" already exists"), None);
    }

    #[test]
    fn what_others_still_make_may_pass() {
        for message in [
            "pods \"a\" is forbidden: error looking up service account fleet/flasher: \
             serviceaccount \"flasher\" not found",
            "pods \"a\" is forbidden: no PriorityClass with name low was found",
        ] {
            assert_eq!(meaning(403, message), Some(Meaning::MayPass), "{message}");
        }
        let ending = serde_json::json!({
            "code": 403,
            "message": "unable to create new content in namespace fleet because it is being \
                        terminated",
            "details": {
                "causes": [{
                    "reason": "NamespaceTerminating",
                    "message": "namespace fleet is being terminated",
                }],
            },
        });
        let status: Status = serde_json::from_value(ending).expect("a Status");
        let refusal =
            Refusal::of(Refused::Pod, &status, Timestamp::UNIX_EPOCH).expect("a refusal");
        assert_eq!(refusal.meaning, Meaning::MayPass);
    }

    #[test]
    fn missing_rights_and_broken_servers_refuse_no_object() {
        let lacking = "pods is forbidden: User \
                       \"system:serviceaccount:flashjob-system:flashjob-operator\" cannot create \
                       resource \"pods\" in API group \"\"";
        assert_eq!(meaning(403, lacking), None);
        assert_eq!(meaning(500, "failed calling webhook"), None);
        assert_eq!(meaning(429, "too many requests"), None);
    }
}
