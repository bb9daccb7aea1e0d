//! Limits that stop a call.

use wasmtime::{PoolingAllocationConfig, ResourceLimiter};

use crate::config::Limits;

/// Limits that suffice for components of all common languages.
const TABLE_ELEMENTS: usize = 100_000;
const INSTANCES: u32 = 100;
const MEMORIES: u32 = 8;
const TABLES: u32 = 16;

/// Maximum number of concurrent calls: more would only compete for the processors, and each has
/// address space reserved for it.
const PLACES: u16 = 256;

/// Largest memory with 32-bit addresses, in bytes.
const MEMORY: usize = 4 << 30;

/// Returns the number of concurrent calls whose memory stays within the limit for all calls.
pub(super) fn places(limits: &Limits) -> u16 {
    let places = limits.total_memory / limits.memory.max(1);
    // At least one, or no plugin could ever be called.
    u16::try_from(places).unwrap_or(PLACES).clamp(1, PLACES)
}

/// Reserves address space for the memories, tables and stacks of all concurrent calls once:
/// mapping them again is most of the cost of a call. The pages that a call wrote are returned to
/// the system after it.
pub(super) fn pool(places: u16, limits: &Limits) -> PoolingAllocationConfig {
    let places = u32::from(places);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(places).total_stacks(places);
    pool.max_core_instances_per_component(INSTANCES).total_core_instances(places * INSTANCES);
    pool.max_memories_per_module(MEMORIES)
        .max_memories_per_component(MEMORIES)
        .total_memories(places * MEMORIES);
    pool.max_tables_per_module(TABLES)
        .max_tables_per_component(TABLES)
        .total_tables(places * TABLES);
    pool.max_memory_size(limits.memory.min(MEMORY)).table_elements(TABLE_ELEMENTS);
    pool
}

/// Maximum number of lines that a plugin logs in one call.
pub(super) const LOG_LINES: usize = 100;
/// Maximum number of bytes that a plugin logs in one call.
pub(super) const LOG_BYTES: usize = 16 << 10;

/// Limit that a call reached. Raised as an error, to distinguish it from the plugin's own traps.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("it asked for too much memory")]
    Memory,
    #[error("it asked for too large a table")]
    Table,
    #[error("it logged more than {LOG_LINES} lines or {LOG_BYTES} bytes in one call")]
    Log,
    #[error("it waited, but a plugin must answer without waiting")]
    Waits,
}

/// Bounds the sum of all linear memories of one call.
pub(super) struct MemoryLimit {
    remaining_bytes: usize,
    /// Memory that the call uses, in bytes; it only grows.
    pub used: usize,
}

impl MemoryLimit {
    pub fn new(limits: &Limits) -> Self {
        Self { remaining_bytes: limits.memory, used: 0 }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        // An error and not `Ok(false)`: many allocators abort after a refused growth, and the trap
        // would not mention memory.
        self.remaining_bytes = self.remaining_bytes.checked_sub(more).ok_or(Stopped::Memory)?;
        self.used += more;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS { Err(Stopped::Table.into()) } else { Ok(true) }
    }

    fn instances(&self) -> usize {
        INSTANCES as usize
    }
}
