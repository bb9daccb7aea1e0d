//! The parts of the running operator that the loop and its stages share. What is known of the
//! cluster is the loop's alone, in [`crate::reconcile`]: a stage sends it changes and outcomes
//! with [`Operator::tell`], and asks it with [`Operator::ask`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flashjob_rules::world::World;
use flashjob_rules::world::change::Change;
use kube::Client;
use tokio::sync::{mpsc, oneshot};

use crate::cluster::installation::Installation;
use crate::cluster::leadership::Leadership;
use crate::cluster::passwords::SecretReader;
use crate::plugins::Plugins;
use crate::telemetry::health::keeper::Reports;
use crate::telemetry::metrics::Metrics;
use flashjob_config::Access;
use flashjob_config::OperatorConfig;

/// The running operator.
pub struct Operator {
    /// The API server.
    pub client: Client,
    /// The same for the keepers of plugins. Its connections are served by the threads of the
    /// plugins, so that a plugin that loops delays no request of another.
    pub keepers_client: Client,
    /// The plugins.
    pub plugins: Plugins,
    /// Leadership of this process: whether it is the one that acts.
    pub leadership: Arc<Leadership>,
    /// Writes Kubernetes events.
    pub recorder: kube::runtime::events::Recorder,
    /// The same for the keepers of plugins, with their client.
    pub keepers_recorder: kube::runtime::events::Recorder,
    /// Counts what happens.
    pub metrics: Arc<Metrics>,
    /// Place to which problems are reported.
    pub reports: Reports,
    /// Installation that this operator is part of.
    pub installation: Installation,
    access: Mutex<Arc<Access>>,
    messages: mpsc::UnboundedSender<Message>,
    planning: AtomicBool,
}

/// Parts from which an operator is put together; see the fields of [`Operator`].
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// The same for the keepers of plugins.
    pub keepers_client: Client,
    /// Part of the configuration that firmware is looked up with.
    pub access: Arc<Access>,
    /// The plugins.
    pub plugins: Plugins,
    /// Leadership of this process: whether it is the one that acts.
    pub leadership: Arc<Leadership>,
    /// Writes Kubernetes events.
    pub recorder: kube::runtime::events::Recorder,
    /// The same for the keepers of plugins, with their client.
    pub keepers_recorder: kube::runtime::events::Recorder,
    /// Counts what happens.
    pub metrics: Arc<Metrics>,
    /// Place to which problems are reported.
    pub reports: Reports,
    /// Installation that this operator is part of.
    pub installation: Installation,
}

/// A message to the loop; messages are taken in the order in which they were sent.
pub enum Message {
    /// Something has changed.
    Change(Change),
    /// The plugins that serve have changed. The loop asks for them itself: of two tasks that tell
    /// of a change at once, none may have it take what the other saw before.
    Plugins,
    /// A read of the caches, between two changes.
    Read(Box<dyn FnOnce(&World) + Send>),
}

/// Receiving end of the channel to the loop.
pub type Messages = mpsc::UnboundedReceiver<Message>;

impl Operator {
    /// Puts the operator together.
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
            reports,
            installation,
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

    /// Reads the caches in the loop, after all changes that were sent before. None: the loop has
    /// ended.
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

    /// Tells the loop that other plugins, or other digests of them, serve.
    pub(crate) fn plugins_changed(&self) {
        self.send(Message::Plugins);
    }

    fn send(&self, message: Message) {
        // The loop only ends with the process.
        let _ = self.messages.send(message);
    }

    /// Access to the Secrets with passwords, for a task that works with this client.
    pub(crate) fn secrets(&self, client: &Client) -> SecretReader {
        SecretReader {
            client: client.clone(),
            reports: self.reports.clone(),
            installation: self.installation.clone(),
        }
    }

    /// Part of the configuration that firmware is looked up with.
    pub(crate) fn firmware_access(&self) -> Arc<Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the parts of a changed configuration that the loop and the stages work by.
    pub(crate) fn configure(&self, config: &OperatorConfig) {
        let access = Access::of(config);
        // Before the rules: what is asked by the new ones is answered by the new keys.
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access.clone();
        self.tell(Change::Rules(Box::new(config.rules(access.trust()))));
    }

    /// Returns true if jobs are planned: this process leads, and its caches are filled afresh.
    pub fn is_planning(&self) -> bool {
        self.planning.load(Ordering::SeqCst)
    }

    /// Jobs are planned from now on.
    pub(crate) fn begin_planning(&self) {
        self.planning.store(true, Ordering::SeqCst);
    }
}
