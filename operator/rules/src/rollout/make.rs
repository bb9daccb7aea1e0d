//! FlashJobs as they should be.

/// Longest part of the rollout's name in a FlashJob's name.
const NAME: usize = 38;

/// Name of a FlashJob: `<rollout, at most 38>-<run>-<batch, 2 digits>[-<shard>]`. `batch` is its
/// place from 0; shards count from 1, and the first is not written.
#[must_use]
pub fn child_name(rollout: &str, run: &str, batch: usize, shard: u32) -> String {
    let end = rollout.char_indices().nth(NAME).map_or(rollout.len(), |(end, _)| end);
    // A name must not have a dot beside a dash.
    let rollout = rollout[..end].trim_end_matches(['-', '.']);
    let batch = batch + 1;
    match shard {
        0 | 1 => format!("{rollout}-{run}-{batch:02}"),
        shard => format!("{rollout}-{run}-{batch:02}-{shard}"),
    }
}
