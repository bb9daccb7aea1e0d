//! Runs this very program in namespaces of its own (network, processes, mounts) and below a cgroup
//! of its own, and removes all that it leaves. Starts processes; writes below /sys/fs/cgroup and
//! into a temporary folder.
//!
//! Three processes take part, all of this program:
//!
//! - the **outer** one, which a person or cargo started, waits for the inner one and passes its
//!   result on;
//! - the **inner** one is told the end of the outer one by the end of its standard input, and ends
//!   then; with the first process of its namespace all others are killed by the kernel, and their
//!   mounts and links are gone with the last of them;
//! - the **cleaner** stands outside the namespaces, in a process group of its own. It is told the
//!   same way, and removes the cgroups and the folder as soon as nobody is in them. So nothing
//!   stays after a kill of the outer or the inner process either.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// Name of the cgroup; only the inner process has it.
const INNER: &str = "FLASHJOB_NODE_CGROUP";
/// Name of the cgroup that is to be removed; only the cleaner has it.
const CLEANER: &str = "FLASHJOB_NODE_CLEAN";
/// Temporary folder of all parts.
const FOLDER: &str = "FLASHJOB_NODE_FOLDER";
/// Folder in which control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// A process that was killed is gone within this time; the kernel may have to write its memory
/// away.
const CLEAN_LIMIT: Duration = Duration::from_secs(60);

/// Namespaces, cgroup and folder of this process.
#[derive(Debug)]
pub struct Isolation {
    /// Cgroup below which everything runs, as a path below the root of each hierarchy.
    pub cgroup: String,
    /// Temporary folder; gone in the end.
    pub folder: PathBuf,
}

/// Runs `body` in namespaces of its own; the caller's process only waits for it, after it has done
/// what `prepare` does: in the namespaces there is no network but the node's.
///
/// # Errors
/// `prepare` or `body` fails, or the namespaces cannot be made.
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

/// The outer process.
fn outside() -> anyhow::Result<ExitCode> {
    let keep = std::env::var_os("FLASHJOB_KEEP").is_some();
    let folder =
        tempfile::Builder::new().prefix("flashjob-node-").disable_cleanup(keep).tempdir()?;
    let cgroup = format!("flashjob-node-{}", std::process::id());
    let own = std::env::current_exe()?;
    let mut cleaner = Command::new(&own);
    cleaner
        .env(CLEANER, &cgroup)
        .env(FOLDER, folder.path())
        .process_group(0)
        .stdin(Stdio::piped());
    let mut cleaner = cleaner.stdout(Stdio::null()).spawn().context("cannot start the cleaner")?;
    let mut inner = Command::new("unshare");
    inner.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The first process of the namespace has to collect those that have lost their parent; a shell
    // does.
    inner.args(["sh", "-c", "\"$@\"; exit $?", "sh"]).arg(&own).args(std::env::args_os().skip(1));
    inner.env(INNER, &cgroup).env(FOLDER, folder.path()).stdin(Stdio::piped());
    let mut inner = inner.spawn().context("cannot start unshare")?;
    // What is written here tells of this process's end by ending itself.
    let _told = inner.stdin.take();
    let result = inner.wait()?;
    drop(cleaner.stdin.take());
    ensure!(cleaner.wait()?.success(), "not everything could be removed; see above");
    Ok(ExitCode::from(u8::try_from(result.code().unwrap_or(1)).unwrap_or(1)))
}

/// Ends this process with its standard input.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
}

/// The cleaner: waits for the end of the outer process, then removes cgroups and folder.
fn clean_up(cgroup: &str) -> anyhow::Result<()> {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let begin = Instant::now();
    loop {
        let left: Vec<PathBuf> =
            cgroup_folders(cgroup).into_iter().filter(|path| !remove_cgroup(path)).collect();
        if left.is_empty() {
            break;
        }
        ensure!(
            begin.elapsed() < CLEAN_LIMIT,
            "cgroups that stay, as processes are in them: {left:?}"
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

/// The cgroup's folders: one in each hierarchy of version 1, or the one of version 2.
fn cgroup_folders(cgroup: &str) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let hierarchies =
        std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(cgroup));
    all.filter(|folder| folder.is_dir()).collect()
}

/// Removes a cgroup and all below it; false where somebody is in it still.
fn remove_cgroup(folder: &Path) -> bool {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !remove_cgroup(&entry.path()) {
            return false;
        }
    }
    std::fs::remove_dir(folder).is_ok() || !folder.exists()
}

/// Makes the cgroup and puts this process into `<cgroup>/host`: whoever is in one of its cgroups
/// is seen there.
fn join(cgroup: &str) -> anyhow::Result<()> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").is_file() {
        // Version 2: controllers are handed down, and processes are in leaves only.
        let controllers = std::fs::read_to_string(root.join("cgroup.controllers"))?;
        let all: Vec<String> =
            controllers.split_whitespace().map(|name| format!("+{name}")).collect();
        std::fs::write(root.join("cgroup.subtree_control"), all.join(" "))?;
        let own = root.join(cgroup);
        std::fs::create_dir(&own)?;
        std::fs::write(own.join("cgroup.subtree_control"), all.join(" "))?;
        return enter(&own.join("host"));
    }
    for hierarchy in std::fs::read_dir(root)?
        .flatten()
        .filter(|entry| entry.path().join("cgroup.procs").is_file())
    {
        // What is a link is another name of a hierarchy.
        if hierarchy.file_type()?.is_dir() {
            let own = hierarchy.path().join(cgroup);
            std::fs::create_dir(&own)?;
            inherit_cpus(&hierarchy.path(), &own)?;
            enter(&own.join("host"))?;
        }
    }
    Ok(())
}

fn enter(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(folder)?;
    if let Some(parent) = folder.parent() {
        inherit_cpus(parent, folder)?;
    }
    // 0 is the process that writes.
    std::fs::write(folder.join("cgroup.procs"), "0")
        .with_context(|| format!("cannot enter {}", folder.display()))
}

/// A cpuset of version 1 takes no process until its CPUs and memory nodes are named.
fn inherit_cpus(parent: &Path, own: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if parent.join(file).is_file()
            && std::fs::read_to_string(own.join(file))?.trim().is_empty()
        {
            std::fs::write(own.join(file), std::fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}
