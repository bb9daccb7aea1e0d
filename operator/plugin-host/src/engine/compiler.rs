//! Compiles a component in a child process: a compilation cannot be stopped from inside the
//! process, and one that needs too much memory must not take the operator down. The child is a
//! program that passes its arguments to [`compile_plugin`]; it reads the component and writes the
//! code over pipes.

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

/// First argument that tells a program to compile a plugin.
pub const COMPILE_PLUGIN: &str = "compile-plugin";
/// First bytes of every WebAssembly file.
const MAGIC: &[u8] = b"\0asm";
/// Maximum number of bytes that are read from the child's standard error.
const COMPLAINT_BYTES: u64 = 4096;

/// Compiles in the child process: reads a component from standard input and writes its code to
/// standard output, under the limits in `arguments`: bytes of address space, bytes of writable
/// memory, and seconds of processor time. Must be called first, before any thread is started.
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
    // If memory runs out all the same, the kernel should kill this process first. Writing the
    // score may be forbidden; the limits below apply in any case.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, limit) in [
        (Resource::As, *space),
        (Resource::Data, *memory),
        (Resource::Cpu, *seconds),
        // A core dump of the compiler would fill the disk of the node.
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

/// Engine settings. Compiler and runtime must use the same ones, or the code does not fit.
pub(super) fn settings() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    config.wasm_backtrace_max_frames(None);
    config
}

/// Compiles in a child process of the operator.
pub(super) async fn compile_in_child(
    program: &Path,
    component: &[u8],
    name: &str,
    limits: &Limits,
) -> Result<Vec<u8>, EngineError> {
    let compiling = run(program, component, name, limits);
    let timed_out = |_| EngineError::CompileTimedOut(name.to_owned(), limits.compile_timeout);
    // At the timeout the future is dropped, which kills the child.
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
    // The timeout of the parent comes first; this limit ends a child whose parent was killed.
    let seconds = limits.compile_timeout.as_secs() + 1;
    let memory = Memory::now(limits.compile_memory as u64);
    let mut command = Command::new(program);
    command.arg(COMPILE_PLUGIN);
    command.args(
        [limits.compile_memory as u64, memory.bytes, seconds].map(|limit| limit.to_string()),
    );
    // The child needs none of the operator's environment.
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
    // A child that ends early closes its input; its exit status gives the reason.
    let write = async move {
        let _ = input.write_all(component).await;
    };
    // The child cannot produce more than it has memory.
    let mut output = output.take(limits.compile_memory as u64);
    let mut errors = errors.take(COMPLAINT_BYTES);
    // All three pipes are served at once: a full one would block the child, which would block the
    // others.
    let ((), read, _) =
        tokio::join!(write, output.read_to_end(&mut code), errors.read_to_end(&mut complaint));
    read.map_err(broken)?;
    let status = child.wait().await.map_err(broken)?;
    if status.success() { Ok(code) } else { Err(failure(status, &complaint, name, memory)) }
}

/// Returns the error for a failed child: one that exits by itself reports what is wrong with the
/// component; one that was killed reached a limit.
fn failure(status: ExitStatus, complaint: &[u8], name: &str, memory: Memory) -> EngineError {
    let complaint = String::from_utf8_lossy(complaint);
    let complaint: String = complaint
        .trim()
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    // Some failed allocations are ordinary errors of the compiler; they are limits all the same.
    let spent = complaint.contains("out of memory");
    if status.code() == Some(FAILURE) && !complaint.is_empty() && !spent {
        return EngineError::Compile(name.to_owned(), complaint);
    }
    EngineError::CompileStopped {
        name: name.to_owned(),
        memory: memory.bytes,
        raise: if memory.container_is_full {
            "all that the operator's container has left: raise its resources.limits.memory"
        } else {
            "as set by limits.compileMemory of the operator's configuration"
        },
        status: status.to_string(),
        complaint,
    }
}

/// Exit code that the parent sees for [`ExitCode::FAILURE`].
const FAILURE: i32 = 1;
