//! Demonstration of the main job on a real node: `make deploy` installs the operator, which
//! flashes simulated devices through real Pods, Services and addresses, in a namespace that admits
//! only restricted Pods.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use flashjob_node::images::{self, OPERATOR};
use flashjob_node::installation::{Installation, configuration, uids};
use flashjob_node::isolation::{self, Isolation};
use flashjob_node::{Node, life, requirements};
use flashjob_testbed::process::repository;
use flashjob_testbed::show;
use tokio::process::Command;
use tokio::runtime::Runtime;

/// Namespace of the devices.
const NAMESPACE: &str = "fleet";

fn main() -> ExitCode {
    if let Some(missing) = requirements::missing() {
        eprintln!("demo: a real node cannot run here: {missing}");
        return ExitCode::FAILURE;
    }
    let outcome = isolation::run(images::build, |isolation| {
        let devices = std::env::args().nth(1).unwrap_or_else(|| "12".to_owned());
        let devices = devices.parse().context("usage: node-demo [DEVICES]")?;
        Runtime::new().context("threads")?.block_on(run(&isolation, devices))?;
        Ok(ExitCode::SUCCESS)
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("demo: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(isolation: &Isolation, devices: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    println!(
        "starting a control plane, kubelet, containerd, kube-proxy, MetalLB's controller and a \
         registry"
    );
    let node = Node::start(isolation).await?;
    println!("the node is ready after {:.1} s", begin.elapsed().as_secs_f32());

    let mut make = Command::new("make");
    make.arg("--silent").arg("--directory").arg(repository()).args(["deploy"]);
    make.arg(format!("IMG={OPERATOR}"));
    println!("$ make deploy\n{}", node.run(make).await?.trim_end());
    let installation = Installation::default();
    installation.rolled_out(&node).await?;
    let plugins = ["esp32", "esp32s2"];
    installation.configure(&node, &configuration(&node, &plugins)).await?;
    installation.serves(&node, &plugins).await?;
    println!("$ kubectl get deviceplugins\n{}", node.kubectl(&["get", "deviceplugins"]).await?);

    life::make_namespace(&node, NAMESPACE).await?;
    let esp32 = devices.div_ceil(2);
    let groups = [
        format!("esp32:thermo:0.1.0={esp32}"),
        format!("esp32s2:thermo:0.1.0={}", devices - esp32),
    ];
    let simulated_devices =
        node.devices(NAMESPACE, &groups.each_ref().map(String::as_str)).await?;
    uids(&node, NAMESPACE, devices).await?;
    show::main_job(&node.client, &simulated_devices.fleet, NAMESPACE).await
}
