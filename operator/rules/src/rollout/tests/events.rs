//! Events that may happen between two decisions.

use proptest::prelude::*;

/// One event.
#[derive(Clone, Debug)]
pub enum Event {
    /// A decision of which only these steps are carried out and, if true, the status is stored:
    /// the rest is lost because of a kill or a conflict.
    Decide(u8, bool),
    Sync(usize),
    Work(usize, usize),
    Pass(i64),
    Leave(usize),
    Return(usize),
    GoBack(usize),
    Break(usize),
    Mend(usize),
    Suspend(bool),
    Approve,
    Retry(u8),
    Parallelism(i32),
    MaxFailed(i32),
    Soak(i64),
    NewRun(u8),
    Abort,
    Deadline(i64),
    OnFailure(bool),
    Window(bool),
    Firmware(bool),
    Older(bool),
    DeleteJob(usize),
    EditSettings(usize),
    EditDevices(usize),
    EditFirmware(usize),
}

fn decision() -> impl Strategy<Value = Event> {
    let parts = (any::<u8>(), prop::bool::weighted(0.8));
    parts.prop_map(|(steps, stored)| Event::Decide(steps, stored))
}

/// Events without manual edits of a FlashJob.
pub fn gentle_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => decision(),
        8 => (0_usize..4).prop_map(Event::Sync),
        8 => (0_usize..4, 0_usize..4).prop_map(|(job, ends)| Event::Work(job, ends)),
        1 => (0_usize..40).prop_map(Event::Leave),
        1 => (0_usize..40).prop_map(Event::Return),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => (0_u8..9).prop_map(Event::Retry),
    ]
}

/// All events.
pub fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => decision(),
        8 => (0_usize..4).prop_map(Event::Sync),
        8 => (0_usize..4, 0_usize..4).prop_map(|(job, ends)| Event::Work(job, ends)),
        2 => (-200_i64..400).prop_map(Event::Pass),
        1 => (0_usize..40).prop_map(Event::Leave),
        1 => (0_usize..40).prop_map(Event::Return),
        1 => (0_usize..40).prop_map(Event::GoBack),
        1 => (0_usize..40).prop_map(Event::Break),
        1 => (0_usize..40).prop_map(Event::Mend),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => Just(Event::Approve),
        1 => (0_u8..4).prop_map(Event::Retry),
        1 => (1_i32..6).prop_map(Event::Parallelism),
        1 => (0_i32..5).prop_map(Event::MaxFailed),
        1 => (0_i64..300).prop_map(Event::Soak),
        1 => (0_u8..3).prop_map(Event::NewRun),
        1 => prop_oneof![4 => Just(Event::Approve), 1 => Just(Event::Abort)],
        1 => (2000_i64..9000).prop_map(Event::Deadline),
        1 => any::<bool>().prop_map(Event::OnFailure),
        1 => any::<bool>().prop_map(Event::Window),
        1 => prop::bool::weighted(0.7).prop_map(Event::Firmware),
        1 => prop::bool::weighted(0.3).prop_map(Event::Older),
        1 => (0_usize..4).prop_map(Event::DeleteJob),
        1 => (0_usize..4).prop_map(Event::EditSettings),
        1 => (0_usize..4).prop_map(Event::EditDevices),
        1 => (0_usize..4).prop_map(Event::EditFirmware),
    ]
}
