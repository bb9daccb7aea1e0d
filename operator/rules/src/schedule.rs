//! Maintenance windows and blackouts: whether devices may start now, and when that changes.
