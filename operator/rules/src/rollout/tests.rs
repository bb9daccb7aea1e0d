//! Rules in a model cluster: objects that are stored, devices, and a FlashJob controller that is
//! late. Everything else is thrown away between two decisions, as a kill would.

mod edits;
mod events;
mod flash_job;
mod gates;
mod life;
mod model;
mod planning;
mod properties;
mod results;
