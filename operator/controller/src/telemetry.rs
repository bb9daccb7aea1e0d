//! What is told outside: [`logs`], [`metrics`] and [`traces`], and in [`health`] what is wrong.

pub mod health;
pub mod logs;
pub mod metrics;
pub mod traces;
