//! What one call carries with it, and what stops it.

use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::log::{self, Log};
use super::wasi;
use crate::config::Limits;

/// Tables and instances that a component of any known language comes by with.
const TABLE_ELEMENTS: usize = 100_000;
const INSTANCES: usize = 100;

/// A limit that was reached. Raised as an error, so that it is told apart from the plugin's own traps.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("it asked for too much memory")]
    Memory,
    #[error("it asked for too large a table")]
    Table,
    #[error("it logged more than {LINES} lines or {BYTES} bytes in one call", LINES = log::LINES, BYTES = log::BYTES)]
    Log,
    #[error("it waited, and for a plugin time stands still: it must answer without")]
    Waits,
}

/// What belongs to one call.
pub(super) struct State {
    pub memory: MemoryLimit,
    pub log: Arc<Log>,
    /// Made when it is first asked for: most plugins never do.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

impl State {
    pub fn new(plugin: Arc<str>, limits: Limits) -> Self {
        let memory = MemoryLimit { left: limits.memory, used: 0 };
        Self { memory, log: Arc::new(Log::new(plugin)), wasi: None, table: ResourceTable::new() }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: self.wasi.get_or_insert_with(wasi::closed), table: &mut self.table }
    }
}

/// Bounds the sum of all linear memories of one call.
pub(super) struct MemoryLimit {
    left: usize,
    /// What it has, in bytes: memory only grows.
    pub used: usize,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        self.left = self.left.checked_sub(more).ok_or(Stopped::Memory)?;
        self.used += more;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS { Err(Stopped::Table.into()) } else { Ok(true) }
    }

    fn instances(&self) -> usize {
        INSTANCES
    }
}
