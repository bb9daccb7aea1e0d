//! What this process remembers of a job and does not store: it is found out again after a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;

use crate::make::{annotation, label};
use crate::observed::{Answers, Identity, Pod, Refusal, Service, Sighting, after};
use crate::plan::Step;

/// Seconds after which a refusal that may pass (quota, Pod Security) is forgotten.
const REFUSAL_SECONDS: i64 = 30;

/// What is remembered of one job.
#[derive(Debug, Default)]
pub struct Memory {
    /// Since when Akri does not know a uid.
    pub missing_since: HashMap<String, Timestamp>,
    /// Since when an Instance reaches nothing, by uid.
    pub unreachable: HashMap<String, Timestamp>,
    /// Since when a Pod cannot get on, by name.
    pub stuck_pods: HashMap<String, Timestamp>,
    /// Since when a Service has no Pod, by name.
    pub idle_services: HashMap<String, Timestamp>,
    /// When this process saw a device's first attempt begin, by uid.
    pub begun: HashMap<String, std::time::Instant>,
    /// Answers of plugins.
    pub answers: Answers,
    /// Questions that are with a plugin.
    pub asked: HashSet<String>,
    /// Steps under way, or paused after a failure.
    pub busy: HashSet<String>,
    /// Pods that are being created, by step.
    pub in_making: HashMap<String, InMaking>,
    /// When the status was written last.
    pub written: Option<std::time::Instant>,
    /// Whether a status write is under way.
    pub writing: bool,
    /// When this job was planned last.
    pub planned: Option<std::time::Instant>,
    failures: HashMap<String, u32>,
    refused: HashMap<String, (Refusal, Timestamp)>,
}

impl Memory {
    /// Notes since when things are as they are.
    pub fn note(&mut self, pods: &[Arc<Pod>], services: &[Arc<Service>], devices: &HashMap<String, Sighting>, now: Timestamp) {
        let stuck = pods.iter().filter(|pod| pod.waiting.is_some()).map(|pod| &pod.name);
        renew(&mut self.stuck_pods, stuck, now);
        let with_pod: HashSet<&String> = pods.iter().filter(|pod| pod.gone.is_none()).filter_map(|pod| pod.slot.as_ref()).collect();
        let idle = services.iter().filter(|service| service.slot.as_ref().is_some_and(|slot| !with_pod.contains(slot)));
        renew(&mut self.idle_services, idle.map(|service| &service.name), now);
        let unreachable = devices.iter().filter(|(_, sighting)| matches!(sighting, Sighting::Seen(instance) if !instance.reachable(None)));
        renew(&mut self.unreachable, unreachable.map(|(uid, _)| uid), now);
        self.missing_since.retain(|uid, _| matches!(devices.get(uid), Some(Sighting::Missing(_))));
    }

    /// Remembers a refusal of the API server.
    pub fn refuse(&mut self, name: &str, refusal: Refusal, now: Timestamp) {
        self.refused.insert(name.to_owned(), (refusal, now));
    }

    /// Refusals that still count.
    pub fn refusals(&mut self, now: Timestamp) -> HashMap<String, Refusal> {
        self.refused.retain(|_, (refusal, since)| refusal.is_final || after(*since, REFUSAL_SECONDS) > now);
        self.refused.iter().map(|(name, (refusal, _))| (name.clone(), refusal.clone())).collect()
    }
}

/// Keeps the instants of what still is, adds what is new, drops the rest.
fn renew<'a>(since: &mut HashMap<String, Timestamp>, names: impl Iterator<Item = &'a String>, now: Timestamp) {
    let mut before = std::mem::take(since);
    since.extend(names.map(|name| (name.clone(), before.remove(name).unwrap_or(now))));
}

impl Memory {
    /// Takes a step up, unless it is under way or paused.
    pub fn begin(&mut self, step: &Step) -> bool {
        let key = step.key();
        if self.busy.contains(&key) {
            return false;
        }
        if let Step::CreatePod(pod) = step {
            self.in_making.insert(key.clone(), InMaking::of(pod));
        }
        self.busy.insert(key);
        true
    }

    /// Counts the failures of a step in a row, and returns their number.
    pub fn count(&mut self, step: &str, failed: bool) -> u32 {
        if !failed {
            self.failures.remove(step);
            return 0;
        }
        let failures = self.failures.entry(step.to_owned()).or_default();
        *failures += 1;
        *failures
    }

    /// A step is over, and its outcome known.
    pub fn end(&mut self, step: &str) {
        self.in_making.remove(step);
        self.busy.remove(step);
    }
}

/// A Pod that is being created: its slot is taken and its device locked, whatever the plan makes of the device meanwhile.
#[derive(Debug)]
pub struct InMaking {
    /// What joins it to its Service.
    pub slot: Option<String>,
    /// The device, by all its identities.
    pub identities: Vec<Identity>,
    /// The device's uid in the spec.
    pub device: String,
}

impl InMaking {
    fn of(pod: &core::Pod) -> Self {
        let label = |name: &str| pod.labels().get(name).cloned();
        let identities = pod.annotations().get(annotation::IDENTITY).into_iter().flat_map(|text| text.split_whitespace());
        Self {
            slot: label(label::SLOT),
            identities: identities.filter_map(Identity::parse).collect(),
            device: label(label::UUID).unwrap_or_default(),
        }
    }
}
