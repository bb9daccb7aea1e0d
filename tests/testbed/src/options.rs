//! Settings of a testbed: devices, addresses, plugins and periods.

use serde_json::{Value, json};

/// Settings of a testbed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Devices, as `type:application:version=count`.
    pub devices: Vec<String>,
    /// Addresses of the load balancer.
    pub addresses: u32,
    /// Plugins to push and configure; each is `target/plugins/<name>.wasm`.
    pub plugins: Vec<String>,
    /// Milliseconds that the flash program waits before its request to the device; real ones wait
    /// 2,000.
    pub flasher_wait_ms: u64,
    /// Milliseconds that the flash program waits for the device to call back.
    pub flasher_callback_timeout_ms: u64,
    /// Milliseconds after which the flash program asks a device again that has not called back;
    /// real flash programs: 5,000, which is too short on a busy machine.
    pub flasher_ask_again_ms: u64,
    /// Duration of a replica's Lease in seconds: long enough for a busy machine, and a short wait
    /// after a crash.
    pub lease_seconds: u64,
    /// True if the operators compile their plugins; otherwise all testbeds share the compiled code,
    /// because compiling takes longer than all else that an operator does in a test.
    pub compiles_plugins: bool,
    /// Timeouts and other periods; see the operator's configuration.
    pub periods: Value,
    /// True if the operator watches only the namespace `default`, with the rights for that
    /// namespace and no others.
    pub one_namespace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            addresses: 9,
            plugins: ["esp32", "esp32s2", "esp32s3"].map(str::to_owned).into(),
            flasher_wait_ms: 100,
            flasher_callback_timeout_ms: 60_000,
            flasher_ask_again_ms: 15_000,
            lease_seconds: 10,
            compiles_plugins: false,
            periods: json!({
                "unknownDeviceSeconds": 3, "imagePullSeconds": 3, "unschedulableSeconds": 3,
                "lateCallbackSeconds": 1, "retrySeconds": 1, "lostPodMarginSeconds": 20,
            }),
            one_namespace: false,
        }
    }
}
