//! Tests of requests to the API server that keep failing, one fact per test.

use std::sync::Arc;

use flashjob_api::{DeviceState, reason};
use kube_core::ResourceExt;
use serde_json::json;

use super::fixture::{Case, creates_pod, deletes, key};
use crate::flashjob::observed::Job;
use crate::flashjob::plan::Step;

#[test]
fn a_create_that_keeps_failing_is_told_until_it_works() {
    let mut case = Case::new(&["a"], &json!({}));
    let services = case.settle();
    let forbidden = || Some("pods is forbidden: cannot create resource".to_owned());
    let fail = |case: &mut Case, error: Option<String>| {
        case.world.memory.get_mut(&key("job")).expect("memory").count(&services.steps[0], error);
        case.settle();
    };
    fail(&mut case, forbidden());
    assert_eq!(case.stands("a").1, "", "one failure is no news");
    fail(&mut case, forbidden());
    fail(&mut case, forbidden());
    assert_eq!(case.stands("a"), (DeviceState::Exposing, reason::REQUEST_FAILING.name.into()));
    assert!(
        case.status().message.is_some_and(|message| message.contains("cannot create resource"))
    );
    fail(&mut case, None);
    case.carry_out(&services);
    assert_eq!(creates_pod(&case.settle()), 1);
    assert_eq!(case.stands("a").1, "");
}

#[test]
fn a_delete_that_keeps_failing_is_told_until_it_works_or_is_not_needed_any_more() {
    let mut case = Case::new(&["a"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    case.end(&pods[0], 0);
    let plan = case.settle();
    let deletes = |step: &&Step| matches!(step, Step::DeleteService { .. });
    let delete = plan.steps.iter().find(deletes).expect("a delete").clone();
    let is_reported = |case: &mut Case| {
        case.settle();
        let message = case.status().message.unwrap_or_default();
        message.contains("deleting Service") && message.contains("cannot delete resource")
    };
    let count = |case: &mut Case, error: Option<&str>| {
        let memory = case.world.memory.get_mut(&key("job")).expect("memory");
        memory.count(&delete, error.map(str::to_owned));
    };
    let forbidden = Some("services is forbidden: cannot delete resource");
    count(&mut case, forbidden);
    count(&mut case, forbidden);
    assert!(!is_reported(&mut case), "two failures are no news");
    count(&mut case, forbidden);
    assert!(is_reported(&mut case));
    // Also while the FlashJob is being deleted.
    let mut deleting = Job::clone(&case.world.jobs[&key("job")]);
    deleting.deleting = true;
    let before = case.world.jobs.insert(key("job"), Arc::new(deleting)).expect("a job");
    let held_up = case.plan().status.and_then(|status| status.message).unwrap_or_default();
    let waits = format!("being deleted; waiting for Pod {} to be removed", pods[0].name_any());
    assert!(held_up.starts_with(&format!("{waits}; deleting Service")), "{held_up}");
    count(&mut case, None);
    let message = case.plan().status.and_then(|status| status.message);
    assert_eq!(message, Some(waits), "what was said is no longer true");
    case.world.jobs.insert(key("job"), before);
    assert!(!is_reported(&mut case));
    for _ in 0..3 {
        count(&mut case, forbidden);
    }
    let memory = case.world.memory.get_mut(&key("job")).expect("memory");
    assert!(!memory.forget_failing_steps(std::slice::from_ref(&delete)), "it is still needed");
    assert!(memory.forget_failing_steps(&[]));
    assert!(!is_reported(&mut case));
}

#[test]
fn a_pod_whose_deletion_is_in_flight_is_deleted_again_only_if_that_failed() {
    let mut case = Case::new(&["a"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    case.end(&pods[0], 0);
    let plan = case.settle();
    let is_delete = |step: &&Step| matches!(step, Step::DeletePod { .. });
    let step = plan.steps.iter().find(is_delete).expect("the result is stored").clone();
    let memory = case.world.memory.get_mut(&key("job")).expect("memory");
    memory.begin(&step).expect("not begun");
    assert_eq!(deletes(&case.plan(), "pod"), 0);
    let memory = case.world.memory.get_mut(&key("job")).expect("memory");
    memory.count(&step, Some("forbidden".to_owned()));
    assert_eq!(deletes(&case.plan(), "pod"), 1);
}
