//! Output of a command, for people and for programs.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cause::root;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::text::without_control_characters;

/// Result of a command.
#[derive(Debug)]
pub struct Report {
    /// Text for people.
    pub text: String,
    /// One object for programs.
    pub json: Value,
    /// Set if the command fails and has a result to show.
    pub failure: Option<Failure>,
    /// Output formats that only some commands have.
    forms: Vec<(Output, String)>,
}

impl Report {
    /// Creates a report of success.
    pub fn new(text: String, json: Value) -> Self {
        Self { text, json, failure: None, forms: Vec::new() }
    }

    /// Adds an output format that other commands do not have.
    pub fn with(mut self, output: Output, form: String) -> Self {
        self.forms.push((output, form));
        self
    }

    /// Replaces the text for people.
    pub fn saying(self, text: String) -> Self {
        Self { text, ..self }
    }

    /// Sets the failure.
    pub fn failing(self, failure: Option<Failure>) -> Self {
        Self { failure, ..self }
    }

    /// Puts this report above another: texts and names one below the other, and the fields of both
    /// in one object.
    pub fn above(mut self, below: Self) -> Self {
        self.text = format!("{}\n\n{}", self.text, below.text);
        if let (Value::Object(fields), Value::Object(more)) = (&mut self.json, below.json) {
            fields.extend(more);
        }
        for (form, text) in below.forms.into_iter().filter(|(_, text)| !text.is_empty()) {
            match self.forms.iter_mut().find(|(existing_form, _)| *existing_form == form) {
                Some((_, existing_text)) => *existing_text = format!("{existing_text}\n{text}"),
                None => self.forms.push((form, text)),
            }
        }
        Self { failure: self.failure.or(below.failure), ..self }
    }

    /// Prints the report, and returns the exit code of the program.
    pub fn show(mut self, output: Output) -> ExitCode {
        if let (Some(failure), Value::Object(fields)) = (&self.failure, &mut self.json) {
            fields.insert("error".to_owned(), failure.json());
        }
        let requested_form = self.forms.iter().find(|(form, _)| *form == output);
        let printed = match (requested_form, output) {
            // An empty list prints no line, rather than an empty one.
            (Some((_, form)), _) if form.is_empty() => Ok(()),
            (Some((_, form)), _) => print(form),
            (None, Output::Json) => print(&format!("{:#}", self.json)),
            (None, Output::Yaml) => yaml(&self.json).and_then(|text| print(&text)),
            (None, _) if self.text.is_empty() => Ok(()),
            (None, _) => print(&self.text),
        };
        match self.failure.or(printed.err()) {
            Some(failure) => failure.complain(),
            None => ExitCode::SUCCESS,
        }
    }
}

impl Failure {
    /// Prints the failure, and returns the exit code of the program.
    pub fn show(self, output: Output) -> ExitCode {
        // This failure is reported even if its form for programs cannot be written.
        let error = json!({"error": self.json()});
        let _ = match output {
            Output::Json => print(&format!("{error:#}")),
            Output::Yaml => yaml(&error).and_then(|text| print(&text)),
            _ => Ok(()),
        };
        self.complain()
    }

    /// Prints the failure for people only.
    pub fn complain(self) -> ExitCode {
        tell!("kubectl flashjob: {}", self.message);
        ExitCode::from(self.code as u8)
    }
}

/// Returns a value as YAML.
pub fn yaml(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| {
        Failure::new(Code::Other, "OutputLost", format!("cannot write YAML: {error}"))
    })
}

/// Prints text and a newline. A closed pipe is no failure; any other write error is.
pub fn print(text: &str) -> Result<(), Failure> {
    write(&format!("{}\n", text.trim_end()))
}

/// Writes text to standard output unchanged, and flushes it.
pub fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::Other,
            "OutputLost",
            format!("cannot write to standard output: {}", root(&error)),
        )),
        _ => Ok(()),
    }
}

/// Aligned names and values.
#[derive(Debug, Default)]
pub struct Rows(Vec<(&'static str, String)>);

impl Rows {
    /// Adds a row.
    pub fn row(&mut self, name: &'static str, value: impl ToString) -> &mut Self {
        self.0.push((name, value.to_string()));
        self
    }
}

impl std::fmt::Display for Rows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
        for (name, value) in &self.0 {
            // Devices and plugins are quoted here.
            let mut lines = value.lines().map(without_control_characters);
            writeln!(formatter, "{name:width$}{}", lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(formatter, "{:width$}{line}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_lines_and_does_not_move_the_cursor() {
        let mut rows = Rows::default();
        rows.row("name", "a\u{1b}[2J\u{7}b").row("settings", "{\n\t\"a\": 1}");
        assert_eq!(rows.to_string(), "name      a [2J b\nsettings  {\n           \"a\": 1}\n");
    }
}
