//! Questions on standard output, answers from standard input: a terminal or a pipe.

use std::io::{self, IsTerminal};

use tokio::sync::mpsc::{Receiver, channel};

use crate::cause::root;
use crate::failure::{Code, Failure};
use crate::report::write;

/// Asks questions, and reads a line for each.
pub struct Prompt {
    lines: Receiver<io::Result<String>>,
    /// State of the devices if the input ends early, as part of a message.
    unfinished: &'static str,
}

impl Prompt {
    /// Reads standard input in a thread of its own: a read cannot be cancelled, and the program
    /// must still end at a signal.
    pub fn new(unfinished: &'static str) -> Self {
        let (sender, lines) = channel(1);
        std::thread::spawn(move || {
            for line in io::stdin().lines() {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines, unfinished }
    }

    /// Returns true if standard input is a terminal.
    pub fn is_terminal() -> bool {
        io::stdin().is_terminal()
    }

    /// Asks a question, and returns the answer without white space around it.
    ///
    /// # Errors
    /// The input has ended, or cannot be read.
    pub async fn ask(&mut self, question: &str) -> Result<String, Failure> {
        write(question)?;
        match self.lines.recv().await {
            Some(Ok(line)) => Ok(line.trim().to_owned()),
            Some(Err(error)) => {
                let cause = match error.kind() {
                    io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
                    _ => root(&error),
                };
                let message = format!("cannot read the answer: {cause}; {}", self.unfinished);
                Err(Failure::new(Code::Other, "InputLost", message))
            }
            None => {
                // The cursor is still behind the question, where the message would continue its
                // line.
                write("\n")?;
                let question = question.trim().trim_end_matches(':');
                let message = format!("the input ended at {question:?}; {}", self.unfinished);
                Err(Failure::new(Code::Other, "InputEnded", message))
            }
        }
    }

    /// Asks until the answer can be parsed; after an invalid answer, prints what is expected.
    ///
    /// # Errors
    /// Same as [`Self::ask`].
    pub async fn ask_until<T>(
        &mut self,
        question: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        loop {
            match read(&self.ask(question).await?) {
                Ok(answer) => return Ok(answer),
                Err(expected) => write(&format!("{expected}\n"))?,
            }
        }
    }
}

/// Parses yes or no.
///
/// # Errors
/// The answer is neither.
pub fn yes_or_no(answer: &str) -> Result<bool, String> {
    match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("Please answer y or n.".to_owned()),
    }
}

/// Asks for confirmation, unless it was given with `--yes`.
///
/// # Errors
/// The user declines, or standard input is no terminal.
pub async fn confirm(question: &str, is_confirmed: bool) -> Result<(), Failure> {
    if is_confirmed {
        return Ok(());
    }
    if !Prompt::is_terminal() {
        return Err(Failure::usage(
            "standard input is not a terminal, so nobody can confirm this; add --yes. Nothing was \
             changed",
        ));
    }
    let mut prompt = Prompt::new("nothing was changed");
    match prompt.ask_until(&format!("{question} (y/n): "), yes_or_no).await? {
        true => Ok(()),
        false => Err(Failure::new(Code::Other, "NotConfirmed", "nothing was changed")),
    }
}
