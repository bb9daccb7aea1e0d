//! Demonstration of the main job: the real operator flashes a mixed fleet on a real control plane.
//! `up` leaves the testbed running until `down`.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use flashjob_testbed::process::{LIMIT, eventually, repository, script, sibling};
use flashjob_testbed::{Options, Testbed, show};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// Shows FlashJob Operator at work.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Flash a fleet, show it, and clean up.
    Run(Size),
    /// Start everything and leave it running.
    Up(Size),
    /// End what `up` started.
    Down,
    /// The part that `up` leaves running.
    #[command(hide = true)]
    Serve(Size),
}

#[derive(Args, Clone)]
struct Size {
    /// Devices: half of them esp32, half esp32s2.
    #[arg(long, default_value_t = 12)]
    devices: usize,
    /// External addresses.
    #[arg(long, default_value_t = 4)]
    addresses: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Run(size) => tokio::select! {
            ended = run(&size) => ended,
            _ = told_to_end() => Err(anyhow::anyhow!("interrupted")),
        },
        Command::Up(size) => up(&size).await,
        Command::Down => down().await,
        Command::Serve(size) => serve(&size).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn told_to_end() -> anyhow::Result<()> {
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(())
}

fn options(size: &Size) -> Options {
    let esp32 = size.devices.div_ceil(2);
    let devices = vec![
        format!("esp32:thermo:0.1.0={esp32}"),
        format!("esp32s2:thermo:0.1.0={}", size.devices - esp32),
    ];
    Options {
        devices,
        addresses: size.addresses,
        flasher_wait_ms: 500,
        periods: json!({}),
        ..Options::default()
    }
}

async fn start(size: &Size) -> anyhow::Result<Testbed> {
    script("tests/wasm/build.sh")?;
    let begin = Instant::now();
    println!(
        "starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler, a registry and \
         {} simulated devices",
        size.devices
    );
    let mut testbed = Testbed::start(&options(size)).await?;
    testbed.start_operator().await?;
    println!(
        "ready after {:.1} s; plugins and firmware are in the registry {}",
        begin.elapsed().as_secs_f32(),
        testbed.registry.host
    );
    Ok(testbed)
}

async fn run(size: &Size) -> anyhow::Result<()> {
    let testbed = start(size).await?;
    println!("{} external addresses", size.addresses);
    show::main_job(&testbed.client, &testbed.fleet, "default").await
}

/// Returns the folder in which `up` leaves its process id, kubeconfig and log.
fn folder() -> PathBuf {
    repository().join("target/demo")
}

fn serving() -> Option<Pid> {
    let text = std::fs::read_to_string(folder().join("pid")).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    test_kill_process(pid).is_ok().then_some(pid)
}

async fn up(size: &Size) -> anyhow::Result<()> {
    if serving().is_some() {
        bail!("it is running already; end it with make demo-down");
    }
    let folder = folder();
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let log = std::fs::File::create(folder.join("log"))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args([
        "serve",
        "--devices",
        &size.devices.to_string(),
        "--addresses",
        &size.addresses.to_string(),
    ]);
    use std::os::unix::process::CommandExt;
    let mut child = command
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        .process_group(0)
        .spawn()?;
    std::fs::write(folder.join("pid"), child.id().to_string())?;
    let ready = eventually("everything is up", Duration::from_secs(1800), || {
        let ended = child.try_wait();
        let ready = folder.join("ready").exists();
        async move { if ended?.is_some() { Ok(Some(false)) } else { Ok(ready.then_some(true)) } }
    });
    if !ready.await? {
        bail!(
            "it ended early:\n{}",
            std::fs::read_to_string(folder.join("log")).unwrap_or_default()
        );
    }
    print!("{}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
    Ok(())
}

async fn serve(size: &Size) -> anyhow::Result<()> {
    tokio::select! {
        started = start(size) => {
            let testbed = started?;
            let folder = folder();
            std::fs::copy(&testbed.control_plane.kubeconfig, folder.join("kubeconfig"))?;
            // kubectl finds its plugin in PATH.
            let kubectl = testbed.control_plane.programs.join("kubectl");
            for program in [kubectl, sibling("kubectl-flashjob")?] {
                let name = program.file_name().context("a file")?;
                std::os::unix::fs::symlink(&program, folder.join(name))?;
            }
            println!("logs:    {}", testbed.folder().display());
            println!(
                "uids:    kubectl get instances.akri.sh \
                 -o custom-columns=NAME:.metadata.name,UID:.metadata.uid"
            );
            println!("status:  kubectl flashjob status");
            println!("export PATH={}:$PATH", folder.display());
            println!("export KUBECONFIG={}", folder.join("kubeconfig").display());
            std::fs::write(folder.join("ready"), "")?;
            told_to_end().await
        }
        ended = told_to_end() => ended,
    }
}

async fn down() -> anyhow::Result<()> {
    let Some(pid) = serving() else {
        println!("nothing is running");
        return Ok(());
    };
    kill_process(pid, Signal::TERM)?;
    eventually(
        "it ended",
        LIMIT,
        || async move { Ok(test_kill_process(pid).is_err().then_some(())) },
    )
    .await?;
    std::fs::remove_dir_all(folder())?;
    Ok(())
}
