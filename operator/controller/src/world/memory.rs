//! What this process remembers of a job and does not store: it is found out again after a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::observed::{Answers, Pod, Refusal, Service, Sighting, after};

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
    /// Answers of plugins.
    pub answers: Answers,
    /// Questions that are with a plugin.
    pub asked: HashSet<String>,
    /// Steps under way, or paused after a failure.
    pub busy: HashSet<String>,
    /// Slots of Pods that are being created, by step.
    pub slots_in_making: HashMap<String, String>,
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
    pub fn begin(&mut self, step: &crate::plan::Step) -> bool {
        let key = step.key();
        if self.busy.contains(&key) {
            return false;
        }
        if let crate::plan::Step::CreatePod(pod) = step {
            let labels = pod.metadata.labels.as_ref();
            let slot = labels.and_then(|labels| labels.get(crate::make::label::SLOT)).cloned();
            self.slots_in_making.extend(slot.map(|slot| (key.clone(), slot)));
        }
        self.busy.insert(key);
        true
    }

    /// A step is over; its number of failures in a row is returned.
    pub fn end(&mut self, step: &str, failed: bool) -> u32 {
        self.slots_in_making.remove(step);
        if !failed {
            self.failures.remove(step);
            return 0;
        }
        let failures = self.failures.entry(step.to_owned()).or_default();
        *failures += 1;
        *failures
    }
}
