//! Puts the operator together and runs it until it is told to end.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_config::Access;
use flashjob_rules::world::World;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Config};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tower_http::timeout::ResponseBodyTimeoutLayer;

use crate::arguments::Arguments;
use crate::cluster::installation::Installation;
use crate::cluster::leadership::Leadership;
use crate::cluster::leadership::election::{Election, LostLease};
use crate::cluster::watch::Watches;
use crate::cluster::{connection, definitions, proxy};
use crate::operator::{Operator, Parts};
use crate::plugins::Plugins;
use crate::plugins::loader::Loader;
use crate::telemetry::health::advice;
use crate::telemetry::health::keeper::{Keeper, Reports};
use crate::telemetry::health::opened::ReportOpened;
use crate::telemetry::health::problem::{ProblemSource, WATCHED};
use crate::telemetry::health::record::{Readiness, Record};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{health, logs};
use crate::{reconcile, reload};

/// Within this time everything is at rest and the Lease given back; Kubernetes kills after 30 s.
const END_LIMIT: Duration = Duration::from_secs(15);
/// An answer of the API server that has begun and says nothing for so long is given up, and a
/// watch opened again: its connection may be gone without a word. A watch on which nothing
/// happens has a bookmark every minute.
const SILENCE_LIMIT: Duration = Duration::from_secs(150);

/// Reason for which the operator ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration file is refused.
    #[error(transparent)]
    Config(#[from] flashjob_config::ConfigError),
    /// There is no way to a cluster.
    #[error("no cluster: {0}; set KUBECONFIG, or run inside a cluster")]
    Kubeconfig(#[from] kube::config::InferConfigError),
    /// A variable of the environment names a proxy that cannot be used.
    #[error(transparent)]
    Proxy(#[from] proxy::InvalidProxy),
    /// The client cannot be made.
    #[error("cannot make the client for the cluster: {0}")]
    Client(#[from] kube::Error),
    /// The plugin host does not start.
    #[error(transparent)]
    Host(#[from] flashjob_plugin_host::EngineError),
    /// Threads cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals: {0}")]
    Signals(#[from] std::io::Error),
    /// The name of this process cannot be sent.
    #[error("POD_NAME or the host's name has characters that no header may have: {0}")]
    Identity(#[from] http::header::InvalidHeaderValue),
    /// Another operator leads.
    #[error(transparent)]
    LostLease(#[from] LostLease),
    /// The election broke.
    #[error("the election broke: {0}")]
    Election(#[from] JoinError),
}

/// Runs until SIGINT or SIGTERM; plugins run on threads of their own.
///
/// # Errors
/// Something that the operator cannot do without is missing.
pub async fn run(arguments: Arguments, plugin_threads: &Handle) -> Result<(), RunError> {
    // Two TLS providers could be linked; ring is the one that is meant. A second call changes
    // nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let traces = logs::start();
    if arguments.exit_with_stdin {
        end_with_stdin();
    }
    let text = flashjob_config::read_if_present(&arguments.config)?;
    let config = text.as_deref().map(flashjob_config::parse).transpose()?;
    proxy::check()?;
    let mut kube_config = Config::infer().await?;
    proxy::leave_the_api_server_alone(&mut kube_config);
    let installation = Installation {
        namespace: arguments
            .namespace
            .clone()
            .unwrap_or_else(|| kube_config.default_namespace.clone()),
        watched: arguments.watch_namespace.clone(),
    };
    let identity = identity();
    // The API server's audit log then tells which replica did what.
    let agent = format!("flashjob-operator/{} ({identity})", env!("CARGO_PKG_VERSION"));
    kube_config.headers.push((http::header::USER_AGENT, agent.parse()?));
    // A client of its own for the Lease and for what is wrong: no request that waits for another
    // delays a renewal, and the fence does not hold it back.
    let unfenced = connection::client(&kube_config)?.build();
    let leadership =
        if arguments.leader_election { Leadership::standby() } else { Leadership::alone() };
    let metrics = Arc::new(Metrics::default());
    let (reports, readiness) = keep_health(&arguments, &installation, &metrics, &unfenced);
    let fenced = || -> kube::Result<Client> {
        let builder = connection::client(&kube_config)?
            .with_layer(&ResponseBodyTimeoutLayer::new(SILENCE_LIMIT))
            .with_layer(leadership.fence())
            .with_layer(&metrics.requests)
            .with_layer(&ReportOpened(reports.clone()));
        Ok(builder.build())
    };
    let client = fenced()?;
    let keepers_client = {
        let _threads = plugin_threads.enter();
        fenced()?
    };
    let advice = match &config {
        Some(config) => advice::of(config, &arguments.config, &installation),
        None => Some(advice::missing(&arguments.config, &installation)),
    };
    reports.state(ProblemSource::Configuration, advice);
    let config = config.unwrap_or_default();
    let access = Access::of(&config);
    let world = World::new(Vec::new(), config.rules(access.trust()));
    let (operator, messages) = Operator::new(Parts {
        client: client.clone(),
        keepers_client: keepers_client.clone(),
        access,
        plugins: Plugins::new(plugin_threads.clone()),
        leadership: leadership.clone(),
        recorder: recorder(&client),
        keepers_recorder: recorder(&keepers_client),
        metrics,
        reports: reports.clone(),
        installation: installation.clone(),
    });
    let watches = Watches::new(client.clone(), arguments.watch_namespace.clone());
    if text.is_some() {
        operator.metrics.configuration_taken();
    }
    let loader = Loader::start(&operator, &arguments, config)?;
    let reload = reload::follow(arguments.config.clone(), text, loader, &operator);
    let health = health::serve(arguments.health_address, operator.clone(), readiness);
    tokio::spawn(definitions::follow(client, reports.clone()));
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let (stop, stopped) = oneshot::channel();
    let duration = Duration::from_secs(arguments.lease_duration_seconds.into());
    let election =
        Election::new(unfenced, &installation, identity, duration, leadership.clone(), reports);
    let mut election: JoinHandle<Result<(), LostLease>> = if arguments.leader_election {
        tokio::spawn(election.run(stopped))
    } else {
        tokio::spawn(unled(stopped))
    };
    tokio::select! {
        () = reconcile::run(operator.clone(), messages, world, watches) => {}
        served = health => served?,
        () = reload => {}
        ended = &mut election => return Ok(ended??),
        _ = terminated.recv() => tracing::info!("SIGTERM: ending"),
        _ = interrupted.recv() => tracing::info!("SIGINT: ending"),
    }
    // Nothing is planned any more. What is under way finishes, then the Lease is given back.
    leadership.fence().refuse_new();
    drop(stop);
    let ended = tokio::time::timeout(END_LIMIT, election).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    ended.map_or(Ok(()), |ended| Ok(ended??))
}

/// Starts to keep what is wrong. Returns where to report it, and what `/readyz` says.
fn keep_health(
    arguments: &Arguments,
    installation: &Installation,
    metrics: &Arc<Metrics>,
    unfenced: &Client,
) -> (Reports, watch::Receiver<Readiness>) {
    let (reports, received) = Reports::channel();
    let lease = arguments.leader_election.then_some(ProblemSource::Lease);
    let awaited = WATCHED.into_iter().map(ProblemSource::Watch).chain(lease).collect();
    let record = Record::new(awaited, Duration::from_secs(arguments.unready_after_seconds));
    let first = record.readiness(Instant::now());
    let (readiness, shown) = watch::channel(first);
    let keeper = Keeper {
        reports: received,
        record,
        metrics: metrics.clone(),
        recorder: recorder(unfenced),
        pod: own_pod(&installation.namespace),
        readiness,
    };
    tokio::spawn(keeper.run());
    (reports, shown)
}

fn recorder(client: &Client) -> Recorder {
    let reporter = Reporter {
        controller: "flashjob-operator".to_owned(),
        instance: std::env::var("POD_NAME").ok(),
    };
    Recorder::new(client.clone(), reporter)
}

/// The Pod that this process runs in, if any. Only with its uid does `kubectl describe` show what
/// is told of it.
fn own_pod(namespace: &str) -> Option<ObjectReference> {
    Some(ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(std::env::var("POD_NAME").ok()?),
        namespace: Some(namespace.to_owned()),
        uid: std::env::var("POD_UID").ok(),
        ..ObjectReference::default()
    })
}

/// Stands in for the election where there is none.
async fn unled(stopped: oneshot::Receiver<()>) -> Result<(), LostLease> {
    let _ = stopped.await;
    Ok(())
}

/// A name that no other process has or will have, so that none takes another's Lease for its own.
fn identity() -> String {
    let name = std::env::var("POD_NAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let random = RandomState::new().hash_one(std::process::id());
    format!("{}_{random:016x}", name.as_deref().map_or("flashjob-operator", str::trim))
}

/// Ends this process when its standard input ends: whoever started it holds the other end, and is
/// gone then.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}
