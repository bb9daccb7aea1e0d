//! Causes of errors in plain words.

use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::error::Elapsed;

use crate::duration;

/// Time limit for connecting to the API server, as set on the command line, for errors that do not
/// contain it.
pub static LIMIT: OnceLock<Duration> = OnceLock::new();

/// Proxy through which requests are sent to the API server, without its password, for errors that
/// do not contain it.
pub static PROXY: OnceLock<String> = OnceLock::new();

/// Returns the proxy as the end of "the API server does not answer"; empty if none is used.
pub fn through_proxy() -> String {
    PROXY.get().map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"))
}

/// Returns why a request has no result, for an error that is not an answer of the API server.
pub fn no_answer(error: &kube::Error) -> String {
    let through = through_proxy();
    let cause = root(error);
    match error {
        // Something did answer: no API server, such as the page of a proxy that asks to log in, or
        // one whose objects have other fields.
        kube::Error::SerdeError(_) => format!("the answer{through} cannot be read: {cause}"),
        _ => format!("the API server does not answer{through}: {cause}"),
    }
}

/// Returns the root cause of an error in plain words.
pub fn root(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    // The `source` of an I/O error skips the error that it wraps; that one may wrap another.
    while let Some(inner) = last.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
    {
        last = inner;
    }
    if last.is::<Elapsed>() {
        return match LIMIT.get() {
            Some(limit) if limit.as_secs() > 0 => {
                format!("no answer within {}", duration::in_words(*limit))
            }
            Some(limit) => format!("no answer within {} ms", limit.as_millis()),
            None => "no answer in time".to_owned(),
        };
    }
    match last.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(problem)) => certificate(problem),
        _ => without_number(&last.to_string()),
    }
}

/// Returns the text of an operating system error without its number.
pub fn without_number(words: &str) -> String {
    words.split(" (os error").next().unwrap_or_default().to_owned()
}

fn certificate(problem: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Problem;
    let cause = match problem {
        Problem::UnknownIssuer => {
            "is signed by a certificate authority that is not in the kubeconfig"
        }
        Problem::Expired | Problem::ExpiredContext { .. } => "has expired",
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => "is not valid yet",
        Problem::NotValidForName | Problem::NotValidForNameContext { .. } => {
            "is for another host name"
        }
        _ => "cannot be trusted",
    };
    format!("its certificate {cause}")
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_time_limit_and_an_error_of_the_system_are_told_in_plain_words() {
        let elapsed = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(async {
                tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await
            })
            .expect_err("no time");
        let words = root(&std::io::Error::new(ErrorKind::TimedOut, elapsed));
        assert!(words.starts_with("no answer "), "{words}");
        assert_eq!(root(&std::io::Error::from_raw_os_error(111)), "Connection refused");
    }
}
