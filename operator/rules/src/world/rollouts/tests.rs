//! Tests of the memory of a rollout.

use flashjob_api::{FirmwarePin, FirmwareVerification};
use serde_json::json;

use super::*;
use crate::firmware::FirmwareState;

fn question(batch: usize) -> ResolveFirmware {
    ResolveFirmware {
        run: "run".to_owned(),
        batch: Some(batch),
        reference: "r.io/f:1".to_owned(),
        pin: FirmwarePin::Digest,
        verify: FirmwareVerification::IfConfigured,
        trust: None,
        version: "1".to_owned(),
        device_types: Vec::new(),
    }
}

#[test]
fn a_status_waits_for_the_registry_s_answer_but_not_for_long() {
    let (mut memory, begin) = (Memory::default(), Instant::now());
    assert!(memory.until_answer(begin).is_zero(), "nothing was asked");
    memory.ask(Some(question(1)), begin).expect("it is to be asked");
    let later = begin + Duration::from_millis(50);
    assert!(memory.ask(Some(question(1)), later).is_none(), "it is asked already");
    assert_eq!(memory.until_answer(later), ANSWER_WAIT - Duration::from_millis(50));
    assert!(memory.until_answer(begin + ANSWER_WAIT).is_zero());
    let second_question = memory.ask(Some(question(2)), later).expect("it is another question");
    assert_eq!(memory.until_answer(later), ANSWER_WAIT - Duration::from_millis(50), "as before");
    let failed =
        FirmwareState::Failed { reason: "r".into(), message: "m".into(), permanent: false };
    assert!(memory.firmware.take(&second_question, failed));
    assert!(memory.until_answer(later).is_zero(), "it was answered");
}

fn rollout(name: &str, version: &str, reason: &str) -> CachedRollout {
    let rollout = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout",
        "metadata": {"namespace": "fleet", "name": name, "uid": name, "resourceVersion": version},
        "spec": {"firmware": "r.io/f:1", "version": "1", "selector": {"all": true}},
        "status": {"phase": "Progressing", "reason": reason},
    });
    CachedRollout::of(serde_json::from_value(rollout).expect("a FlashRollout"))
}

fn is_due(rollouts: &mut Rollouts, name: &str) -> bool {
    let key = RolloutKey { namespace: "fleet".to_owned(), name: name.to_owned() };
    rollouts.take_due().contains_key(&key)
}

#[test]
fn a_rollout_that_waits_behind_an_older_one_is_looked_at_whenever_that_one_is_stored() {
    let mut rollouts = Rollouts::default();
    rollouts.see(rollout("older", "1", "Flashing"));
    rollouts.see(rollout("younger", "2", rollout_reason::OLDER_ROLLOUT.name));
    rollouts.see(rollout("other", "3", "Flashing"));
    rollouts.take_due();
    rollouts.see(rollout("older", "4", "Flashing"));
    assert!(is_due(&mut rollouts, "younger"));
    rollouts.see(rollout("older", "5", "Flashing"));
    assert!(!is_due(&mut rollouts, "other"), "it waits for nobody");
}

#[test]
fn a_rollout_whose_name_was_taken_is_looked_at_when_a_flash_job_goes() {
    let mut rollouts = Rollouts::default();
    rollouts.see(rollout("stopped", "1", rollout_reason::NAME_TAKEN.name));
    rollouts.take_due();
    rollouts.free_name();
    assert!(is_due(&mut rollouts, "stopped"));
}
