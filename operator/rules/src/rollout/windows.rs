//! Conversion of a spec's windows and blackouts for the schedule.

use flashjob_api::{EffectiveRollout, InvalidRollout, RolloutWindow};

use crate::schedule::{Schedule, WindowSpec};

/// Parses the windows and blackouts of a spec.
pub(super) fn schedule(spec: &EffectiveRollout) -> Result<Schedule, InvalidRollout> {
    let windows: Vec<WindowSpec<'_>> = spec.windows.iter().map(window).collect();
    let blackouts: Vec<WindowSpec<'_>> = spec.blackouts.iter().map(window).collect();
    Schedule::read(&windows, &blackouts).map_err(|fault| InvalidRollout {
        field: format!("spec.{}", fault.field),
        message: fault.message,
    })
}

fn window(written: &RolloutWindow) -> WindowSpec<'_> {
    let time_zone = written.time_zone.as_deref().filter(|zone| !zone.is_empty());
    WindowSpec { start: &written.start, duration_seconds: written.duration_seconds, time_zone }
}
