//! Tests of the memory of a rollout.

use flashjob_api::{FirmwarePin, FirmwareVerification};

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
    let asked = memory.ask(Some(question(2)), later).expect("it is another question");
    assert_eq!(memory.until_answer(later), ANSWER_WAIT - Duration::from_millis(50), "as before");
    let failed =
        FirmwareState::Failed { reason: "r".into(), message: "m".into(), permanent: false };
    assert!(memory.firmware.take(&asked, failed));
    assert!(memory.until_answer(later).is_zero(), "it was answered");
}
