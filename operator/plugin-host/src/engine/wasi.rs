//! WASI, closed: what runtimes of other languages import to start with, and nothing behind it. The same call gives the same answer.

use std::time::Duration;

use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder};

/// Not zero: Go refuses to start at the beginning of time.
const INSTANT: Duration = Duration::from_secs(1);

struct Still;

impl HostMonotonicClock for Still {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        1_000_000_000
    }
}

impl HostWallClock for Still {
    fn resolution(&self) -> Duration {
        INSTANT
    }

    fn now(&self) -> Duration {
        INSTANT
    }
}

/// No folders, sockets, environment or arguments; clocks that stand still; randomness that repeats.
pub(super) fn closed() -> WasiCtx {
    let seed = || Deterministic::new(b"flashjob".to_vec());
    let mut builder = WasiCtxBuilder::new();
    builder.wall_clock(Still).monotonic_clock(Still).secure_random(seed()).insecure_random(seed()).insecure_random_seed(1);
    builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).max_random_size(64 << 10);
    builder.build()
}
