//! Runs this program in separate namespaces (network, processes, mounts) and below a separate
//! cgroup, and removes all that it leaves. Starts processes; writes below /sys/fs/cgroup and into
//! a temporary folder.
//!
//! Three processes take part, all of this program:
//!
//! - the **outer** one, which a person or cargo started, waits for the inner one and passes its
//!   result on;
//! - the **inner** one ends when its standard input does, which ends with the outer one. With the
//!   first process of its PID namespace the kernel kills all others, and their mounts and network
//!   links are gone with the last of them;
//! - the **cleaner** is outside the namespaces, in a separate process group. It also waits for the
//!   end of its standard input, and removes the cgroups and the folder as soon as no process is in
//!   them. So nothing is left even after a kill of the outer or the inner process.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// Variable with the name of the cgroup; only the inner process has it.
const INNER: &str = "FLASHJOB_NODE_CGROUP";
/// Variable with the name of the cgroup to remove; only the cleaner has it.
const CLEANER: &str = "FLASHJOB_NODE_CLEAN";
/// Variable with the path of the temporary folder of all parts.
const FOLDER: &str = "FLASHJOB_NODE_FOLDER";
/// Mount point of the cgroup file system.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Timeout for killed processes to be gone; the kernel may have to write their memory to disk
/// first.
const CLEAN_LIMIT: Duration = Duration::from_secs(60);

/// Namespaces, cgroup and folder of this process.
#[derive(Debug)]
pub struct Isolation {
    /// Cgroup below which everything runs, as a path relative to the root of each hierarchy.
    pub cgroup: String,
    /// Temporary folder, deleted at the end.
    pub folder: PathBuf,
}

/// Runs `body` in separate namespaces, while the calling process waits for it. `prepare` runs
/// before, outside the namespaces, in which there is no network but the node's.
///
/// # Errors
/// `prepare` or `body` fails, or the namespaces cannot be created.
pub fn run(
    prepare: impl FnOnce() -> anyhow::Result<()>,
    body: impl FnOnce(Isolation) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    if let Ok(cgroup) = std::env::var(CLEANER) {
        return clean_up(&cgroup).map(|()| ExitCode::SUCCESS);
    }
    let Ok(cgroup) = std::env::var(INNER) else {
        prepare()?;
        return outside();
    };
    let folder = std::env::var_os(FOLDER).context("no folder is given")?.into();
    end_with_stdin();
    join(&cgroup)?;
    body(Isolation { cgroup, folder })
}

/// Runs the outer process.
fn outside() -> anyhow::Result<ExitCode> {
    let keep = std::env::var_os("FLASHJOB_KEEP").is_some();
    let folder =
        tempfile::Builder::new().prefix("flashjob-node-").disable_cleanup(keep).tempdir()?;
    let cgroup = format!("flashjob-node-{}", std::process::id());
    let program = std::env::current_exe()?;
    let mut cleaner = Command::new(&program);
    cleaner
        .env(CLEANER, &cgroup)
        .env(FOLDER, folder.path())
        .process_group(0)
        .stdin(Stdio::piped());
    let mut cleaner = cleaner.stdout(Stdio::null()).spawn().context("cannot start the cleaner")?;
    let mut inner = Command::new("unshare");
    inner.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The first process of the namespace must reap orphaned processes; a shell does.
    inner
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(&program)
        .args(std::env::args_os().skip(1));
    inner.env(INNER, &cgroup).env(FOLDER, folder.path()).stdin(Stdio::piped());
    let mut inner = inner.spawn().context("cannot start unshare")?;
    // The other end of this pipe reads end-of-file when this process ends.
    let _pipe = inner.stdin.take();
    let result = inner.wait()?;
    drop(cleaner.stdin.take());
    ensure!(cleaner.wait()?.success(), "not everything could be removed; see above");
    Ok(ExitCode::from(u8::try_from(result.code().unwrap_or(1)).unwrap_or(1)))
}

/// Ends this process when its standard input ends.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
}

/// Runs the cleaner: waits for the end of the outer process, then removes cgroups and folder.
fn clean_up(cgroup: &str) -> anyhow::Result<()> {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let begin = Instant::now();
    loop {
        let busy_cgroups: Vec<PathBuf> =
            cgroup_folders(cgroup).into_iter().filter(|path| !remove_cgroup(path)).collect();
        if busy_cgroups.is_empty() {
            break;
        }
        ensure!(
            begin.elapsed() < CLEAN_LIMIT,
            "cgroups that stay, as processes are in them: {busy_cgroups:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let folder = std::env::var_os(FOLDER).map(PathBuf::from).context("no folder is given")?;
    if std::env::var_os("FLASHJOB_KEEP").is_none() && folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Returns the cgroup's folders: one in each hierarchy of version 1, or the one of version 2.
fn cgroup_folders(cgroup: &str) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let hierarchies =
        std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(cgroup));
    all.filter(|folder| folder.is_dir()).collect()
}

/// Removes a cgroup and all below it; returns false if it still contains a process.
fn remove_cgroup(folder: &Path) -> bool {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !remove_cgroup(&entry.path()) {
            return false;
        }
    }
    std::fs::remove_dir(folder).is_ok() || !folder.exists()
}

/// Creates the cgroup, and moves this process into `<cgroup>/host`. Every process in one of its
/// cgroups is then found below it.
fn join(cgroup: &str) -> anyhow::Result<()> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").is_file() {
        // Version 2: a parent enables controllers for its children, and only leaves contain
        // processes.
        let controllers = std::fs::read_to_string(root.join("cgroup.controllers"))?;
        let all: Vec<String> =
            controllers.split_whitespace().map(|name| format!("+{name}")).collect();
        std::fs::write(root.join("cgroup.subtree_control"), all.join(" "))?;
        let folder = root.join(cgroup);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("cgroup.subtree_control"), all.join(" "))?;
        return enter(&folder.join("host"));
    }
    for hierarchy in std::fs::read_dir(root)?
        .flatten()
        .filter(|entry| entry.path().join("cgroup.procs").is_file())
    {
        // A symbolic link is a second name of a hierarchy.
        if hierarchy.file_type()?.is_dir() {
            let folder = hierarchy.path().join(cgroup);
            std::fs::create_dir(&folder)?;
            inherit_cpus(&hierarchy.path(), &folder)?;
            enter(&folder.join("host"))?;
        }
    }
    Ok(())
}

fn enter(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(folder)?;
    if let Some(parent) = folder.parent() {
        inherit_cpus(parent, folder)?;
    }
    // 0 means the process that writes.
    std::fs::write(folder.join("cgroup.procs"), "0")
        .with_context(|| format!("cannot enter {}", folder.display()))
}

/// Copies CPUs and memory nodes from the parent: a cpuset of version 1 accepts no process before.
fn inherit_cpus(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if parent.join(file).is_file()
            && std::fs::read_to_string(child.join(file))?.trim().is_empty()
        {
            std::fs::write(child.join(file), std::fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}
