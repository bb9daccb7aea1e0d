//! Puts the operator together and runs it until it is told to end.

use std::sync::Arc;

use flashjob_plugin_host::{Host, HostSettings};
use kube::Config;
use kube::client::ClientBuilder;
use kube::runtime::events::{Recorder, Reporter};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Arguments;
use crate::metrics::Metrics;
use crate::operator::Operator;
use crate::plugins::{self, Plugins};
use crate::world::{Rules, World};
use crate::{config, health, logs, watch};

/// Why the operator ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration file is refused.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// There is no way to a cluster.
    #[error("no cluster: {0}; set KUBECONFIG, or run inside a cluster")]
    Kubeconfig(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("cannot make the client for the cluster: {0}")]
    Client(#[from] kube::Error),
    /// The plugin host does not start.
    #[error(transparent)]
    Host(#[from] flashjob_plugin_host::EngineError),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// Something that the operator cannot do without is missing.
pub async fn run(arguments: Arguments) -> Result<(), RunError> {
    // Two TLS providers could be linked; ring is the one that is meant. A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let traces = logs::start();
    if arguments.exit_with_stdin {
        end_with_stdin();
    }
    let config = config::read(&arguments.config)?;
    let kube_config = Config::infer().await?;
    let namespace = arguments.namespace.clone().unwrap_or_else(|| kube_config.default_namespace.clone());
    let metrics = Arc::new(Metrics::default());
    let client = ClientBuilder::try_from(kube_config)?.with_layer(&metrics.requests).build();
    let host = Host::new(HostSettings {
        cache: arguments.cache.clone(),
        limits: config.limits,
        registries: config.registries.clone(),
        trust: config.trust.clone(),
    })?;
    let rules =
        Rules { namespaces: config.instances.namespaces.clone(), periods: config.periods, pod_policy: Arc::new(config.pod_policy.clone()) };
    let world = World::new(plugins::views(&config), rules);
    let recorder =
        Recorder::new(client.clone(), Reporter { controller: "flashjob-operator".to_owned(), instance: std::env::var("POD_NAME").ok() });
    let (operator, queue) = Operator::new(client.clone(), world, Plugins::default(), recorder, metrics);
    watch::start(&client, arguments.watch_namespace.as_deref(), &operator);
    plugins::start(&operator, &config, &host, &namespace);
    let health = health::serve(arguments.health_address, operator.clone());
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = operator.run(queue) => {}
        served = health => served?,
        _ = terminated.recv() => tracing::info!("SIGTERM: ending"),
        _ = interrupted.recv() => tracing::info!("SIGINT: ending"),
    }
    if let Some(traces) = traces {
        traces.end().await;
    }
    Ok(())
}

/// Ends this process when its standard input ends: whoever started it holds the other end, and is gone then.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}
