//! Configuration of the property tests: the cases that they run.

use proptest::test_runner::{Config, RngSeed};

/// Configuration with the same cases each time, so that a failure shows what a change broke; `make
/// nightly` runs new cases, set by environment variables.
pub fn config(cases: u32, max_shrink_iters: u32) -> Config {
    let is_set = |name| std::env::var_os(name).is_some();
    let default = Config::default();
    Config {
        cases: if is_set("PROPTEST_CASES") { default.cases } else { cases },
        rng_seed: if is_set("PROPTEST_RNG_SEED") { default.rng_seed } else { RngSeed::Fixed(1) },
        failure_persistence: None,
        max_shrink_iters,
        ..default
    }
}
