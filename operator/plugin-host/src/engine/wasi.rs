//! Closed WASI: the interfaces that runtimes of other languages import, without access to
//! anything. Equal calls give equal answers, and a call that would wait is stopped at once.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use wasmtime::component::{HasData, HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};
use wasmtime_wasi_io::bindings::wasi::io::poll;
use wasmtime_wasi_io::poll::DynPollable;
use wasmtime_wasi_io::streams::DynOutputStream;

use super::limits::Stopped;
use super::log::Output;
use super::state::State;

/// Links WASI. The engine rejects imports of sockets by name.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    // All of WASI is linked first; what could wait or write is then replaced.
    linker.allow_shadowing(true);
    poll::add_to_linker::<_, AtOnce>(linker, |state| Pollables(state.ctx().table))?;
    stdout::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    stderr::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl stdout::Host for State {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.output(tracing::Level::INFO)
    }
}

impl stderr::Host for State {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.output(tracing::Level::WARN)
    }
}

impl State {
    fn output(&mut self, level: tracing::Level) -> wasmtime::Result<Resource<DynOutputStream>> {
        let output: DynOutputStream = Box::new(Output::new(self.log.clone(), level));
        Ok(self.ctx().table.push(output)?)
    }
}

struct AtOnce;

impl HasData for AtOnce {
    type Data<'a> = Pollables<'a>;
}

/// Pollables that a plugin may wait for: only those that are already ready.
struct Pollables<'a>(&'a mut ResourceTable);

impl poll::Host for Pollables<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        at_once(self.0.poll(pollables)).await
    }
}

impl poll::HostPollable for Pollables<'_> {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        at_once(self.0.block(pollable)).await
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.0.ready(pollable).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(self.0, pollable)
    }
}

/// Runs a wait that must end at once: the clocks stand still, so any other wait would never end. A
/// wait with zero duration yields once, so the future is polled twice.
async fn at_once<T>(
    waits: impl Future<Output = wasmtime::Result<T>> + Send,
) -> wasmtime::Result<T> {
    let mut waits = pin!(waits);
    let answer = poll_fn(|context| match waits.as_mut().poll(context) {
        Poll::Pending => Poll::Ready(waits.as_mut().poll(context)),
        ready => Poll::Ready(ready),
    });
    match answer.await {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(Stopped::Waits.into()),
    }
}
