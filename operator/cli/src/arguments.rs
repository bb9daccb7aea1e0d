//! Definition and parsing of the command line.

use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{
    Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};

use crate::check::Check;
use crate::completion::Completion;
use crate::fleet;
use crate::output::Output;
use crate::plugin::PluginCommand;

/// Name of the option for the output format.
const OUTPUT: &str = "output";

/// FlashJob from the command line.
#[derive(Debug, Parser)]
#[command(name = "kubectl-flashjob", bin_name = "kubectl flashjob", version)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// Output format: the value of -o, before or after the command.
    #[arg(skip)]
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
    /// Show how FlashJobs get on, with -w until they end; without a name FlashRollouts too.
    Status(fleet::status::Status),
    /// Flash a fleet batch by batch: create, approve, pause and follow FlashRollouts.
    Rollout {
        /// The command.
        #[command(subcommand)]
        command: fleet::rollout::RolloutCommand,
    },
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

/// Output formats of each command.
const FORMS: [(&str, &[Output]); 14] = {
    use Output::{Csv, Json, Junit, Name, Table, Wide, Yaml};
    [
        ("devices", &[Table, Wide, Json, Yaml, Name, Csv]),
        ("flash", &[Table, Json, Yaml, Name]),
        ("preview", &[Table, Json, Yaml]),
        ("status", &[Table, Wide, Json, Yaml, Name]),
        ("rollout", &[Table, Wide, Json, Yaml, Name]),
        ("pause", &[Table, Json, Yaml, Name]),
        ("resume", &[Table, Json, Yaml, Name]),
        ("cancel", &[Table, Json, Yaml, Name]),
        ("retry", &[Table, Json, Yaml, Name]),
        ("report", &[Table, Json, Yaml, Csv, Junit]),
        ("check", &[Table, Json, Yaml]),
        ("plugin", &[Table, Json, Yaml]),
        ("completion", &[Table]),
        ("help", &[Table]),
    ]
};

/// Returns the definition of the command line, with the output formats of each command.
#[must_use]
pub fn command() -> clap::Command {
    let mut command = taking_dashes(Arguments::command()).arg(output(Output::value_variants()));
    for (name, forms) in FORMS {
        if command.find_subcommand(name).is_some() {
            command = command.mut_subcommand(name, |command| with_output(command, forms));
        }
    }
    command
}

/// Adds the option `-o` to a command and to those below it. Of a global option of clap, only the
/// value behind the last command would remain, and a contradiction would go unnoticed.
fn with_output(command: clap::Command, forms: &[Output]) -> clap::Command {
    command.arg(output(forms)).mut_subcommands(|below| with_output(below, forms))
}

/// Lets times and numbers begin with a dash: the parser of the value gives a better error for `-1`
/// than clap, which takes it for an option.
fn taking_dashes(command: clap::Command) -> clap::Command {
    let is_measure = |argument: &Arg| {
        let names = argument.get_value_names().into_iter().flatten();
        argument.get_long().is_some()
            && names.into_iter().any(|name| *name == "TIME" || *name == "N")
    };
    command
        .mut_args(|argument| match is_measure(&argument) {
            true => argument.allow_hyphen_values(true),
            false => argument,
        })
        .mut_subcommands(taking_dashes)
}

/// Returns the option `-o` of a command with these output formats.
fn output(forms: &[Output]) -> Arg {
    let values = forms.iter().filter_map(Output::to_possible_value);
    let parser = PossibleValuesParser::new(values)
        .try_map(|text| <Output as ValueEnum>::from_str(&text, true));
    Arg::new(OUTPUT)
        .short('o')
        .long(OUTPUT)
        .action(ArgAction::Append)
        .value_parser(parser)
        .default_value("table")
        .help("Form of the output")
        .help_heading("Output")
}

/// Parses the command line of this process.
///
/// # Errors
/// The command line is invalid, or asks for help.
pub fn read() -> Result<Arguments, clap::Error> {
    parse(std::env::args_os())
}

fn parse<W: Into<OsString> + Clone>(
    words: impl IntoIterator<Item = W>,
) -> Result<Arguments, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    let mut arguments = Arguments::from_arg_matches(&matches)?;
    arguments.output = output_of(&matches)
        .map_err(|message| command.error(ErrorKind::ArgumentConflict, message))?;
    let name = matches.subcommand_name().unwrap_or_default();
    let forms = FORMS.iter().find(|(command, _)| *command == name).map(|(_, forms)| *forms);
    match forms {
        // Before the command, the option takes the formats of all commands.
        Some(forms) if !forms.contains(&arguments.output) => {
            let message = format!(
                "kubectl flashjob {name} has no output format '{}'; give -o one of: {}",
                names(&[arguments.output]),
                names(forms)
            );
            Err(command.error(ErrorKind::InvalidValue, message))
        }
        _ => Ok(arguments),
    }
}

/// Returns the output format of a command line, which may name it before and after the command.
///
/// # Errors
/// It names two: a script that adds `-o` to the words of a person would otherwise get another
/// format than it parses.
fn output_of(matches: &ArgMatches) -> Result<Output, String> {
    let mut given = Vec::new();
    let mut level = Some(matches);
    while let Some(matches) = level {
        if matches.value_source(OUTPUT) == Some(ValueSource::CommandLine) {
            given.extend(matches.get_many::<Output>(OUTPUT).into_iter().flatten().copied());
        }
        level = matches.subcommand().map(|(_, below)| below);
    }
    let first = given.first().copied().unwrap_or_default();
    match given.into_iter().find(|other| *other != first) {
        None => Ok(first),
        Some(other) => Err(format!(
            "-o is given with different formats, {} and {}; give one",
            names(&[first]),
            names(&[other])
        )),
    }
}

/// Returns the names of output formats, separated by commas.
fn names(forms: &[Output]) -> String {
    let values = forms.iter().filter_map(Output::to_possible_value);
    values.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(", ")
}

/// Returns the output format that a command line requests, even if the rest of the line is
/// invalid: clap stops at the first error.
#[must_use]
pub fn asked_output(words: &[String]) -> Output {
    let mut values = words.iter().enumerate().filter_map(|(index, word)| match word.as_str() {
        "-o" | "--output" => words.get(index + 1).map(String::as_str),
        word => word.strip_prefix("--output=").or_else(|| {
            let value = word.strip_prefix("-o")?;
            Some(value.strip_prefix('=').unwrap_or(value))
        }),
    });
    values
        .find_map(|word| <Output as ValueEnum>::from_str(word, true).ok())
        .unwrap_or(Output::Table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_says_which_forms_of_output_it_has() {
        for command in Arguments::command().get_subcommands() {
            assert!(FORMS.iter().any(|(name, _)| *name == command.get_name()), "{command}");
        }
        let parse = |line: &str| parse(line.split(' ')).map(|arguments| arguments.output);
        assert_eq!(parse("kubectl-flashjob report a -o junit").ok(), Some(Output::Junit));
        assert!(parse("kubectl-flashjob status a -o junit").is_err());
        assert!(parse("kubectl-flashjob plugin inspect a -o name").is_err());
    }

    #[test]
    fn an_output_format_may_be_repeated_but_not_contradicted() {
        let parse = |line: &str| parse(line.split(' ')).map(|arguments| arguments.output);
        for line in [
            "-o json status -o json",
            "status a --output=json -ojson",
            "-o json rollout -o json status a -o json",
        ] {
            let output = parse(&format!("kubectl-flashjob {line}")).ok();
            assert_eq!(output, Some(Output::Json), "{line}");
        }
        for line in [
            "-o json status -o yaml",
            "status a -o json -o json -o yaml",
            "-o json rollout status a -o yaml",
            "rollout -o json status a -o yaml",
        ] {
            let refusal = parse(&format!("kubectl-flashjob {line}")).err();
            let refusal = refusal.map(|error| error.to_string()).unwrap_or_default();
            let expected = "-o is given with different formats, json and yaml; give one";
            assert!(refusal.contains(expected), "{line}: {refusal}");
        }
    }

    #[test]
    fn an_output_format_before_the_command_holds_and_is_one_of_that_command() {
        let parse = |line: &str| parse(line.split(' ')).map(|arguments| arguments.output);
        for line in ["-o json status", "-ojson rollout status a", "--output=json plugin inspect a"]
        {
            let output = parse(&format!("kubectl-flashjob {line}")).ok();
            assert_eq!(output, Some(Output::Json), "{line}");
        }
        for (line, expected) in [
            (
                "-o junit status",
                "status has no output format 'junit'; give -o one of: table, wide",
            ),
            ("-o csv rollout status a", "rollout has no output format 'csv'"),
            ("-o json completion bash", "completion has no output format 'json'"),
        ] {
            let refusal = parse(&format!("kubectl-flashjob {line}")).err();
            let refusal = refusal.map(|error| error.to_string()).unwrap_or_default();
            assert!(refusal.contains(expected), "{line}: {refusal}");
        }
    }

    #[test]
    fn a_time_or_number_with_a_dash_is_told_what_is_expected() {
        for (words, expected) in [
            (["status", "a", "--timeout", "-1"], "such as 90s, 5m"),
            (["status", "a", "--timeout", "-5s"], "such as 90s, 5m"),
            (["flash", "--all", "--request-timeout", "-1"], "such as 90s, 5m"),
            (["flash", "--all", "--parallelism", "-1"], "from 1 to 500"),
            (["flash", "--all", "--batch-size", "-1"], "from 1 to 4096"),
            (["flash", "--all", "--parallelism", "0"], "\"0\" is not a number from 1 to 500"),
        ] {
            let line = [&["kubectl-flashjob"], &words[..]].concat();
            let refusal =
                command().try_get_matches_from(line).err().map(|error| error.to_string());
            assert!(refusal.is_some_and(|refusal| refusal.contains(expected)), "{words:?}");
        }
    }

    #[test]
    fn the_form_of_a_command_line_that_cannot_be_read_is_found() {
        let output_of =
            |text: &str| asked_output(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for text in ["a -o json --b", "-ojson", "-o=JSON", "--output=json", "--output json"] {
            assert_eq!(output_of(text), Output::Json, "{text}");
        }
        for text in ["a", "-o", "-o nothing", "--other=json"] {
            assert_eq!(output_of(text), Output::Table, "{text}");
        }
    }
}
