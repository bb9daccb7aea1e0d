//! `completion`: scripts for shells, and the program that kubectl calls.

use std::iter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, FromArgMatches, ValueEnum};
use clap_complete::Shell;
use flashjob_api::{FlashJob, FlashRollout};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::{Place, Scope};
use crate::failure::{Code, Failure};
use crate::fleet::rollout;
use crate::fleet::workload::Workload;
use crate::report::Report;

/// Complete commands and options.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell; kubectl: the program kubectl_complete-flashjob, for `kubectl flashjob <Tab>`;
    /// man: the manual page.
    #[arg(value_enum)]
    kind: Kind,
    /// With man: write a page for each command into this folder, such as ~/.local/share/man/man1.
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

/// Forms of completion, and the manual.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Bash,
    Zsh,
    Fish,
    Kubectl,
    Man,
}

/// Program that kubectl calls: it gets the words so far, and prints the words that can follow, one
/// per line, then a directive of cobra; 4 disables the completion of file names.
const KUBECTL: &str = r#"#!/bin/sh
# Put this into the PATH as kubectl_complete-flashjob; kubectl asks it.
exec kubectl-flashjob __complete "$@"
"#;

/// Writes a script or the manual; `program` is the definition of the command line.
///
/// # Errors
/// The output cannot be written.
pub fn run(command: &Completion, mut program: clap::Command) -> Result<Report, Failure> {
    let mut text = Vec::new();
    let shell = match command.kind {
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
        Kind::Kubectl => return Ok(Report::new(KUBECTL.to_owned(), json!(KUBECTL))),
        Kind::Man => {
            if let Some(folder) = &command.directory {
                return pages(program, folder);
            }
            let lost = |error| {
                Failure::new(
                    Code::Other,
                    "OutputLost",
                    format!("cannot write the manual: {error}"),
                )
            };
            clap_mangen::Man::new(program).render(&mut text).map_err(lost)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            return Ok(Report::new(text.clone(), json!(text)));
        }
    };
    if command.directory.is_some() {
        return Err(Failure::usage("--directory is only for man; scripts are printed"));
    }
    clap_complete::generate(shell, &mut program, "kubectl-flashjob", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(Report::new(text.clone(), json!(text)))
}

/// Writes the manual, one page for each command.
fn pages(program: clap::Command, folder: &Path) -> Result<Report, Failure> {
    let unwritable = |error: std::io::Error| Failure::unwritable(folder, &error);
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    clap_mangen::generate_to(program, folder).map_err(unwritable)?;
    let text = format!("the manual is in {}; man kubectl-flashjob shows it", folder.display());
    Ok(Report::new(text, json!({"directory": folder})))
}

/// First argument with which [`KUBECTL`] calls this program.
pub const COMPLETE: &str = "__complete";

/// Commands whose arguments are names of FlashJobs; below `rollout`, of FlashRollouts.
const NAMING: [&str; 10] = [
    "status", "pause", "resume", "cancel", "retry", "report", "preview", "approve", "abort",
    "history",
];
/// Time limit for the look-up of names: a user waits at a prompt.
const LOOK_UP: Duration = Duration::from_secs(2);

/// Returns the words that can follow `words` on the command line of `program`, one per line, and
/// the directive.
#[tokio::main(flavor = "current_thread")]
pub async fn complete(program: clap::Command, words: &[String]) -> String {
    let mut command = program.clone();
    command.build();
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", &[][..]),
    };
    let mut path = Vec::new();
    for word in before.iter().filter(|word| !word.starts_with('-')) {
        if let Some(subcommand) = command.find_subcommand(word) {
            command = subcommand.clone();
            path.push(word.as_str());
        }
    }
    let mut lines = Vec::new();
    let before_last = before.last().map(|word| word.trim_start_matches('-')).unwrap_or_default();
    let is_option = before.last().is_some_and(|word| word.starts_with('-'));
    let of_option = command.get_arguments().filter(|argument| {
        let short = argument.get_short().map(String::from);
        is_option
            && (argument.get_long() == Some(before_last) || short.as_deref() == Some(before_last))
    });
    let values: Vec<_> = of_option.flat_map(clap::Arg::get_possible_values).collect();
    if !values.is_empty() {
        lines.extend(values.iter().map(|value| value.get_name().to_owned()));
    } else if last.starts_with('-') {
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            lines.push(format!("--{option}"));
        }
    } else if NAMING.contains(&command.get_name()) {
        // Without an answer nothing is offered; a message would appear inside the command line.
        let names = tokio::time::timeout(LOOK_UP, names(program, before, &path)).await;
        lines.extend(names.ok().flatten().unwrap_or_default());
    } else {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            lines.push(format!("{}\t{about}", sub.get_name()));
        }
    }
    lines.retain(|line| line.starts_with(last));
    lines.push(":4".to_owned());
    lines.join("\n")
}

/// Returns the names of objects for a command, in the namespace and cluster that the words name.
async fn names(program: clap::Command, words: &[String], command: &[&str]) -> Option<Vec<String>> {
    let line = iter::once("kubectl-flashjob").chain(words.iter().map(String::as_str));
    // The line is not complete, so required arguments may be missing.
    let matches = program.ignore_errors(true).try_get_matches_from(line).ok()?;
    let mut matches = &matches;
    while let Some((_, below)) = matches.subcommand() {
        matches = below;
    }
    let place = Scope::from_arg_matches(matches).ok()?.place().await.ok()?;
    match command {
        ["rollout", "approve"] => {
            let api = place.api::<FlashRollout>();
            let rollouts = api.list(&ListParams::default()).await.ok()?.items;
            Some(rollouts.iter().flat_map(rollout::unapproved).collect())
        }
        ["rollout", ..] => names_of::<FlashRollout>(&place).await,
        _ => names_of::<FlashJob>(&place).await,
    }
}

async fn names_of<K: Workload>(place: &Place) -> Option<Vec<String>> {
    // Names alone: a FlashJob may have 4,096 uids in spec and status each.
    let objects = place.api::<K>().list_metadata(&ListParams::default()).await.ok()?;
    Some(objects.items.iter().map(ResourceExt::name_any).collect())
}

#[cfg(test)]
mod tests {
    use super::complete;
    use crate::arguments;

    fn of(words: &[&str]) -> Vec<String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let text = complete(arguments::command(), &words);
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn commands_and_options_that_begin_so_are_offered() {
        assert_eq!(of(&["st"]), ["status", ":4"]);
        assert_eq!(of(&["plugin", "ins"]), ["inspect", ":4"]);
        assert_eq!(of(&["rollout", "ab"]), ["abort", ":4"]);
        assert_eq!(of(&["rollout", "create", "--win"]), ["--window", ":4"]);
        assert_eq!(of(&["rollout", "create", "--on-failure", "a"]), ["abort", ":4"]);
        assert_eq!(of(&["status", "--unt"]), ["--until", ":4"]);
        assert_eq!(of(&["status", "--until", "b"]), ["blocked", ":4"]);
        assert_eq!(of(&["devices", "-o", "j"]), ["json", ":4"]);
        assert!(of(&[""]).contains(&"flash".to_owned()));
    }
}
