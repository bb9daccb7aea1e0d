//! Record of the current problems, with the start of each and the time of its next announcement.
//! In: reports, and the time. Out: announcements, and whether the operator is ready. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::problem::{Cause, Problem, ProblemSource};

/// Grace period before a blocking problem is announced: cut watches and replaced API servers are
/// normal.
const SAY_AFTER: Duration = Duration::from_secs(2);
/// Time before a blocking problem makes an event: events are for problems that need somebody to
/// act.
const EVENT_AFTER: Duration = Duration::from_secs(5);

/// Pauses between two announcements of one problem; each is twice the previous one.
struct Pauses {
    first: Duration,
    longest: Duration,
}

/// Pauses for problems that keep the operator from working.
const BLOCKING: Pauses =
    Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(5 * 60) };
/// Pauses for all other problems. The API server keeps events for an hour.
const ADVISORY: Pauses =
    Pauses { first: Duration::from_secs(60), longest: Duration::from_secs(30 * 60) };

/// Report of one part of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A part works, or has a problem.
    State(ProblemSource, Result<(), Problem>),
    /// A configuration with these plugins and Secrets is in force: problems of any others are
    /// obsolete.
    Configured {
        /// Names of the plugins.
        plugins: BTreeSet<String>,
        /// Names of the Secrets.
        secrets: BTreeSet<String>,
    },
}

/// Announcement of a problem or of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// A problem exists.
    Holds {
        /// The problem.
        problem: Problem,
        /// Time for which it has lasted.
        lasted: Duration,
        /// True if it is announced in an event too, not only in the log.
        event: bool,
    },
    /// An announced problem is over.
    Over {
        /// The problem.
        problem: Problem,
        /// Time for which it lasted.
        lasted: Duration,
    },
}

/// Ability of the operator to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The operator can work.
    Ready,
    /// The operator cannot work; the reason in one line.
    NotReady(String),
}

struct Failing {
    since: Instant,
    problem: Problem,
}

struct Lasting {
    problem: Problem,
    blocks: bool,
    since: Instant,
    next: Instant,
    pause: Duration,
    announced: bool,
}

/// Identity of a problem.
type Key = (Cause, String);

/// Record of the current problems.
pub struct Record {
    unready_after: Duration,
    /// Parts that have not worked yet since the start.
    awaited: BTreeSet<ProblemSource>,
    failing: BTreeMap<ProblemSource, Failing>,
    lasting: BTreeMap<Key, Lasting>,
    configured: Option<(BTreeSet<String>, BTreeSet<String>)>,
}

impl Record {
    /// Returns an empty record. The operator becomes ready once all `awaited` parts have worked;
    /// from then on it stays ready while a failure of a part lasts less than `unready_after`.
    #[must_use]
    pub fn new(awaited: BTreeSet<ProblemSource>, unready_after: Duration) -> Self {
        Self {
            unready_after,
            awaited,
            failing: BTreeMap::new(),
            lasting: BTreeMap::new(),
            configured: None,
        }
    }

    /// Applies a report, and returns the announcements of problems that are over.
    pub fn take(&mut self, report: Report, now: Instant) -> Vec<Announcement> {
        match report {
            Report::State(source, Ok(())) => {
                self.awaited.remove(&source);
                self.failing.remove(&source);
            }
            // A keeper or a pull of the previous configuration may report after the change.
            Report::State(source, Err(_)) if !self.concerns(&source) => {}
            Report::State(source, Err(problem)) => {
                // A part that now fails for another reason has failed without interruption.
                let since = self.failing.get(&source).map_or(now, |failing| failing.since);
                self.failing.insert(source, Failing { since, problem });
            }
            Report::Configured { plugins, secrets } => {
                self.configured = Some((plugins, secrets));
                let failing = std::mem::take(&mut self.failing);
                self.failing =
                    failing.into_iter().filter(|(source, _)| self.concerns(source)).collect();
            }
        }
        self.settle(now)
    }

    fn concerns(&self, source: &ProblemSource) -> bool {
        let Some((plugins, secrets)) = &self.configured else { return true };
        match source {
            ProblemSource::DevicePlugin(name) => plugins.contains(name),
            ProblemSource::Secret(name) => secrets.contains(name),
            _ => true,
        }
    }

    /// Updates the problems from the parts that fail.
    fn settle(&mut self, now: Instant) -> Vec<Announcement> {
        let mut current: BTreeMap<Key, (Problem, bool)> = BTreeMap::new();
        for (source, Failing { problem, .. }) in &self.failing {
            // An API server that does not answer fails every watch and the Lease: that is one
            // problem.
            let key = (problem.cause, problem.object.clone());
            let (_, blocks) = current.entry(key).or_insert_with(|| (problem.clone(), false));
            *blocks |= source.blocks();
        }
        let (kept, over): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.lasting)
            .into_iter()
            .partition(|(key, _)| current.contains_key(key));
        self.lasting = kept;
        for (key, (problem, blocks)) in current {
            let wait = if blocks { SAY_AFTER } else { Duration::ZERO };
            let pause = if blocks { BLOCKING.first } else { ADVISORY.first };
            let begins = Lasting {
                problem: problem.clone(),
                blocks,
                since: now,
                next: now + wait,
                pause,
                announced: false,
            };
            self.lasting.entry(key).or_insert(begins).problem = problem;
        }
        // The end of what was never announced is no news.
        let over = over.into_values().filter(|lasting| lasting.announced).map(|lasting| {
            Announcement::Over { lasted: now - lasting.since, problem: lasting.problem }
        });
        over.collect()
    }

    /// Returns the announcements that are due, and counts them as made.
    pub fn due(&mut self, now: Instant) -> Vec<Announcement> {
        let due = self.lasting.values_mut().filter(|lasting| lasting.next <= now);
        let announcements = due.map(|lasting| {
            let longest = if lasting.blocks { BLOCKING.longest } else { ADVISORY.longest };
            let lasted = now - lasting.since;
            lasting.next = now + lasting.pause;
            lasting.pause = (lasting.pause * 2).min(longest);
            lasting.announced = true;
            let event = !lasting.blocks || lasted >= EVENT_AFTER;
            Announcement::Holds { problem: lasting.problem.clone(), lasted, event }
        });
        announcements.collect()
    }

    /// Returns the instant at which something changes without a report: an announcement is due, or
    /// the operator becomes unready.
    #[must_use]
    pub fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let says = self.lasting.values().map(|lasting| lasting.next);
        let turns = self.blockers().map(|failing| failing.since + self.unready_after);
        // A turn that has passed would wake the keeper again and again.
        says.chain(turns.filter(|turn| *turn > now)).min()
    }

    fn blockers(&self) -> impl Iterator<Item = &Failing> {
        self.failing.iter().filter(|(source, _)| source.blocks()).map(|(_, failing)| failing)
    }

    /// Returns whether the operator can work.
    #[must_use]
    pub fn readiness(&self, now: Instant) -> Readiness {
        let starts = !self.awaited.is_empty();
        // Before it was ready for the first time, an operator shows the cause at once.
        let lasts = |failing: &&Failing| starts || now - failing.since >= self.unready_after;
        let mut messages: Vec<&str> = Vec::new();
        for failing in self.blockers().filter(lasts) {
            if !messages.contains(&failing.problem.message.as_str()) {
                messages.push(&failing.problem.message);
            }
        }
        match messages.as_slice() {
            [] if starts => Readiness::NotReady(self.waits()),
            [] => Readiness::Ready,
            [message] => Readiness::NotReady((*message).to_owned()),
            several => {
                let numbered = several.iter().enumerate();
                let numbered =
                    numbered.map(|(index, message)| format!("({}) {message}", index + 1));
                Readiness::NotReady(numbered.collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn waits(&self) -> String {
        let parts = self.awaited.iter().map(|source| match source {
            ProblemSource::Lease => "the Lease".to_owned(),
            ProblemSource::Watch(resource) => format!("the first list of {resource}"),
            other => format!("{other:?}"),
        });
        format!("waiting for {}", parts.collect::<Vec<_>>().join(", "))
    }

    /// Returns the causes of announced problems that are not over.
    #[must_use]
    pub fn causes(&self) -> BTreeSet<Cause> {
        self.lasting
            .values()
            .filter(|lasting| lasting.announced)
            .map(|lasting| lasting.problem.cause)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::{PODS, SERVICES, unreachable};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(30);

    fn fails(source: ProblemSource, cause: Cause) -> Report {
        Report::State(source, Err(Problem::new(cause, "object", "is wrong; mend it")))
    }

    fn works(source: ProblemSource) -> Report {
        Report::State(source, Ok(()))
    }

    fn record() -> (Record, Instant) {
        let awaited = BTreeSet::from([ProblemSource::Lease, ProblemSource::Watch(PODS)]);
        (Record::new(awaited, LIMIT), Instant::now())
    }

    fn ready() -> (Record, Instant) {
        let (mut record, begin) = record();
        record.take(works(ProblemSource::Lease), begin);
        record.take(works(ProblemSource::Watch(PODS)), begin);
        assert_eq!(record.readiness(begin), Readiness::Ready);
        (record, begin)
    }

    fn why(record: &Record, now: Instant) -> String {
        match record.readiness(now) {
            Readiness::Ready => "ready".to_owned(),
            Readiness::NotReady(why) => why,
        }
    }

    /// Returns the seconds after `begin` at which a lasting problem is announced.
    fn announcement_seconds(record: &mut Record, begin: Instant, until: u32) -> Vec<u64> {
        let mut seconds = Vec::new();
        let mut now = begin;
        while let Some(next) = record.wakes_at(now).filter(|at| *at <= begin + until * SECOND) {
            now = next;
            if !record.due(now).is_empty() {
                seconds.push((now - begin).as_secs());
            }
        }
        seconds
    }

    #[test]
    fn a_start_is_not_ready_until_lease_and_watches_worked_once_and_says_at_once_why() {
        let (mut record, begin) = record();
        assert_eq!(why(&record, begin), "waiting for the Lease, the first list of pods");
        record.take(works(ProblemSource::Watch(PODS)), begin);
        record.take(fails(ProblemSource::Lease, Cause::RightMissing), begin);
        assert_eq!(why(&record, begin), "object: is wrong; mend it");
        record.take(works(ProblemSource::Lease), begin + 100 * SECOND);
        assert_eq!(record.readiness(begin + 100 * SECOND), Readiness::Ready);
    }

    #[test]
    fn what_was_ready_stays_so_through_29_seconds_of_failure_and_not_through_30() {
        let (mut record, begin) = ready();
        record.take(fails(ProblemSource::Lease, Cause::ApiServerUnreachable), begin);
        // The part still fails, for another reason: it is the same failure.
        record.take(fails(ProblemSource::Lease, Cause::RightMissing), begin + 20 * SECOND);
        assert_eq!(record.readiness(begin + 29 * SECOND), Readiness::Ready);
        assert_eq!(why(&record, begin + LIMIT), "object: is wrong; mend it");
        record.take(works(ProblemSource::Lease), begin + 31 * SECOND);
        assert_eq!(record.readiness(begin + 31 * SECOND), Readiness::Ready);
        record.take(fails(ProblemSource::Lease, Cause::RightMissing), begin + 32 * SECOND);
        assert_eq!(record.readiness(begin + 61 * SECOND), Readiness::Ready, "it began anew");
    }

    #[test]
    fn a_problem_is_said_with_pauses_that_double_to_five_minutes_and_its_end_once() {
        let (mut record, begin) = ready();
        record.take(fails(ProblemSource::Lease, Cause::RightMissing), begin);
        let times = announcement_seconds(&mut record, begin, 1200);
        assert_eq!(times, [2, 3, 5, 9, 17, 33, 65, 129, 257, 513, 813, 1113]);
        // Another report of the same problem changes nothing.
        let later = begin + 1200 * SECOND;
        assert_eq!(record.take(fails(ProblemSource::Lease, Cause::RightMissing), later), []);
        let over = record.take(works(ProblemSource::Lease), later);
        assert!(
            matches!(
                over.as_slice(),
                [Announcement::Over { lasted, .. }] if *lasted == 1200 * SECOND
            ),
            "{over:?}"
        );
        assert_eq!(record.take(works(ProblemSource::Lease), later), []);
    }

    #[test]
    fn what_is_over_before_it_was_said_is_never_said() {
        let (mut record, begin) = ready();
        record.take(fails(ProblemSource::Watch(PODS), Cause::RequestRefused), begin);
        assert_eq!(record.due(begin + SECOND), []);
        assert_eq!(record.take(works(ProblemSource::Watch(PODS)), begin + SECOND), []);
        assert_eq!(record.due(begin + 60 * SECOND), []);
    }

    #[test]
    fn a_silent_api_server_is_one_problem_and_over_when_the_last_part_works_again() {
        let (mut record, begin) = ready();
        let silent = |source| Report::State(source, Err(unreachable("connection refused")));
        record.take(silent(ProblemSource::Lease), begin);
        record.take(silent(ProblemSource::Watch(PODS)), begin + SECOND);
        record.take(silent(ProblemSource::Watch(SERVICES)), begin + SECOND);
        assert_eq!(record.due(begin + 2 * SECOND).len(), 1);
        assert!(why(&record, begin + LIMIT).starts_with("API server: does not answer"));
        let later = begin + 40 * SECOND;
        assert_eq!(record.take(works(ProblemSource::Lease), later), []);
        assert_eq!(record.take(works(ProblemSource::Watch(PODS)), later), []);
        assert_eq!(record.take(works(ProblemSource::Watch(SERVICES)), later).len(), 1);
    }

    #[test]
    fn advice_is_said_at_once_and_in_an_event_and_leaves_the_operator_ready() {
        let (mut record, begin) = ready();
        record.take(fails(ProblemSource::Configuration, Cause::PluginsMissing), begin);
        let due = record.due(begin);
        assert!(matches!(due.as_slice(), [Announcement::Holds { event: true, .. }]), "{due:?}");
        assert_eq!(record.causes(), BTreeSet::from([Cause::PluginsMissing]));
        assert_eq!(record.readiness(begin + 100 * LIMIT), Readiness::Ready);
        assert_eq!(
            announcement_seconds(&mut record, begin, 8000),
            [60, 180, 420, 900, 1860, 3660, 5460, 7260]
        );
    }

    #[test]
    fn a_failure_that_blocks_makes_an_event_once_it_has_lasted_five_seconds() {
        let (mut record, begin) = ready();
        record.take(fails(ProblemSource::Lease, Cause::RightMissing), begin);
        let event = |announcements: Vec<Announcement>| {
            announcements.iter().any(|announcement| {
                matches!(announcement, Announcement::Holds { event: true, .. })
            })
        };
        assert!(!event(record.due(begin + 2 * SECOND)));
        assert!(!event(record.due(begin + 3 * SECOND)));
        assert!(event(record.due(begin + 5 * SECOND)));
    }

    #[test]
    fn several_blocking_problems_stand_in_one_line_each_with_its_number() {
        let (mut record, begin) = ready();
        for (source, object) in [(ProblemSource::Lease, "a"), (ProblemSource::Watch(PODS), "b")] {
            let problem = Problem::new(Cause::RightMissing, object, "is\nwrong");
            record.take(Report::State(source, Err(problem)), begin);
        }
        assert_eq!(why(&record, begin + LIMIT), "(1) a: is wrong (2) b: is wrong");
    }

    #[test]
    fn what_the_configuration_no_longer_names_has_no_problem_and_late_reports_of_it_count_nothing()
    {
        let (mut record, begin) = ready();
        let secret = || fails(ProblemSource::Secret("robot".into()), Cause::SecretMissing);
        record.take(secret(), begin);
        assert_eq!(record.due(begin).len(), 1);
        let configured = Report::Configured { plugins: BTreeSet::new(), secrets: BTreeSet::new() };
        assert_eq!(record.take(configured, begin).len(), 1, "it is over");
        record.take(secret(), begin);
        assert_eq!(record.due(begin), []);
    }
}
