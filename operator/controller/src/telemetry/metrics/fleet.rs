//! Totals of all jobs and devices, counted from the stored statuses at each scrape, so that a
//! deleted job no longer counts. Pure.

use flashjob_api::{DeviceState, Phase};
use flashjob_rules::flashjob::observed::Job;

/// Numbers of jobs and devices by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Devices that have not started, or wait for their next attempt.
    pub pending: u32,
    /// Devices in flight, by their stored state.
    pub in_flight: u32,
    /// Devices in flight whose Service has no address yet.
    pub waiting_for_address: u32,
    /// Flashed devices that are watched for their new version.
    pub verifying: u32,
    /// Devices in flight whose Pod vanished before its end was observed.
    pub lost: u32,
    /// Jobs that have no phase yet.
    pub new: u32,
    /// Jobs in phase InProgress.
    pub in_progress: u32,
    /// Jobs in phase Completed.
    pub completed: u32,
    /// Jobs in phase Failed.
    pub failed: u32,
}

impl Fleet {
    /// Counts the jobs and their devices.
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
