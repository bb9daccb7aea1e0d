//! Output of a command, in both forms.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cause::root;
use crate::failure::{Code, Failure};
use crate::output::Output;

/// Result of a command.
#[derive(Debug)]
pub struct Report {
    /// For people.
    pub text: String,
    /// For programs: one object.
    pub json: Value,
    /// Set where there is something to show that is not good.
    pub failure: Option<Failure>,
    /// Forms that only some commands have.
    forms: Vec<(Output, String)>,
}

impl Report {
    /// A good result.
    pub fn new(text: String, json: Value) -> Self {
        Self { text, json, failure: None, forms: Vec::new() }
    }

    /// Adds a form of the result that other commands do not have.
    pub fn with(mut self, output: Output, form: String) -> Self {
        self.forms.push((output, form));
        self
    }

    /// The same result, in other words for people.
    pub fn saying(self, text: String) -> Self {
        Self { text, ..self }
    }

    /// The same result, which is not good.
    pub fn failing(self, failure: Option<Failure>) -> Self {
        Self { failure, ..self }
    }

    /// This result above another: texts and names one below the other, and the fields of both in
    /// one object.
    pub fn above(mut self, below: Self) -> Self {
        self.text = format!("{}\n\n{}", self.text, below.text);
        if let (Value::Object(fields), Value::Object(more)) = (&mut self.json, below.json) {
            fields.extend(more);
        }
        for (form, text) in below.forms.into_iter().filter(|(_, text)| !text.is_empty()) {
            match self.forms.iter_mut().find(|(own, _)| *own == form) {
                Some((_, own)) => *own = format!("{own}\n{text}"),
                None => self.forms.push((form, text)),
            }
        }
        Self { failure: self.failure.or(below.failure), ..self }
    }

    /// Prints it, and says with which code the program ends.
    pub fn show(mut self, output: Output) -> ExitCode {
        if let (Some(failure), Value::Object(fields)) = (&self.failure, &mut self.json) {
            fields.insert("error".to_owned(), failure.json());
        }
        let own = self.forms.iter().find(|(form, _)| *form == output);
        let printed = match (own, output) {
            // Nothing to list is no line, not an empty one.
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
    /// Prints it, and says with which code the program ends.
    pub fn show(self, output: Output) -> ExitCode {
        // This failure is the one to tell, whether or not its form for programs arrives.
        let error = json!({"error": self.json()});
        let _ = match output {
            Output::Json => print(&format!("{error:#}")),
            Output::Yaml => yaml(&error).and_then(|text| print(&text)),
            _ => Ok(()),
        };
        self.complain()
    }

    /// Says it to people alone.
    pub fn complain(self) -> ExitCode {
        eprintln!("kubectl flashjob: {}", self.message);
        ExitCode::from(self.code as u8)
    }
}

/// The YAML of a value.
pub fn yaml(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| {
        Failure::new(Code::Other, "OutputLost", format!("cannot write YAML: {error}"))
    })
}

/// Whoever reads may stop reading; any other end of the output is a failure.
pub fn print(text: &str) -> Result<(), Failure> {
    write(&format!("{}\n", text.trim_end()))
}

/// Writes text to standard output as it is, and at once.
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
            let mut lines = value.lines();
            writeln!(formatter, "{name:width$}{}", lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(formatter, "{:width$}{line}", "")?;
            }
        }
        Ok(())
    }
}
