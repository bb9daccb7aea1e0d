//! Commands for plugin authors, one module each.

mod build;
mod inspect;
mod new;
mod pull;
mod push;
mod run;
mod verify;

use clap::Subcommand;

use crate::failure::Failure;
use crate::report::Report;

/// Commands for plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Start a plugin: a folder that builds and tests itself.
    New(new::New),
    /// Build a plugin to a component, and check that it fits the contract.
    Build(build::Build),
    /// Show what a component is: name, device types, imports, settings, cost, signatures.
    Inspect(inspect::Inspect),
    /// Ask a plugin as the operator does, and show the Pod and Service that would be made.
    Run(Box<run::Run>),
    /// Publish a component in a registry.
    Push(push::Push),
    /// Fetch a component from a registry into a file.
    Pull(pull::Pull),
    /// Check the signatures of a component in a registry, as the operator does.
    Verify(verify::Verify),
}

/// Runs a command.
///
/// # Errors
/// The command has no result; the failure has the cause and the exit code.
pub async fn run(command: PluginCommand) -> Result<Report, Failure> {
    match command {
        PluginCommand::New(command) => new::run(&command),
        PluginCommand::Build(command) => build::run(&command).await,
        PluginCommand::Inspect(command) => inspect::run(&command).await,
        PluginCommand::Run(command) => run::run(&command).await,
        PluginCommand::Push(command) => push::run(&command).await,
        PluginCommand::Pull(command) => pull::run(&command).await,
        PluginCommand::Verify(command) => verify::run(&command).await,
    }
}
