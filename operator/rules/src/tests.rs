//! Configuration of the tests of properties: the cases that they look at.

use proptest::test_runner::{Config, RngSeed};

/// The same cases each time, as the gate is to tell what a change broke; `make nightly` looks for
/// new ones, by variables of the environment.
pub fn config(cases: u32, max_shrink_iters: u32) -> Config {
    let given = |name| std::env::var_os(name).is_some();
    let default = Config::default();
    Config {
        cases: if given("PROPTEST_CASES") { default.cases } else { cases },
        rng_seed: if given("PROPTEST_RNG_SEED") { default.rng_seed } else { RngSeed::Fixed(1) },
        failure_persistence: None,
        max_shrink_iters,
        ..default
    }
}
