//! State of one call: its memory limit, its log, and a closed WASI.

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

/// Time of the clocks. Not zero, because Go does not start at time zero.
const INSTANT: Duration = Duration::from_secs(1);

/// State of one call.
pub(super) struct State {
    pub memory: MemoryLimit,
    pub log: Arc<Log>,
    /// Created at the first use: most plugins never use it.
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

/// Creates a WASI context without folders, environment and arguments, with frozen clocks and
/// deterministic randomness.
fn closed() -> WasiCtx {
    // Languages seed their hash tables here, so equal requests give equal answers.
    let seed = || Deterministic::new(b"flashjob".to_vec());
    let mut builder = WasiCtxBuilder::new();
    builder
        .wall_clock(Still)
        .monotonic_clock(Still)
        .secure_random(seed())
        .insecure_random(seed())
        .insecure_random_seed(1);
    builder
        // A second barrier: imports of sockets are already rejected when the component is loaded.
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(64 << 10);
    builder.build()
}
