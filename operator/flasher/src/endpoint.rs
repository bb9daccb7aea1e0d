//! The device's HTTP server.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;
use tokio::net::lookup_host;

use crate::outcome::{Code, Failure};

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
    pub fn read(text: &str) -> Result<Self, Failure> {
        let url = Url::parse(&format!("http://{text}/"))
            .ok()
            .filter(|url| url.path() == "/" && url.query().is_none() && url.username().is_empty());
        url.map(Self).ok_or_else(|| {
            let message = format!("HOST_ENDPOINT {text:?} is no host and no host:port");
            Failure::new(Code::BadConfiguration, message)
        })
    }

    /// The address of a path there, with the query that it may have.
    ///
    /// # Errors
    /// It is no path.
    pub fn at(&self, path: &str) -> Result<Url, Failure> {
        let own = |url: &Url| url.authority() == self.0.authority();
        let url = self.0.join(path).ok().filter(|url| path.starts_with('/') && own(url));
        url.ok_or_else(|| {
            let message = format!("{path:?} is no path; expected one as /update");
            Failure::new(Code::BadConfiguration, message)
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

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0.authority())
    }
}

/// Asks devices over HTTP, with a limit for the time of a request.
pub(crate) fn client() -> Result<reqwest::Client, Failure> {
    // A device answers itself, and leads nowhere else.
    let builder = reqwest::Client::builder().timeout(ANSWER).no_proxy();
    let client = builder.redirect(reqwest::redirect::Policy::none()).build();
    client.map_err(|error| {
        Failure::new(Code::BadConfiguration, "no HTTP client can be made").because(error)
    })
}
