//! Cases to measure, and their order.

use std::fmt;

use clap::ValueEnum;
use flashjob_api::Exposure;
use serde::Serialize;

/// A set of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Matrix {
    /// 100 and 1,000 devices, parallelism 50.
    Quick,
    /// 100, 1,000 and 4,000 devices, parallelism 10, 50 and 200.
    Full,
}

impl fmt::Display for Matrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::Quick { "quick" } else { "full" })
    }
}

/// Program that flashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runner {
    /// The client that does only what a device needs.
    Least,
    /// The operator, a Service a device.
    PerDevice,
    /// The operator, Services handed on.
    Pooled,
}

impl Runner {
    /// Returns the exposure that the operator uses; `None` for the client.
    pub fn exposure(self) -> Option<Exposure> {
        match self {
            Self::Least => None,
            Self::PerDevice => Some(Exposure::PerDevice),
            Self::Pooled => Some(Exposure::Pooled),
        }
    }

    /// Returns the name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Least => "four requests",
            Self::PerDevice => "PerDevice",
            Self::Pooled => "Pooled",
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Devices to flash.
    pub devices: usize,
    /// Devices in flight at once.
    pub parallelism: usize,
    /// Milliseconds from a Pod's binding to its success.
    pub pod_ms: u64,
    /// Program that flashes: the client or the operator.
    pub runner: Runner,
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, parallelism, pod_ms, .. } = self;
        write!(
            formatter,
            "{devices} devices, {parallelism} at once, Pods of {pod_ms} ms, {}",
            self.runner.title()
        )
    }
}

/// Returns the cases of a matrix in the order in which they run: cases to compare follow each
/// other.
pub fn cases(
    matrix: Matrix,
    devices: &[usize],
    parallelism: &[usize],
    pod_ms: &[u64],
    runners: &[Runner],
) -> Vec<Case> {
    let full = matrix == Matrix::Full;
    let devices = values_or(devices, if full { &[100, 1000, 4000] } else { &[100, 1000] });
    let parallelism = values_or(parallelism, if full { &[10, 50, 200] } else { &[50] });
    let pod_ms = values_or(pod_ms, &[0, 2000]);
    let runners = values_or(runners, &[Runner::Least, Runner::PerDevice, Runner::Pooled]);
    let mut cases = Vec::new();
    for &pod_ms in pod_ms {
        for &devices in devices {
            for &parallelism in parallelism {
                cases.extend(runners.iter().map(|&runner| Case {
                    devices,
                    parallelism,
                    pod_ms,
                    runner,
                }));
            }
        }
    }
    cases
}

fn values_or<'a, T>(values: &'a [T], defaults: &'a [T]) -> &'a [T] {
    if values.is_empty() { defaults } else { values }
}
