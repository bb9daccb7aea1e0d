//! A real node for tests: kubelet, containerd, kube-proxy and MetalLB's controller beside the
//! testbed's control plane and registry. Only the devices, and the Akri that finds them, are
//! simulated.
//!
//! - [`requirements`] says what the machine lacks; [`isolation`] runs a whole test program in
//!   namespaces of its own, and removes every trace of it, however it ended.
//! - [`network`] is the node's own network; [`runtime`] is containerd with the images of
//!   [`images`]; [`artifacts`] fills the registry; [`node`] puts all parts together.
//! - [`devices`] are simulated devices and their Instances in one namespace.
//! - [`installation`] installs the operator as users do; [`rights`] compares its rights with those
//!   that it used.
//! - [`go_operator`] is the Go operator from which users migrate.
//! - [`suite`] is the harness of the tests: one node for all of them, one after the other.

pub mod artifacts;
pub mod devices;
pub mod go_operator;
pub mod images;
pub mod installation;
pub mod inventory;
pub mod isolation;
pub mod life;
pub mod network;
pub mod node;
pub mod requirements;
pub mod rights;
pub mod runtime;
pub mod suite;

pub use devices::Devices;
pub use node::Node;
