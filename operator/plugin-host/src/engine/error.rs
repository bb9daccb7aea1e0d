//! Reasons why a component cannot be used.

use std::path::PathBuf;
use std::time::Duration;

/// Reason why a component cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine does not start.
    #[error("cannot start the plugin engine: {0}")]
    Start(String),
    /// The bytes are not a component.
    #[error("{0} is not a WebAssembly component: {1}")]
    Compile(String, String),
    /// The compilation timed out.
    #[error("{0} took longer than {1:?} to compile")]
    CompileTimedOut(String, Duration),
    /// The compilation exceeded a limit.
    #[error(
        "{name} could not be compiled: the compiler ended with {status} ({complaint}); it may \
         use {memory} bytes of memory, {raise}"
    )]
    CompileStopped {
        /// The component.
        name: String,
        /// The limit, in bytes.
        memory: u64,
        /// Source of the limit, and what to do.
        raise: &'static str,
        /// Exit status of the compiler.
        status: String,
        /// Error output of the compiler.
        complaint: String,
    },
    /// The compiler cannot be run.
    #[error("cannot run the compiler {path}: {1}", path = .0.display())]
    Compiler(PathBuf, String),
    /// The component needs more than the limits of one call before it is even called.
    #[error("{0} cannot be loaded within the limits of a plugin: {1}")]
    LimitReached(String, String),
    /// The component has an import that plugins may not have.
    #[error(
        "{0} imports {1}, which plugins may not import; allowed imports are flashjob:plugin/log \
         and WASI's cli, io, clocks, filesystem and random"
    )]
    Import(String, String),
    /// The component does not fit the contract, or not in the version that it claims.
    #[error("{0} does not fit the plugin contract flashjob:plugin: {1}")]
    World(String, String),
    /// The component is built for unsupported versions of the contract only.
    #[error(
        "{name} is built for flashjob:plugin@{built_for}; supported are {served}: build it for \
         one of these, or upgrade"
    )]
    NotServed {
        /// The component.
        name: String,
        /// The versions that it is built for.
        built_for: String,
        /// The versions that are served.
        served: String,
    },
}
