//! Splits a Dockerfile's instruction into words: quotes, escapes and variables as in the
//! Dockerfile reference. No I/O.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

/// Values of the variables that an instruction may use.
pub type Variables = BTreeMap<String, String>;

/// Splits at spaces outside quotes, replaces variables and removes quotes.
///
/// # Errors
/// A quote is not closed, or a variable is written in a form other than `$NAME`, `${NAME}`,
/// `${NAME:-word}` and `${NAME:+word}`.
pub fn split(text: &str, variables: &Variables) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = word(rest, variables)?;
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// Replaces variables and removes quotes, but keeps spaces.
///
/// # Errors
/// As [`split`].
pub fn expand(text: &str, variables: &Variables) -> anyhow::Result<String> {
    let mut result = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = word(rest, variables)?;
        result.push_str(&word);
        let next = after.trim_start();
        result.push_str(&after[..after.len() - next.len()]);
        rest = next;
    }
    Ok(result)
}

/// Returns the first word and the text after it.
fn word<'a>(text: &'a str, variables: &Variables) -> anyhow::Result<(String, &'a str)> {
    let mut word = String::new();
    let mut rest = text;
    let mut quoted = false;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            ' ' | '\t' if !quoted => return Ok((word, rest)),
            '"' => {
                quoted = !quoted;
                after
            }
            '\'' if !quoted => {
                let (literal, after) = after
                    .split_once('\'')
                    .with_context(|| format!("{text}: a single quote is not closed"))?;
                word.push_str(literal);
                after
            }
            '\\' => escaped(after, quoted, &mut word),
            '$' => variable(after, variables, &mut word)?,
            other => {
                word.push(other);
                after
            }
        };
    }
    ensure!(!quoted, "{text}: a double quote is not closed");
    Ok((word, rest))
}

/// Adds the character after a backslash. Within double quotes, the backslash is kept before a
/// character that needs no escape.
fn escaped<'a>(after: &'a str, quoted: bool, word: &mut String) -> &'a str {
    let Some(next) = after.chars().next() else {
        word.push('\\');
        return after;
    };
    if quoted && !matches!(next, '"' | '$' | '\\') {
        word.push('\\');
    }
    word.push(next);
    &after[next.len_utf8()..]
}

/// Adds the value of the variable whose name follows; an unset one is empty.
fn variable<'a>(
    after: &'a str,
    variables: &Variables,
    word: &mut String,
) -> anyhow::Result<&'a str> {
    let braced = after.strip_prefix('{');
    let named = braced.unwrap_or(after);
    let end = named
        .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .unwrap_or(named.len());
    let (name, rest) = named.split_at(end);
    ensure!(!name.is_empty(), "${after}: a variable must have a name");
    let value = variables.get(name).map_or("", String::as_str);
    if braced.is_none() {
        word.push_str(value);
        return Ok(rest);
    }
    let end = closing_brace(rest).with_context(|| format!("${after}: a brace is not closed"))?;
    let (modifier, rest) = (&rest[..end], &rest[end + 1..]);
    match (modifier.get(..2), value.is_empty()) {
        (None, _) if modifier.is_empty() => word.push_str(value),
        (Some(":-"), false) => word.push_str(value),
        (Some(":-"), true) | (Some(":+"), false) => {
            word.push_str(&expand(&modifier[2..], variables)?);
        }
        (Some(":+"), true) => {}
        _ => bail!("${{{name}{modifier}}}: this form of a variable is not supported here"),
    }
    Ok(rest)
}

/// Returns the position of the brace that closes the one opened before the text.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (position, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(position),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
