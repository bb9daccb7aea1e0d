//! Time from an unknown reference to a plugin that answers: resolved, fetched, verified, compiled
//! in a child process, described.

use std::time::{Duration, Instant};

use super::shelf::{COPIES, Kind, Shelf};

/// Duration of each pull and of its parts, sorted.
#[derive(Clone, Debug, Default)]
pub struct Pulls {
    /// Until the component was fetched and its signature verified.
    pub verified: Vec<Duration>,
    /// From there until it could answer: compiled and described.
    pub started: Vec<Duration>,
    /// The whole pull.
    pub ready: Vec<Duration>,
}

/// Pulls every copy once, in turns. Afterwards the cache contains all of them.
pub async fn measure(shelf: &Shelf) -> anyhow::Result<Vec<Pulls>> {
    let mut pulls = vec![Pulls::default(); Kind::ALL.len()];
    let logins = shelf.logins();
    for copy in 0..COPIES {
        for (kind, pulls) in Kind::ALL.into_iter().zip(&mut pulls) {
            let setup = shelf.setup(kind, COPIES);
            let since = Instant::now();
            // The cache contains other copies, but nothing of this one.
            let host = setup.host()?;
            let Some(source) = setup.sources().nth(copy) else { continue };
            let verified = host.obtain(&source, &logins).await?;
            let fetched = since.elapsed();
            let plugin = host.start(&verified, &source).await?;
            let ready = since.elapsed();
            anyhow::ensure!(
                plugin.info().name == source.name,
                "{} calls itself {}",
                source.name,
                plugin.info().name
            );
            pulls.verified.push(fetched);
            pulls.started.push(ready - fetched);
            pulls.ready.push(ready);
        }
    }
    for Pulls { verified, started, ready } in &mut pulls {
        for times in [verified, started, ready] {
            times.sort();
        }
    }
    Ok(pulls)
}
