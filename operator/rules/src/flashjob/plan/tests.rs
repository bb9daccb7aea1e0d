//! The rules of a FlashJob, one file per theme, and a model cluster in which they must hold
//! regardless of faults.

mod attempts;
mod deletion;
mod disruptions;
mod failing;
mod firmware;
mod fixture;
mod groups;
mod guards;
mod lost;
mod model;
mod moved;
mod orphans;
mod pools;
mod ports;
mod proof;
mod properties;
mod protect;
mod refusals;
mod simulation;
mod stops;
mod stuck_pods;
mod takeover;

use flashjob_api::reason;

#[test]
fn every_reason_is_given_by_a_rule() {
    let rules = [
        include_str!("tests/attempts.rs"),
        include_str!("tests/disruptions.rs"),
        include_str!("tests/failing.rs"),
        include_str!("tests/firmware.rs"),
        include_str!("tests/groups.rs"),
        include_str!("tests/guards.rs"),
        include_str!("tests/lost.rs"),
        include_str!("tests/pools.rs"),
        include_str!("tests/proof.rs"),
        include_str!("tests/refusals.rs"),
        include_str!("tests/stops.rs"),
        include_str!("tests/stuck_pods.rs"),
    ]
    .concat();
    for reason in reason::ALL {
        let constant: String = reason
            .name
            .chars()
            .flat_map(|letter| {
                letter
                    .is_uppercase()
                    .then_some('_')
                    .into_iter()
                    .chain([letter.to_ascii_uppercase()])
            })
            .collect();
        assert!(rules.contains(constant.trim_start_matches('_')), "{}", reason.name);
    }
}
