//! The API server's audit log: which user requested what, and when. Reads the log's file.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde::Deserialize;

/// One answered request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
    /// Time at which it was received.
    pub request_received_timestamp: Timestamp,
    /// Time at which it was answered.
    pub stage_timestamp: Timestamp,
}

#[derive(Debug, Default, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl Request {
    /// Returns verb and resource, such as `create pods` or `patch flashjobs/status`.
    pub fn what(&self) -> String {
        let Object { resource, subresource, .. } = &self.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{} {resource}{slash}{subresource}", self.verb)
    }

    /// Returns true if it succeeded.
    pub fn is_ok(&self) -> bool {
        self.response_status.code < 300
    }
}

/// The requests of one case.
pub struct Log {
    requests: Vec<Request>,
}

/// A position in the log's file.
pub struct Mark {
    file: PathBuf,
    offset: u64,
}

impl Mark {
    /// Returns the current end of the log.
    pub fn at_end(file: &Path) -> anyhow::Result<Self> {
        let offset = std::fs::metadata(file).context("the audit log")?.len();
        Ok(Self { file: file.to_owned(), offset })
    }

    /// Reads what was logged after this position. A watch is in the log twice; it counts when it
    /// begins.
    pub fn read(&self) -> anyhow::Result<Log> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut requests = Vec::new();
        for line in BufReader::new(file).lines() {
            // The last line may be incomplete.
            let Ok(request) = serde_json::from_str::<Request>(&line?) else { continue };
            let counts =
                if request.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            if request.stage == counts {
                requests.push(request);
            }
        }
        Ok(Log { requests })
    }
}

impl Log {
    /// Returns the requests of a user.
    pub fn of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a Request> {
        self.requests.iter().filter(move |request| request.user.username == user)
    }

    /// Returns the number of requests of a user, by verb and resource.
    pub fn counts(&self, user: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in self.of(user) {
            *counts.entry(request.what()).or_default() += 1;
        }
        counts
    }

    /// Returns true if a delete of each object that a user created was answered. A create that
    /// timed out, as on a machine that is too busy, may have created nothing.
    pub fn deletes_are_answered(&self, user: &str, resource: &str) -> bool {
        let named = |verb: &str| {
            let what = format!("{verb} {resource}");
            self.of(user).filter(move |request| request.what() == what)
        };
        let deleted: HashSet<&str> =
            named("delete").map(|request| request.object_ref.name.as_str()).collect();
        let mut created = named("create").filter(|request| request.is_ok());
        created.all(|request| deleted.contains(request.object_ref.name.as_str()))
    }

    /// Returns the time of the request to create the object of this name.
    pub fn created(&self, what: &str, name: &str) -> Option<Timestamp> {
        let creation = self
            .requests
            .iter()
            .find(|request| request.what() == what && request.object_ref.name == name);
        creation.map(|request| request.request_received_timestamp)
    }

    /// Returns the time that each place was idle: from the k-th end of a Pod, when the kubelet's
    /// report was stored, to the create of the (parallelism + k)-th Pod. The kubelet acts as the
    /// administrator.
    pub fn idle_places(&self, user: &str, parallelism: usize) -> Vec<Duration> {
        let ended = self
            .of("administrator")
            .filter(|request| request.what() == "patch pods/status" && request.is_ok());
        let mut ended: Vec<Timestamp> = ended.map(|request| request.stage_timestamp).collect();
        let created =
            self.of(user).filter(|request| request.what() == "create pods" && request.is_ok());
        let mut created: Vec<Timestamp> =
            created.map(|request| request.request_received_timestamp).collect();
        ended.sort();
        created.sort();
        let pairs = ended.iter().zip(created.iter().skip(parallelism));
        let mut idle: Vec<Duration> = pairs
            .map(|(end, next)| next.duration_since(*end).try_into().unwrap_or_default())
            .collect();
        idle.sort();
        idle
    }
}

/// Returns the value below which this share of the sorted values lies, in milliseconds.
pub fn percentile(sorted: &[Duration], share: f64) -> Option<f64> {
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(index).map(|value| value.as_secs_f64() * 1000.0)
}
