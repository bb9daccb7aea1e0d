//! Tests of devices whose Service or Pod the API server refuses, one fact per test.

use std::collections::BTreeMap;

use flashjob_api::{DeviceState, reason};
use serde_json::json;

use super::fixture::{Case, creates_pod, deletes, key};
use crate::flashjob::make::attempt_name;
use crate::flashjob::observed::{Meaning, Refusal, Refused, after};
use crate::flashjob::plan::{Plan, Step};
use crate::world::change::Change;

const QUOTA: Meaning = Meaning::Quota { unused_since: None };

impl Case {
    fn refuse(&mut self, object: Refused, name: &str, meaning: Meaning) {
        let refusal = Refusal { object, meaning, message: "its words".into(), at: self.now };
        self.world.memory.get_mut(&key("job")).expect("memory").refuse(name, refusal);
    }

    fn accept(&mut self, plan: &Plan) {
        self.carry_out(plan);
        let memory = self.world.memory.get_mut(&key("job")).expect("memory");
        plan.steps.iter().filter_map(Step::created_name).for_each(|name| memory.accept(name));
    }

    /// Carries out the creates of a plan under a quota that admits only the first ones.
    fn take_services(&mut self, plan: &Plan, room: usize) {
        for (index, step) in plan.steps.iter().enumerate() {
            let Some(name) = step.created_name() else { continue };
            match index < room {
                true => self.accept(&Plan { steps: vec![step.clone()], ..Plan::default() }),
                false => self.refuse(Refused::Service, name, QUOTA),
            }
        }
    }
}

fn services(plan: &Plan) -> usize {
    plan.steps.iter().filter(|step| matches!(step, Step::CreateService(_))).count()
}

#[test]
fn a_refusal_is_final_or_costs_an_attempt() {
    for (meaning, state) in
        [(Meaning::Final, DeviceState::Failed), (Meaning::MayPass, DeviceState::Pending)]
    {
        let mut case = Case::new(&["a"], &json!({}));
        let plan = case.settle();
        let name = plan.steps[0].created_name().expect("a Service").to_owned();
        case.refuse(Refused::Service, &name, meaning);
        case.settle();
        assert_eq!(case.stands("a"), (state, reason::SERVICE_REFUSED.name.into()));
        let mut case = Case::new(&["a"], &json!({}));
        let plan = case.settle();
        case.carry_out(&plan);
        case.settle();
        case.refuse(Refused::Pod, &name, meaning);
        case.settle();
        assert_eq!(case.stands("a"), (state, reason::POD_REFUSED.name.into()));
        // The Service, which has the same name, may be gone since.
        let mut case = Case::new(&["a"], &json!({}));
        case.settle();
        case.refuse(Refused::Pod, &name, meaning);
        case.settle();
        assert_eq!(case.stands("a"), (state, reason::POD_REFUSED.name.into()));
    }
}

#[test]
fn a_refused_pod_gives_its_address_back_once_the_refusal_is_stored() {
    for meaning in [Meaning::Final, Meaning::MayPass] {
        let mut case = Case::new(&["a"], &json!({}));
        let services = case.settle();
        case.carry_out(&services);
        let plan = case.settle();
        assert_eq!(creates_pod(&plan), 1);
        let name = plan.steps.iter().find_map(Step::created_name).expect("a Pod").to_owned();
        case.refuse(Refused::Pod, &name, meaning);
        assert_eq!(deletes(&case.plan(), "service"), 0, "another operator would create the Pod");
        assert_eq!(deletes(&case.settle(), "service"), 1, "{meaning:?}");
    }
}

#[test]
fn a_quota_that_other_devices_use_is_a_turn_to_wait_for_and_one_device_tries_at_a_time() {
    let mut case = Case::new(&["a", "b", "c"], &json!({"backoffLimitPerDevice": 0}));
    let plan = case.settle();
    assert_eq!(services(&plan), 3);
    case.take_services(&plan, 1);
    let plan = case.settle();
    case.accept(&plan);
    assert_eq!(creates_pod(&plan), 1);
    for uid in ["b", "c"] {
        let expected = (DeviceState::Exposing, reason::WAITING_FOR_QUOTA.name.into());
        assert_eq!(case.stands(uid), expected);
    }
    assert_eq!(services(&case.settle()), 0, "no try at once");
    // However long it takes, as long as the first device's Service exists.
    for _ in 0..20 {
        let plan = case.pass(5);
        assert_eq!(services(&plan), 1, "one try at a time");
        case.take_services(&plan, 0);
        case.settle();
    }
    let plan = case.pass(5);
    case.accept(&plan);
    let plan = case.settle();
    assert_eq!(services(&plan), 1, "where one was taken the next tries at once");
    case.accept(&plan);
    assert_eq!(creates_pod(&case.settle()), 1);
    assert_eq!(case.status().failed_uuids, Vec::<String>::new());
}

#[test]
fn the_status_stays_the_same_whichever_device_a_quota_refuses_next() {
    let mut case = Case::new(&["a", "b"], &json!({}));
    let plan = case.settle();
    let names: Vec<String> =
        plan.steps.iter().filter_map(Step::created_name).map(str::to_owned).collect();
    let refuse = |case: &mut Case, index: usize| {
        let name = &names[index];
        let cause = format!("exceeded quota: lb, requested: {index}");
        let message = format!("services \"{name}\" is forbidden: {cause}");
        let refusal = Refusal { object: Refused::Service, meaning: QUOTA, message, at: case.now };
        case.world.memory.get_mut(&key("job")).expect("memory").refuse(name, refusal);
    };
    refuse(&mut case, 0);
    refuse(&mut case, 1);
    case.settle();
    let stored = case.status();
    let messages: Vec<_> =
        stored.devices.iter().filter_map(|device| device.message.clone()).collect();
    let expected = [0, 1].map(|index| {
        format!("waiting until the quota has room: exceeded quota: lb, requested: {index}")
    });
    assert_eq!(messages, expected);
    for index in [0, 1] {
        case.now = after(case.now, 3);
        refuse(&mut case, index);
        assert_eq!(case.plan().status.as_ref(), Some(&stored));
    }
}

#[test]
fn a_quota_that_nothing_of_ours_uses_costs_an_attempt_after_a_while() {
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 0}));
    let plan = case.settle();
    case.take_services(&plan, 0);
    case.settle();
    case.pass(10);
    assert_eq!(case.stands("a").0, DeviceState::Exposing, "what used it may not be counted yet");
    for _ in 0..4 {
        let plan = case.pass(5);
        case.take_services(&plan, 0);
        case.settle();
    }
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::SERVICE_REFUSED.name.into()));
}

#[test]
fn a_device_that_waits_for_a_quota_gives_its_address_back_after_a_while_and_waits_on() {
    let mut case = Case::new(
        &["a", "b"],
        &json!({
            "backoffLimitPerDevice": 0, "addressTimeoutSeconds": 30, "deviceTimeoutSeconds": 900,
        }),
    );
    let plan = case.settle();
    case.accept(&plan);
    let plan = case.settle();
    assert_eq!(creates_pod(&plan), 2);
    case.accept(&Plan { steps: vec![plan.steps[0].clone()], ..Plan::default() });
    let refused = plan.steps[1].created_name().expect("a Pod").to_owned();
    case.refuse(Refused::Pod, &refused, QUOTA);
    let plan = case.pass(1);
    assert_eq!(creates_pod(&plan), 0);
    assert_eq!(deletes(&case.plan(), "service"), 0);
    case.now = after(case.now, 30);
    case.refuse(Refused::Pod, &refused, QUOTA);
    let plan = case.settle();
    assert_eq!(deletes(&plan, "service"), 1);
    let waits = (DeviceState::Pending, reason::WAITING_FOR_QUOTA.name.into());
    assert!(["a", "b"].map(|uid| case.stands(uid)).contains(&waits));
    assert_eq!(case.status().failed_uuids, Vec::<String>::new());
}

#[test]
fn a_device_whose_pod_a_quota_refused_before_its_beginning_was_stored_says_so() {
    let mut case = Case::new(&["a", "b", "c"], &json!({"parallelism": 2, "suspend": true}));
    case.settle();
    let run = case.status().run.expect("a run");
    let name = attempt_name("job", "uid-of-job", &run, "a", 1);
    case.refuse(Refused::Pod, &name, QUOTA);
    case.spec(&json!({"suspend": false}));
    case.settle();
    let waits = (DeviceState::Pending, reason::WAITING_FOR_QUOTA.name.into());
    assert_eq!(["a", "b"].map(|uid| case.stands(uid)), [waits.clone(), waits]);
    assert_eq!(case.stands("c").1, "", "it would wait without the quota too");
    assert_eq!(case.status().waiting[reason::WAITING_FOR_QUOTA.name], 3);
    case.pass(6);
    assert_eq!(case.stands("b"), (DeviceState::Exposing, String::new()));
}

#[test]
fn a_device_that_is_held_back_by_something_else_no_longer_says_that_it_waits_for_a_quota() {
    let suspends = |case: &mut Case| case.spec(&json!({"suspend": true}));
    let loses_plugins = |case: &mut Case| {
        let mut plugins = (*case.world.plugins).clone();
        plugins.iter_mut().for_each(|plugin| plugin.ready = Err("nobody has it".to_owned()));
        case.world.take(Change::Plugins(plugins), case.now);
    };
    for (hold_back, waiting) in [
        (suspends as fn(&mut Case), BTreeMap::new()),
        (loses_plugins, BTreeMap::from([(reason::PLUGIN_NOT_READY.name.to_owned(), 1)])),
    ] {
        let mut case = Case::new(&["a"], &json!({"suspend": true}));
        case.settle();
        let run = case.status().run.expect("a run");
        case.refuse(Refused::Pod, &attempt_name("job", "uid-of-job", &run, "a", 1), QUOTA);
        case.spec(&json!({"suspend": false}));
        case.settle();
        assert_eq!(case.stands("a").1, reason::WAITING_FOR_QUOTA.name);
        hold_back(&mut case);
        case.settle();
        assert_eq!(case.stands("a"), (DeviceState::Pending, String::new()));
        assert_eq!(case.status().waiting, waiting);
    }
}

#[test]
fn a_device_that_fails_as_it_starts_lets_no_other_start_beyond_the_failure_budget() {
    for refused in ["a", "b"] {
        let spec = json!({"maxFailedDevices": 0, "parallelism": 2, "suspend": true});
        let mut case = Case::new(&["a", "b"], &spec);
        case.settle();
        // Refused in an earlier plan, whose status was not stored.
        let run = case.status().run.expect("a run");
        let name = attempt_name("job", "uid-of-job", &run, refused, 1);
        case.refuse(Refused::Service, &name, Meaning::Final);
        case.spec(&json!({"suspend": false}));
        assert!(case.plan().steps.is_empty());
        case.settle();
        let other = if refused == "a" { "b" } else { "a" };
        assert_eq!(case.stands(refused).1, reason::SERVICE_REFUSED.name);
        assert_eq!(case.stands(other), (DeviceState::Skipped, reason::JOB_STOPPED.name.into()));
        let status = case.status();
        let skipped = status.devices.iter().find(|device| device.uid == other).expect("a record");
        assert_eq!((&skipped.start_time, &skipped.pod), (&None, &None));
        assert_eq!(status.host_endpoint, None);
    }
}
