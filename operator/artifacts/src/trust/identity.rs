//! Identities that may make keyless signatures: an identity issuer, and a subject that it vouches
//! for. Pure.

use std::fmt;

use regex::Regex;

use crate::config::SignerIdentity;

/// Identity from the configuration, prepared for comparison with those in certificates.
pub(crate) struct SignerRule {
    issuer: Rule,
    subject: Rule,
}

enum Rule {
    Exact(String),
    /// Pattern as written, and the regular expression that matches it against the whole text.
    Whole(String, Regex),
}

impl SignerRule {
    /// # Errors
    /// The name of the invalid field, and a description of the error.
    pub fn new(of: &SignerIdentity) -> Result<Self, (&'static str, String)> {
        let issuer = Rule::new(
            ["issuer", "issuerRegexp"],
            of.issuer.as_deref(),
            of.issuer_regexp.as_deref(),
        )?;
        let subject = Rule::new(
            ["subject", "subjectRegexp"],
            of.subject.as_deref(),
            of.subject_regexp.as_deref(),
        )?;
        Ok(Self { issuer, subject })
    }

    pub fn matches(&self, issuer: &str, subject: &str) -> bool {
        // Both are needed: another issuer may vouch for the same e-mail address of somebody else.
        self.issuer.matches(issuer) && self.subject.matches(subject)
    }
}

impl fmt::Display for SignerRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {}", self.subject, self.issuer)
    }
}

impl Rule {
    fn new(
        [exact, regexp]: [&'static str; 2],
        value: Option<&str>,
        pattern: Option<&str>,
    ) -> Result<Self, (&'static str, String)> {
        match (value, pattern) {
            (Some(_), Some(_)) => {
                Err((regexp, format!("{exact} is also set; remove one of the two")))
            }
            (None, None) => Err((
                exact,
                format!("expected the value that the certificate must have, here or as {regexp}"),
            )),
            (Some(""), None) => Err((exact, "must not be empty".to_owned())),
            (Some(value), None) => Ok(Self::Exact(value.to_owned())),
            (None, Some(pattern)) => whole(pattern)
                .map(|whole| Self::Whole(pattern.to_owned(), whole))
                .map_err(|message| (regexp, message)),
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(expected) => expected == value,
            Self::Whole(_, pattern) => pattern.is_match(value),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Exact(text) | Self::Whole(text, _)) = self;
        formatter.write_str(text)
    }
}

/// Compiles a pattern that must match a whole name: without its ends it would also match names
/// that only contain the intended one.
fn whole(pattern: &str) -> Result<Regex, String> {
    if !pattern.starts_with('^') || !pattern.ends_with('$') {
        return Err("expected a pattern from ^ to $, so that it matches whole names".to_owned());
    }
    // Compile the pattern alone first: an unbalanced pattern must not become valid inside the
    // group.
    let alone =
        Regex::new(pattern).map_err(|error| format!("not a regular expression: {error}"))?;
    if alone.is_match("") {
        return Err("it matches an empty name; expected a pattern that requires at least one \
                    character"
            .to_owned());
    }
    // With alternatives, ^ and $ apply to one of them each: ^a|b$ also matches everything that
    // begins with a.
    Regex::new(&format!(r"\A(?:{pattern})\z"))
        .map_err(|error| format!("not a regular expression: {error}"))
}
