//! Assembles the operator and runs it until a signal ends it.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_config::Access;
use flashjob_rules::world::World;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
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
use crate::cluster::{configuration, connection, definitions, proxy};
use crate::operator::{Operator, Parts};
use crate::plugins::Plugins;
use crate::plugins::loader::Loader;
use crate::tasks::{EndedTask, Tasks};
use crate::telemetry::health::advice;
use crate::telemetry::health::keeper::{Keeper, Reports};
use crate::telemetry::health::opened::ReportOpened;
use crate::telemetry::health::problem::{ProblemSource, WATCHED};
use crate::telemetry::health::record::{Readiness, Record};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{health, logs};
use crate::{reconcile, reload};

/// Longest time for requests in flight to finish and the Lease to be released; Kubernetes kills
/// the process after 30 s.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Read timeout of a response of the API server: a response that brings no data for this long is
/// dropped, and a watch is reopened, as the connection may be dead. An idle watch receives a
/// bookmark every minute.
const SILENCE_LIMIT: Duration = Duration::from_secs(150);

/// Error that ends the operator.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration file is refused.
    #[error(transparent)]
    Config(#[from] flashjob_config::ConfigError),
    /// No configuration of a cluster was found.
    #[error(transparent)]
    Kubeconfig(#[from] configuration::NoCluster),
    /// An environment variable names a proxy that cannot be used.
    #[error(transparent)]
    Proxy(#[from] proxy::InvalidProxy),
    /// The client of the API server cannot be created.
    #[error("cannot create the client for the API server: {0}")]
    Client(#[from] kube::Error),
    /// The plugin host cannot start.
    #[error(transparent)]
    Host(#[from] flashjob_plugin_host::EngineError),
    /// Threads cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// Signal handlers cannot be installed.
    #[error("cannot install signal handlers: {0}")]
    Signals(#[from] std::io::Error),
    /// The health address is in use, or not an address of this machine.
    #[error(
        "cannot serve health and metrics on {address}: {source}; free it, or change \
         --health-address"
    )]
    Health {
        /// Configured address.
        address: SocketAddr,
        /// Cause.
        source: std::io::Error,
    },
    /// The identity of this process is not a valid header value.
    #[error(
        "POD_NAME or the host name has characters that are not allowed in an HTTP header: {0}"
    )]
    Identity(#[from] http::header::InvalidHeaderValue),
    /// Another process took the Lease.
    #[error(transparent)]
    LostLease(#[from] LostLease),
    /// A task that runs as long as the process panicked or returned.
    #[error(transparent)]
    Task(#[from] EndedTask),
    /// The election task panicked or was cancelled.
    #[error("the leader election task failed: {0}")]
    Election(#[from] JoinError),
}

/// Runs until SIGINT or SIGTERM; plugins run on threads of their own.
///
/// # Errors
/// The operator cannot start, it lost its Lease, or a part of it ended; see [`RunError`].
pub async fn run(arguments: Arguments, plugin_threads: &Handle) -> Result<(), RunError> {
    // Two TLS providers may be linked, so ring is selected explicitly. A second call has no
    // effect.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let traces = logs::start();
    if arguments.exit_with_stdin {
        end_with_stdin();
    }
    let text = flashjob_config::read_if_present(&arguments.config)?;
    // At start there is no previous configuration to keep, so an invalid file ends the process; a
    // missing file does not, and is read when it appears.
    let config = text.as_deref().map(flashjob_config::parse).transpose()?;
    proxy::check()?;
    let mut kube_config = configuration::read()?;
    let installation = Installation {
        namespace: arguments
            .namespace
            .clone()
            .unwrap_or_else(|| kube_config.default_namespace.clone()),
        watched: arguments.watch_namespace.clone(),
        config_map: arguments.config_map.clone(),
    };
    let identity = identity();
    // With this header, the API server's audit log shows which replica sent a request.
    let agent = format!("flashjob-operator/{} ({identity})", env!("CARGO_PKG_VERSION"));
    kube_config.headers.push((http::header::USER_AGENT, agent.parse()?));
    // A separate client for the Lease and for events about problems: other requests cannot delay a
    // renewal, and the fence does not hold it back.
    // It speaks HTTP/1.1: a renewal that times out closes its connection, and the next one opens
    // another. On a dead HTTP/2 connection the Lease would expire before the pings fail.
    let unfenced = Client::try_from(kube_config.clone())?;
    let leadership =
        if arguments.leader_election { Leadership::standby() } else { Leadership::alone() };
    let metrics = Arc::new(Metrics::default());
    let (tasks, mut ended_tasks) = Tasks::channel();
    let (keeper, reports, readiness) =
        health_keeper(&arguments, &installation, &metrics, &unfenced);
    tokio::spawn(tasks.clone().guarded("keeper of problem reports".to_owned(), keeper.run()));
    // Each layer is outside of those before it: a request waits at the limit first, then is
    // counted, and passes the fence last, right before it is sent.
    let fenced = || -> kube::Result<Client> {
        let builder = connection::client(&kube_config)?
            .with_layer(&ResponseBodyTimeoutLayer::new(SILENCE_LIMIT))
            .with_layer(leadership.fence())
            .with_layer(&metrics.requests)
            .with_layer(&ReportOpened(reports.clone()))
            .with_layer(&connection::limit());
        Ok(builder.build())
    };
    let client = fenced()?;
    // A connection is served by the threads on which it was opened; a plugin that loops there
    // would delay the requests of the loop.
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
        tasks: tasks.clone(),
    });
    let watches = Watches::new(client.clone(), arguments.watch_namespace.clone());
    if text.is_some() {
        operator.metrics.configuration_taken();
    }
    let loader = Loader::start(&operator, &arguments, config)?;
    let reload = reload::follow(arguments.config.clone(), text, loader, &operator);
    let health = health::serve(arguments.health_address, operator.clone(), readiness);
    let definitions = definitions::follow(client, reports.clone());
    tokio::spawn(tasks.guarded("check of the definitions".to_owned(), definitions));
    // Kubernetes sends SIGTERM. As process 1 of a container, the program would ignore both signals
    // without handlers.
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
        // Each of these runs as long as the process.
        () = reconcile::run(operator.clone(), messages, world, watches) => {
            return Err(EndedTask("control loop".to_owned()).into());
        }
        served = health => {
            let address = arguments.health_address;
            served.map_err(|source| RunError::Health { address, source })?;
            return Err(EndedTask("health server".to_owned()).into());
        }
        () = reload => return Err(EndedTask("reload of the configuration".to_owned()).into()),
        Some(ended) = ended_tasks.recv() => return Err(ended.into()),
        // Another process holds the Lease and may act already, so nothing is drained: plans and
        // requests of this process end with it.
        ended = &mut election => return Ok(ended??),
        _ = terminated.recv() => tracing::info!("received SIGTERM; shutting down"),
        _ = interrupted.recv() => tracing::info!("received SIGINT; shutting down"),
    }
    // Planning has ended. Requests in flight finish, then the Lease is released.
    leadership.fence().refuse_new();
    drop(stop);
    let ended = tokio::time::timeout(END_LIMIT, election).await;
    // Last, so that the spans of the requests in flight are sent too. Its 5 s and the limit above
    // stay below the 30 s of Kubernetes.
    if let Some(traces) = traces {
        traces.end().await;
    }
    ended.map_or(Ok(()), |ended| Ok(ended??))
}

/// Returns the keeper of problem reports, the channel for reports, and the readiness that
/// `/readyz` shows.
fn health_keeper(
    arguments: &Arguments,
    installation: &Installation,
    metrics: &Arc<Metrics>,
    unfenced: &Client,
) -> (Keeper, Reports, watch::Receiver<Readiness>) {
    let (reports, received) = Reports::channel();
    let lease = arguments.leader_election.then_some(ProblemSource::Lease);
    let awaited = WATCHED.into_iter().map(ProblemSource::Watch).chain(lease).collect();
    let record = Record::new(awaited, Duration::from_secs(arguments.unready_after_seconds));
    let first = record.readiness(Instant::now());
    let (readiness, readiness_receiver) = watch::channel(first);
    let keeper = Keeper {
        reports: received,
        record,
        metrics: metrics.clone(),
        recorder: recorder(unfenced),
        pod: own_pod(&installation.namespace),
        readiness,
    };
    (keeper, reports, readiness_receiver)
}

fn recorder(client: &Client) -> Recorder {
    let reporter = Reporter {
        controller: "flashjob-operator".to_owned(),
        instance: std::env::var("POD_NAME").ok(),
    };
    Recorder::new(client.clone(), reporter)
}

/// Returns the Pod that this process runs in, if any. `kubectl describe` shows only events that
/// have the uid of the Pod.
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

/// Replaces the election if leader election is disabled.
async fn unled(stopped: oneshot::Receiver<()>) -> Result<(), LostLease> {
    let _ = stopped.await;
    Ok(())
}

/// Returns an identity that no other process has or will have, so that no process mistakes
/// another's Lease for its own.
fn identity() -> String {
    let name = std::env::var("POD_NAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    // A restarted container has the Pod name of its predecessor, whose last requests may still
    // take effect.
    let random = RandomState::new().hash_one(std::process::id());
    format!("{}_{random:016x}", name.as_deref().map_or("flashjob-operator", str::trim))
}

/// Ends this process at the end of its standard input: the parent process, which holds the other
/// end, is then gone.
fn end_with_stdin() {
    // A blocking read cannot be cancelled: as a task of the runtime it would delay the end of the
    // process.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}
