//! State that one call carries with it: its memory, its log, and a WASI that is closed.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
};

use super::limits::MemoryLimit;
use super::log::Log;
use crate::config::Limits;

/// Not zero: Go refuses to start at the beginning of time.
const INSTANT: Duration = Duration::from_secs(1);

/// State that belongs to one call.
pub(super) struct State {
    pub memory: MemoryLimit,
    pub log: Arc<Log>,
    /// Made when it is first asked for: most plugins never do.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

impl State {
    pub fn new(plugin: Arc<str>, limits: Limits) -> Self {
        let memory = MemoryLimit::new(&limits);
        Self { memory, log: Arc::new(Log::new(plugin)), wasi: None, table: ResourceTable::new() }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: self.wasi.get_or_insert_with(closed), table: &mut self.table }
    }
}

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

/// No folders, environment or arguments; clocks that stand still; randomness that repeats.
fn closed() -> WasiCtx {
    let seed = || Deterministic::new(b"flashjob".to_vec());
    let mut builder = WasiCtxBuilder::new();
    builder
        .wall_clock(Still)
        .monotonic_clock(Still)
        .secure_random(seed())
        .insecure_random(seed())
        .insecure_random_seed(1);
    builder
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(64 << 10);
    builder.build()
}
