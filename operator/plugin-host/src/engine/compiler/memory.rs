//! Memory that a compilation may take: what the configuration allows, and what the container of
//! the operator has left. A container that runs out of memory is ended as a whole, the operator
//! with it.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Memory that the operator itself may need in addition while the compiler runs, in bytes.
const RESERVE: u64 = 16 << 20;

/// Bytes of memory that a compiler may write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Limit of this compilation, in bytes.
    pub bytes: u64,
    /// The container has less left than the configuration allows.
    pub container_is_full: bool,
}

impl Memory {
    /// Takes the configured limit, or what the container of this process has left where that is
    /// less. The files of control groups are read anew each time.
    pub fn now(configured: u64) -> Self {
        Self::of(configured, left())
    }

    fn of(configured: u64, left: Option<u64>) -> Self {
        match left {
            Some(left) if left < configured => Self { bytes: left, container_is_full: true },
            _ => Self { bytes: configured, container_is_full: false },
        }
    }
}

/// Bytes that the control group of this process has left; none where there are no control groups.
/// Memory that the kernel takes back when it is needed, as of files that were read, counts as
/// left.
fn left() -> Option<u64> {
    let own = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let nothing_else = ProcessRefreshKind::nothing();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, nothing_else);
    let group = system.process(own)?.cgroup_limits()?;
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
