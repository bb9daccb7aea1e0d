//! Simulators of hardware, kubelet and load balancer. They report only what has really happened.
//!
//! - [`devices`]: microcontrollers with two firmware slots that update themselves over the
//!   network.
//! - [`akri`]: an Instance for each device, which follows the device's report.
//! - [`kubelet`]: a node that runs each Pod's container as a local process.
//! - [`load_balancer`]: a pool of loopback addresses.
//! - [`serial`]: a chip on a node's serial port, its loader's protocol and its Instance.
//! - [`smp`]: a device with MCUboot, its SMP server on UDP or a serial port and its Instance.

pub mod akri;
pub mod devices;
pub mod firmware;
pub mod kubelet;
pub mod load_balancer;
pub mod process;
pub mod serial;
pub mod smp;
pub mod terminal;
