//! Bounds of an answer: values beyond them would be rejected by the API server, or could harm a
//! node.

use std::collections::HashSet;

use flashjob_types::CallError;

/// Maximum length of a list of arguments or variables.
const LIST: usize = 1024;

/// Counts the bytes that an answer uses.
pub(super) struct Bounds {
    remaining_bytes: usize,
    limit: usize,
}

fn rejected<T>(message: String) -> Result<T, CallError> {
    Err(CallError::AnswerRejected(message))
}

impl Bounds {
    pub fn new(limit: usize) -> Self {
        Self { remaining_bytes: limit, limit }
    }

    /// Takes a text. Control characters would reach logs and terminals, so only line breaks and
    /// tabs are allowed.
    pub fn text(
        &mut self,
        field: &str,
        text: String,
        longest: usize,
    ) -> Result<String, CallError> {
        if text.len() > longest {
            return rejected(format!(
                "{field} is {} bytes long, at most {longest} are allowed",
                text.len()
            ));
        }
        // The answer's limit is one for all of its strings, since many short ones need as much
        // memory.
        let Some(remaining_bytes) = self.remaining_bytes.checked_sub(text.len()) else {
            return rejected(format!("it is larger than {} bytes", self.limit));
        };
        self.remaining_bytes = remaining_bytes;
        if text.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t' | '\r'))
        {
            return rejected(format!("{field} has control characters"));
        }
        Ok(text)
    }

    /// Takes a message for people. It may quote a FlashJob's fields, so its control characters are
    /// replaced by spaces, and the answer is not rejected for them.
    pub fn message(
        &mut self,
        field: &str,
        text: &str,
        longest: usize,
    ) -> Result<String, CallError> {
        self.text(
            field,
            text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect(),
            longest,
        )
    }

    pub fn filled(
        &mut self,
        field: &str,
        text: String,
        longest: usize,
    ) -> Result<String, CallError> {
        if text.trim().is_empty() {
            rejected(format!("{field} is empty"))
        } else {
            self.text(field, text, longest)
        }
    }

    pub fn list(&self, field: &str, count: usize) -> Result<(), CallError> {
        self.count(field, count, LIST)
    }

    pub fn count(&self, field: &str, count: usize, most: usize) -> Result<(), CallError> {
        if count > most {
            rejected(format!("{field} has {count} entries, at most {most} are allowed"))
        } else {
            Ok(())
        }
    }

    /// Takes the name of an environment variable, in the form that all Kubernetes versions accept.
    pub fn variable(&mut self, name: String) -> Result<String, CallError> {
        // Nearly any printable ASCII is accepted only with the feature gate
        // RelaxedEnvironmentVariableValidation, which is alpha before Kubernetes 1.32.
        let good = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        if name.is_empty()
            || !name.chars().all(good)
            || name.starts_with(|letter: char| letter.is_ascii_digit())
        {
            return rejected(format!(
                "env has the name {name:?}, expected letters, digits, dashes, dots and underscores"
            ));
        }
        self.text("env", name, 253)
    }

    /// Takes an absolute path to mount at, without `..`; a colon would end the path.
    pub fn path(&mut self, field: &str, path: String) -> Result<String, CallError> {
        let path = self.text(field, path, 512)?;
        // The API server rejects a mountPath with a colon, and one of the root would hide the
        // image.
        let odd = path.split('/').any(|part| part == "..") || path.contains(':') || path == "/";
        if !path.starts_with('/') || odd {
            return rejected(format!(
                "{field} has the path {path:?}, expected an absolute one without .. and colons"
            ));
        }
        Ok(path)
    }

    /// Takes a working directory: a path as for a mount, or the root itself.
    pub fn directory(&mut self, field: &str, path: String) -> Result<String, CallError> {
        if path == "/" { self.text(field, path, 512) } else { self.path(field, path) }
    }

    pub fn port_name(&mut self, name: String) -> Result<String, CallError> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        // The rules of a service name (RFC 6335, section 5.1), which Kubernetes applies to port
        // names.
        let ends = !name.starts_with('-') && !name.ends_with('-') && !name.contains("--");
        let letter = name.bytes().any(|byte| byte.is_ascii_lowercase());
        if !letter || !ends || !name.bytes().all(good) {
            return rejected(format!(
                "ports has the name {name:?}, expected lower-case letters, digits and dashes"
            ));
        }
        self.text("ports", name, 15)
    }

    pub fn capability(&mut self, name: String) -> Result<String, CallError> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            return rejected(format!(
                "capabilities has {name:?}, expected a name such as NET_ADMIN"
            ));
        }
        self.text("capabilities", name, 63)
    }

    pub fn at_least_one(&self, field: &str, number: u32) -> Result<u32, CallError> {
        if number == 0 {
            rejected(format!("{field} is 0, expected at least 1"))
        } else {
            Ok(number)
        }
    }
}

pub(super) fn unique(
    field: &str,
    mut names: impl Iterator<Item = String>,
) -> Result<(), CallError> {
    let mut entries = HashSet::new();
    match names.find(|name| !entries.insert(name.clone())) {
        Some(name) => rejected(format!("{field} has the duplicate entry {name}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_as_a_whole() {
        let mut bounds = Bounds::new(10);
        assert!(bounds.text("a", "123456".into(), 8).is_ok());
        assert!(bounds.text("a", "123456".into(), 8).is_err());
        assert!(bounds.text("a", "123456789".into(), 8).is_err());
    }

    #[test]
    fn names_and_paths_that_kubernetes_would_refuse_are_refused_here() {
        let mut bounds = Bounds::new(1000);
        for name in ["", "1A", "A B", "A=B", "A\0"] {
            assert!(bounds.variable(name.into()).is_err(), "{name}");
        }
        for path in ["", "a", "/", "/a/../b", "/a:b"] {
            assert!(bounds.path("secrets", path.into()).is_err(), "{path}");
            assert_eq!(
                bounds.directory("working-directory", path.into()).is_ok(),
                path == "/",
                "{path}"
            );
        }
        for name in ["", "-a", "a--b", "1", "A", "abcdefghijklmnop"] {
            assert!(bounds.port_name(name.into()).is_err(), "{name}");
        }
        assert!(unique("env", ["A".to_owned(), "A".to_owned()].into_iter()).is_err());
        assert!(bounds.text("x", "\u{1b}[31m".into(), 10).is_err());
        assert_eq!(bounds.message("x", "\u{1b}[31m", 10), Ok(" [31m".into()));
    }
}
