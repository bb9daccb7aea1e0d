//! Types that several crates share: digests, device types, and the plugin contract in the host's
//! own types. Types only: no client, no runtime, no file.
#![deny(missing_docs)]

mod call_error;
mod device_type;
mod digest;
pub mod plugin;

pub use call_error::CallError;
pub use device_type::{DeviceType, InvalidDeviceType, ServedTypes};
pub use digest::{Digest, InvalidDigest};
