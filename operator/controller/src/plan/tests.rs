//! The rules, tested on snapshots: no cluster, no runtime, no clock.
