//! Compiles components and calls them: a fresh instance for each call, under limits of time,
//! memory and size.

mod bounds;
mod call;
mod compiler;
mod contract;
mod error;
mod interface;
mod limits;
mod log;
mod state;
mod v0_1_0;
mod v0_2_0;
mod v0_3_0;
mod wasi;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_types::CallError;
use tokio::sync::Semaphore;
use wasmtime::Store;
use wasmtime::component::{Component, Linker};

use crate::Verified;
use crate::cache::{Cache, engine_key};
use crate::config::Limits;
pub(crate) use call::{Answer, Call};
pub use compiler::{COMPILE_PLUGIN, compile_plugin};
use contract::Contract;
pub use error::EngineError;
pub use interface::Interface;
use limits::Stopped;
use state::State;

/// Interval at which a busy call yields to other tasks, and thus the precision of its timeout.
const TICK: Duration = Duration::from_millis(10);

/// Prefixes of the imports that a component may have besides the contract's own interfaces.
const WASI: [&str; 5] =
    ["wasi:cli/", "wasi:io/", "wasi:clocks/", "wasi:filesystem/", "wasi:random/"];

/// Component that is ready to be instantiated.
#[derive(Clone)]
pub(crate) struct Compiled {
    /// Name of the plugin in the log.
    name: Arc<str>,
    interface: Arc<Interface>,
    contract: Contract,
}

/// Time and memory that a call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time from the call to the answer.
    pub time: Duration,
    /// Linear memory of the plugin at the end of the call, in bytes; it never shrinks during a
    /// call.
    pub memory: usize,
}

impl Compiled {
    /// Returns the same component with another name in the log.
    pub fn called(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Returns the version of the WIT package with which the component is called.
    pub fn wit_version(&self) -> &'static str {
        self.contract.version()
    }

    /// Returns true if the component can inspect firmware.
    pub fn inspects(&self) -> bool {
        self.contract.inspects()
    }

    /// Returns the component's imports and exports.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }
}

/// One engine for all plugins.
pub(crate) struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<State>,
    limits: Limits,
    places: Semaphore,
    /// Limits compilations to one at a time: each may need all the available memory.
    compilations: Semaphore,
    compiler: PathBuf,
    key: String,
}

impl Engine {
    pub fn new(limits: Limits, compiler: PathBuf) -> Result<Self, EngineError> {
        let start = |error: wasmtime::Error| EngineError::Start(error.to_string());
        let places = limits::places(&limits);
        let engine = wasmtime::Engine::new(
            compiler::settings().allocation_strategy(limits::pool(places, &limits)),
        )
        .map_err(start)?;
        let mut linker = Linker::new(&engine);
        contract::add_to_linker(&mut linker).map_err(start)?;
        wasi::add_to_linker(&mut linker).map_err(start)?;
        // Without a ticker the epoch stands still, and a busy call would never reach its timeout.
        tick(&engine).map_err(|error| EngineError::Start(error.to_string()))?;
        let places = Semaphore::new(usize::from(places));
        let compilations = Semaphore::new(1);
        Ok(Self {
            key: engine_key(&engine),
            engine,
            linker,
            limits,
            places,
            compilations,
            compiler,
        })
    }

    /// Compiles a component, or takes it from the cache.
    pub async fn compile(
        &self,
        verified: &Verified,
        cache: &Cache,
    ) -> Result<Compiled, EngineError> {
        let name = verified.digest().to_string();
        let code = match cache.compiled(verified.digest(), &self.key) {
            Some(code) => code,
            None => {
                // The semaphore is never closed, so this cannot fail.
                let turn = self.compilations.acquire().await;
                let code = compiler::compile_in_child(
                    &self.compiler,
                    verified.content(),
                    &name,
                    &self.limits,
                )
                .await?;
                // Writing to the cache needs little memory, so the next compilation does not wait
                // for it.
                drop(turn);
                if let Err(error) = cache.put_compiled(verified.digest(), &self.key, &code) {
                    tracing::warn!(
                        %error,
                        "cannot write compiled code to the cache; it is compiled again after a \
                         restart"
                    );
                }
                code
            }
        };
        self.admit(&code, &name)
    }

    /// Loads compiled code, and rejects a component that does not fit the contract.
    fn admit(&self, code: &[u8], name: &str) -> Result<Compiled, EngineError> {
        // A component that needs more than a place of the pool is rejected here, and not at every
        // call.
        let component = load(&self.engine, code)
            .map_err(|error| EngineError::LimitReached(name.to_owned(), format!("{error:#}")))?;
        let interface = Arc::new(Interface::of(&component, &self.engine));
        // The linker would accept all of WASI, sockets included, and would not name what is
        // missing.
        check_imports(&interface, name)?;
        let version = contract::version_of(&interface, name)?;
        let world =
            |error: wasmtime::Error| EngineError::World(name.to_owned(), format!("{error:#}"));
        let instance = self.linker.instantiate_pre(&component).map_err(world)?;
        let contract = (version.fit)(instance, &interface).map_err(world)?;
        Ok(Compiled { name: name.into(), interface, contract })
    }

    /// Calls a fresh instance.
    pub async fn call(&self, compiled: &Compiled, call: Call<'_>) -> Result<Answer, CallError> {
        self.measure(compiled, call).await.0
    }

    /// Calls a fresh instance, and returns the answer and its cost.
    pub async fn measure(
        &self,
        compiled: &Compiled,
        call: Call<'_>,
    ) -> (Result<Answer, CallError>, Cost) {
        // Waiting for a place is not the plugin's fault, so it comes before the time is measured.
        let _place = match self.places.acquire().await {
            Ok(place) => place,
            Err(error) => return (Err(CallError::Trapped(error.to_string())), Cost::default()),
        };
        let limits = self.limits;
        let since = Instant::now();
        let mut store = Store::new(&self.engine, State::new(compiled.name.clone(), limits));
        store.limiter(|state| &mut state.memory);
        // Strings are copied to the host before their bounds can be checked; this stops oversized
        // ones.
        store.set_hostcall_fuel(limits.copied);
        // A busy call yields at every tick, and is dropped at its timeout. A call that ends before
        // the next tick never yields.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        // The epoch alone cannot end a call: it only makes the call yield, so that this timeout is
        // seen.
        let outcome = tokio::time::timeout(
            limits.call_timeout,
            compiled.contract.ask(&mut store, call, limits.answer),
        )
        .await;
        let cost = Cost { time: since.elapsed(), memory: store.data().memory.used };
        let answer = match outcome {
            Err(_) => Err(CallError::TimedOut { after: limits.call_timeout }),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(stopped(&error, limits)),
        };
        (answer, cost)
    }
}

fn check_imports(interface: &Interface, name: &str) -> Result<(), EngineError> {
    let allowed = |import: &str| {
        contract::is_own_import(import) || WASI.iter().any(|allowed| import.starts_with(allowed))
    };
    match interface.imports.iter().find(|import| !allowed(import)) {
        Some(import) => Err(EngineError::Import(name.to_owned(), import.clone())),
        None => Ok(()),
    }
}

/// Converts the error that stopped a call to a message for the plugin's author.
fn stopped(error: &wasmtime::Error, limits: Limits) -> CallError {
    match error.downcast_ref::<Stopped>() {
        Some(Stopped::Memory) => return CallError::OutOfMemory { limit: limits.memory },
        Some(other) => return CallError::LimitReached(other.to_string()),
        None => {}
    }
    let text = format!("{error:#}");
    // wasmtime's type for exhausted hostcall fuel is private, so only its text identifies it.
    if text.contains("fuel") {
        return CallError::AnswerRejected(format!(
            "one call would copy more than {} bytes",
            limits.copied
        ));
    }
    let root = error.root_cause().to_string();
    CallError::Trapped(root.lines().next().unwrap_or_default().to_owned())
}

#[cfg(feature = "fuzzing")]
impl Engine {
    /// Compiles in this process, and prepares the component until it could be called.
    pub fn compile_here(&self, component: &[u8]) {
        if let Ok(code) = self.engine.precompile_component(component) {
            // The fuzzer does not care whether the component is rejected.
            let _ = self.admit(&code, "the component");
        }
    }
}

/// Converts one answer for each contract version, generated from these bytes.
#[cfg(feature = "fuzzing")]
pub(crate) fn answer(bytes: &[u8]) {
    v0_1_0::fuzzing::answer(bytes);
    v0_2_0::fuzzing::answer(bytes);
    v0_3_0::fuzzing::answer(bytes);
}

/// Increments the engine's epoch for as long as the engine lives.
fn tick(engine: &wasmtime::Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let ticker = std::thread::Builder::new().name("plugin-ticker".to_owned());
    let run = move || {
        // A strong reference would keep the engine, and thus this thread, forever.
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    ticker.spawn(run).map(|_| ())
}

/// Loads compiled code.
#[allow(unsafe_code)]
fn load(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` executes its input. These bytes come either directly from
    // `precompile_component` in a child of this program, over its pipe, or from the cache, which
    // no other process writes, and which returned exactly the bytes whose SHA-256 it had checked.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests;
