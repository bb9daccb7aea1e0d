//! Follows each device whose attempt has begun: from its Service's address to its Pod's end and the verdict on it.

use flashjob_api::{DeviceState, DeviceStatus, Reason, reason};
use flashjob_plugin_host::types::{Outcome, Proof, Verdict};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Step;
use super::draft::Draft;
use crate::observed::{Ended, Gone, Judged, PluginView, Pod, Question, Waiting, after};

/// Longest termination message that is handed on, in bytes.
const MESSAGE_BYTES: usize = 4096;
/// What the kubelet says of a Pod whose device's last use is not released yet. It never ran.
const ATTACH_REFUSED: &str = "UnexpectedAdmissionError";

impl Draft<'_> {
    /// Looks at every device with a record: first at those that may give a pooled Service free, then at those that wait for one. A Pod
    /// may have ended before its begin is stored.
    pub fn follow_attempts(&mut self) {
        let has_pod = |uid: &str, record: &DeviceStatus| {
            self.pod(&self.attempt_name(uid, record.attempt.max(1))).is_some()
        };
        let waits = |(uid, record): &(&String, &DeviceStatus)| {
            record.state == DeviceState::Exposing && !has_pod(uid, record)
        };
        let (waiting, others): (Vec<_>, Vec<_>) = self.records.iter().partition(waits);
        let uids = |records: Vec<(&String, &DeviceStatus)>| {
            records.into_iter().map(|(uid, _)| uid.clone()).collect::<Vec<_>>()
        };
        let (waiting, others) = (uids(waiting), uids(others));
        others.iter().for_each(|uid| self.follow(uid));
        self.sort_pools();
        waiting.iter().for_each(|uid| self.follow(uid));
    }

    fn follow(&mut self, uid: &str) {
        let Some(record) = self.records.get(uid) else { return };
        let (state, attempt) = (record.state, record.attempt.max(1));
        if state == DeviceState::Verifying {
            return self.verify(uid);
        }
        let name = self.attempt_name(uid, attempt);
        let pod = self.pod(&name);
        if state == DeviceState::Lost && pod.is_none_or(|pod| self.is_given_up(pod)) {
            return self.wait_out_the_lost(uid);
        }
        if let Some(pod) = pod {
            return self.follow_pod(uid, pod);
        }
        if self.observed.making.contains_key(&name) {
            // It may be there already: nothing else can be decided until that is clear.
            self.set(uid, DeviceState::Exposing, |_| ());
            return self.note_failing(uid, &name);
        }
        if state == DeviceState::Flashing {
            // Stored as flashing, but no such Pod is known: it went while nobody looked.
            return self.step(Step::ConfirmPod { name, device: uid.to_owned() });
        }
        if state == DeviceState::Exposing {
            return self.expose(uid);
        }
        if !self.wanted(uid) {
            self.records.remove(uid);
        }
    }

    /// Whether a lost Pod is still without an end, though it is gone or should have ended long ago.
    fn is_given_up(&self, pod: &Pod) -> bool {
        let gone = pod.gone.as_ref().is_some_and(|gone| gone.confirmed);
        pod.ended.is_none() && (gone || pod.overdue_at().is_some_and(|at| at <= self.now()))
    }

    fn follow_pod(&mut self, uid: &str, pod: &Pod) {
        let begins =
            self.records.get(uid).is_some_and(|record| record.state != DeviceState::Flashing);
        self.set(uid, DeviceState::Flashing, |record| {
            record.pod = Some(pod.name.clone());
            if begins {
                record.not_before = None;
                record.reason = None;
                record.message = None;
            }
        });
        if let Some(ended) = &pod.ended {
            self.released.insert(uid.to_owned());
            return self.judge(uid, pod, ended);
        }
        match &pod.gone {
            Some(gone) => self.follow_gone(uid, pod, gone),
            None => self.follow_running(uid, pod),
        }
    }

    fn follow_running(&mut self, uid: &str, pod: &Pod) {
        if let Some(at) = pod.overdue_at()
            && self.over(at, 0)
        {
            return self.give_pod_up(uid, pod);
        }
        if self.job_deadline_passed() {
            return self.stop_pod(
                uid,
                pod,
                reason::DEADLINE_EXCEEDED,
                "activeDeadlineSeconds of the job has passed",
            );
        }
        let (reason, message, seconds) = match &pod.waiting {
            Some(Waiting::Image(message)) => {
                (reason::IMAGE_UNAVAILABLE, message, self.observed.periods.image_pull_seconds)
            }
            Some(Waiting::Node(message)) => {
                (reason::UNSCHEDULABLE, message, self.observed.periods.unschedulable_seconds)
            }
            None => {
                if self.stopped_for(uid).is_some() && !pod.deleting {
                    // It got on after all.
                    self.set(uid, DeviceState::Flashing, |record| {
                        record.reason = None;
                        record.message = None;
                    });
                }
                return;
            }
        };
        let since = self.observed.stuck_pods.get(&pod.name).copied().unwrap_or_else(|| self.now());
        if self.over(since, seconds) {
            self.stop_pod(uid, pod, reason, message);
        }
    }

    /// Nobody hears of the Pod's node any more: its kubelet ended the container, or the node is off.
    fn give_pod_up(&mut self, uid: &str, pod: &Pod) {
        if !pod.deleting {
            self.step(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        }
        let message =
            format!("Pod {} should have ended long ago, and nothing is heard of it", pod.name);
        self.lose(uid, self.now(), &message);
    }

    /// Deletes a Pod once the reason is stored: how it ends says nothing of why.
    fn stop_pod(&mut self, uid: &str, pod: &Pod, reason: Reason, message: &str) {
        let stored = self.observed.stored(uid).and_then(|stored| stored.reason.as_deref())
            == Some(reason.name);
        self.set(uid, DeviceState::Flashing, |record| {
            record.reason = Some(reason.name.to_owned());
            record.message = Some(message.to_owned());
        });
        if !stored {
            self.plan.urgent = true;
        } else if !pod.deleting {
            self.step(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        }
    }

    /// Why we stopped this attempt's Pod, if we did.
    fn stopped_for(&self, uid: &str) -> Option<Reason> {
        let name = self.observed.stored(uid)?.reason.as_deref()?;
        let stopped = [reason::IMAGE_UNAVAILABLE, reason::UNSCHEDULABLE, reason::DEADLINE_EXCEEDED];
        let flashing = self.observed.stored(uid)?.state == DeviceState::Flashing;
        stopped.into_iter().find(|reason| flashing && reason.name == name)
    }

    fn follow_gone(&mut self, uid: &str, pod: &Pod, gone: &Gone) {
        if !gone.confirmed {
            return self.step(Step::ConfirmPod { name: pod.name.clone(), device: uid.to_owned() });
        }
        if !pod.scheduled {
            let reason = self.stopped_for(uid).unwrap_or(reason::POD_LOST);
            return self.give_up_attempt(
                uid,
                reason,
                &format!("Pod {} was deleted before it ran", pod.name),
            );
        }
        let until = after(gone.last_seen, pod.may_run_seconds);
        let message = format!(
            "Pod {} vanished before its end was seen; the device stays locked until its deadline has passed",
            pod.name
        );
        self.lose(uid, until, &message);
    }

    /// Locks the device until nothing of the attempt can run any more.
    fn lose(&mut self, uid: &str, until: Timestamp, message: &str) {
        self.wake(until);
        self.set(uid, DeviceState::Lost, |record| {
            record.not_before = Some(Time(until));
            record.reason = Some(reason::POD_LOST.name.to_owned());
            record.message = Some(message.to_owned());
        });
    }

    /// After the lock the reported version tells what came of the attempt.
    fn wait_out_the_lost(&mut self, uid: &str) {
        let Some(record) = self.records.get(uid) else { return };
        let until = record.waits_until().unwrap_or_else(|| self.now());
        let provable = record.baseline_version.as_deref() != Some(&self.spec.version);
        if !self.over(until, 0) {
            return;
        }
        if provable && self.reported(uid) == Some(&self.spec.version) {
            return self.complete(uid, true);
        }
        if !provable || !self.wanted(uid) || self.over(until, self.spec.verify.timeout_seconds) {
            let message = "the Pod vanished before its end was seen, and the device did not report the new version";
            self.give_up_attempt(uid, reason::POD_LOST, message);
        }
    }

    fn judge(&mut self, uid: &str, pod: &Pod, ended: &Ended) {
        if ended.reason == ATTACH_REFUSED {
            let message =
                format!("the node could not attach the device: {}", plain(&ended.message));
            return match self.wanted(uid) {
                true => self.retry_uncounted(uid, reason::DEVICE_NOT_ATTACHED, &message),
                false => self.give_up_attempt(uid, reason::POD_FAILED, &message),
            };
        }
        if let Some(reason) = self.stopped_for(uid) {
            let message =
                self.records.get(uid).and_then(|record| record.message.clone()).unwrap_or_default();
            return match ended.exit_code {
                Some(0) => self.flashed(uid, Proof::ReportedVersion),
                _ => self.give_up_attempt(uid, reason, &message),
            };
        }
        if let Some(answer) = self.observed.answers.judged.get(&pod.uid) {
            let answer = answer.clone();
            return match answer.as_ref() {
                Judged::Asked(Ok(Verdict::Flashed(proof))) => self.flashed(uid, *proof),
                Judged::Asked(Ok(Verdict::Retry(text))) => {
                    self.give_up_attempt(uid, reason_of(ended), &sentence(text, ended))
                }
                Judged::Asked(Ok(Verdict::GiveUp(text))) => {
                    self.fail(uid, reason::GAVE_UP, &sentence(text, ended))
                }
                Judged::Gone(_) => self.judge_without_plugin(uid, ended, ""),
                Judged::Asked(Err(error)) => self.judge_without_plugin(
                    uid,
                    ended,
                    &format!("the plugin failed to judge the Pod: {error}"),
                ),
            };
        }
        let plugins = self.observed.plugins.clone();
        let began_with = pod.plugin.as_ref();
        let found = began_with.and_then(|(name, digest)| {
            Some((plugins.iter().find(|view| view.name == *name)?, digest))
        });
        let Some((view, digest)) = found else {
            return self.judge_without_plugin(uid, ended, "");
        };
        // After a restart it is loaded when it is asked, in a moment or once its registry answers.
        if !view.digests.contains(digest) && view.ready.is_err() {
            self.note_plugin_awaited(uid, view);
        }
        let (name, digest) = (view.name.clone(), digest.clone());
        let attempt = pod.attempt.unwrap_or(1);
        let request = Box::new(self.request(uid, attempt, Some(view)));
        let outcome = Box::new(Outcome {
            exit_code: ended.exit_code,
            reason: ended.reason.clone(),
            termination_message: plain(&ended.message),
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

    fn note_plugin_awaited(&mut self, uid: &str, view: &PluginView) {
        let why = view.ready.as_ref().err().map(String::as_str).unwrap_or_default();
        let message = format!(
            "the Pod has ended; plugin {}, which is to judge it, is not ready: {why}",
            view.name
        );
        self.set(uid, DeviceState::Flashing, |record| {
            record.reason = Some(reason::PLUGIN_NOT_READY.name.to_owned());
            record.message = Some(message);
        });
    }

    /// The digest that the attempt began with cannot be asked: exit code 0 and the reported version decide.
    fn judge_without_plugin(&mut self, uid: &str, ended: &Ended, error: &str) {
        if ended.exit_code == Some(0) {
            return self.flashed(uid, Proof::ReportedVersion);
        }
        let reason = if error.is_empty() { reason_of(ended) } else { reason::PLUGIN_FAILED };
        self.give_up_attempt(uid, reason, &sentence(error, ended));
    }

    /// A failed attempt of a device that the job no longer names ends it.
    pub fn give_up_attempt(&mut self, uid: &str, reason: Reason, message: &str) {
        if !self.wanted(uid) {
            self.records.remove(uid);
        } else if reason == reason::DEADLINE_EXCEEDED {
            self.fail(uid, reason, message);
        } else {
            self.fail_attempt(uid, reason, message);
        }
    }

    /// Whether the job has run longer than it may.
    pub fn job_deadline_passed(&mut self) -> bool {
        let start = self
            .observed
            .job
            .status
            .start_time
            .as_ref()
            .filter(|_| self.same_run)
            .map(|time| time.0);
        match (self.spec.active_deadline_seconds, start) {
            (Some(seconds), Some(start)) => self.over(start, seconds),
            _ => false,
        }
    }
}

fn reason_of(ended: &Ended) -> Reason {
    if ended.reason == "DeadlineExceeded" { reason::FLASH_TIMEOUT } else { reason::POD_FAILED }
}

/// The plugin's words, and how the container ended.
fn sentence(text: &str, ended: &Ended) -> String {
    let code = ended.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    let end = format!("{}{code}", ended.reason);
    let text = plain(if text.is_empty() { &ended.message } else { text });
    let text: String = text.chars().take(512).collect();
    if text.is_empty() { end } else { format!("{text} ({end})") }
}

/// Text from a container, without control characters and no longer than is read.
fn plain(text: &str) -> String {
    let printable = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut bytes = 0;
    let kept = printable.take_while(|letter| {
        bytes += letter.len_utf8();
        bytes <= MESSAGE_BYTES
    });
    kept.collect::<String>().trim().to_owned()
}
