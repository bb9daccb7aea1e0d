//! Run of a FlashJob: the results that belong to it.

use flashjob_api::{FlashJob, FlashJobStatus};
use flashjob_rules::flashjob::observed::Job;

/// Returns the status if its results belong to the run that the spec asks for; none if they belong
/// to the previous run. The operator decides in the same way which devices need no flash any more:
/// a change such as a pause leaves results as they are, although the status is behind for a
/// moment.
pub fn results_of_run(job: &FlashJob) -> Option<&FlashJobStatus> {
    job.status.as_ref().filter(|_| Job::of(job.clone()).same_run())
}

#[cfg(test)]
mod tests {
    use flashjob_api::{FlashJobSpec, Phase};

    use super::*;
    use crate::fleet::workload::Workload;

    #[test]
    fn results_count_for_the_run_that_they_are_of_and_for_no_other() {
        let spec = |version: &str| FlashJobSpec {
            uuid: vec!["a".to_owned()],
            firmware: "a:1".to_owned(),
            version: version.to_owned(),
            ..FlashJobSpec::default()
        };
        let mut job = FlashJob::new("job", spec("1"));
        assert!(job.is_behind() && results_of_run(&job).is_none());
        job.metadata.generation = Some(1);
        job.status = Some(FlashJobStatus {
            phase: Some(Phase::Completed),
            run: job.spec.effective().ok().map(|spec| spec.run),
            observed_generation: Some(1),
            ..FlashJobStatus::default()
        });
        assert!(job.is_over() && results_of_run(&job).is_some());
        // A pause that the operator has not observed.
        job.metadata.generation = Some(2);
        job.spec.suspend = Some(true);
        assert!(job.is_behind() && !job.is_over() && results_of_run(&job).is_some());
        job.spec = spec("2");
        assert!(results_of_run(&job).is_none());
    }
}
