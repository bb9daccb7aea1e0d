//! The stages that carry out what the plan of a FlashJob asks for: [`consult`] asks plugins,
//! [`apply`] asks the API server, [`report`] writes the status, and [`transitions`] says what that
//! changed, which [`events`] tell.

pub mod apply;
pub mod consult;
pub mod events;
pub mod report;
pub mod transitions;
