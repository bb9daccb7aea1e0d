//! Telemetry: [`logs`], [`metrics`], [`traces`], and problem reports in [`health`].

pub mod health;
pub mod logs;
pub mod metrics;
pub mod traces;
