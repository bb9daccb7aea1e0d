//! Compiles a component in a child process: nothing stops a compilation from inside, and one that
//! grows without end must not take the operator along. The child is a program that hands its
//! arguments to [`compile_plugin`]; component in, code out, over pipes.

mod memory;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use self::memory::Memory;
use super::error::EngineError;
use crate::config::Limits;

/// The word by which a program knows that it is to compile.
pub const COMPILE_PLUGIN: &str = "compile-plugin";
/// First bytes of every WebAssembly file.
const MAGIC: &[u8] = b"\0asm";
/// Most bytes that are read of the child's complaints.
const COMPLAINT_BYTES: u64 = 4096;

/// The child's side: reads a component from standard input and writes its code to standard output,
/// under the limits that `arguments` name: bytes of address space, bytes of memory that it may
/// write to, and seconds of processor time. To be called first thing, before any thread is
/// started.
#[must_use]
pub fn compile_plugin(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match compile(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compile(arguments: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let numbers: Option<Vec<u64>> =
        arguments.into_iter().map(|word| word.to_str()?.parse().ok()).collect();
    let Some([space, memory, seconds]) = numbers.as_deref() else {
        return Err(format!(
            "{COMPILE_PLUGIN} expects bytes of address space, bytes of memory and seconds of \
             processor time"
        ));
    };
    // Where memory is short all the same, this process is the one to go. That may be forbidden;
    // the limits below count in any case.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, limit) in [
        (Resource::As, *space),
        (Resource::Data, *memory),
        (Resource::Cpu, *seconds),
        (Resource::Core, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
            .map_err(|error| format!("{resource:?}: {error}"))?;
    }
    let mut component = Vec::new();
    std::io::stdin().lock().read_to_end(&mut component).map_err(|error| error.to_string())?;
    if !component.starts_with(MAGIC) {
        return Err("its first bytes are not those of WebAssembly".to_owned());
    }
    let engine = wasmtime::Engine::new(&settings()).map_err(|error| error.to_string())?;
    let code = engine.precompile_component(&component).map_err(|error| format!("{error:#}"))?;
    std::io::stdout().lock().write_all(&code).map_err(|error| error.to_string())
}

/// The same settings for whoever compiles and whoever runs: else the code does not fit.
pub(super) fn settings() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    config.wasm_backtrace_max_frames(None);
    config
}

/// The operator's side: has a child compile.
pub(super) async fn compile_in_child(
    program: &Path,
    component: &[u8],
    name: &str,
    limits: &Limits,
) -> Result<Vec<u8>, EngineError> {
    let compiling = run(program, component, name, limits);
    let timed_out = |_| EngineError::CompileTimedOut(name.to_owned(), limits.compile_timeout);
    // Dropped at its time, and the child is killed with it.
    tokio::time::timeout(limits.compile_timeout, compiling).await.map_err(timed_out)?
}

async fn run(
    program: &Path,
    component: &[u8],
    name: &str,
    limits: &Limits,
) -> Result<Vec<u8>, EngineError> {
    let broken =
        |error: std::io::Error| EngineError::Compiler(program.to_owned(), error.to_string());
    let seconds = limits.compile_timeout.as_secs() + 1;
    let memory = Memory::now(limits.compile_memory as u64);
    let mut command = Command::new(program);
    command.arg(COMPILE_PLUGIN);
    command.args(
        [limits.compile_memory as u64, memory.bytes, seconds].map(|limit| limit.to_string()),
    );
    // It needs nothing of what the operator was given.
    command
        .env_clear()
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(broken)?;
    let (Some(mut input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(broken(std::io::ErrorKind::BrokenPipe.into()));
    };
    let (mut code, mut complaint) = (Vec::new(), Vec::new());
    // A child that ends early takes no more input; how it ended says why.
    let write = async move {
        let _ = input.write_all(component).await;
    };
    // No more can come than it has memory.
    let mut output = output.take(limits.compile_memory as u64);
    let mut errors = errors.take(COMPLAINT_BYTES);
    let ((), read, _) =
        tokio::join!(write, output.read_to_end(&mut code), errors.read_to_end(&mut complaint));
    read.map_err(broken)?;
    let status = child.wait().await.map_err(broken)?;
    if status.success() { Ok(code) } else { Err(failure(status, &complaint, name, memory)) }
}

/// A child that ends by itself says what is wrong with the component; one that is ended reached a
/// limit.
fn failure(status: ExitStatus, complaint: &[u8], name: &str, memory: Memory) -> EngineError {
    let complaint = String::from_utf8_lossy(complaint);
    let complaint: String = complaint
        .trim()
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    let spent = complaint.contains("out of memory");
    if status.code() == Some(FAILURE) && !complaint.is_empty() && !spent {
        return EngineError::Compile(name.to_owned(), complaint);
    }
    EngineError::CompileStopped {
        name: name.to_owned(),
        memory: memory.bytes,
        raise: if memory.container_is_full {
            "what the operator's container has left: raise its resources.limits.memory"
        } else {
            "limits.compileMemory of the operator's configuration"
        },
        status: status.to_string(),
        complaint,
    }
}

/// Exit code that the parent sees for [`ExitCode::FAILURE`].
const FAILURE: i32 = 1;
