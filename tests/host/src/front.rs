//! Reverse proxy in front of a registry: speaks TLS or plain HTTP, records every request with its
//! credentials, answers some itself, and forwards the others. Dropping it closes its port.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, Response, StatusCode};
use flashjob_testbed::certificates::Authority;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A request that was received, and the status of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRequest {
    /// Path and query.
    pub path: String,
    /// Value of the header `Authorization`.
    pub authorization: Option<String>,
    /// Status of the response.
    pub status: u16,
}

/// A response from the front itself.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns a response without headers.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Answers = Box<dyn Fn(&str, &str, Option<&str>) -> Option<Answer> + Send + Sync>;
type Challenges = Box<dyn Fn(&str) -> String + Send + Sync>;

/// Behaviour of a front.
#[derive(Default)]
pub struct Behaviour {
    /// URL to which requests are forwarded, such as `http://127.0.0.1:5000`.
    pub registry: String,
    /// Responses of the front itself, by its own URL, the path and the authorization.
    pub answers: Option<Answers>,
    /// Function that modifies the registry's challenges.
    pub challenges: Option<Challenges>,
}

struct Shared {
    behaviour: Behaviour,
    scheme: &'static str,
    host: String,
    onward: reqwest::Client,
    requests: Mutex<Vec<ReceivedRequest>>,
}

/// A running front.
pub struct Front {
    /// `host:port`.
    pub host: String,
    /// The same host and port as a URL.
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    /// Starts a front, with TLS if a certificate is given.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(
        onward: &reqwest::Client,
        tls: Option<&Certificate>,
        behaviour: Behaviour,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let host = listener.local_addr()?.to_string();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            behaviour,
            scheme,
            host: host.clone(),
            onward: onward.clone(),
            requests: Mutex::default(),
        });
        let state = shared.clone();
        let app =
            axum::Router::new().fallback(move |request: Request| state.clone().answer(request));
        let task = match tls {
            Some(certificate) => {
                tokio::spawn(serve(TlsListener { listener, acceptor: certificate.0.clone() }, app))
            }
            None => tokio::spawn(serve(listener, app)),
        };
        Ok(Self { url: shared.url(), host, shared, task })
    }

    /// Returns all requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.requests().clone()
    }

    /// Clears the recorded requests.
    pub fn clear_requests(&self) {
        self.shared.requests().clear();
    }

    /// Stops the front, and waits until its port is closed.
    pub async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

async fn serve<L: axum::serve::Listener>(listener: L, app: axum::Router)
where
    L::Addr: std::fmt::Debug,
{
    // It runs until the task is aborted.
    let _ = axum::serve(listener, app).await;
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Vec<ReceivedRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }

    async fn answer(self: Arc<Self>, request: Request) -> Response<Body> {
        let authorization = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let own_answer = self
            .behaviour
            .answers
            .as_ref()
            .and_then(|answers| answers(&self.url(), &path, authorization.as_deref()));
        let response = match own_answer {
            Some(answer) => respond(answer),
            None => self.pass(request, &path).await,
        };
        let response = response.unwrap_or_else(|error| {
            let mut broken = Response::new(Body::from(error.to_string()));
            *broken.status_mut() = StatusCode::BAD_GATEWAY;
            broken
        });
        self.requests().push(ReceivedRequest {
            path,
            authorization,
            status: response.status().as_u16(),
        });
        response
    }

    async fn pass(&self, request: Request, path: &str) -> anyhow::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let mut onward = self
            .onward
            .request(head.method, format!("{}{path}", self.behaviour.registry))
            .body(body);
        for (name, value) in
            head.headers.iter().filter(|(name, _)| ![HOST, CONTENT_LENGTH].contains(name))
        {
            onward = onward.header(name, value);
        }
        // A registry derives the realm of its challenges from these headers.
        let came = onward
            .header(HOST, &self.host)
            .header("x-forwarded-proto", self.scheme)
            .send()
            .await?;
        let mut response = Response::builder().status(came.status());
        for (name, value) in came
            .headers()
            .iter()
            .filter(|(name, _)| ![CONTENT_LENGTH, TRANSFER_ENCODING].contains(name))
        {
            let altered = self.behaviour.challenges.as_ref().filter(|_| name == WWW_AUTHENTICATE);
            let value = match altered {
                Some(challenges) => HeaderValue::from_str(&challenges(value.to_str()?))?,
                None => value.clone(),
            };
            response = response.header(name, value);
        }
        Ok(response.body(Body::from(came.bytes().await?))?)
    }
}

fn respond(answer: Answer) -> anyhow::Result<Response<Body>> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Body::from(answer.body))?)
}

/// A server's certificate with its key.
pub struct Certificate(TlsAcceptor);

impl Certificate {
    /// Creates a certificate of this authority for loopback.
    ///
    /// # Errors
    /// The authority's folder cannot be written to.
    pub fn new(authority: &Authority, name: &str) -> anyhow::Result<Self> {
        let (certificate, key) = authority.server(name)?;
        let chain = CertificateDer::pem_file_iter(&certificate)
            .context("certificate")?
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&key).context("key")?;
        let config =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            // A client that does not trust the certificate aborts the handshake.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
