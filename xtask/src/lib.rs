//! Code that the tests of this repository share with the program behind the Makefile.

pub mod image;
pub mod modules;
