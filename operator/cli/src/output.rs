//! Output formats.

use clap::ValueEnum;

/// Forms of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
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
