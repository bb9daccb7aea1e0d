//! Rules in a model cluster: stored objects, devices, and a FlashJob controller that lags behind.
//! Everything else is discarded between two decisions, as it would be if the process were killed.

mod edits;
mod events;
mod flash_job;
mod gates;
mod life;
mod model;
mod planning;
mod properties;
mod results;
