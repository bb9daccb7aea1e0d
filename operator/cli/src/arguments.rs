//! The command line.

use clap::{Parser, Subcommand, ValueEnum};

use crate::check::Check;
use crate::plugin::PluginCommand;

/// FlashJob from the command line.
#[derive(Debug, Parser)]
#[command(name = "kubectl-flashjob", bin_name = "kubectl flashjob", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// For people, or one JSON object for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text, help_heading = "Output")]
    pub output: Output,
}

/// A group of commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check an installation: what is missing for devices to be flashed, and what to do next.
    Check(Check),
    /// Write, try, publish and check device plugins.
    Plugin {
        /// What to do.
        #[command(subcommand)]
        command: PluginCommand,
    },
}

/// For whom the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}
