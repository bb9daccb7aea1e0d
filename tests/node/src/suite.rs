//! Harness of the tests on a real node: one node for all tests of a program, which run one after
//! the other. Where the machine cannot run a node, all tests count as ignored, and one sentence
//! says what is missing.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::isolation::{self, Isolation};
use crate::{Node, images, requirements};

/// Body of a test.
pub type Body = for<'a> fn(&'a mut Node) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// Lists async functions of a test program as its tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |node| Box::pin($name(node)))),*]
    };
}

/// Runs the tests of a program, as its `main`.
#[must_use]
pub fn main(tests: &[(&'static str, Body)]) -> ExitCode {
    let arguments = Arguments::from_args();
    // Listing the tests needs no node.
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(tests, None)).exit_code();
    }
    if let Some(missing) = requirements::missing() {
        eprintln!("skipped: the {} tests on a real node: {missing}", tests.len());
        return libtest_mimic::run(&arguments, trials(tests, None)).exit_code();
    }
    let run = isolation::run(images::build, |isolation| {
        let threads = Runtime::new().context("threads")?;
        let place = Arc::new(Mutex::new(Place { isolation, node: None }));
        let trials = trials(tests, Some((Arc::new(threads), place.clone())));
        let conclusion =
            libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials);
        drop(place);
        Ok(conclusion.exit_code())
    });
    run.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

/// The node, once the first test has started it, or the error of that start.
struct Place {
    isolation: Isolation,
    node: Option<Result<Node, String>>,
}

type Shared = (Arc<Runtime>, Arc<Mutex<Place>>);

fn trials(tests: &[(&'static str, Body)], shared: Option<Shared>) -> Vec<Trial> {
    let trial = |(name, body): &(&'static str, Body)| {
        let (body, shared) = (*body, shared.clone());
        let ignored = shared.is_none();
        Trial::test(*name, move || shared.map_or(Ok(()), |shared| run_one(&shared, body)))
            .with_ignored_flag(ignored)
    };
    tests.iter().map(trial).collect()
}

fn run_one((threads, place): &Shared, body: Body) -> Result<(), Failed> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    let begin = Instant::now();
    let result = threads.block_on(async {
        let place = &mut *place;
        let node = match &mut place.node {
            Some(node) => node,
            none => {
                let node = Node::start(&place.isolation).await;
                none.insert(node.map_err(|error| format!("the node does not start: {error:#}")))
            }
        };
        // A failed start is not retried, because it left parts running.
        body(node.as_mut().map_err(|error| anyhow::anyhow!("{error}"))?).await
    });
    eprintln!("  {:.1} s", begin.elapsed().as_secs_f32());
    result.map_err(|error| format!("{error:#}").into())
}
