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

/// Interval at which a busy call lets others run, and the precision with which it is stopped.
const TICK: Duration = Duration::from_millis(10);

/// Prefixes of the imports that a component may have beside the contract's own interfaces.
const WASI: [&str; 5] =
    ["wasi:cli/", "wasi:io/", "wasi:clocks/", "wasi:filesystem/", "wasi:random/"];

/// A component ready to be instantiated.
#[derive(Clone)]
pub(crate) struct Compiled {
    /// As the log has it.
    name: Arc<str>,
    interface: Arc<Interface>,
    contract: Contract,
}

/// Time and memory that a call cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// From the question to the answer.
    pub time: Duration,
    /// Linear memory that the plugin had at the end, in bytes; it never has less than before.
    pub memory: usize,
}

impl Compiled {
    /// The same, which the log calls by this name.
    pub fn called(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Version of the WIT package by which it is asked.
    pub fn wit_version(&self) -> &'static str {
        self.contract.version()
    }

    /// Returns true if it can inspect firmware.
    pub fn inspects(&self) -> bool {
        self.contract.inspects()
    }

    /// Returns its imports and exports.
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
    /// One compilation at a time: each may take what memory there is.
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
                // Never closed.
                let turn = self.compilations.acquire().await;
                let code = compiler::compile_in_child(
                    &self.compiler,
                    verified.content(),
                    &name,
                    &self.limits,
                )
                .await?;
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

    /// Loads compiled code, and refuses what does not fit the contract.
    fn admit(&self, code: &[u8], name: &str) -> Result<Compiled, EngineError> {
        let component = load(&self.engine, code)
            .map_err(|error| EngineError::LimitReached(name.to_owned(), format!("{error:#}")))?;
        let interface = Arc::new(Interface::of(&component, &self.engine));
        check_imports(&interface, name)?;
        let version = contract::version_of(&interface, name)?;
        let world =
            |error: wasmtime::Error| EngineError::World(name.to_owned(), format!("{error:#}"));
        let instance = self.linker.instantiate_pre(&component).map_err(world)?;
        let contract = (version.fit)(instance, &interface).map_err(world)?;
        Ok(Compiled { name: name.into(), interface, contract })
    }

    /// Asks a fresh instance.
    pub async fn call(&self, compiled: &Compiled, call: Call<'_>) -> Result<Answer, CallError> {
        self.measure(compiled, call).await.0
    }

    /// Asks a fresh instance, and says what that cost.
    pub async fn measure(
        &self,
        compiled: &Compiled,
        call: Call<'_>,
    ) -> (Result<Answer, CallError>, Cost) {
        let _place = match self.places.acquire().await {
            Ok(place) => place,
            Err(error) => return (Err(CallError::Trapped(error.to_string())), Cost::default()),
        };
        let limits = self.limits;
        let since = Instant::now();
        let mut store = Store::new(&self.engine, State::new(compiled.name.clone(), limits));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.copied);
        // A busy call gives way at every tick, and is dropped when its time is over. One that is
        // done by the next tick never does.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let asked = tokio::time::timeout(
            limits.call_timeout,
            compiled.contract.ask(&mut store, call, limits.answer),
        )
        .await;
        let cost = Cost { time: since.elapsed(), memory: store.data().memory.used };
        let answer = match asked {
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

/// Says in the plugin author's words why a call was stopped.
fn stopped(error: &wasmtime::Error, limits: Limits) -> CallError {
    match error.downcast_ref::<Stopped>() {
        Some(Stopped::Memory) => return CallError::OutOfMemory { limit: limits.memory },
        Some(other) => return CallError::LimitReached(other.to_string()),
        None => {}
    }
    let text = format!("{error:#}");
    if text.contains("fuel") {
        return CallError::AnswerRejected(format!(
            "more than {} bytes were to be copied in one call",
            limits.copied
        ));
    }
    let root = error.root_cause().to_string();
    CallError::Trapped(root.lines().next().unwrap_or_default().to_owned())
}

#[cfg(feature = "fuzzing")]
impl Engine {
    /// Compiles in this very process, and goes all the way to what could be asked.
    pub fn compile_here(&self, component: &[u8]) {
        if let Ok(code) = self.engine.precompile_component(component) {
            // Whether it is refused does not matter here.
            let _ = self.admit(&code, "the component");
        }
    }
}

/// Converts an answer of each version, made of these bytes.
#[cfg(feature = "fuzzing")]
pub(crate) fn answer(bytes: &[u8]) {
    v0_1_0::fuzzing::answer(bytes);
    v0_2_0::fuzzing::answer(bytes);
    v0_3_0::fuzzing::answer(bytes);
}

/// Advances the engine's clock for as long as the engine lives.
fn tick(engine: &wasmtime::Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let ticker = std::thread::Builder::new().name("plugin-ticker".to_owned());
    let run = move || {
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
    // SAFETY: deserialize runs what it is given. These bytes come either straight from
    // `precompile_component` in a child of this program, over its pipe, or from the cache, which
    // no other process writes, and which gave out exactly the bytes whose SHA-256 it had checked.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests;
