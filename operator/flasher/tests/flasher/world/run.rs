//! Run of the program whose output is read as it arrives.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Timeout of each wait in a test.
const LIMIT: Duration = Duration::from_secs(30);

/// Running program.
pub struct Run {
    child: Child,
    output: Arc<Mutex<String>>,
    log: PathBuf,
}

/// Result of a program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; None if a signal ended the program.
    pub code: Option<i32>,
    /// Termination message for the plugin; null if there is none.
    pub message: Value,
}

impl Run {
    /// Starts the program, which writes its termination message into this folder.
    pub fn start(mut command: Command, folder: &Path) -> Self {
        let log = folder.join("termination-log");
        let _ = std::fs::remove_file(&log);
        let mut child = command.spawn().expect("started");
        let output = Arc::<Mutex<String>>::default();
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let kept = output.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut output = kept.lock().expect("not poisoned");
                output.push_str(&line);
                output.push('\n');
            }
        });
        Self { child, output, log }
    }

    pub fn output(&self) -> String {
        self.output.lock().expect("not poisoned").clone()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("told");
    }

    /// Waits until the program prints these words.
    pub async fn says(&self, words: &str) {
        until(|| self.output().contains(words), || format!("it says {words}: {}", self.output()))
            .await;
    }

    /// Waits until the program ends.
    pub async fn ends(mut self) -> Ended {
        let started_at = Instant::now();
        let code = loop {
            match self.child.try_wait().expect("waited") {
                Some(status) => break status.code(),
                None => assert!(started_at.elapsed() < LIMIT, "it goes on: {}", self.output()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let message = std::fs::read(&self.log).ok();
        let message = message.map(|text| serde_json::from_slice(&text).expect("JSON"));
        Ended { code, message: message.unwrap_or_default() }
    }
}

/// Waits until a condition holds, which `what` describes.
pub async fn until(holds: impl Fn() -> bool, what: impl Fn() -> String) {
    let started_at = Instant::now();
    while !holds() {
        assert!(started_at.elapsed() < LIMIT, "never: {}", what());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
