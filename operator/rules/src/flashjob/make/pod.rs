//! The flash Pod, which meets the restricted Pod Security Standard except for granted privileges.

use std::collections::BTreeMap;

use flashjob_types::plugin::{Arg, EnvValue, FlashPod, User};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube_core::ObjectMeta;

use super::attempt::Attempt;
use super::budget::is_protected;
use super::metadata::{labels, owner};
use super::overrides::{affinity, check_overrides, non_empty, resources, tolerations, with};
use crate::flashjob::grants::{Denied, Grants, is_image, uses_address};
use crate::flashjob::labels::{CONTAINER, annotation};
use crate::flashjob::policy::Policy;

/// Grace period of a Pod's termination, in seconds. A device stays locked for as long beyond its
/// Pod's deadline.
pub(crate) const GRACE_SECONDS: i64 = 10;

/// Composes the Pod of an attempt. `address` is that of the Service; None if the plugin needs no
/// Service.
///
/// # Errors
/// The plugin or the job requests something that the configuration does not grant.
pub fn pod(
    attempt: &Attempt<'_>,
    name: &str,
    address: Option<&str>,
    policy: &Policy,
) -> Result<core::Pod, Denied> {
    check_image(attempt.flash)?;
    check(attempt, policy)?;
    let (defaults, tolerations) = (&policy.pods, tolerations(&attempt.spec.pod_overrides));
    let overrides = &attempt.spec.pod_overrides;
    let flash = attempt.flash;
    let deadline = attempt
        .spec
        .device_timeout_seconds
        .min(flash.deadline_seconds.map_or(i64::MAX, i64::from));
    let (volumes, mounts) = volumes(flash, attempt.grants);
    Ok(core::Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(attempt.job.key.namespace.clone()),
            labels: Some(with(
                labels(attempt),
                [&overrides.labels, &Some(defaults.labels.clone())],
            )),
            annotations: Some(with(
                annotations(attempt, policy),
                [&overrides.annotations, &Some(defaults.annotations.clone())],
            )),
            owner_references: Some(vec![owner(attempt.job)]),
            ..ObjectMeta::default()
        },
        spec: Some(core::PodSpec {
            // The kubelet must not start a flash again by itself: each attempt is counted, judged
            // by its plugin, and made after a pause.
            restart_policy: Some("Never".to_owned()),
            // The kubelet enforces it even while it cannot reach the API server. The lock of a
            // device whose Pod vanished relies on that.
            active_deadline_seconds: Some(deadline.max(1)),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            // The author of a FlashJob chooses the image: a token would give it the rights of the
            // service account.
            automount_service_account_token: Some(false),
            service_account_name: non_empty(overrides.service_account_name.as_ref()),
            priority_class_name: non_empty(overrides.priority_class_name.as_ref()),
            node_selector: overrides.node_selector.clone(),
            runtime_class_name: defaults.runtime_class_name.clone(),
            enable_service_links: Some(defaults.enable_service_links),
            image_pull_secrets: overrides.image_pull_secrets.as_ref().map(|list| {
                list.iter()
                    .map(|secret| core::LocalObjectReference { name: secret.name.clone() })
                    .collect()
            }),
            affinity: affinity(attempt, &policy.overrides),
            tolerations,
            security_context: Some(pod_security(flash)),
            volumes: (!volumes.is_empty()).then_some(volumes),
            containers: vec![container(attempt, address, mounts, policy)],
            ..core::PodSpec::default()
        }),
        status: None,
    })
}

/// Checks that the image is a reference by the grammar that container runtimes use.
///
/// # Errors
/// It is none.
pub fn check_image(flash: &FlashPod) -> Result<(), Denied> {
    let image = &flash.image;
    if is_image(image) {
        return Ok(());
    }
    Err(Denied(format!(
        "the flash container's image {image:?} is not a valid image reference; expected \
         host/path:tag or host/path@sha256:…"
    )))
}

/// Checks everything that needs a permission.
///
/// # Errors
/// Names the denied request, and where it could be granted.
pub fn check(attempt: &Attempt<'_>, policy: &Policy) -> Result<(), Denied> {
    attempt.grants.check(attempt.plugin, attempt.flash)?;
    if attempt.flash.ports.is_empty() && uses_address(attempt.flash) {
        return Err(Denied(format!(
            "plugin {} requires the external address but names no port",
            attempt.plugin
        )));
    }
    check_overrides(&attempt.spec.pod_overrides, &policy.overrides)
}

fn annotations(attempt: &Attempt<'_>, policy: &Policy) -> BTreeMap<String, String> {
    let identities = attempt.instance.identities(attempt.spec.host_endpoint.as_deref());
    let identities: Vec<String> = identities.iter().map(ToString::to_string).collect();
    let mut annotations = BTreeMap::from([
        (annotation::PLUGIN.to_owned(), attempt.plugin.to_owned()),
        (annotation::DIGEST.to_owned(), attempt.digest.to_string()),
        (annotation::IDENTITY.to_owned(), identities.join(" ")),
        (annotation::INSTANCE.to_owned(), attempt.instance.name.clone()),
    ]);
    if is_protected(attempt.spec, policy) {
        // A node must not be removed during a flash just to consolidate the cluster.
        let leave_alone = [
            ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
            ("karpenter.sh/do-not-disrupt", "true"),
        ];
        annotations.extend(leave_alone.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
    annotations
}

fn container(
    attempt: &Attempt<'_>,
    address: Option<&str>,
    mounts: Vec<core::VolumeMount>,
    policy: &Policy,
) -> core::Container {
    let flash = attempt.flash;
    let words = |words: &[Arg]| {
        let words = words.iter().map(|word| match word {
            Arg::Literal(text) => literal(text),
            Arg::ExternalAddress => literal(address.unwrap_or_default()),
        });
        Some(words.collect::<Vec<_>>()).filter(|words| !words.is_empty())
    };
    core::Container {
        name: CONTAINER.to_owned(),
        image: Some(flash.image.clone()),
        command: words(&flash.command),
        args: words(&flash.args),
        working_dir: flash.working_directory.clone(),
        env: Some(
            flash
                .env
                .iter()
                .map(|(name, value)| variable(name, value, address, attempt))
                .collect(),
        ),
        ports: Some(flash.ports.iter().map(container_port).collect::<Vec<_>>())
            .filter(|ports| !ports.is_empty()),
        resources: resources(attempt, &policy.pods.resources),
        security_context: Some(core::SecurityContext {
            read_only_root_filesystem: policy.pods.read_only_root_filesystem.then_some(true),
            ..container_security(flash)
        }),
        // Programs print the cause of a failure last and write no termination message. The kubelet
        // then takes the end of the log, at most 2,048 bytes or 80 lines.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..core::Container::default()
    }
}

/// Escapes `$` as `$$`, because Kubernetes expands `$(NAME)`.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn variable(
    name: &str,
    value: &EnvValue,
    address: Option<&str>,
    attempt: &Attempt<'_>,
) -> core::EnvVar {
    let text = |text: &str| core::EnvVar {
        name: name.to_owned(),
        value: Some(literal(text)),
        value_from: None,
    };
    match value {
        EnvValue::Literal(value) => text(value),
        EnvValue::ExternalAddress => text(address.unwrap_or_default()),
        EnvValue::SecretKey { slot, key } => core::EnvVar {
            name: name.to_owned(),
            value: None,
            value_from: Some(core::EnvVarSource {
                secret_key_ref: Some(core::SecretKeySelector {
                    name: secret_name(attempt, slot),
                    key: key.clone(),
                    optional: None,
                }),
                ..core::EnvVarSource::default()
            }),
        },
    }
}

fn secret_name(attempt: &Attempt<'_>, slot: &str) -> String {
    let granted = attempt.grants.secret(slot);
    granted.map_or_else(String::new, |secret| secret.secret_name.clone())
}

fn container_port(port: &flashjob_types::plugin::Port) -> core::ContainerPort {
    core::ContainerPort {
        name: Some(port.name.clone()),
        container_port: i32::from(port.number),
        protocol: Some(port.protocol.name().to_owned()),
        ..core::ContainerPort::default()
    }
}

fn pod_security(flash: &FlashPod) -> core::PodSecurityContext {
    let groups = flash.groups.iter().map(|group| i64::from(*group)).collect::<Vec<_>>();
    core::PodSecurityContext {
        supplemental_groups: (!groups.is_empty()).then_some(groups),
        // The level `restricted` of the Pod Security Standards requires a profile to be named.
        seccomp_profile: Some(core::SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..core::PodSecurityContext::default()
    }
}

fn container_security(flash: &FlashPod) -> core::SecurityContext {
    let add = (!flash.capabilities.is_empty()).then(|| flash.capabilities.clone());
    core::SecurityContext {
        // `restricted` requires allowPrivilegeEscalation, capabilities and runAsNonRoot to be set:
        // a missing field is refused like a wrong one.
        allow_privilege_escalation: Some(false),
        capabilities: Some(core::Capabilities { add, drop: Some(vec!["ALL".to_owned()]) }),
        privileged: Some(false),
        run_as_non_root: Some(flash.user != User::Root),
        run_as_user: match flash.user {
            User::ImageDefault => None,
            User::Uid(uid) => Some(i64::from(uid)),
            User::Root => Some(0),
        },
        ..core::SecurityContext::default()
    }
}

fn volumes(flash: &FlashPod, grants: &Grants) -> (Vec<core::Volume>, Vec<core::VolumeMount>) {
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    let mut mount = |name: String, path: &str, read_only: bool| {
        mounts.push(core::VolumeMount {
            name,
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..core::VolumeMount::default()
        });
    };
    for (index, secret) in flash.secrets.iter().enumerate() {
        let Some(granted) = grants.secret(&secret.slot) else { continue };
        let name = format!("secret-{index}");
        let items = granted.keys.iter().map(|key| core::KeyToPath {
            key: key.clone(),
            path: key.clone(),
            mode: None,
        });
        let source = core::SecretVolumeSource {
            secret_name: Some(granted.secret_name.clone()),
            // Without `items` the volume would contain every key of the Secret, not only those
            // that were granted.
            items: Some(items.collect()),
            ..core::SecretVolumeSource::default()
        };
        volumes.push(core::Volume {
            name: name.clone(),
            secret: Some(source),
            ..core::Volume::default()
        });
        mount(name, &secret.path, true);
    }
    for (index, scratch) in flash.scratch.iter().enumerate() {
        let name = format!("scratch-{index}");
        let source = core::EmptyDirVolumeSource {
            medium: None,
            size_limit: Some(Quantity(format!("{}Mi", scratch.mebibytes))),
        };
        volumes.push(core::Volume {
            name: name.clone(),
            empty_dir: Some(source),
            ..core::Volume::default()
        });
        mount(name, &scratch.path, false);
    }
    (volumes, mounts)
}

#[cfg(test)]
mod tests;
