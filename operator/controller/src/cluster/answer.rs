//! Responses of the API server: the cause of a failed request in one line, and one object by its
//! name. Does I/O.

use std::error::Error;
use std::fmt::Debug;

use flashjob_rules::text;
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Longest cause of a failed request, in characters.
const LONGEST_CAUSE: usize = 512;

/// Returns the cause of a failed request in one line; for an error response, the message of its
/// Status alone.
#[must_use]
pub fn in_one_line(error: &kube::Error) -> String {
    let text = match error {
        // A proxy may answer with an empty body, of which kube makes a Status without a message.
        kube::Error::Api(status) if status.message.is_empty() => {
            format!("HTTP status {} {}", status.code, status.reason)
        }
        kube::Error::Api(status) => status.message.clone(),
        other => with_sources(other),
    };
    // A webhook may give its reasons on the lines after the first.
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    // A proxy may send a whole page.
    text::beginning(&line, LONGEST_CAUSE)
}

/// Returns an error with its sources, without repetition: many errors repeat the text of their
/// source.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = error.source();
    }
    text
}

/// Returns the current object of that name. It is listed, not got: the permission to list, which
/// the watches need, is enough, and for a name the API server looks up one key. Returns None also
/// if the kind itself is unknown: objects are deleted with their definition.
///
/// # Errors
/// The API server does not respond, or refuses the request.
pub async fn by_name<K>(api: &Api<K>, name: &str) -> kube::Result<Option<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let only = ListParams::default().fields(&format!("metadata.name={name}"));
    match api.list(&only).await {
        Ok(list) => Ok(list.items.into_iter().next()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_refusal_is_one_line_in_the_api_server_s_own_words() {
        let refused = Status::failure("pods is forbidden: User \"a\" cannot list", "Forbidden");
        let error = kube::Error::Api(Box::new(refused.with_code(403)));
        assert_eq!(in_one_line(&error), "pods is forbidden: User \"a\" cannot list");
    }

    #[test]
    fn a_refusal_of_several_lines_keeps_its_reasons_and_a_page_is_cut() {
        let text = |message: &str| {
            let status = Status::failure(message, "").with_code(502);
            in_one_line(&kube::Error::Api(Box::new(status)))
        };
        let denial =
            "admission webhook \"policy\" denied the request: \n\nowner:\n  need-label: no";
        assert!(text(denial).ends_with("denied the request: owner: need-label: no"));
        let page = text(&format!("<html>\n{}", "é".repeat(1000)));
        assert!(page.starts_with("<html> é") && page.ends_with("é…"), "{page}");
        assert_eq!(page.chars().count(), LONGEST_CAUSE);
    }

    #[test]
    fn a_connection_that_fails_is_told_with_its_cause_once() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        let error = kube::Error::Service(Box::new(refused));
        assert_eq!(in_one_line(&error), "ServiceError: refused");
    }
}
