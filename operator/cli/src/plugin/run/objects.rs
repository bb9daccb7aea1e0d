//! Pod and Service, built and checked by the operator's own code.

use flashjob_config::{OperatorConfig, PluginConfig};
use flashjob_plugin_host::Plugin;
use flashjob_plugin_host::types::FlashPod;
use flashjob_rules::flashjob::grants::{Denied, Grants};
use flashjob_rules::flashjob::make::{self, Attempt};
use k8s_openapi::api::core::v1::{Pod, Service};

use super::case::Case;

/// Objects that the operator would create.
pub struct Objects {
    /// The Service; none if the device does not connect to the Pod.
    pub service: Option<Service>,
    /// The flash Pod.
    pub pod: Pod,
}

/// Builds the objects.
pub fn make(
    case: &Case,
    plugin: &Plugin,
    flash: &FlashPod,
    configured: Option<&PluginConfig>,
    config: &OperatorConfig,
    address: &str,
) -> Result<Objects, Denied> {
    let (job, request) = (&case.job, &case.request);
    let nothing = Grants::default();
    let name = make::attempt_name(
        &job.key.name,
        &job.uid,
        &case.spec.run,
        &request.device.uid,
        request.attempt,
    );
    let attempt = Attempt {
        job,
        spec: &case.spec,
        uid: &request.device.uid,
        instance: &case.instance,
        number: request.attempt,
        plugin: &plugin.info().name,
        digest: plugin.digest(),
        flash,
        grants: configured.map_or(&nothing, |configured| &configured.grants),
        slot: make::slot(&name),
    };
    let calls_back = !flash.ports.is_empty();
    let pod = make::pod(&attempt, &name, calls_back.then_some(address), &config.policy())?;
    let service = calls_back.then(|| make::service(&attempt, &name, None, &config.policy()));
    Ok(Objects { service, pod })
}
