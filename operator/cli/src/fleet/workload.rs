//! Common interface of FlashJobs and FlashRollouts, for the commands that follow, pause and show
//! them.

use std::fmt::Debug;

use jiff::Timestamp;
use kube::core::NamespaceResourceScope;
use kube::core::object::HasStatus;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::pace::FirstCount;
use crate::cluster::{NOT_FOUND, Place, refused};
use crate::failure::{Code, Failure};

/// Reason of a failure: the object was deleted, or is being deleted.
pub const DELETED: &str = "Deleted";

/// Kind whose objects work on devices for some time: they are followed, paused and resumed.
pub trait Workload:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// First words of the commands for this kind.
    const COMMAND: &'static str;
    /// Verb of the command that ends the work of an object.
    const ENDING: &'static str;
    /// Field of the output for programs that holds the objects.
    const FIELD: &'static str;
    /// Phase in the status.
    type Phase;

    /// Returns true if the object is paused.
    fn is_suspended(&self) -> bool;

    /// Returns the generation of the spec that the status refers to.
    fn observed_generation(&self) -> Option<i64>;

    /// Returns the phase of the status if it is a final one.
    fn final_phase(&self) -> Option<Self::Phase>;

    /// Returns true if the operator has written a status.
    fn has_status(&self) -> bool {
        self.status().is_some()
    }

    /// Returns true if the object is being deleted: a finalizer keeps it until the operator has
    /// stopped its Pods.
    fn is_in_deletion(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Returns true if the status is missing or older than the last change of the spec.
    fn is_behind(&self) -> bool {
        // Until `observedGeneration` is `metadata.generation`, phase and conditions describe an
        // older spec (Kubernetes API conventions, "Typical status properties"). The API server also
        // increments the generation of an object that waits for its finalizers in deletion, which
        // changes nothing in the spec.
        let deletion = i64::from(self.is_in_deletion());
        let changed = self.meta().generation.map(|generation| generation - deletion);
        !self.has_status() || self.observed_generation() < changed
    }

    /// Returns the final phase; none while the operator works on the object, or has not yet
    /// observed its last change.
    fn ended(&self) -> Option<Self::Phase> {
        self.final_phase().filter(|_| !self.is_behind())
    }

    /// Returns true if the work on the object has ended.
    fn is_over(&self) -> bool {
        self.ended().is_some()
    }

    /// Returns true if nothing continues until somebody acts.
    fn is_blocked(&self) -> bool;

    /// Returns the failure of an object that ended without success.
    fn failure(&self) -> Option<Failure>;

    /// Returns the number of devices that have a result.
    fn results(&self) -> u32;

    /// Returns the effect of pausing or resuming an object that is not at work, as the end of a
    /// sentence; `self` is the object before the change.
    fn consequence(&self, suspend: bool) -> String;

    /// Returns a message that the object is already paused, or not paused; follows its name.
    fn unchanged(&self) -> String {
        let state = if self.is_suspended() { "is already paused" } else { "is not paused" };
        format!("{state}; nothing changed")
    }

    /// Returns the command that ends the work of an object, as part of a sentence.
    fn ending(namespace: &str, name: &str) -> String {
        format!("{} {} {name} -n {namespace} ends it", Self::COMMAND, Self::ENDING)
    }

    /// Returns the status in one line, for a log.
    fn line(&self) -> String;

    /// Returns the whole status as text; `first_count` is the count that a watch saw first.
    fn details(&self, first_count: Option<FirstCount>, frame: Frame) -> String;

    /// Returns the form for programs.
    fn json(&self, now: Timestamp) -> Value;
}

/// Settings for showing an object to people.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The current time.
    pub now: Timestamp,
    /// Show every device, not only the first ones.
    pub all: bool,
    /// Width in columns.
    pub width: usize,
}

impl Place {
    /// Returns the API for objects of a kind in the namespace.
    pub fn api<K: Workload>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Returns kind, namespace and name, as used in messages.
    pub fn named<K: Workload>(&self, name: &str) -> String {
        format!("{} {}/{name}", K::kind(&()), self.namespace)
    }

    /// Reads an object that must exist.
    ///
    /// # Errors
    /// The object does not exist, or cannot be read.
    pub async fn read<K: Workload>(&self, name: &str) -> Result<K, Failure> {
        let read = self.api().get(name).await;
        read.map_err(|error| self.refused::<K>("read", name, &error))
    }

    /// Returns the failure of a request about an object; `verb` begins the sentence.
    pub fn refused<K: Workload>(&self, verb: &str, name: &str, error: &kube::Error) -> Failure {
        match error {
            // If the kind is not installed, the API server's 404 names no object.
            kube::Error::Api(status)
                if status.code == 404
                    && status.details.as_ref().is_some_and(|details| !details.name.is_empty()) =>
            {
                self.missing::<K>(name)
            }
            error => refused(&format!("{verb} {}", self.named::<K>(name)), error),
        }
    }

    /// Returns the failure for an object that does not exist.
    pub fn missing<K: Workload>(&self, name: &str) -> Failure {
        let message =
            format!("there is no {}; {} status -A shows all", self.named::<K>(name), K::COMMAND);
        Failure::new(Code::Unavailable, NOT_FOUND, message)
    }
}

/// Checks that a change of an object can have an effect; `verb` completes the sentence "cannot …".
///
/// # Errors
/// The object is being deleted, so the operator starts nothing of it any more.
pub fn changeable<K: Workload>(verb: &str, object: &K) -> Result<(), Failure> {
    if !object.is_in_deletion() {
        return Ok(());
    }
    let kind = K::kind(&());
    // Nothing follows an object that is over: a watch of it ends at once.
    let follows = if object.is_over() { " shows it" } else { " -w follows that" };
    let message = format!(
        "cannot {verb} {kind} {}: it is being deleted; {}{follows}, and once it is gone another \
         {kind} can flash its devices",
        full_name(object),
        command_for("status", object)
    );
    Err(Failure::new(Code::Unavailable, DELETED, message))
}

/// Returns kind and name, in the form that kubectl prints and accepts.
pub fn resource<K: Workload>(object: &K) -> String {
    format!("{}.{}/{}", K::kind(&()).to_lowercase(), K::group(&()), object.name_any())
}

/// Returns namespace and name.
pub fn full_name<K: Workload>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Returns the command that ends a pause, as part of a sentence.
pub fn resuming<K: Workload>(object: &K) -> String {
    format!("{} resumes it", command_for("resume", object))
}

/// Returns the command line of a verb for an object.
pub fn command_for<K: Workload>(verb: &str, object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{} {verb} {} -n {namespace}", K::COMMAND, object.name_any())
}
