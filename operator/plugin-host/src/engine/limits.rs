//! What one call carries with it, and what stops it.

use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::wasi;
use crate::config::Limits;

/// Tables and instances that a component of any known language comes by with.
const TABLE_ELEMENTS: usize = 100_000;
const INSTANCES: usize = 100;
const LOG_CALLS: usize = 100;
const LOG_BYTES: usize = 16 << 10;

/// A limit that was reached. Raised as an error, so that it is told apart from the plugin's own traps.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("it asked for too much memory")]
    Memory,
    #[error("it asked for too large a table")]
    Table,
    #[error("it logged more than {LOG_CALLS} lines or {LOG_BYTES} bytes in one call")]
    Log,
}

/// What belongs to one call.
pub(super) struct State {
    pub memory: MemoryLimit,
    plugin: Arc<str>,
    log_calls: usize,
    log_bytes: usize,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub fn new(plugin: Arc<str>, limits: Limits) -> Self {
        let memory = MemoryLimit { left: limits.memory, used: 0 };
        Self { memory, plugin, log_calls: 0, log_bytes: 0, wasi: wasi::closed(), table: ResourceTable::new() }
    }

    /// Takes a line of the plugin's log, as long as there are not too many.
    pub fn log(&mut self, level: tracing::Level, message: &str) -> wasmtime::Result<()> {
        self.log_calls += 1;
        self.log_bytes += message.len();
        if self.log_calls > LOG_CALLS || self.log_bytes > LOG_BYTES {
            return Err(Stopped::Log.into());
        }
        let plugin = &*self.plugin;
        let line: String = message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        match level {
            tracing::Level::ERROR => tracing::error!(plugin, "{line}"),
            tracing::Level::WARN => tracing::warn!(plugin, "{line}"),
            tracing::Level::INFO => tracing::info!(plugin, "{line}"),
            _ => tracing::debug!(plugin, "{line}"),
        }
        Ok(())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
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
