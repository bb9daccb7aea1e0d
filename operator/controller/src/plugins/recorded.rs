//! Records of the plugins, which the leader writes to DevicePlugins: the digest in use, and the
//! last good one. Every replica watches them, so that standbys and restarted processes use the
//! same digests. Talks to the API server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flashjob_api::DevicePlugin;
use flashjob_plugin_host::{Digest, Reference};
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use semver::Version;
use tokio::sync::watch;

use crate::cluster::answer::{by_name, in_one_line};
use crate::cluster::installation::{Installation, Owner};
use crate::cluster::read::Guarded;
use crate::cluster::watch::Pauses;
use crate::operator::Operator;
use crate::telemetry::health::problem::{DEVICE_PLUGINS, ProblemSource, of_watch};

/// Longest wait for the first list. After it a standby loads plugins as if there were no records;
/// the leader reads the record before it decides.
const FIRST_LIST: Duration = Duration::from_secs(10);
/// Pause before an API server that does not answer is asked again.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which an object that the watch does not have counts as deleted: the watch lags
/// behind the write that created it.
const WATCH_LAG: Duration = Duration::from_secs(1);

/// Record of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Reference that was configured when the record was written.
    pub image: Option<Reference>,
    /// Digest in use.
    pub digest: Option<Digest>,
    /// True if the reference names the digest in use, false if that continues to serve in place of
    /// another one.
    pub settled: bool,
    /// Last good digest: the one that served last.
    pub last_good: Option<Digest>,
    /// Version of the last good digest.
    pub last_good_version: Option<Version>,
}

impl Record {
    fn of(object: &DevicePlugin) -> Self {
        let status = object.status.clone().unwrap_or_default();
        // What is not a digest counts as none: a status is only as reliable as those who may write
        // it.
        let parsed = |digest: Option<String>| digest.and_then(|digest| digest.parse().ok());
        Self {
            image: object.spec.image.parse().ok(),
            digest: parsed(status.digest),
            settled: status.last_error.is_none(),
            last_good: parsed(status.last_good_digest),
            last_good_version: status.last_good_version.and_then(|version| version.parse().ok()),
        }
    }

    /// Returns the reference with the digest in use, if the record has exactly this reference and
    /// the reference has no digest of its own. A file is always read again.
    pub fn in_use(&self, image: &Reference) -> Option<Reference> {
        let open = image.digest().is_none()
            && image.name().is_some()
            && self.image.as_ref() == Some(image);
        self.digest.as_ref().filter(|_| open).map(|digest| image.pinned(digest))
    }

    /// Returns the reference with the last good digest, if that came from the same repository or
    /// layout. Any other location in the record is not used.
    pub fn last_good(&self, image: &Reference) -> Option<Reference> {
        let same = image.name().is_some()
            && self.image.as_ref().and_then(Reference::name) == image.name();
        self.last_good.as_ref().filter(|_| same).map(|digest| image.pinned(digest))
    }
}

/// Records of all plugins of this installation, by object name; None before the first list.
type WrittenRecords = Option<HashMap<String, Record>>;

/// Access to the records, by a watch or by a read from the API server.
#[derive(Clone)]
pub(super) struct Records {
    api: Api<Guarded<DevicePlugin>>,
    installation: Installation,
    written: watch::Receiver<WrittenRecords>,
}

impl Records {
    /// Starts the watch.
    pub fn follow(operator: &Arc<Operator>) -> Self {
        let (sender, written) = watch::channel(None);
        let watched = Api::all(operator.client.clone());
        let watch = follow(operator.clone(), watched, sender);
        tokio::spawn(operator.tasks.clone().guarded(format!("watch of {DEVICE_PLUGINS}"), watch));
        let api = Api::all(operator.keepers_client.clone());
        Self { api, installation: operator.installation.clone(), written }
    }

    /// Reads the record of one plugin from the API server: a watch may lag behind the last write
    /// of the previous leader. Retries until there is an answer, as nothing may be decided without
    /// it.
    pub async fn ask(&self, name: &str) -> Record {
        let object = self.installation.object_name(name);
        loop {
            match by_name(&self.api, &object).await {
                Ok(device_plugin) => {
                    let record =
                        device_plugin.and_then(|object| record(object, &self.installation));
                    return record.map(|(_, record)| record).unwrap_or_default();
                }
                Err(error) => {
                    let error = in_one_line(&error);
                    tracing::warn!(
                        plugin = name,
                        error,
                        "cannot read the recorded state of the plugin; retrying before it is \
                         loaded"
                    )
                }
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    /// Returns the record of one plugin from the watch, which may be stale.
    pub async fn of(&mut self, name: &str) -> Record {
        let listed = tokio::time::timeout(FIRST_LIST, self.written.wait_for(Option::is_some))
            .await
            .is_ok_and(|listed| listed.is_ok());
        if !listed {
            tracing::warn!(
                plugin = name,
                "DevicePlugins cannot be listed; loading the plugin without its recorded state"
            );
        }
        self.now(name)
    }

    fn now(&self, name: &str) -> Record {
        self.written
            .borrow()
            .as_ref()
            .and_then(|written| written.get(&self.installation.object_name(name)))
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until the watch shows that the plugin's object was deleted.
    pub async fn deleted(&self, name: &str) {
        absent(self.written.clone(), &self.installation.object_name(name)).await;
    }

    /// Waits until the record of the plugin differs from `from`.
    pub async fn differs(&mut self, name: &str, from: &Record) {
        while self.now(name) == *from {
            // The watch ends only with the process. To return here would make the keeper load in a
            // loop.
            if self.written.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Waits until a complete list lacks this object, and goes on lacking it for [`WATCH_LAG`].
async fn absent(mut written: watch::Receiver<WrittenRecords>, object: &str) {
    let is_present = |records: &HashMap<String, Record>| records.contains_key(object);
    loop {
        let lacks = |written: &WrittenRecords| {
            written.as_ref().is_some_and(|records| !is_present(records))
        };
        if written.wait_for(lacks).await.is_err() {
            break;
        }
        let has = |written: &WrittenRecords| written.as_ref().is_some_and(is_present);
        let returned = tokio::time::timeout(WATCH_LAG, written.wait_for(has)).await;
        match returned.map(|record| record.is_ok()) {
            Err(_) => return,
            Ok(true) => {}
            Ok(false) => break,
        }
    }
    // The watch ends only with the process.
    std::future::pending().await
}

async fn follow(
    operator: Arc<Operator>,
    api: Api<Guarded<DevicePlugin>>,
    sender: watch::Sender<WrittenRecords>,
) {
    let events = watcher::watcher(api, watcher::Config::default()).backoff(Pauses::default());
    let mut events = std::pin::pin!(events);
    let record = |object| record(object, &operator.installation);
    let mut listed = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            // Replaced as a whole at the end: from half a list a standby would load plugins
            // without their records.
            Ok(Event::InitApply(object)) => listed.extend(record(object)),
            Ok(Event::InitDone) => {
                sender.send_replace(Some(std::mem::take(&mut listed)));
            }
            Ok(Event::Apply(object)) => {
                let name = object.name_any();
                sender.send_modify(|written| match (written, record(object)) {
                    (written, Some(record)) => written.get_or_insert_default().extend([record]),
                    // The object belongs to another installation now.
                    (Some(written), None) => drop(written.remove(&name)),
                    (None, None) => {}
                })
            }
            Ok(Event::Delete(object)) => sender.send_modify(|written| {
                if let Some(written) = written {
                    written.remove(&object.name_any());
                }
            }),
            Err(error) => {
                tracing::debug!(%error, "watch of DevicePlugins failed; reconnecting");
                if let Some(problem) = of_watch(&error, DEVICE_PLUGINS, &operator.installation) {
                    operator.reports.fails(ProblemSource::Watch(DEVICE_PLUGINS), problem);
                }
            }
        }
    }
}

/// Returns the record in an object, if that belongs to this installation or to none.
fn record(object: Guarded<DevicePlugin>, installation: &Installation) -> Option<(String, Record)> {
    let object = object.0.ok()?;
    let ours = !matches!(installation.owner(&object), Owner::Other(_));
    ours.then(|| (object.name_any(), Record::of(&object)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_taken_for_the_same_reference_and_the_last_good_one_for_the_same_repository() {
        let reference = |text: &str| text.parse::<Reference>().expect("a reference");
        let (in_use, last_good) = (Digest::of(b"in use"), Digest::of(b"last good"));
        let record = Record {
            image: Some(reference("registry.example/a:1")),
            digest: Some(in_use.clone()),
            settled: true,
            last_good: Some(last_good.clone()),
            last_good_version: None,
        };
        let same = reference("registry.example/a:1");
        assert_eq!(record.in_use(&same), Some(same.pinned(&in_use)));
        assert_eq!(record.last_good(&same), Some(same.pinned(&last_good)));
        let other_tag = reference("registry.example/a:2");
        assert_eq!(
            (record.in_use(&other_tag), record.last_good(&other_tag)),
            (None, Some(other_tag.pinned(&last_good)))
        );
        assert_eq!(
            record.in_use(&same.pinned(&last_good)),
            None,
            "it says itself which digest is meant"
        );
        for other in ["registry.example/b:1", "oci-layout:///a:1", "file:///a.wasm"] {
            assert_eq!(
                (record.in_use(&reference(other)), record.last_good(&reference(other))),
                (None, None),
                "{other}"
            );
        }
        let file = Record { image: Some(reference("file:///a.wasm")), ..record };
        assert_eq!(
            (
                file.in_use(&reference("file:///a.wasm")),
                file.last_good(&reference("file:///a.wasm"))
            ),
            (None, None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_deleted_once_the_watch_has_listed_and_goes_on_lacking_it() {
        let with = |name: &str| Some(HashMap::from([(name.to_owned(), Record::default())]));
        let (sender, written) = watch::channel(None);
        let deleted = || tokio::time::timeout(10 * WATCH_LAG, absent(written.clone(), "a"));
        assert!(deleted().await.is_err(), "nothing is listed");
        sender.send_replace(with("a"));
        assert!(deleted().await.is_err());
        sender.send_replace(with("b"));
        let created = async {
            tokio::time::sleep(WATCH_LAG / 2).await;
            sender.send_replace(with("a"));
        };
        let (in_vain, ()) = tokio::join!(deleted(), created);
        assert!(in_vain.is_err(), "the watch was late");
        sender.send_replace(with("b"));
        assert!(deleted().await.is_ok());
    }
}
