//! Proxies from environment variables: they are used for registries, but not for the API server.
//! Reads the environment.

use url::Url;

/// Environment variables that name a proxy; the registries' client reads the same ones.
const VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// An environment variable that does not name a usable proxy. Its value may contain a password,
/// and is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} does not name a valid proxy: {why}; set it to http://host:port or \
     https://host:port, or remove it from the environment"
)]
pub struct InvalidProxy {
    variable: &'static str,
    why: String,
}

/// Checks the proxy variables in the environment of this process.
///
/// # Errors
/// A variable does not name a usable proxy.
pub fn check() -> Result<(), InvalidProxy> {
    check_all(|variable| std::env::var(variable).ok())
}

fn check_all(value: impl Fn(&str) -> Option<String>) -> Result<(), InvalidProxy> {
    for variable in VARIABLES {
        let Some(text) = value(variable).filter(|text| !text.trim().is_empty()) else { continue };
        let text = text.trim();
        // A value without a scheme is an HTTP proxy, as curl and most other programs read these
        // variables.
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let why = match Url::parse(&whole) {
            Err(error) => error.to_string(),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                format!("its scheme is {}", url.scheme())
            }
            Ok(url) if url.host_str().is_none_or(str::is_empty) => "it has no host".to_owned(),
            Ok(_) => continue,
        };
        return Err(InvalidProxy { variable, why });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variable: &str, value: &str) -> Result<(), InvalidProxy> {
        check_all(|name| (name == variable).then(|| value.to_owned()))
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_told_by_its_variable_and_not_by_its_password() {
        for text in ["http://secret-word@exa mple:80", "socks5://secret-word@a:1080", "http://"] {
            let error = with("https_proxy", text).expect_err(text).to_string();
            assert!(error.starts_with("https_proxy does not name a valid proxy"), "{error}");
            assert!(!error.contains("secret-word"), "{error}");
        }
        for text in ["", "http://proxy.example:3128", "proxy.example:3128", "https://u:p@10.0.0.1"]
        {
            assert_eq!(with("HTTPS_PROXY", text), Ok(()), "{text}");
        }
    }
}
