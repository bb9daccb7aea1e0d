//! Tests of when a job's Pods are protected from drains.

use std::sync::Arc;

use flashjob_api::Disruption;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::fixture::{Case, key};
use crate::flashjob::observed::after;
use crate::flashjob::plan::{Plan, Step};

impl Case {
    /// A job whose Pods are protected unless its spec says otherwise.
    fn guarded(uids: &[&str], spec: &serde_json::Value) -> Self {
        let mut case = Self::new(uids, spec);
        Arc::make_mut(&mut case.world.rules.policy).pods.disruption = Disruption::Protect;
        case
    }

    /// A new process: what the previous one kept in memory is gone.
    fn forget_memory(&mut self) {
        self.world.memory.clear();
    }

    fn is_protected(&mut self, is_protected: bool) {
        self.world.memory.get_mut(&key("job")).expect("memory").is_protected = Some(is_protected);
    }
}

fn protects(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Protect(_)))
}

fn unprotects(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Unprotect { .. }))
}

#[test]
fn one_budget_stands_from_the_first_pod_of_a_job_to_its_last() {
    let mut case = Case::guarded(&["a"], &json!({}));
    let services = case.settle();
    assert!(!protects(&services), "nothing is at work yet");
    case.carry_out(&services);
    let pods = case.settle();
    assert!(protects(&pods), "{pods:?}");
    let mut case = Case::guarded(&["a", "b"], &json!({"parallelism": 1}));
    case.settle();
    case.is_protected(true);
    let pods = case.start();
    let plan = case.plan();
    assert!(!protects(&plan) && !unprotects(&plan));
    case.end(&pods[0], 3);
    assert!(!unprotects(&case.settle()), "another device follows");
    let pods = case.start();
    case.end(&pods[0], 3);
    assert!(unprotects(&case.settle()), "every device has its result");
    case.is_protected(false);
    let plan = case.settle();
    assert!(!protects(&plan) && !unprotects(&plan));
}

#[test]
fn the_budget_of_a_suspended_job_goes_with_its_last_device_in_flight() {
    let mut case = Case::guarded(&["a", "b"], &json!({"parallelism": 1}));
    let pods = case.start();
    case.is_protected(true);
    case.spec(&json!({"suspend": true}));
    assert!(!unprotects(&case.settle()), "one is in flight");
    case.end(&pods[0], 3);
    assert!(unprotects(&case.settle()), "the other one does not begin");
}

#[test]
fn a_restarted_operator_protects_what_is_at_work_and_a_job_that_allows_disruption_is_left() {
    let mut case = Case::guarded(&["a"], &json!({}));
    case.start();
    case.forget_memory();
    assert!(protects(&case.plan()), "a new process does not know of the budget");
    case.is_protected(true);
    case.spec(&json!({"disruption": "Allow"}));
    assert!(unprotects(&case.settle()));
    case.is_protected(false);
    assert!(!protects(&case.settle()));
}

#[test]
fn a_budget_that_an_earlier_process_left_is_deleted_and_nothing_is_deleted_in_vain() {
    let mut case = Case::guarded(&["a"], &json!({}));
    let pods = case.start();
    case.end(&pods[0], 3);
    assert!(!unprotects(&case.settle()), "this process has created none");
    case.forget_memory();
    assert!(unprotects(&case.settle()), "the earlier process ended before the delete");
    case.is_protected(false);
    assert!(!unprotects(&case.settle()));
    case.forget_memory();
    case.now = after(case.now, 3601);
    assert!(!unprotects(&case.settle()), "the job is over for long");
    let mut suspended = Case::guarded(&["a"], &json!({"suspend": true}));
    assert!(!unprotects(&suspended.settle()), "a new job has none");
    suspended.forget_memory();
    assert!(unprotects(&suspended.settle()));
    let mut allowed = Case::new(&["a"], &json!({}));
    allowed.start();
    assert!(!unprotects(&allowed.settle()));
    allowed.forget_memory();
    assert!(unprotects(&allowed.settle()), "a drain must not wait for it");
}

#[test]
fn a_deleted_job_that_waits_for_a_pod_that_vanished_keeps_no_budget() {
    let mut case = Case::guarded(&["a"], &json!({}));
    let pods = case.start();
    case.is_protected(true);
    case.job.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_job();
    assert!(!unprotects(&case.settle()), "its Pod exists");
    let name = pods[0].metadata.name.clone().expect("a name");
    let uid = pods[0].metadata.uid.clone().expect("a uid");
    case.world.lose_pod(&key("job"), &name, &uid, case.now);
    assert!(!unprotects(&case.settle()), "its Pod may exist");
    case.world.confirm_gone(&key("job"), &name, "a", case.now);
    assert!(unprotects(&case.settle()));
    case.is_protected(false);
    assert!(!unprotects(&case.settle()));
}
