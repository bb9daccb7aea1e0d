//! From any reachable state the jobs end, and the invariants hold. A failure prints the scenario
//! and its seed.

use kube_core::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixture;
use super::model::{Cluster, Device, Fate};
use super::simulation::{Faults, Simulation};
use crate::flashjob::observed::Identity;

#[derive(Clone, Debug)]
struct Scenario {
    seed: u64,
    devices: usize,
    /// True if the first device appears under two uids.
    twin: bool,
    addresses: usize,
    jobs: usize,
    parallelism: usize,
    pooled: bool,
    mode: Option<&'static str>,
    budget: Option<usize>,
    skip: bool,
    external: bool,
    deadline: bool,
    /// True if the firmware has to be resolved first.
    policed: bool,
    /// True if a Pod of the Go operator is running for the first device.
    moved: bool,
    faults: Faults,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let shape = (any::<u64>(), 1..7usize, any::<bool>(), 1..4usize, 1..4usize, 1..4usize);
    let mode = prop_oneof![
        Just(None),
        Just(Some("Required")),
        Just(Some("BestEffort")),
        Just(Some("None"))
    ];
    let spec = (
        any::<bool>(),
        mode,
        proptest::option::of(0..3usize),
        any::<bool>(),
        proptest::bool::weighted(0.15),
        proptest::bool::weighted(0.15),
        proptest::bool::weighted(0.2),
        proptest::bool::weighted(0.3),
    );
    let faults = (
        0..3usize,
        0..4usize,
        0..3usize,
        0..5usize,
        0..2usize,
        prop_oneof![Just(0), Just(20usize)],
    );
    (shape, spec, faults).prop_map(|(shape, spec, faults)| Scenario {
        seed: shape.0,
        devices: shape.1,
        twin: shape.2,
        addresses: shape.3,
        jobs: shape.4,
        parallelism: shape.5,
        pooled: spec.0,
        mode: spec.1,
        budget: spec.2,
        skip: spec.3,
        external: spec.4,
        deadline: spec.5,
        moved: spec.6,
        policed: spec.7,
        faults: Faults {
            crashes: faults.0,
            pods: faults.1,
            services: faults.2,
            specs: faults.3,
            instances: faults.4,
            requests: faults.5,
        },
    })
}

impl Scenario {
    fn spec(&self) -> Value {
        json!({
            "parallelism": self.parallelism,
            "exposure": if self.pooled { "Pooled" } else { "PerDevice" },
            "verify": {"mode": self.mode, "timeoutSeconds": 60},
            "maxFailedDevices": self.budget,
            "skipIfCurrent": self.skip,
            "externalIP": self.external.then_some("192.0.2.0"),
            "firmwarePolicy": self.policed.then(|| json!({})),
            "activeDeadlineSeconds": self.deadline.then_some(400),
            "backoffLimitPerDevice": 1,
            // With the longer one, a lost device is unlocked by its node and not by the deadline.
            "deviceTimeoutSeconds": if self.seed.is_multiple_of(2) { 90 } else { 900 },
        })
    }

    fn cluster(&self) -> Cluster {
        let device = |index: usize| {
            let mut uids = vec![format!("device-{index}")];
            uids.extend((self.twin && index == 0).then(|| "device-0-again".to_owned()));
            let version =
                [None, Some("1"), Some("1"), Some("2")][(self.seed as usize + index) % 4];
            Device { uids, version: version.map(str::to_owned) }
        };
        let mut cluster =
            Cluster::new(self.seed, (0..self.devices).map(device).collect(), self.addresses);
        let uids: Vec<String> =
            cluster.devices.iter().flat_map(|device| device.uids.clone()).collect();
        for number in 0..self.jobs {
            let mut named: Vec<&str> =
                uids.iter().map(String::as_str).filter(|_| cluster.dice.percent(75)).collect();
            if named.is_empty() {
                named.push(&uids[0]);
            }
            cluster.put_job(fixture::job(&format!("job-{number}"), &named, &self.spec()));
        }
        if self.moved {
            let pod = cluster
                .create_pod(fixture::pod_of_the_go_operator("job-0", "device-0", "10.0.0.0"))
                .expect("created");
            cluster.fates.insert(pod.uid().expect("a uid"), Fate::Updates);
        }
        cluster
    }
}

/// Runs a scenario to its end, and for a while after it.
fn run(scenario: &Scenario) -> Simulation {
    let mut simulation = Simulation::new(scenario.cluster(), scenario.faults);
    simulation.run();
    simulation.calm_down();
    simulation.run();
    simulation
}

fn check_the_end(simulation: &Simulation) {
    for (name, job) in &simulation.cluster.jobs {
        let status = job.status.clone().unwrap_or_default();
        assert!(
            status.completion_time.is_some(),
            "job {name} did not end: {:?} {:#?}",
            status.message,
            status.devices
        );
    }
    assert!(
        simulation.cluster.pods.is_empty(),
        "Pods are left: {:?}",
        simulation.cluster.pods.keys()
    );
    let services = &simulation.cluster.services;
    assert!(services.is_empty(), "Services are left: {services:?}");
    for index in 0..simulation.cluster.devices.len() {
        let identity = Identity::endpoint(&format!("10.0.0.{index}:80"));
        let holder = simulation.world.locks.holder(&identity, &fixture::key("nobody"), "");
        assert_eq!(holder, None, "a device is still locked");
    }
}

proptest! {
    #![proptest_config(crate::tests::config(128, 400))]

    #[test]
    fn whatever_breaks_the_jobs_end_and_no_device_is_flashed_by_two(scenario in scenario()) {
        check_the_end(&run(&scenario));
    }
}
