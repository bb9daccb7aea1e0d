//! A proxy between the operator and the API server. A test tells it which requests to answer
//! itself, to drop, or to hold while the operator is killed. That way a test reaches every
//! boundary between two of the operator's requests, without any code in the operator.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};

use crate::control_plane::ControlPlane;

type Body = http_body_util::combinators::BoxBody<Bytes, anyhow::Error>;

/// A request on its way to the API server.
#[derive(Clone, Debug)]
pub struct Call {
    /// The HTTP method.
    pub method: Method,
    /// Plural of the resource, and the subresource: `pods`, `flashjobs/status`.
    pub resource: String,
    /// Name of the object; empty for lists, watches and creates.
    pub name: String,
    /// True if it is a watch.
    pub watch: bool,
    /// Body of the request.
    pub body: Value,
}

impl Call {
    /// Returns true if it would change something.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// Returns true if it lists a resource.
    #[must_use]
    pub fn lists(&self, resource: &str) -> bool {
        self.method == Method::GET
            && !self.watch
            && self.name.is_empty()
            && self.resource == resource
    }
}

/// Treatment of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The proxy answers with this HTTP status; the request never reaches the API server.
    Answer(u16),
    /// The request never reaches the API server; the connection breaks.
    LoseRequest,
    /// The request is carried out; the connection breaks before the response.
    LoseAnswer,
    /// The request waits for the test before it reaches the API server, and is then dropped.
    HoldRequest,
    /// The request is carried out; the response waits for the test, and is then dropped.
    HoldAnswer,
}

/// A request that the proxy holds. Dropping this value releases the request, which is then lost.
#[derive(Debug)]
pub struct Held {
    /// The request.
    pub call: Call,
    _release: oneshot::Sender<()>,
}

type Matches = Box<dyn Fn(&Call) -> bool + Send>;

#[derive(Default)]
struct Table {
    /// Rules: which requests match, what to do with them, and how many times.
    rules: Vec<(Matches, Action, u32)>,
    /// Calls so far, except those that were refused.
    calls: Vec<Call>,
    applied: u32,
    refuses: bool,
}

struct Shared {
    table: Mutex<Table>,
    held: mpsc::UnboundedSender<Held>,
    cut: watch::Sender<u64>,
    upstream: reqwest::Client,
    server: String,
}

/// A running proxy.
pub struct Proxy {
    shared: Arc<Shared>,
    held: tokio::sync::Mutex<mpsc::UnboundedReceiver<Held>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts a proxy for the API server. Operators that start from now on connect to it.
    ///
    /// # Errors
    /// The operator's kubeconfig cannot be written, or no port is free.
    pub async fn start(control_plane: &mut ControlPlane) -> anyhow::Result<Self> {
        let authority = std::fs::read(&control_plane.authority)?;
        let upstream = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&authority)?])
            .no_proxy()
            .build()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let cluster = json!({"server": format!("http://{}", listener.local_addr()?)});
        control_plane.redirect_operator(&cluster)?;
        let (holding, held) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            held: holding,
            cut: watch::channel(0).0,
            upstream,
            server: format!("https://{}", control_plane.address()),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { shared, held: tokio::sync::Mutex::new(held), task })
    }

    /// Applies an action to the next requests that match, this many times. Earlier rules take
    /// precedence.
    pub fn on(
        &self,
        action: Action,
        times: u32,
        matches: impl Fn(&Call) -> bool + Send + 'static,
    ) {
        self.shared.table().rules.push((Box::new(matches), action, times));
    }

    /// Removes all rules, and returns how many times a rule was applied.
    pub fn clear_rules(&self) -> u32 {
        let mut table = self.shared.table();
        table.rules.clear();
        table.refuses = false;
        std::mem::take(&mut table.applied)
    }

    /// Breaks every watch.
    pub fn cut_watches(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Breaks every watch and every request until [`Self::clear_rules`]: the API server cannot be
    /// reached.
    pub fn refuse_connections(&self) {
        self.shared.table().refuses = true;
        self.cut_watches();
    }

    /// Waits until a request is held.
    ///
    /// # Errors
    /// No request is held within the limit.
    pub async fn held(&self, limit: Duration) -> anyhow::Result<Held> {
        let mut held = self.held.lock().await;
        let next = tokio::time::timeout(limit, held.recv()).await;
        next.with_context(|| format!("no request came that is to be held, within {limit:?}"))?
            .context("the proxy has ended")
    }

    /// Returns the number of matching requests so far.
    #[must_use]
    pub fn count(&self, matches: impl Fn(&Call) -> bool) -> usize {
        self.shared.table().calls.iter().filter(|call| matches(call)).count()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, shared.clone()));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| shared.clone().pass(request));
    // Tests break connections on purpose.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forwards a request, or applies a rule to it. An error breaks the connection.
    async fn pass(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let mut cuts = self.cut.subscribe();
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let call = call(&head, &body);
        let watch = call.watch;
        let action = self.action(&call)?;
        match action {
            Some(Action::LoseRequest) => bail!("the request is lost"),
            Some(Action::Answer(code)) => return answer(code),
            Some(Action::HoldRequest) => return self.hold(call).await,
            _ => {}
        }
        let url = format!("{}{}", self.server, head.uri);
        let mut onward = self.upstream.request(head.method, url).body(body);
        for (name, value) in head
            .headers
            .iter()
            .filter(|(name, _)| ![HOST, CONNECTION, CONTENT_LENGTH].contains(name))
        {
            onward = onward.header(name, value);
        }
        let came = onward.send().await?;
        let mut response = Response::builder().status(came.status());
        for (name, value) in came
            .headers()
            .iter()
            .filter(|(name, _)| ![TRANSFER_ENCODING, CONNECTION, CONTENT_LENGTH].contains(name))
        {
            response = response.header(name, value);
        }
        if watch {
            let cut = cuts.clone();
            let broken = async move {
                let _ = cuts.changed().await;
            };
            let lines = came
                .bytes_stream()
                .map_err(anyhow::Error::from)
                .take_until(broken)
                .map_ok(Frame::data);
            // A watch that a test cuts breaks within the response; one that the API server ends
            // has a regular end.
            let end = futures::stream::once(async move { cut.has_changed().unwrap_or(true) });
            let end = end.filter_map(|broken| async move {
                broken.then(|| Err(anyhow::anyhow!("the watch is cut")))
            });
            return Ok(response.body(BodyExt::boxed(StreamBody::new(lines.chain(end))))?);
        }
        let body = came.bytes().await?;
        match action {
            Some(Action::LoseAnswer) => bail!("the answer is lost"),
            Some(Action::HoldAnswer) => self.hold(call).await,
            _ => Ok(response.body(full(body))?),
        }
    }

    fn action(&self, call: &Call) -> anyhow::Result<Option<Action>> {
        let mut table = self.table();
        if table.refuses {
            bail!("everything is refused");
        }
        table.calls.push(call.clone());
        let Some(rule) =
            table.rules.iter_mut().find(|(matches, _, times)| *times > 0 && matches(call))
        else {
            return Ok(None);
        };
        rule.2 -= 1;
        let action = rule.1;
        table.applied += 1;
        Ok(Some(action))
    }

    async fn hold(&self, call: Call) -> anyhow::Result<Response<Body>> {
        let (release, released) = oneshot::channel();
        self.held.send(Held { call, _release: release })?;
        let _ = released.await;
        bail!("the request was held, and is lost")
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(anyhow::Error::from).boxed()
}

/// Returns the response that the API server itself would give.
fn answer(code: u16) -> anyhow::Result<Response<Body>> {
    let (reason, message) = match code {
        409 => ("Conflict", "the object has been modified"),
        429 => ("TooManyRequests", "too many requests, please try again later"),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": message,
    });
    let response = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    let response = if code == 429 { response.header(RETRY_AFTER, "1") } else { response };
    Ok(response.body(full(Bytes::from(status.to_string())))?)
}

/// Reads a request. Its path is `/api/v1/…` or `/apis/<group>/<version>/…`, each with or without
/// `namespaces/<namespace>`.
fn call(head: &hyper::http::request::Parts, body: &Bytes) -> Call {
    let segments: Vec<&str> =
        head.uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let prefix = if segments.first() == Some(&"api") { 2 } else { 3 };
    let rest = segments.get(prefix..).unwrap_or_default();
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
    let resource = if rest.len() > 2 { format!("{}/{}", part(0), part(2)) } else { part(0) };
    let watch = head.uri.query().is_some_and(|query| {
        query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1")
    });
    Call {
        method: head.method.clone(),
        resource,
        name: part(1),
        watch,
        body: serde_json::from_slice(body).unwrap_or_default(),
    }
}
