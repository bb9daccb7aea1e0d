//! Simulators that stand in for hardware, kubelet and load balancer; honest ones: what they report
//! has happened.
//!
//! - [`devices`]: microcontrollers with two firmware slots that update themselves over the
//!   network.
//! - [`akri`]: an Instance for each device, following what the device says of itself.
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
