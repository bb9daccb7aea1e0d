//! A complete environment on loopback: a real control plane, a real registry, simulated hardware,
//! and the operator. For tests, the demo and benchmarks. It uses free ports and a temporary
//! folder, and ends with the process that started it.

pub mod artifacts;
pub mod audit;
pub mod certificates;
pub mod control_plane;
pub mod fleet;
pub mod keyless;
pub mod options;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod serial;
pub mod show;
pub mod signatures;
pub mod simulators;
pub mod smp;
pub mod testbed;
pub mod wire;

pub use fleet::Fleet;
pub use options::Options;
pub use proxy::Proxy;
pub use rustix::process::Signal;
pub use testbed::Testbed;
pub use wire::Wire;
