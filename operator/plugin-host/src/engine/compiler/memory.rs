//! Memory limit of a compilation: the configured limit, or less if the operator's container has
//! less left. If a container runs out of memory, the kernel kills it as a whole, the operator
//! included.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Memory that the operator itself may need in addition while the compiler runs, in bytes.
const RESERVE: u64 = 16 << 20;

/// Memory limit of a compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Limit of this compilation, in bytes.
    pub bytes: u64,
    /// True if the container has less memory left than the configuration allows.
    pub container_is_full: bool,
}

impl Memory {
    /// Returns the configured limit, or the memory that the container of this process has left,
    /// whichever is less. The cgroup files are read again at each call.
    pub fn now(configured: u64) -> Self {
        Self::of(configured, available_memory())
    }

    fn of(configured: u64, available_memory: Option<u64>) -> Self {
        match available_memory {
            Some(bytes) if bytes < configured => Self { bytes, container_is_full: true },
            _ => Self { bytes: configured, container_is_full: false },
        }
    }
}

/// Returns the memory that the cgroup of this process has left, in bytes; None without cgroups.
/// Reclaimable memory, such as the page cache, counts as left.
fn available_memory() -> Option<u64> {
    let process_id = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let nothing_else = ProcessRefreshKind::nothing();
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[process_id]),
        false,
        nothing_else,
    );
    let group = system.process(process_id)?.cgroup_limits()?;
    // Only anonymous memory counts as used: the kernel reclaims page cache before it kills.
    Some(group.total_memory.saturating_sub(group.rss).saturating_sub(RESERVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_what_is_configured_and_what_is_left_counts() {
        assert_eq!(Memory::of(64, None), Memory { bytes: 64, container_is_full: false });
        assert_eq!(Memory::of(64, Some(65)), Memory { bytes: 64, container_is_full: false });
        assert_eq!(Memory::of(64, Some(63)), Memory { bytes: 63, container_is_full: true });
    }
}
