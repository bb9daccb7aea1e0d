//! The plugin host with registries, mirrors, signatures and hostile plugins.
//!
//! One program for all of them: it is linked once, and the tests of all files run side by side.

mod imports;
mod limits;
mod log;
mod mirrors;
mod registries;
mod signed_mirrors;
mod trust;
