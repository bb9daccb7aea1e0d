//! Follows each device whose attempt has begun: from its Service's address to the end of its Pod
//! and the verdict on it.

use flashjob_api::{DeviceState, DeviceStatus, Reason, reason};
use flashjob_types::plugin::{Outcome, Proof, Verdict};

use super::draft::Draft;
use super::steps::Step;
use crate::flashjob::observed::{
    Cause, Ended, EndedBy, Gone, Judged, PluginView, Pod, Question, Waiting,
};
use crate::text::{MESSAGE_BYTES, last_lines, without_control_characters};

/// Longest termination message in status, in bytes.
const SUMMARY_BYTES: usize = 512;
/// Seconds after which a volume or a container that is not ready is reported: both usually take
/// some time.
const START_SECONDS: i64 = 10;
/// Number of disruptions by the cluster that do not count as attempts, per device and run.
const UNCOUNTED_DISRUPTIONS: u32 = 10;
/// Number of refused attachments that do not count as attempts, per device and run: with the
/// backoff between them about two hours. Akri's device plugin refuses a device for minutes while
/// it believes that an earlier Pod still uses it.
const UNCOUNTED_ATTACHMENTS: u32 = 30;
/// Reasons for which we stop a Pod. They are stored before the Pod is deleted, as the way it then
/// ends does not show why.
const STOPPED: [Reason; 5] = [
    reason::IMAGE_UNAVAILABLE,
    reason::CONTAINER_NOT_STARTED,
    reason::VOLUME_UNAVAILABLE,
    reason::UNSCHEDULABLE,
    reason::DEADLINE_EXCEEDED,
];
/// Reason that the kubelet reports for a Pod whose device is still in use by an earlier Pod. Such
/// a Pod never ran.
const ATTACH_REFUSED: &str = "UnexpectedAdmissionError";

impl Draft<'_> {
    /// Follows every device with a record: first those that may release a pooled Service, then
    /// those that wait for one. A Pod may have ended before the start of its attempt is stored.
    pub fn follow_attempts(&mut self) {
        let has_pod = |uid: &str, record: &DeviceStatus| {
            self.pod(&self.attempt_name(uid, record.attempt.max(1))).is_some()
        };
        let waits = |(uid, record): &(&String, &DeviceStatus)| {
            record.state == DeviceState::Exposing && !has_pod(uid, record)
        };
        let (waiting, other_records): (Vec<_>, Vec<_>) = self.records.iter().partition(waits);
        let uids = |records: Vec<(&String, &DeviceStatus)>| {
            records.into_iter().map(|(uid, _)| uid.clone()).collect::<Vec<_>>()
        };
        let (waiting, other_uids) = (uids(waiting), uids(other_records));
        other_uids.iter().for_each(|uid| self.follow(uid));
        self.sort_pools();
        waiting.iter().for_each(|uid| self.follow(uid));
    }

    fn follow(&mut self, uid: &str) {
        let Some(record) = self.records.get(uid) else { return };
        let (state, attempt) = (record.state, record.attempt.max(1));
        // The end of its Pod is judged and stored, and the Pod may be deleted at any time: from
        // here on only the version that the device reports counts.
        if state == DeviceState::Verifying {
            return self.verify(uid);
        }
        let name = self.attempt_name(uid, attempt);
        let pod = self.pod(&name);
        // A node that reports again shows how its Pod ended, and a Pod that only lost its labels
        // may get them back: such a Pod is followed like any other.
        if state == DeviceState::Lost && pod.is_none_or(|pod| self.is_given_up(pod)) {
            return self.wait_out_the_lost(uid, &name, pod.map(AsRef::as_ref));
        }
        if let Some(pod) = pod {
            return self.follow_pod(uid, pod);
        }
        if self.observed.pods_in_creation.contains_key(&name) {
            // It may already exist: nothing else can be decided until the outcome of the create is
            // known.
            self.set(uid, DeviceState::Exposing, |_| ());
            return self.note_failing(uid, &name);
        }
        if state == DeviceState::Flashing {
            // Stored as flashing, but no such Pod is cached: it was deleted while no watch was
            // running.
            return self.confirm_pod(&name, uid);
        }
        if state == DeviceState::Exposing {
            return self.expose(uid);
        }
        if !self.is_in_spec(uid) {
            self.records.swap_remove(uid);
        }
    }

    /// Returns true if no end of a lost Pod was observed, although it is gone or its deadline has
    /// long passed.
    fn is_given_up(&self, pod: &Pod) -> bool {
        let is_gone = pod.gone.as_ref().is_some_and(Gone::is_confirmed);
        pod.ended.is_none() && (is_gone || self.observed.is_overdue(pod))
    }

    fn follow_pod(&mut self, uid: &str, pod: &Pod) {
        // The create may have succeeded just before the operator was killed: the Pod then exists
        // although the stored state is still Exposing.
        let begins =
            self.records.get(uid).is_some_and(|record| record.state != DeviceState::Flashing);
        self.set(uid, DeviceState::Flashing, |record| {
            record.pod = Some(pod.name.clone());
            record.node.clone_from(&pod.node);
            if begins {
                record.not_before = None;
                record.reason = None;
                record.message = None;
            }
        });
        // The device is in flight only until its Pod has ended: its place must not stay taken
        // while a plugin that is slow or not loaded is asked for the verdict.
        if let Some(ended) = &pod.ended {
            // It gets no result, and the end of the job must not wait for a plugin's verdict on it.
            if !self.is_in_spec(uid) {
                self.records.swap_remove(uid);
                return;
            }
            self.released.insert(uid.to_owned());
            return self.judge(uid, pod, ended);
        }
        match &pod.gone {
            Some(gone) => self.follow_gone(uid, pod, gone),
            None => self.follow_running(uid, pod),
        }
    }

    fn follow_running(&mut self, uid: &str, pod: &Pod) {
        // The kubelet itself enforces activeDeadlineSeconds. A Pod that is long past it and has no
        // end belongs to a kubelet that does not report, and perhaps never will.
        if let Some(at) = self.observed.overdue_at(pod)
            && self.over(at, 0)
        {
            return self.give_pod_up(uid, pod);
        }
        if self.job_deadline_passed() {
            return self.stop_pod(
                uid,
                pod,
                reason::DEADLINE_EXCEEDED,
                "the job ran longer than activeDeadlineSeconds",
            );
        }
        match &pod.waiting {
            // The reason for which a Pod that is being deleted waits does not tell why it was
            // stopped.
            Some(_) if pod.deleting => {}
            Some(waiting) => self.follow_waiting(uid, pod, waiting),
            None if self.noted(uid).is_some() && !pod.deleting => {
                // The Pod made progress after all.
                self.set(uid, DeviceState::Flashing, |record| {
                    record.reason = None;
                    record.message = None;
                });
            }
            None => {}
        }
    }

    /// Reports immediately what a Pod waits for, and stops it when its waiting period has passed.
    fn follow_waiting(&mut self, uid: &str, pod: &Pod, waiting: &Waiting) {
        let periods = &self.observed.periods;
        let (reason, seconds) = match waiting.cause {
            Cause::Scheduler | Cause::Node => {
                (reason::UNSCHEDULABLE, periods.unschedulable_seconds)
            }
            Cause::Volume => (reason::VOLUME_UNAVAILABLE, periods.image_pull_seconds),
            Cause::Image => (reason::IMAGE_UNAVAILABLE, periods.image_pull_seconds),
            Cause::Container => (reason::CONTAINER_NOT_STARTED, periods.image_pull_seconds),
            Cause::Start => return self.note_slow_start(uid, pod, waiting),
        };
        if waiting.is_final {
            // Its container never starts; the Pod is deleted once the result is stored, and holds
            // the device until it is gone.
            return match self.is_in_spec(uid) && self.is_proven(uid) {
                true => self.flashed(uid, Proof::ReportedVersion),
                false => self.fail(uid, reason, &waiting.message),
            };
        }
        // This process measures the time: the clock of the node that wrote the Pod's status may be
        // wrong. After a restart the period begins again.
        let since = self.observed.stuck_pods.get(&pod.name).copied().unwrap_or_else(|| self.now());
        // It is normal for a Pod to wait for the scheduler, and for its volumes for a while.
        let is_usual = match waiting.cause {
            Cause::Scheduler => true,
            Cause::Volume => !self.over(since, START_SECONDS),
            _ => false,
        };
        if self.over(since, seconds) {
            self.stop_pod(uid, pod, reason, &waiting.message);
        } else if !is_usual {
            self.note_waiting(uid, reason, &waiting.message);
        }
    }

    /// Reports a container that is slow to start: it may be pulling a large image, so only the
    /// Pod's deadline ends it.
    fn note_slow_start(&mut self, uid: &str, pod: &Pod, waiting: &Waiting) {
        let since = self.observed.stages.get(&pod.name).map(|(_, since)| *since);
        if since.is_some_and(|since| self.over(since, START_SECONDS)) {
            self.note_waiting(uid, reason::CONTAINER_NOT_STARTED, &waiting.message);
        }
    }

    fn note_waiting(&mut self, uid: &str, reason: Reason, message: &str) {
        self.set(uid, DeviceState::Flashing, |record| {
            record.reason = Some(reason.name.to_owned());
            record.message = Some(message.to_owned());
        });
    }

    /// Gives up a Pod whose node is unreachable: its kubelet ended the container, or the node is
    /// off.
    fn give_pod_up(&mut self, uid: &str, pod: &Pod) {
        // The delete only marks the Pod: the API server keeps it until its kubelet confirms the
        // end or the node is removed, so the device does not wait for it to disappear.
        if !pod.deleting {
            self.step(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        }
        let message =
            format!("Pod {} is past its deadline, and its node does not report", pod.name);
        self.lose(uid, self.now(), &message);
    }

    /// Deletes a Pod once the reason is stored: the way it ends does not show why.
    fn stop_pod(&mut self, uid: &str, pod: &Pod, reason: Reason, message: &str) {
        let stored = self.observed.stored(uid).and_then(|stored| stored.reason.as_deref())
            == Some(reason.name);
        self.set(uid, DeviceState::Flashing, |record| {
            record.reason = Some(reason.name.to_owned());
            record.message = Some(message.to_owned());
        });
        // The Pod keeps running until the reason is stored, so this write does not wait for its
        // turn.
        if !stored {
            self.plan.urgent = true;
        } else if !pod.deleting {
            self.step(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        }
    }

    /// Stored reason for which this attempt's Pod waits, or was stopped.
    pub fn noted(&self, uid: &str) -> Option<Reason> {
        let stored = self.observed.stored(uid)?;
        let name = stored.reason.as_deref()?;
        // In other states the record still has the reason of the previous attempt.
        let flashing = stored.state == DeviceState::Flashing;
        STOPPED.into_iter().find(|reason| flashing && reason.name == name)
    }

    /// Judges an ended attempt: by what the cluster did to its Pod, by the reason for which it was
    /// stopped, or else by the plugin's verdict.
    fn judge(&mut self, uid: &str, pod: &Pod, ended: &Ended) {
        if ended.reason == ATTACH_REFUSED {
            return self.judge_refused_attachment(uid, ended);
        }
        if ended.by == EndedBy::Disruption {
            return self.judge_disruption(uid, ended);
        }
        // A container that ran and ended by itself is judged by its own end; so is one that was
        // started just as its Pod was stopped for not starting, as it may have reached its device.
        let stopped = pod.deleting || ended.exit_code.is_none();
        let explains = |reason: &Reason| !ended.started || *reason == reason::DEADLINE_EXCEEDED;
        if let Some(reason) = self.noted(uid).filter(|reason| stopped && explains(reason)) {
            let message = self
                .records
                .get(uid)
                .and_then(|record| record.message.clone())
                .unwrap_or_default();
            return match ended.exit_code {
                Some(0) => self.flashed(uid, Proof::ReportedVersion),
                _ => self.give_up_attempt(uid, reason, &message),
            };
        }
        match ended.by {
            EndedBy::InitContainer => {
                let message = last_lines(&ended.message, SUMMARY_BYTES);
                self.give_up_attempt(uid, reason::INIT_CONTAINER_FAILED, &message);
            }
            EndedBy::NeverStarted => {
                let message = format!(
                    "the flash container did not start before the Pod's deadline: {}",
                    without_control_characters(&ended.message)
                );
                self.give_up_attempt(uid, reason::CONTAINER_NOT_STARTED, &message);
            }
            EndedBy::Attempt | EndedBy::Disruption => {
                match self.observed.answers.judged.get(&pod.uid).cloned() {
                    Some(answer) => self.judge_by_answer(uid, ended, &answer),
                    None => self.ask_for_verdict(uid, pod, ended),
                }
            }
        }
    }

    /// Judges an attempt by the plugin's answer.
    fn judge_by_answer(&mut self, uid: &str, ended: &Ended, answer: &Judged) {
        match answer {
            Judged::Asked(Ok(Verdict::Flashed(proof))) => self.flashed(uid, *proof),
            Judged::Asked(Ok(Verdict::Retry(text))) => {
                self.give_up_attempt(uid, reason_of(ended), &sentence(text, ended));
            }
            // The plugin knows only how the container ended; the version that the device reports
            // outranks its verdict.
            Judged::Asked(Ok(Verdict::GiveUp(_))) if self.is_proven(uid) => {
                self.flashed(uid, Proof::ReportedVersion);
            }
            Judged::Asked(Ok(Verdict::GiveUp(text))) => {
                self.fail(uid, reason::GAVE_UP, &sentence(text, ended));
            }
            Judged::Gone(_) => self.judge_without_plugin(uid, ended, ""),
            Judged::Asked(Err(error)) => self.judge_without_plugin(
                uid,
                ended,
                &format!("the plugin failed to judge the Pod: {error}"),
            ),
        }
    }

    /// Asks the plugin for its verdict on an ended Pod.
    fn ask_for_verdict(&mut self, uid: &str, pod: &Pod, ended: &Ended) {
        let plugins = self.observed.plugins.clone();
        // A Pod is judged by the digest that described it: an upgraded plugin may give exit codes
        // and messages another meaning.
        let began_with = pod.plugin.as_ref();
        let plugin = began_with.and_then(|(name, digest)| {
            Some((plugins.iter().find(|view| view.name == *name)?, digest))
        });
        let Some((view, digest)) = plugin else {
            return self.judge_without_plugin(uid, ended, "");
        };
        // After a restart, a plugin is loaded when it is first called, which may wait for its
        // registry.
        if !view.digests.contains(digest) && view.ready.is_err() {
            self.note_plugin_awaited(uid, view);
        }
        let (name, digest) = (view.name.clone(), digest.clone());
        let attempt = pod.attempt.unwrap_or(1);
        let request = Box::new(self.request(uid, attempt, Some(view)));
        let outcome = Box::new(Outcome {
            exit_code: ended.exit_code,
            reason: ended.reason.clone(),
            termination_message: handed_on(ended),
            attempt,
            reported_version: self.reported(uid).map(str::to_owned),
        });
        self.ask(Question::Judge {
            pod_uid: pod.uid.clone(),
            plugin: name,
            digest,
            request,
            outcome,
        });
    }

    /// Retries the device after a refused attachment; the attempt does not count, up to a limit, so
    /// that a device which can never be attached does not keep its job from ending.
    fn judge_refused_attachment(&mut self, uid: &str, ended: &Ended) {
        let message = format!(
            "the node could not attach the device: {}",
            without_control_characters(&ended.message)
        );
        let refused = self.records.get(uid).map_or(0, |record| record.not_attached);
        if self.is_in_spec(uid) && refused < UNCOUNTED_ATTACHMENTS {
            return self.retry_uncounted(uid, reason::DEVICE_NOT_ATTACHED, &message);
        }
        self.give_up_attempt(uid, reason::DEVICE_NOT_ATTACHED, &message);
    }

    /// Retries the device after a disruption; the attempt does not count, up to a limit, so that a
    /// device is not retried forever. Refused attachments are not disruptions: a device that was
    /// busy for long keeps its limit. The number of disruptions never decreases in a run, so an
    /// alternation of both ends at the same limit.
    fn judge_disruption(&mut self, uid: &str, ended: &Ended) {
        let text = last_lines(&ended.message, SUMMARY_BYTES);
        let message = if text.is_empty() {
            ended.reason.clone()
        } else {
            format!("{text} ({})", ended.reason)
        };
        // A record stored by an earlier version does not tell the two kinds apart, and all of its
        // attempts count as disruptions.
        let disruptions = self
            .records
            .get(uid)
            .map_or(0, |record| record.uncounted.saturating_sub(record.not_attached));
        if self.is_in_spec(uid) && disruptions < UNCOUNTED_DISRUPTIONS {
            return self.retry_uncounted(uid, reason::DISRUPTED, &message);
        }
        self.give_up_attempt(uid, reason::DISRUPTED_TOO_OFTEN, &message);
    }

    fn note_plugin_awaited(&mut self, uid: &str, view: &PluginView) {
        let why = view.ready.as_ref().err().map(String::as_str).unwrap_or_default();
        let message = format!(
            "the Pod has ended, but plugin {}, which must judge its outcome, is not ready: {why}",
            view.name
        );
        self.set(uid, DeviceState::Flashing, |record| {
            record.reason = Some(reason::PLUGIN_NOT_READY.name.to_owned());
            record.message = Some(message);
        });
    }

    /// Judges an attempt whose original plugin digest cannot be called: exit code 0 and the
    /// reported version decide.
    fn judge_without_plugin(&mut self, uid: &str, ended: &Ended, error: &str) {
        if ended.exit_code == Some(0) {
            return self.flashed(uid, Proof::ReportedVersion);
        }
        let reason = if error.is_empty() { reason_of(ended) } else { reason::PLUGIN_FAILED };
        self.give_up_attempt(uid, reason, &sentence(error, ended));
    }
}

fn reason_of(ended: &Ended) -> Reason {
    if ended.reason == "DeadlineExceeded" { reason::FLASH_TIMEOUT } else { reason::POD_FAILED }
}

/// The plugin's text, and how the container ended.
fn sentence(text: &str, ended: &Ended) -> String {
    let code = ended.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    let end = format!("{}{code}", ended.reason);
    // A plugin that repeats the container's message adds nothing; the original message still has
    // its line breaks.
    let repeats = text.is_empty() || text == handed_on(ended);
    let text = if repeats { &ended.message } else { text };
    let text = last_lines(text, SUMMARY_BYTES);
    if text.is_empty() { end } else { format!("{text} ({end})") }
}

/// The container's message as it is passed to a plugin.
fn handed_on(ended: &Ended) -> String {
    last_lines(&ended.message, MESSAGE_BYTES)
}
