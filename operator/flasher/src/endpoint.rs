//! The device's HTTP server.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use reqwest::Url;
use tokio::net::lookup_host;

use crate::outcome::{AttemptFailure, Code};

/// Longest time for the device's answer to a small request.
const ANSWER: Duration = Duration::from_secs(10);

/// The device's HTTP server.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint(Url);

impl Endpoint {
    /// Reads `host` or `host:port`.
    ///
    /// # Errors
    /// It is neither.
    pub fn read(text: &str) -> Result<Self, AttemptFailure> {
        read("http", text).map(Self)
    }

    /// The address of a path there, with the query that it may have.
    ///
    /// # Errors
    /// It is no path.
    pub fn at(&self, path: &str) -> Result<Url, AttemptFailure> {
        let own = |url: &Url| url.authority() == self.0.authority();
        let url = self.0.join(path).ok().filter(|url| path.starts_with('/') && own(url));
        url.ok_or_else(|| {
            let message = format!("{path:?} is no path; expected one as /update");
            AttemptFailure::new(Code::BadConfiguration, message)
        })
    }

    /// Its addresses.
    pub async fn addresses(&self) -> Vec<IpAddr> {
        let host = self.0.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let found = lookup_host((host, self.0.port_or_known_default().unwrap_or(80))).await;
        found
            .map(|all| all.map(|address| address.ip().to_canonical()).collect())
            .unwrap_or_default()
    }
}

/// Reads `host` or `host:port`, and returns host and port, `port` where none is named.
///
/// # Errors
/// It is neither.
pub(crate) fn host_and_port(text: &str, port: u16) -> Result<String, AttemptFailure> {
    // A scheme without a port of its own: with "http" nobody could tell that :80 was named.
    let url = read("smp", text)?;
    let host = url.host_str().unwrap_or_default();
    Ok(format!("{host}:{}", url.port().unwrap_or(port)))
}

fn read(scheme: &str, text: &str) -> Result<Url, AttemptFailure> {
    // An IPv6 address stands in brackets in a URL.
    let host = match text.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => text.to_owned(),
    };
    let is_endpoint = |url: &Url| {
        let named = url.host_str().is_some_and(|host| !host.is_empty());
        named && url.path() == "/" && url.query().is_none() && url.username().is_empty()
    };
    Url::parse(&format!("{scheme}://{host}/")).ok().filter(is_endpoint).ok_or_else(|| {
        let message = format!("HOST_ENDPOINT {text:?} is no host and no host:port");
        AttemptFailure::new(Code::BadConfiguration, message)
    })
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0.authority())
    }
}

/// Asks devices over HTTP, with a limit for the time of a request.
pub(crate) fn client() -> Result<reqwest::Client, AttemptFailure> {
    // A device answers itself, and leads nowhere else.
    let builder = reqwest::Client::builder().timeout(ANSWER).no_proxy();
    let client = builder.redirect(reqwest::redirect::Policy::none()).build();
    client.map_err(|error| {
        AttemptFailure::new(Code::BadConfiguration, "no HTTP client can be made").because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_with_or_without_a_port_and_an_ipv6_address_needs_no_brackets() {
        for (text, whole) in [
            ("192.0.2.7", Some("192.0.2.7:1337")),
            ("192.0.2.7:80", Some("192.0.2.7:80")),
            ("sensor.example", Some("sensor.example:1337")),
            ("2001:db8::7", Some("[2001:db8::7]:1337")),
            ("[2001:db8::7]:5", Some("[2001:db8::7]:5")),
            ("a/b", None),
            ("a:99999", None),
            ("user@a", None),
            ("", None),
        ] {
            assert_eq!(host_and_port(text, 1337).ok().as_deref(), whole, "{text}");
            assert_eq!(Endpoint::read(text).is_ok(), whole.is_some(), "{text}");
        }
    }
}
