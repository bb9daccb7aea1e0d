//! Components that break every limit in every entry point, and files that are not valid
//! components: each causes a specific error, the process keeps its size, and another plugin keeps
//! answering.
#![allow(clippy::expect_used, reason = "this is a test, its helpers too")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use flashjob_host_tests::components::{
    AtStart, compile_bomb, demanding, describing, empty, importing, module, starting,
};
use flashjob_host_tests::hosts::{component, host, source};
use flashjob_plugin_host::config::{Limits, PullPolicy};
use flashjob_plugin_host::types::{Device, FirmwareFile, Outcome, Request};
use flashjob_plugin_host::{CallError, Host, LoadError, Logins, Plugin};
use serde_json::json;

/// Bytes by which the process may grow: one call's memory, the data that is copied, and the code
/// of a component.
const GROWTH: usize = 96 << 20;

fn limits() -> Limits {
    Limits {
        call_timeout: Duration::from_millis(300),
        compile_timeout: Duration::from_secs(20),
        ..Limits::default()
    }
}

async fn load(host: &Host, folder: &Path, name: &str, bytes: &[u8]) -> Result<Plugin, LoadError> {
    let file = folder.join("component.wasm");
    std::fs::write(&file, bytes).expect("written");
    let source = source(name, &format!("file://{}", file.display()), PullPolicy::Never)
        .expect("a reference");
    host.load(&source, &Logins::none()).await
}

fn request(firmware: &str) -> Request {
    let device = Device {
        uid: "1".into(),
        name: "device".into(),
        endpoint: Some("127.0.0.1:1".into()),
        device_type: "esp32".into(),
        application_type: Some("thermo".into()),
        reported_version: None,
        nodes: Vec::new(),
        properties: Vec::new(),
    };
    Request {
        namespace: "default".into(),
        job: "job".into(),
        device,
        firmware: firmware.into(),
        version: "1".into(),
        image: None,
        settings: "{}".into(),
        attempt: 1,
    }
}

fn file(name: &str) -> FirmwareFile {
    FirmwareFile {
        device_type: "esp32".into(),
        firmware: "registry.example/firmware:1".into(),
        version: "1".into(),
        settings: "{}".into(),
        name: name.into(),
        size: 4096,
        beginning: vec![0; 4096],
    }
}

fn outcome(reason: &str) -> Outcome {
    Outcome {
        exit_code: Some(1),
        reason: reason.into(),
        termination_message: String::new(),
        attempt: 1,
        reported_version: None,
    }
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
}

/// Watches the size of the process and calls a plugin repeatedly, until the watch ends.
struct Watch {
    before: usize,
    most: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Watch {
    fn start(other: Plugin) -> anyhow::Result<Self> {
        let (most, answers, ended) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (peak, over) = (most.clone(), ended.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(resident().unwrap_or(usize::MAX), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (count, over) = (answers.clone(), ended.clone());
        let asking = tokio::spawn(async move {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                other
                    .build(&request("registry.example/firmware:1"))
                    .await
                    .expect("the other plugin answers");
                times.push(start.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            times
        });
        Ok(Self { before: resident()?, most, answers, ended, asking })
    }

    fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Checks the size, and prints the measurements.
    async fn end(self, what: &str) -> anyhow::Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        let mut times = self.asking.await?;
        times.sort();
        let at = |share: f64| {
            times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default()
        };
        let grown = self.most.load(Ordering::Relaxed).saturating_sub(self.before);
        println!(
            "{what}: {} MiB above idle; another plugin: {} answers, p50 {:?}, p99 {:?}",
            grown >> 20,
            times.len(),
            at(0.5),
            at(0.99)
        );
        anyhow::ensure!(grown <= GROWTH, "{what}: the process grew by {grown} bytes");
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Describe,
    ValidateSettings,
    Build,
    Judge,
    Inspect,
}

async fn ask(
    host: &Host,
    folder: &Path,
    bytes: &[u8],
    entry: Entry,
    mode: &str,
) -> Result<(), CallError> {
    let bytes = if entry == Entry::Describe {
        describing(bytes, mode).expect("a place")
    } else {
        bytes.to_vec()
    };
    let plugin = match load(host, folder, "breaks-limits", &bytes).await {
        Ok(plugin) => plugin,
        Err(LoadError::Describe { error, .. }) => return Err(error),
        Err(error) => panic!("{entry:?} {mode}: {error}"),
    };
    match entry {
        Entry::Describe => Ok(()),
        Entry::ValidateSettings => plugin.validate_settings(mode).await,
        Entry::Build => plugin.build(&request(mode)).await.map(|_| ()),
        Entry::Judge => plugin.judge(&request(mode), &outcome(mode)).await.map(|_| ()),
        Entry::Inspect => plugin.inspect(&file(mode)).await.map(|_| ()),
    }
}

/// Returns true if this is the error for this way to break a limit.
fn fits(mode: &str, error: &CallError) -> bool {
    match mode {
        "loop" => matches!(error, CallError::TimedOut { .. }),
        "memory" => matches!(error, CallError::OutOfMemory { .. }),
        "deep" | "trap" => matches!(error, CallError::Trapped(_)),
        "string" | "list" => matches!(error, CallError::AnswerRejected(_)),
        "log" => matches!(error, CallError::LimitReached(_)),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_limit_has_its_own_error_in_every_entry_point_and_nobody_else_notices()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    // What is too large must be rejected for that, also where a busy machine takes its time.
    let patient = Limits { call_timeout: Duration::from_secs(60), ..limits() };
    let patient = host(&cache, json!([]), json!([]), patient)?;
    let host = host(&cache, json!([]), json!([]), limits())?;
    let bytes = component("breaks-limits")?;
    let other = load(&host, folder.path(), "esp32", &component("esp32")?).await?;
    // Compiled beforehand, so that the answers are counted while limits are broken and not while a
    // compiler runs.
    load(&host, folder.path(), "breaks-limits", &bytes).await?;
    for entry in [Entry::Describe, Entry::Build, Entry::Judge, Entry::Inspect] {
        ask(&patient, folder.path(), &bytes, entry, "nothing").await?;
    }
    let idle = Watch::start(other.clone())?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    idle.end("idle").await?;
    let watch = Watch::start(other)?;
    for mode in ["loop", "deep", "memory", "string", "list", "log", "trap"] {
        for entry in
            [Entry::Describe, Entry::ValidateSettings, Entry::Build, Entry::Judge, Entry::Inspect]
        {
            // Only some of the answers contain a list.
            if mode == "list" && matches!(entry, Entry::ValidateSettings | Entry::Judge) {
                continue;
            }
            let answers = watch.answers();
            let limited = if mode == "loop" { &host } else { &patient };
            let error = ask(limited, folder.path(), &bytes, entry, mode)
                .await
                .expect_err("it broke a limit");
            assert!(fits(mode, &error), "{mode} in {entry:?}: {error:?}");
            if mode == "loop" {
                assert!(watch.answers() > answers, "{mode} in {entry:?}: the other plugin waits");
            }
        }
    }
    watch.end("limits broken").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_at_the_start_of_an_instance_is_under_the_same_limits() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let host = host(&folder.path().join("cache"), json!([]), json!([]), limits())?;
    let bytes = component("breaks-limits")?;
    let watch = Watch::start(load(&host, folder.path(), "esp32", &component("esp32")?).await?)?;
    for (how, expected) in [
        (AtStart::Loop, "did not answer within 300ms"),
        (AtStart::Recursion, "call stack exhausted"),
        (AtStart::Memory, "bytes of memory"),
        (AtStart::Table, "too large a table"),
        (AtStart::Trap, "crashed"),
    ] {
        let error = load(&host, folder.path(), "breaks-limits", &starting(&bytes, how)?)
            .await
            .err()
            .context("refused")?;
        assert_eq!(error.reason(), "DescribeFailed", "{how:?}: {error}");
        assert!(error.to_string().contains(expected), "{how:?}: {error}");
    }
    watch.end("limits broken at the start").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_cannot_be_used_says_why_and_costs_the_process_nothing()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let short = Limits { compile_timeout: Duration::from_secs(2), ..limits() };
    let host = host(&folder.path().join("cache"), json!([]), json!([]), short)?;
    let watch = Watch::start(load(&host, folder.path(), "esp32", &component("esp32")?).await?)?;
    for (what, bytes, reason, words) in [
        ("nothing", Vec::new(), "CompileFailed", "is not a WebAssembly component"),
        (
            "text",
            b"<html>not found</html>".to_vec(),
            "CompileFailed",
            "is not a WebAssembly component",
        ),
        ("a module", module(), "CompileFailed", "is not a WebAssembly component"),
        ("an empty component", empty(), "ContractMismatch", "does not fit the plugin contract"),
        (
            "a foreign import",
            importing("evil:network/sockets@1.0.0"),
            "ImportRefused",
            "evil:network/sockets@1.0.0",
        ),
        (
            "sockets",
            importing("wasi:sockets/tcp@0.2.0"),
            "ImportRefused",
            "wasi:sockets/tcp@0.2.0",
        ),
        ("too large a memory", demanding(1, 2048, 0, 1), "LimitReached", "within the limits"),
        ("many memories", demanding(9, 1, 0, 1), "LimitReached", "within the limits"),
        ("many tables", demanding(0, 0, 17, 1), "LimitReached", "within the limits"),
        ("many instances", demanding(0, 0, 0, 101), "LimitReached", "within the limits"),
        (
            "as much as there may be",
            demanding(8, 1, 16, 1),
            "ContractMismatch",
            "does not fit the plugin contract",
        ),
        ("a compile bomb", compile_bomb(60), "CompileLimitReached", "compile"),
    ] {
        let error = load(&host, folder.path(), "esp32", &bytes).await.err().context(what)?;
        assert_eq!(error.reason(), reason, "{what}: {error}");
        assert!(
            error.to_string().contains(words) && error.to_string().len() < 1000,
            "{what}: {error}"
        );
    }
    watch.end("components that cannot be used").await
}

/// Checks that a damaged component was refused for a documented reason. Damage may also hit bytes
/// that are never read, and then the component works.
fn refused_or_whole(result: Result<Plugin, LoadError>, what: &str) {
    if let Err(error) = result {
        let reasons = [
            "CompileFailed",
            "ContractMismatch",
            "ContractNotServed",
            "ImportRefused",
            "DescribeFailed",
            "WrongName",
            "CompileLimitReached",
        ];
        assert!(reasons.contains(&error.reason()), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_component_is_refused_and_damaged_code_in_the_cache_is_made_anew()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    let host = host(&cache, json!([]), json!([]), limits())?;
    let bytes = component("traps")?;
    for part in 0..16 {
        let cut = &bytes[..bytes.len() * part / 16];
        let error = load(&host, folder.path(), "traps", cut)
            .await
            .err()
            .with_context(|| format!("cut at {}", cut.len()))?;
        assert!(
            matches!(error.reason(), "CompileFailed" | "ContractMismatch"),
            "cut at {}: {error}",
            cut.len()
        );
    }
    for part in 0..32 {
        let (at, mut flipped) = (bytes.len() * part / 32, bytes.clone());
        flipped[at] ^= 1 << (part % 8);
        refused_or_whole(
            load(&host, folder.path(), "traps", &flipped).await,
            &format!("bit flipped at {at}"),
        );
    }
    load(&host, folder.path(), "traps", &bytes).await?;
    let digest = flashjob_plugin_host::Digest::of(&bytes);
    let compiled =
        std::fs::read_dir(cache.join("compiled"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let code = compiled.filter(|path| {
        path.to_string_lossy().contains(digest.hex())
            && path.extension().is_some_and(|end| end == "cwasm")
    });
    let code = code.last().context("compiled code")?;
    let good = std::fs::read(&code)?;
    for part in 0..4 {
        let mut damaged = good.clone();
        damaged[good.len() * part / 4] ^= 0x10;
        std::fs::write(&code, &damaged)?;
        load(&host, folder.path(), "traps", &bytes).await?;
        assert_eq!(std::fs::read(&code)?, good, "what was damaged is made anew");
    }
    std::fs::write(&code, &good[..good.len() / 2])?;
    load(&host, folder.path(), "traps", &bytes).await?;
    Ok(())
}
