//! Signals to the outside: [`logs`], [`metrics`], [`traces`], and problems in [`health`].

pub mod health;
pub mod logs;
pub mod metrics;
pub mod traces;
