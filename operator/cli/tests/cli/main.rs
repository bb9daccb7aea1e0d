//! `kubectl flashjob` as plugin authors and fleet operators use it.
//!
//! One program for all of them: it is linked once, and the tests of all files run side by side.

mod author;
mod authoring;
mod check;
mod commands;
mod completion;
mod device;
mod dialogue;
mod first_run;
mod fleet;
mod intervene;
mod person;
mod preview;
mod rollout;
mod sessions;
mod stopped;
