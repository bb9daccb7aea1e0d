//! FlashJobs and FlashRollouts alike: what the commands that follow, pause and show them ask of
//! their kind.

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

/// A kind whose objects work on devices for a while: they are followed, paused and resumed.
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
    /// Beginning of the commands for this kind.
    const COMMAND: &'static str;
    /// Verb of the command that ends the work of one.
    const ENDING: &'static str;
    /// Field of the output for programs that has the objects.
    const FIELD: &'static str;
    /// Phase, as the status says it.
    type Phase;

    /// Returns true where somebody has paused it.
    fn is_suspended(&self) -> bool;

    /// Generation of the spec that the status speaks of.
    fn observed_generation(&self) -> Option<i64>;

    /// Phase of the status, where it is one that ends the work.
    fn final_phase(&self) -> Option<Self::Phase>;

    /// Returns true if the operator has written a status.
    fn has_status(&self) -> bool {
        self.status().is_some()
    }

    /// Returns true where the status is from before the last change of the spec, or is missing.
    fn is_behind(&self) -> bool {
        !self.has_status() || self.observed_generation() < self.meta().generation
    }

    /// The phase in which it is over; none while the operator works on it, or has not seen its
    /// last change.
    fn ended(&self) -> Option<Self::Phase> {
        self.final_phase().filter(|_| !self.is_behind())
    }

    /// Returns true if it is over.
    fn is_over(&self) -> bool {
        self.ended().is_some()
    }

    /// Returns true where nothing goes on until somebody acts.
    fn is_blocked(&self) -> bool;

    /// The failure of one that is over and not good.
    fn failure(&self) -> Option<Failure>;

    /// Number of devices that have their result.
    fn results(&self) -> u32;

    /// Effect of a pause or of its end where the object is not at work, as the end of a sentence
    /// about it as it was before.
    fn consequence(&self, suspend: bool) -> String;

    /// Says that a pause, or its end, that is so already changes nothing; follows its name.
    fn unchanged(&self) -> String {
        let state = if self.is_suspended() { "is paused already" } else { "is not paused" };
        format!("{state}; nothing changed")
    }

    /// The command that ends the work of one, as part of a sentence.
    fn ending(namespace: &str, name: &str) -> String {
        format!("{} {} {name} -n {namespace} ends it", Self::COMMAND, Self::ENDING)
    }

    /// One line, for whoever reads a log.
    fn line(&self) -> String;

    /// All that there is to say of it; `seen` is what a watch saw first.
    fn details(&self, seen: Option<FirstCount>, frame: Frame) -> String;

    /// The form for programs.
    fn json(&self, now: Timestamp) -> Value;
}

/// Frame into which an object is drawn for people.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The current time.
    pub now: Timestamp,
    /// Show every device and not the first ones alone.
    pub all: bool,
    /// Columns.
    pub width: usize,
}

impl Place {
    /// The objects of a kind in the namespace.
    pub fn api<K: Workload>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Kind, namespace and name, as messages say them.
    pub fn named<K: Workload>(&self, name: &str) -> String {
        format!("{} {}/{name}", K::kind(&()), self.namespace)
    }

    /// Reads an object that has to be there.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    pub async fn read<K: Workload>(&self, name: &str) -> Result<K, Failure> {
        let read = self.api().get(name).await;
        read.map_err(|error| self.refused::<K>("read", name, &error))
    }

    /// A request about an object was not carried out; `verb` begins the sentence.
    pub fn refused<K: Workload>(&self, verb: &str, name: &str, error: &kube::Error) -> Failure {
        match error {
            // Of a kind that is not installed, the API server names no object.
            kube::Error::Api(status)
                if status.code == 404
                    && status.details.as_ref().is_some_and(|details| !details.name.is_empty()) =>
            {
                self.missing::<K>(name)
            }
            error => refused(&format!("{verb} {}", self.named::<K>(name)), error),
        }
    }

    /// There is no such object here.
    pub fn missing<K: Workload>(&self, name: &str) -> Failure {
        let message =
            format!("there is no {}; {} status -A shows all", self.named::<K>(name), K::COMMAND);
        Failure::new(Code::Unavailable, NOT_FOUND, message)
    }
}

/// Kind and name, as kubectl prints and takes them.
pub fn resource<K: Workload>(object: &K) -> String {
    format!("{}.{}/{}", K::kind(&()).to_lowercase(), K::group(&()), object.name_any())
}

/// Namespace and name.
pub fn full_name<K: Workload>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// The command that ends a pause, as part of a sentence.
pub fn resuming<K: Workload>(object: &K) -> String {
    format!("{} lets it go on", command_for("resume", object))
}

/// Command line of a verb for an object.
pub fn command_for<K: Workload>(verb: &str, object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{} {verb} {} -n {namespace}", K::COMMAND, object.name_any())
}
