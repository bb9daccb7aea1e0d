//! The rules of a FlashJob, one file per theme, and a model cluster in which they must hold whatever happens.

mod fixture;
mod model;
mod properties;
mod purity;
mod rules;
mod simulation;
