//! Keeps one plugin loaded: loads it, retries failures, and polls for new versions if it is
//! configured to. The leader decides which digest serves and records it; standbys follow the
//! record, and a restarted process begins with it.

use std::sync::Arc;
use std::time::Duration;

use flashjob_plugin_host::config::PullPolicy;
use flashjob_plugin_host::{Plugin, Stage};
use semver::Version;
use tokio::time::Instant;

use super::load::{LoadFailure, Loads};
use super::recorded::{Record, Records};
use super::show::{self, PluginState, Serving, ShowOutcome};
use crate::cluster::answer::in_one_line;
use crate::cluster::leadership::FIRST_ROUND;
use crate::operator::Operator;
use crate::telemetry::health::problem::ProblemSource;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Interval of checks whether the DevicePlugin still belongs to another installation.
const NOT_OWNED_PAUSE: Duration = Duration::from_secs(30);

/// One plugin, and everything needed to keep it loaded.
pub(super) struct Keeper {
    operator: Arc<Operator>,
    loads: Loads,
    records: Records,
    /// True if the serving plugin was verified under this configuration.
    verified: bool,
    /// True if this process has read the record from the API server as the leader.
    has_read_record: bool,
    /// State that was written last.
    written_state: Option<PluginState>,
}

impl Keeper {
    pub fn new(operator: &Arc<Operator>, loads: Loads, records: Records) -> Self {
        Self {
            operator: operator.clone(),
            loads,
            records,
            verified: false,
            has_read_record: false,
            written_state: None,
        }
    }

    pub async fn run(mut self) {
        // If another process leads, this one loads as a standby.
        let _ = tokio::time::timeout(FIRST_ROUND, self.operator.leadership.leads()).await;
        let mut pause = FIRST_PAUSE;
        loop {
            // This round is a standby's or the leader's throughout, even if leadership changes
            // meanwhile.
            let leads = self.operator.leadership.is_leading();
            let record = self.record(leads).await;
            let failure = self.load(&record, leads).await.err();
            if let Some(LoadFailure { message, .. }) = &failure {
                tracing::warn!(
                    plugin = self.name(),
                    error = message,
                    "the plugin cannot be loaded"
                );
            }
            // After a failure too: it may have withdrawn the plugin, and the jobs that wait for it
            // say why.
            self.operator.plugins_changed();
            let plugin = &self.loads.plugin;
            let again = match &failure {
                // `Retry-After` of a registry (RFC 9110, section 10.2.3) makes the pause longer,
                // never shorter.
                Some(failure) => Some(failure.retry_after.unwrap_or_default().max(pause)),
                None if plugin.pull_policy == PullPolicy::Always => {
                    Some(Duration::from_secs(plugin.pull_interval_seconds.into()))
                }
                None => None,
            };
            pause = if failure.is_some() { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            self.wait(again, failure.as_ref(), &record, leads).await;
        }
    }

    /// Returns the record of the plugin. The leader reads it from the API server; if it polls for
    /// new versions, only once, as from then on it decides by the digest that serves.
    async fn record(&mut self, leads: bool) -> Record {
        let name = &self.loads.plugin.name;
        if !leads || self.has_read_record && self.loads.plugin.pull_policy == PullPolicy::Always {
            return self.records.of(name).await;
        }
        self.has_read_record = true;
        self.records.ask(name).await
    }

    fn name(&self) -> &str {
        &self.loads.plugin.name
    }

    /// Shows each change of the plugin's state, and shows it again if the DevicePlugin is deleted,
    /// until the plugin is to be loaded again: after the pause `again`, when this process becomes
    /// the leader, or when a standby observes a new record.
    async fn wait(
        &mut self,
        again: Option<Duration>,
        failure: Option<&LoadFailure>,
        record: &Record,
        leads: bool,
    ) {
        let until = again.map(|pause| Instant::now() + pause);
        let mut changes = self.operator.plugins.changes();
        let (name, leadership) = (self.name().to_owned(), self.operator.leadership.clone());
        let records = self.records.clone();
        loop {
            // A standby writes nothing: its requests would stop at the fence.
            let shown_again = if leads { self.show(failure).await } else { None };
            // Before the object is written, and while another installation has it, the watch has
            // no record of it either.
            let is_written = leads && shown_again.is_none();
            tokio::select! {
                () = at(until) => return,
                () = leadership.leads(), if !leads => return,
                () = self.records.differs(&name, record), if !leads => return,
                // Another plugin may have taken a device type of this one, or released it.
                _ = changes.changed() => {}
                // Standbys and restarted processes follow the record in it.
                () = records.deleted(&name), if is_written => self.written_state = None,
                () = tokio::time::sleep(shown_again.unwrap_or_default()),
                    if shown_again.is_some() => {}
            }
        }
    }

    /// Writes the DevicePlugin if its state has changed. Returns the pause before a retry if it
    /// could not be written.
    async fn show(&mut self, failure: Option<&LoadFailure>) -> Option<Duration> {
        let plugins = &self.operator.plugins;
        let serving = plugins.serving(self.name()).as_ref().map(Serving::of);
        let state = PluginState {
            serving,
            standing: plugins.standing(self.name()),
            failure: failure.cloned(),
        };
        if self.written_state.as_ref() == Some(&state) {
            return None;
        }
        let source = ProblemSource::DevicePlugin(self.name().to_owned());
        match show::show(&self.operator, &self.loads.plugin, &state).await {
            Ok(ShowOutcome::Written) => {
                self.operator.reports.works(source);
                self.written_state = Some(state);
                None
            }
            Ok(ShowOutcome::NotOwned(problem)) => {
                self.operator.reports.fails(source, problem);
                Some(NOT_OWNED_PAUSE)
            }
            Err(error) => {
                let error = in_one_line(&error);
                tracing::warn!(
                    plugin = self.name(),
                    error,
                    "cannot write the DevicePlugin; retrying"
                );
                Some(FIRST_PAUSE)
            }
        }
    }

    /// Loads the plugin that is to serve, and puts it into service. If that fails, the previous
    /// plugin continues to serve if it still may.
    async fn load(&mut self, record: &Record, leads: bool) -> Result<(), LoadFailure> {
        let serving = self.operator.plugins.serving(self.name());
        match self.load_checked(record, leads, serving.as_ref()).await {
            Ok(plugin) => {
                // A poll that finds the same digest replaces nothing, and is not logged.
                let same = serving.is_some_and(|serving| serving.digest() == plugin.digest());
                if !(same && self.verified) {
                    self.serve(&plugin);
                }
                self.verified = true;
                Ok(())
            }
            Err(failure) => {
                self.fall_back(record, serving.as_ref(), &failure).await;
                Err(failure)
            }
        }
    }

    fn serve(&self, plugin: &Plugin) {
        let (name, digest, version) = (self.name(), plugin.digest(), &plugin.info().version);
        tracing::info!(plugin = name, %digest, %version, "the plugin is ready");
        self.operator.plugins.serve(plugin);
    }

    /// Loads the recorded digest in use, or else the digest that the reference names. The leader
    /// resolves the reference again if it polls for new versions, or if the digest in use only
    /// replaces the one that the reference names.
    async fn load_checked(
        &self,
        record: &Record,
        leads: bool,
        serving: Option<&Plugin>,
    ) -> Result<Plugin, LoadFailure> {
        let (image, policy) = (&self.loads.plugin.image, self.loads.plugin.pull_policy);
        let follows = !leads || record.settled && policy != PullPolicy::Always;
        if let Some(in_use) = record.in_use(image).filter(|_| follows) {
            // The leader that recorded this digest has checked its version.
            let loaded = self.loads.load(&in_use, self.loads.by_digest()).await;
            // If the digest is no longer available anywhere, the leader resolves the reference
            // again.
            if !(leads && loaded.as_ref().is_err_and(LoadFailure::is_gone)) {
                return loaded;
            }
        }
        // The version is known only now: the component itself tells it.
        let loaded = self.loads.load(image, policy).await?;
        self.check_version(&loaded, record, serving)?;
        Ok(loaded)
    }

    /// Verifies the serving plugin again under a changed configuration, or loads the last good
    /// digest after a restart, so that neither a bad new version nor an unreachable registry takes
    /// the plugin out of service.
    async fn fall_back(
        &mut self,
        record: &Record,
        serving: Option<&Plugin>,
        failure: &LoadFailure,
    ) {
        let image = &self.loads.plugin.image;
        let offline = failure.transient || failure.is_broken();
        let again = match serving {
            // It was verified under the configuration in force, which a failed update does not
            // change.
            Some(_) if self.verified => return,
            Some(serving) => {
                self.loads
                    .load(&serving.reference().pinned(serving.digest()), self.loads.by_digest())
                    .await
            }
            None => match record.last_good(image) {
                // Without the registry or its password only the cache can help.
                Some(last_good) if offline => self.loads.load(&last_good, PullPolicy::Never).await,
                Some(last_good) => self.loads.load(&last_good, self.loads.by_digest()).await,
                // Without a record the cache still has the digest that the tag had when it was
                // last resolved.
                None if failure.transient => self.loads.load(image, PullPolicy::Never).await,
                None => return self.operator.plugins.withhold(self.name(), &failure.message),
            },
        };
        match (again, serving) {
            (Ok(plugin), _) => {
                self.serve(&plugin);
                self.verified = true;
            }
            // It can no longer be fetched, but it was not refused.
            (Err(again), Some(_)) if again.stage == Stage::Resolve && !again.is_broken() => {}
            (Err(again), Some(_)) => self.operator.plugins.withhold(self.name(), &again.message),
            // The failure of the configured version is the one to fix, not that of its substitute.
            (Err(_), None) => self.operator.plugins.withhold(self.name(), &failure.message),
        }
    }

    fn check_version(
        &self,
        loaded: &Plugin,
        record: &Record,
        serving: Option<&Plugin>,
    ) -> Result<(), LoadFailure> {
        if self.loads.plugin.allow_downgrade || record.last_good.as_ref() == Some(loaded.digest())
        {
            return Ok(());
        }
        // A tag that moves back, by mistake or by an attack, would return known faults: the
        // signature of an old version is still valid.
        let served = serving.map(|serving| &serving.info().version);
        match lowest(served, record.last_good_version.as_ref()) {
            Some(lowest) if loaded.info().version < *lowest => {
                let message = format!(
                    "version {} is lower than {lowest}, the last good version; set \
                     allowDowngrade: true if the downgrade is intended",
                    loaded.info().version
                );
                let refused = LoadFailure::new(Stage::Start, "DowngradeRefused", message);
                Err(refused.of_verified(loaded.signed()))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the lowest version that may serve: the version that serves now, else the recorded one.
fn lowest<'a>(serving: Option<&'a Version>, recorded: Option<&'a Version>) -> Option<&'a Version> {
    serving.or(recorded)
}

/// Waits until this instant, or forever if there is none.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
