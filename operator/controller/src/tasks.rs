//! Guards the tasks that run as long as the process, such as the watches: without one of them the
//! process would go on half dead. [`crate::run`] ends the process instead, and Kubernetes restarts
//! it. No I/O.

use tokio::sync::mpsc;

/// A task that panicked or returned, although it runs as long as the process.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} ended unexpectedly: this operator exits, to be restarted; if a panic is logged above, \
     report it"
)]
pub struct EndedTask(pub String);

/// The tasks that run as long as the process; all clones report to the same receiver.
#[derive(Clone, Debug)]
pub struct Tasks(mpsc::UnboundedSender<EndedTask>);

impl Tasks {
    /// Returns the guard, and the receiver of the tasks that ended.
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<EndedTask>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Runs a task, and reports it by this name if it panics or returns. A task that is aborted is
    /// not reported.
    pub async fn guarded(self, name: String, task: impl Future<Output = ()>) {
        let mut alarm = Alarm { tasks: self, name, has_returned: false };
        task.await;
        alarm.has_returned = true;
    }
}

/// Reports its task when it is dropped after the task returned, or while it panics.
struct Alarm {
    tasks: Tasks,
    name: String,
    has_returned: bool,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // tokio catches the panic of a task, and drops the task while the thread unwinds.
        if self.has_returned || std::thread::panicking() {
            // The receiver is gone once the process ends.
            let _ = self.tasks.0.send(EndedTask(std::mem::take(&mut self.name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_returns_is_reported_by_its_name_and_an_aborted_one_is_not() {
        let (tasks, mut ended) = Tasks::channel();
        let endless = tasks.clone().guarded("endless".to_owned(), std::future::pending());
        let endless = tokio::spawn(endless);
        tokio::task::yield_now().await;
        endless.abort();
        assert!(endless.await.is_err());
        for (name, panics) in [("panics", true), ("returns", false)] {
            let task = async move { assert!(!panics, "the test wants it") };
            let _ = tokio::spawn(tasks.clone().guarded(name.to_owned(), task)).await;
            assert_eq!(ended.recv().await, Some(EndedTask(name.to_owned())));
        }
        assert!(ended.try_recv().is_err());
    }
}
