//! Stages that carry out the plan of a FlashJob: [`consult`] asks plugins, [`apply`] sends
//! requests to the API server, [`report`] writes the status, [`transitions`] compares it with the
//! previous one, and [`events`] reports the changes.

pub mod apply;
pub mod consult;
pub mod events;
pub mod report;
pub mod transitions;
