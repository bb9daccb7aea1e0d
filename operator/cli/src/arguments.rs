//! The command line.

use clap::{Parser, Subcommand, ValueEnum};

use crate::check::Check;
use crate::completion::Completion;
use crate::failure::Failure;
use crate::fleet;
use crate::plugin::PluginCommand;

/// FlashJob from the command line.
#[derive(Debug, Parser)]
#[command(name = "kubectl-flashjob", bin_name = "kubectl flashjob", version)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// Form of the output; not every command has every form.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, help_heading = "Output")]
    pub output: Output,
}

/// A group of commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List devices: type, version, whether they can be reached, and which FlashJob holds them.
    Devices(fleet::devices::Devices),
    /// Flash devices: asks for everything, or takes it from options.
    Flash(Box<fleet::flash::Flash>),
    /// Show what the operator would create for a FlashJob, and why it would not.
    Preview(Box<fleet::preview::Preview>),
    /// Show how FlashJobs get on; with -w until they end.
    Status(fleet::status::Status),
    /// Start no more devices of FlashJobs; those in flight finish.
    Pause(fleet::change::Pause),
    /// Let paused FlashJobs go on.
    Resume(fleet::change::Resume),
    /// Delete FlashJobs, with their Pods and Services.
    Cancel(fleet::change::Cancel),
    /// Flash the failed devices of a FlashJob again, as a new FlashJob.
    Retry(fleet::retry::Retry),
    /// Write the result of each device of a FlashJob: CSV, JSON or JUnit.
    Report(fleet::results::Results),
    /// Check an installation: what is missing for devices to be flashed, and what to do next.
    Check(Check),
    /// Write, try, publish and check device plugins.
    Plugin {
        /// The command.
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// Write a script that completes commands and options in a shell.
    Completion(Completion),
}

/// Forms of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[value(alias = "text")]
    Table,
    /// For people, with more columns.
    Wide,
    /// One JSON object.
    Json,
    /// The same as YAML.
    Yaml,
    /// Kind and name of each object.
    Name,
    /// Comma-separated values.
    Csv,
    /// JUnit's XML.
    Junit,
}

impl Arguments {
    /// Checks that the command has the form that is asked for, before it does anything.
    ///
    /// # Errors
    /// It has not.
    pub fn check_output(&self) -> Result<(), Failure> {
        use Output::{Csv, Json, Junit, Name, Table, Wide, Yaml};
        let forms: &[Output] = match &self.command {
            Command::Devices(_) => &[Table, Wide, Json, Yaml, Name, Csv],
            Command::Status(_) => &[Table, Wide, Json, Yaml, Name],
            Command::Pause(_) | Command::Resume(_) | Command::Cancel(_) => {
                &[Table, Json, Yaml, Name]
            }
            Command::Flash(_) | Command::Retry(_) => &[Table, Json, Yaml, Name],
            Command::Report(_) => &[Table, Json, Yaml, Csv, Junit],
            Command::Preview(_) | Command::Check(_) | Command::Plugin { .. } => {
                &[Table, Json, Yaml]
            }
            Command::Completion(_) => &[Table],
        };
        if forms.contains(&self.output) {
            return Ok(());
        }
        let name =
            |output: &Output| output.to_possible_value().map(|value| value.get_name().to_owned());
        let forms: Vec<String> = forms.iter().filter_map(name).collect();
        let asked = name(&self.output).unwrap_or_default();
        Err(Failure::usage(format!("this command has no -o {asked}; it has {}", forms.join(", "))))
    }
}
