//! Clients, channels and settings that the loop and its stages share. The caches belong to the
//! loop alone, in [`crate::reconcile`]: a stage sends it changes and outcomes with
//! [`Operator::tell`], and reads the caches with [`Operator::ask`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flashjob_rules::world::World;
use flashjob_rules::world::change::Change;
use kube::Client;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::cluster::installation::Installation;
use crate::cluster::leadership::Leadership;
use crate::cluster::passwords::SecretReader;
use crate::plugins::Plugins;
use crate::tasks::Tasks;
use crate::telemetry::health::keeper::Reports;
use crate::telemetry::metrics::Metrics;
use flashjob_config::Access;
use flashjob_config::OperatorConfig;

/// Deletes of Pods and Services that may wait for their answers at the same time: a quarter of the
/// requests of a client. A status write frees hundreds of objects at once, and the creates of the
/// devices that take their places would have to wait behind them (docs/performance.md).
const DELETES_IN_FLIGHT: usize = 20;

/// The running operator.
pub struct Operator {
    /// Client of the API server.
    pub client: Client,
    /// Client of the API server for the keepers of plugins. Its connections are served by the
    /// plugin threads, so that a plugin that loops delays no request of another client.
    pub keepers_client: Client,
    /// The plugins.
    pub plugins: Plugins,
    /// Leadership of this process: leader or standby.
    pub leadership: Arc<Leadership>,
    /// Writes Kubernetes events.
    pub recorder: kube::runtime::events::Recorder,
    /// Writes Kubernetes events for the keepers of plugins, with their client.
    pub keepers_recorder: kube::runtime::events::Recorder,
    /// Metrics of the operator.
    pub metrics: Arc<Metrics>,
    /// Permits for deletes of Pods and Services.
    pub deletes: Semaphore,
    /// Channel for problem reports.
    pub reports: Reports,
    /// Installation that this operator is part of.
    pub installation: Installation,
    /// Guard of the tasks that run as long as the process.
    pub tasks: Tasks,
    access: Mutex<Arc<Access>>,
    messages: mpsc::UnboundedSender<Message>,
    planning: AtomicBool,
}

/// Parts of a new [`Operator`]; see its fields.
pub struct Parts {
    /// Client of the API server.
    pub client: Client,
    /// Client of the API server for the keepers of plugins.
    pub keepers_client: Client,
    /// Registry settings and trust policy for firmware lookups, from the configuration.
    pub access: Arc<Access>,
    /// The plugins.
    pub plugins: Plugins,
    /// Leadership of this process: leader or standby.
    pub leadership: Arc<Leadership>,
    /// Writes Kubernetes events.
    pub recorder: kube::runtime::events::Recorder,
    /// Writes Kubernetes events for the keepers of plugins, with their client.
    pub keepers_recorder: kube::runtime::events::Recorder,
    /// Metrics of the operator.
    pub metrics: Arc<Metrics>,
    /// Channel for problem reports.
    pub reports: Reports,
    /// Installation that this operator is part of.
    pub installation: Installation,
    /// Guard of the tasks that run as long as the process.
    pub tasks: Tasks,
}

/// A message to the loop; messages are processed in the order in which they were sent.
pub enum Message {
    /// A change to apply to the caches.
    Change(Change),
    /// The set of serving plugins has changed. The loop reads the current set itself: if two tasks
    /// report a change at once, the older state must not overwrite the newer one.
    Plugins,
    /// A closure that reads the caches, between two changes.
    Read(Box<dyn FnOnce(&World) + Send>),
}

/// Receiving end of the channel to the loop.
pub type Messages = mpsc::UnboundedReceiver<Message>;

impl Operator {
    /// Returns a new operator, and the receiving end of its channel to the loop.
    #[must_use]
    pub fn new(parts: Parts) -> (Arc<Self>, Messages) {
        let Parts {
            client,
            keepers_client,
            access,
            plugins,
            leadership,
            recorder,
            keepers_recorder,
            metrics,
            reports,
            installation,
            tasks,
        } = parts;
        let (messages, received) = mpsc::unbounded_channel();
        let operator = Self {
            client,
            keepers_client,
            plugins,
            leadership,
            recorder,
            keepers_recorder,
            metrics,
            deletes: Semaphore::new(DELETES_IN_FLIGHT),
            reports,
            installation,
            tasks,
            access: Mutex::new(access),
            messages,
            planning: AtomicBool::new(false),
        };
        (Arc::new(operator), received)
    }

    /// Sends a change to the loop, which applies it and plans the objects that it affects.
    pub fn tell(&self, change: Change) {
        self.send(Message::Change(change));
    }

    /// Reads the caches in the loop, after all changes that were sent earlier. Returns None if the
    /// loop has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Read(Box::new(move |world| {
            // The caller may have been cancelled.
            let _ = answer.send(read(world));
        })));
        answered.await.ok()
    }

    /// Notifies the loop that the serving plugins or their digests have changed.
    pub(crate) fn plugins_changed(&self) {
        self.send(Message::Plugins);
    }

    fn send(&self, message: Message) {
        // The loop only ends with the process.
        let _ = self.messages.send(message);
    }

    /// Returns a reader of the Secrets with passwords, for a task that uses this client.
    pub(crate) fn secrets(&self, client: &Client) -> SecretReader {
        SecretReader {
            client: client.clone(),
            reports: self.reports.clone(),
            installation: self.installation.clone(),
        }
    }

    /// Registry settings and trust policy for firmware lookups, from the configuration.
    pub(crate) fn firmware_access(&self) -> Arc<Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies the parts of a changed configuration that the loop and the stages use.
    pub(crate) fn configure(&self, config: &OperatorConfig) {
        let access = Access::of(config);
        // Set before the rules, so that a firmware lookup under the new rules uses the new keys.
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access.clone();
        self.tell(Change::Rules(Box::new(config.rules(access.trust()))));
    }

    /// Returns true if jobs are planned: this process leads, and has refilled its caches since
    /// then.
    pub fn is_planning(&self) -> bool {
        self.planning.load(Ordering::SeqCst)
    }

    /// Starts planning: from now on jobs are planned.
    pub(crate) fn begin_planning(&self) {
        self.planning.store(true, Ordering::SeqCst);
    }
}
