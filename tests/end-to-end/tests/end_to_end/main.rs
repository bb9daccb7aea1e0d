//! The operator on a real control plane, with simulated devices.
//!
//! One program for all of them: it is linked once, and the tests of all files run side by side.

mod admission;
mod changes;
mod chart;
mod connection;
mod devices_and_nodes;
mod faults;
mod fields;
mod firmware;
mod group_budget;
mod hardware;
mod inspect;
mod kills;
mod kstatus;
mod leadership;
mod main_job;
mod plugin_life;
mod plugins;
mod pod_states;
mod readiness;
mod rollout;
mod rollout_children;
mod rollout_owners;
mod schema;
mod serial;
mod tenancy;
mod trust;
mod uninstall;
