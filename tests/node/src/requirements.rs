//! Requirements of a real node on the machine. Looks for programs, and tries the kernel's
//! features.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs, each with the Debian package that contains it.
const PROGRAMS: [(&str, &str); 7] = [
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("runc", "runc"),
    ("go", "golang (1.26 or newer)"),
    ("cc", "build-essential"),
];

/// Folders in which distributions install the CNI plugins.
const NETWORK_PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Commands that try the kernel features that the node needs, in the same kind of namespaces: a
/// network link, a bridge for Pods, nftables rules, overlay file systems.
const TRIAL: &str = "ip link add trial0 type veth peer name trial1 \
    && ip link add trial type bridge \
    && nft add table ip trial && grep -qw overlay /proc/filesystems";

/// Returns the folder of the CNI plugins.
#[must_use]
pub fn network_plugins() -> Option<&'static Path> {
    let has_bridge = |folder: &&Path| folder.join("bridge").is_file();
    NETWORK_PLUGINS.into_iter().map(Path::new).find(has_bridge)
}

/// Returns the missing requirement, in one sentence; `None` where a real node can run.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("they need root".to_owned());
    }
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(name, _)| find(name).is_none())
        .map(|(_, package)| *package)
        .collect();
    if network_plugins().is_none() {
        packages.push("containernetworking-plugins");
    }
    if !packages.is_empty() {
        return Some(format!("missing: apt-get install {}", packages.join(" ")));
    }
    let mut trial = Command::new("unshare");
    trial.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", TRIAL]);
    let refused = match trial.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "this kernel does not offer namespaces, veth, bridge, nftables and overlayfs: {refused}"
    ))
}

/// Returns the path of a program, also from the folders of an administrator's programs.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
