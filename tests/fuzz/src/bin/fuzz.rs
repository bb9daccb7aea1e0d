//! Searches for bytes that reach new code, for the target that `FLASHJOB_FUZZ_TARGET` names.
//! Started by tests/fuzz/run.sh.
#![no_main]

use std::sync::LazyLock;

use flashjob_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FLASHJOB_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).unwrap_or(&TARGETS[0])
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
