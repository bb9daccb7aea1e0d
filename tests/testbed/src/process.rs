//! Child processes that end with their parent, however it ends.

use std::hash::{BuildHasher, RandomState};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A child process. Its standard input is held open: when this process ends, the child reads
/// end-of-file and exits.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program; its output goes into `<folder>/<name>.log`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        command
            .env("EXIT_WITH_STDIN", "1")
            .stdin(Stdio::piped())
            .stderr(output.try_clone()?)
            .stdout(output)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Starts a program that prints its addresses in its first line, in JSON.
    ///
    /// # Errors
    /// The program cannot be started, or ends without printing anything.
    pub async fn start_and_listen(
        name: &str,
        mut command: Command,
        folder: &Path,
    ) -> anyhow::Result<(Self, serde_json::Value)> {
        let log = folder.join(format!("{name}.log"));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdin(Stdio::piped()).stderr(output).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().with_context(|| format!("{name} has no output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        let addresses = serde_json::from_str(&line)
            .with_context(|| format!("{name} said {line:?}; see {}", log.display()))?;
        Ok((Self { child, name: name.to_owned(), log }, addresses))
    }

    /// Kills the process, as a crash would.
    ///
    /// # Errors
    /// The process could not be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// The process could not be waited for.
    pub async fn wait(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        // Not the child's own wait, which closes its standard input and thereby ends it.
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(status),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Returns the process id while the process runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns an error with the last lines of the output if the process has ended.
    ///
    /// # Errors
    /// The process has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.last_lines(20));
        }
        Ok(())
    }

    /// Returns the last lines of the output.
    #[must_use]
    pub fn last_lines(&self, lines: usize) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(lines).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Ports below the range for outgoing connections: such a connection could take a port before its
/// server does.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Returns a port that no process listens on, and that no other testbed gets until this process
/// ends.
///
/// # Errors
/// No port is free.
pub fn free_port() -> anyhow::Result<u16> {
    // A bound UDP socket of the same number reserves the port; it does not block a TCP server.
    static RESERVED_PORTS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let start = RandomState::new().hash_one(std::process::id());
    for step in 0..u64::from(PORTS.end - PORTS.start) {
        let offset = (start.wrapping_add(step)) % u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(offset)?;
        let Ok(sign) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED_PORTS.lock().unwrap_or_else(PoisonError::into_inner).push(sign);
            return Ok(port);
        }
    }
    bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}

/// Returns the path of a program of this workspace, built beside the running program.
///
/// # Errors
/// The program was not built.
pub fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let folders = executable.ancestors().skip(1).take(2);
    let program = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    program.with_context(|| {
        format!("program {name} is not there: build it first (cargo build --workspace --bins)")
    })
}

/// Returns the root folder of this repository.
#[must_use]
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_owned()
}

/// Runs one of the repository's scripts and returns what it prints.
///
/// # Errors
/// The script fails; its errors are on standard error.
pub fn script(path: &str) -> anyhow::Result<String> {
    let output = std::process::Command::new(repository().join(path))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    anyhow::ensure!(output.status.success(), "{path} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Time limit of a wait for something that always happens: far longer than it takes, because the
/// machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Waits until a condition holds.
///
/// # Errors
/// The condition did not hold within the limit, or its check failed.
pub async fn eventually<T, F>(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        match holds().await.with_context(|| format!("waiting until {what}"))? {
            Some(value) => return Ok(value),
            None if start.elapsed() > limit => bail!("waited until {what}: not within {limit:?}"),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
