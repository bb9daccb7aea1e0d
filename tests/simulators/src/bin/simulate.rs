//! The simulators, each on its own: devices, Akri, kubelet, load balancer.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use flashjob_simulators::akri::{self, Akri};
use flashjob_simulators::devices::{self, Fleet, Group};
use flashjob_simulators::kubelet::{self, Kubelet};
use flashjob_simulators::{load_balancer, process, serial};
use kube::Client;

/// Stands in for hardware, Akri, kubelet and load balancer.
#[derive(Parser)]
struct Arguments {
    /// End when standard input does.
    #[arg(long, global = true)]
    exit_with_stdin: bool,
    #[command(subcommand)]
    simulator: Simulator,
}

#[derive(Subcommand)]
enum Simulator {
    /// Microcontrollers that update themselves over the network.
    Devices {
        /// `type:application:version=count`, as esp32:thermo:0.1.0=6.
        #[arg(long = "devices")]
        groups: Vec<Group>,
        /// Interface for tests: GET and POST /devices, PUT /devices/{id}/behaviour.
        #[arg(long, default_value = "127.0.0.1:0")]
        admin: SocketAddr,
        #[command(flatten)]
        settings: devices::Settings,
    },
    /// An Instance for each device.
    Akri(akri::Settings),
    /// A node that runs Pods as local processes.
    Kubelet(kubelet::Settings),
    /// Addresses for Services.
    LoadBalancer(load_balancer::Settings),
    /// A chip on the node's serial port.
    Serial(serial::Settings),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    process::prepare();
    let arguments = Arguments::parse();
    if arguments.exit_with_stdin {
        process::end_with_stdin();
    }
    tokio::select! {
        ended = simulate(arguments.simulator) => ended,
        outcome = process::told_to_end() => outcome,
    }
}

async fn simulate(simulator: Simulator) -> anyhow::Result<()> {
    match simulator {
        Simulator::Devices { groups, admin, settings } => {
            let fleet = Fleet::new(settings);
            for group in &groups {
                fleet.add(group).await?;
            }
            let admin = fleet.serve_admin(admin).await?;
            println!("{}", serde_json::json!({"admin": admin}));
            std::future::pending().await
        }
        Simulator::Akri(settings) => {
            let akri = Akri::new(Client::try_default().await?, settings)?;
            println!("{}", serde_json::json!({"admin": akri.serve_admin().await?}));
            akri.run().await
        }
        Simulator::Kubelet(settings) => {
            Kubelet::new(Client::try_default().await?, settings)?.run().await
        }
        Simulator::LoadBalancer(settings) => {
            load_balancer::run(Client::try_default().await?, settings).await
        }
        Simulator::Serial(settings) => {
            let chip = Arc::new(serial::Chip::switch_on()?);
            let instance = match settings.alone {
                true => None,
                false => Some(
                    serial::announce(&Client::try_default().await?, &settings, &chip.port).await?,
                ),
            };
            let port = chip.port.clone();
            let admin = chip.serve_admin(settings.admin).await?;
            println!(
                "{}",
                serde_json::json!({"admin": admin, "port": port, "instance": instance})
            );
            std::future::pending().await
        }
    }
}
