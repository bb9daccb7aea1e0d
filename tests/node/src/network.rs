//! The network of the node, in the network namespace of this process: one end of a veth pair has
//! the node's address. Runs `ip`.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, ensure};

/// The node's own address. Registry, API server and devices listen on it too.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Hostname of the node, and name of its Node object.
pub const HOSTNAME: &str = "real-node";
/// Addresses of Pods.
pub const PODS: &str = "10.98.0.0/24";
/// Addresses that MetalLB gives to Services.
pub const EXTERNAL: &str = "10.96.0.1-10.96.0.4";
/// Address without a host: packets without another route go to the veth pair's other end, and are
/// lost.
const NOWHERE: &str = "10.99.0.254";

/// Sets the network up.
///
/// # Errors
/// The kernel refuses a step.
pub fn set_up() -> anyhow::Result<()> {
    let address = format!("{NODE}/24");
    let steps: [&[&str]; 6] = [
        &["link", "set", "lo", "up"],
        &["link", "add", "node0", "type", "veth", "peer", "name", "node1"],
        &["address", "add", &address, "dev", "node0"],
        &["link", "set", "node0", "up"],
        &["link", "set", "node1", "up"],
        &["route", "add", "default", "via", NOWHERE],
    ];
    for step in steps {
        let output = Command::new("ip").args(step).output().context("ip")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {}: {stderr}", step.join(" "));
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")?;
    // If the kernel let bridged packets bypass iptables, Pods would not reach Services of their
    // own node.
    let bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if std::path::Path::new(bridged).exists() {
        std::fs::write(bridged, "1").context("bridge-nf-call-iptables")?;
    }
    Ok(())
}
