//! State of all jobs together, counted from their stored statuses at each scrape: a job that is
//! gone counts no more. Pure.

use flashjob_api::{DeviceState, Phase};
use flashjob_rules::flashjob::observed::Job;

/// Numbers of jobs and devices by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Devices without a begun attempt.
    pub pending: u32,
    /// Devices in flight, by their stored state.
    pub in_flight: u32,
    /// Of these: whose Service has no address yet.
    pub waiting_for_address: u32,
    /// Flashed, and watched for their new version.
    pub verifying: u32,
    /// Of those in flight: whose Pod vanished before its end was seen.
    pub lost: u32,
    /// Jobs that have no phase yet.
    pub new: u32,
    /// Jobs by phase.
    pub in_progress: u32,
    /// Jobs by phase.
    pub completed: u32,
    /// Jobs by phase.
    pub failed: u32,
}

impl Fleet {
    /// Counts.
    #[must_use]
    pub fn of<'a>(jobs: impl Iterator<Item = &'a Job>) -> Self {
        let mut fleet = Self::default();
        for job in jobs {
            fleet.add(job);
        }
        fleet
    }

    fn add(&mut self, job: &Job) {
        self.pending += job.status.counts.map_or(0, |counts| counts.pending);
        for device in &job.status.devices {
            self.in_flight += u32::from(device.state.is_in_flight());
            self.waiting_for_address += u32::from(device.state == DeviceState::Exposing);
            self.verifying += u32::from(device.state == DeviceState::Verifying);
            self.lost += u32::from(device.state == DeviceState::Lost);
        }
        *match job.status.phase {
            None => &mut self.new,
            Some(Phase::InProgress) => &mut self.in_progress,
            Some(Phase::Completed) => &mut self.completed,
            Some(Phase::Failed) => &mut self.failed,
        } += 1;
    }
}
