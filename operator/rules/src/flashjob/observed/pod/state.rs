//! State of a flash Pod: why it waits, and how it ended. Only the container `flash` counts as the
//! attempt, whatever else runs in the Pod: service meshes add containers at any position of the
//! list. No time that a node wrote is used: the clock of a node may be wrong.

use k8s_openapi::api::core::v1 as core;

use crate::flashjob::labels::CONTAINER;

/// Container of the flash program in Pods of the Go operator.
const CONTAINER_OF_THE_GO_OPERATOR: &str = "flash-container";
/// Reasons that the kubelet reports when a container waits for an image.
const IMAGE: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];
/// Reasons that the kubelet reports when a container cannot be created or started.
const CONTAINER_ERRORS: [&str; 7] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "PreCreateHookError",
    "PreStartHookError",
    "PostStartHookError",
    "RunContainerError",
    "CrashLoopBackOff",
];
/// Phrases by which the kubelet reports that a Pod exceeded a limit of its own: of a container, of
/// all containers, or of an emptyDir volume (Kubernetes, pkg/kubelet/eviction/helpers.go).
const OWN_LIMITS: [&str; 3] = [
    "exceeded its local ephemeral storage limit",
    "exceeds the total limit of containers",
    "exceeds the limit",
];

/// Reason for which a Pod cannot make progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Kind of thing that the Pod waits for.
    pub cause: Cause,
    /// Message of the kubelet or the scheduler.
    pub message: String,
    /// True if waiting longer cannot help.
    pub is_final: bool,
}

/// Kind of thing that a Pod waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The scheduler has not processed it yet.
    Scheduler,
    /// No node fits.
    Node,
    /// A volume, or the Pod's network: containers are created after both.
    Volume,
    /// The image of a container.
    Image,
    /// A container that cannot be created or started.
    Container,
    /// The kubelet is about to start the container; it may be pulling a large image.
    Start,
}

/// End of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Cause of the end.
    pub by: EndedBy,
    /// Exit code of the flash container.
    pub exit_code: Option<i32>,
    /// `Completed`, `Error`, `DeadlineExceeded`, `Evicted`, …
    pub reason: String,
    /// The termination message, or the kubelet's message; without lines that only repeat the
    /// container's environment.
    pub message: String,
    /// True if the flash container was started.
    pub started: bool,
}

/// Cause of a Pod's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The flash container itself, its deadline, or one of its own limits.
    Attempt,
    /// The cluster, through no fault of the device or the firmware: eviction, preemption, shutdown
    /// or rejection by the node.
    Disruption,
    /// An init container failed, so that the flash container never started.
    InitContainer,
    /// The deadline, before the flash container was started.
    NeverStarted,
}

/// Status of the flash container; in a Pod of unknown origin with a single container, of that one.
fn flash(pod: &core::Pod) -> Option<&core::ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    let status_of = |name: &str| statuses.iter().find(|status| status.name == name);
    let only = || statuses.first().filter(|_| statuses.len() == 1);
    status_of(CONTAINER).or_else(|| status_of(CONTAINER_OF_THE_GO_OPERATOR)).or_else(only)
}

/// Statuses of init containers, native sidecars among them.
fn init(pod: &core::Pod) -> impl Iterator<Item = &core::ContainerStatus> {
    pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten())
}

fn condition<'a>(pod: &'a core::Pod, name: &str, status: &str) -> Option<&'a core::PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == name && condition.status == status)
}

fn terminated(status: &core::ContainerStatus) -> Option<&core::ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn was_started(status: &core::ContainerStatus) -> bool {
    let has_run = |state: &core::ContainerState| {
        state.running.is_some()
            // Of a container that was created but could not be started, container runtimes give
            // the beginning of Unix time.
            || state.terminated.as_ref().is_some_and(|end| {
                end.started_at.as_ref().is_some_and(|time| time.0.as_second() > 0)
            })
    };
    [&status.state, &status.last_state].into_iter().flatten().any(has_run)
}

/// Returns the reason for which the Pod cannot make progress; `None` while it does, and after it
/// ended.
pub(super) fn waiting(pod: &core::Pod) -> Option<Waiting> {
    let waits = |cause, message: String| Some(Waiting { cause, message, is_final: false });
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    // A Pod with scheduling gates has PodScheduled=False too, with reason SchedulingGated: only
    // Unschedulable means that the scheduler found no node.
    let unscheduled = condition(pod, "PodScheduled", "False");
    if let Some(condition) =
        unscheduled.filter(|condition| condition.reason.as_deref() == Some("Unschedulable"))
    {
        return waits(Cause::Node, condition.message.clone().unwrap_or_default());
    }
    if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
        return waits(Cause::Scheduler, "no scheduler has assigned the Pod to a node".to_owned());
    }
    let container = flash(pod);
    let stuck = |status: &core::ContainerStatus| {
        let state = waits_for(status).filter(|state| is_stuck(state))?;
        Some(container_waits(&status.name, state))
    };
    if let Some(waiting) = container.and_then(stuck) {
        return Some(waiting);
    }
    // Init containers delay only the start of the flash container. Afterwards a native sidecar,
    // which is an init container too, may crash or wait for its image without any effect on it.
    if container.is_some_and(|status| was_started(status) || terminated(status).is_some()) {
        return None;
    }
    if let Some(waiting) = init(pod).find_map(stuck) {
        return Some(waiting);
    }
    let starting = waits_for(container?)?;
    // The kubelet sets this condition once the sandbox and the network of the Pod exist, for which
    // it first mounts the volumes.
    if condition(pod, "PodReadyToStartContainers", "False").is_some() {
        return waits(
            Cause::Volume,
            format!(
                "{}: {} is not ready; the Pod's events say which",
                starting.reason.as_deref().unwrap_or("ContainerCreating"),
                prepared(pod).join(" or ")
            ),
        );
    }
    waits(Cause::Start, words(starting))
}

/// Everything that a node prepares before it creates the containers. Only events tell which of
/// them is missing.
fn prepared(pod: &core::Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let named = volumes.filter_map(|volume| {
        let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_ref());
        let map = volume.config_map.as_ref().map(|map| &map.name);
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| &claim.claim_name);
        let named = |kind: &str, name: &String| format!("{kind} {name}");
        secret
            .map(|name| named("Secret", name))
            .or_else(|| map.map(|name| named("ConfigMap", name)))
            .or_else(|| claim.map(|name| named("PersistentVolumeClaim", name)))
    });
    named.chain(["the Pod's network".to_owned()]).collect()
}

fn waits_for(status: &core::ContainerStatus) -> Option<&core::ContainerStateWaiting> {
    status.state.as_ref()?.waiting.as_ref()
}

fn is_stuck(state: &core::ContainerStateWaiting) -> bool {
    let reason = state.reason.as_deref().unwrap_or_default();
    IMAGE.contains(&reason) || CONTAINER_ERRORS.contains(&reason)
}

fn container_waits(name: &str, state: &core::ContainerStateWaiting) -> Waiting {
    let reason = state.reason.as_deref().unwrap_or_default();
    let cause = if IMAGE.contains(&reason) { Cause::Image } else { Cause::Container };
    let message = match name {
        CONTAINER | CONTAINER_OF_THE_GO_OPERATOR => words(state),
        other => format!("container {other}: {}", words(state)),
    };
    Waiting { cause, message, is_final: is_final(reason, state.message.as_deref()) }
}

/// Returns true if the same Pod can never start. The kubelet reports its refusal to run as root
/// only in the text of a message, so this function parses that text; nothing else does.
fn is_final(reason: &str, message: Option<&str>) -> bool {
    // The text names runAsNonRoot also where the image has a user name in place of a number, as
    // the kubelet cannot tell whether that user is root. If the Pod itself sets runAsUser to 0, it
    // is "container's runAsUser breaks non-root policy".
    let texts = ["runAsNonRoot", "breaks non-root policy"];
    let refuses_root =
        || message.is_some_and(|message| texts.iter().any(|text| message.contains(text)));
    matches!(reason, "InvalidImageName" | "ErrImageNeverPull")
        || reason == "CreateContainerConfigError" && refuses_root()
}

fn words(state: &core::ContainerStateWaiting) -> String {
    let reason = state.reason.as_deref().unwrap_or("waiting");
    match state.message.as_deref().filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }
}

/// The end of the attempt; `None` while it was not observed. The flash container's own end counts
/// even while other containers still run. A Pod that garbage collection marked Failed on a
/// vanished node has not ended: its container may still be running.
pub(super) fn ended(pod: &core::Pod) -> Option<Ended> {
    let status = pod.status.as_ref()?;
    let failed = match status.phase.as_deref() {
        Some("Succeeded") => Some(false),
        Some("Failed") => Some(true),
        _ => None,
    };
    let container = flash(pod);
    let started = container.is_some_and(was_started);
    let end = container.and_then(terminated);
    let disruption = condition(pod, "DisruptionTarget", "True");
    let is_collected =
        disruption.is_some_and(|condition| condition.reason.as_deref() == Some("DeletionByPodGC"));
    if end.is_none() && (failed.is_none() || failed == Some(true) && is_collected) {
        return None;
    }
    let exit_code = end.map(|end| end.exit_code).or_else(|| (failed == Some(false)).then_some(0));
    // A container that ended with 0 has done its work, even if its Pod was evicted afterwards.
    if let Some(end) = end.filter(|end| end.exit_code == 0) {
        let reason = end.reason.clone().unwrap_or_else(|| "Completed".to_owned());
        return Some(with(pod, EndedBy::Attempt, exit_code, reason, end.message.clone()));
    }
    // Reason that the kubelet or a controller gives for the Pod as a whole.
    let of_pod = status.reason.clone().filter(|reason| !reason.is_empty());
    let is_disrupted = disruption.is_some()
        || of_pod.as_deref().is_some_and(|reason| match reason {
            "DeadlineExceeded" => false,
            "Evicted" => !exceeded_its_limit(status),
            _ => true,
        });
    if is_disrupted && exit_code != Some(0) {
        let reason = of_pod.or_else(|| disruption?.reason.clone()).unwrap_or_default();
        let message = disruption.and_then(|condition| condition.message.clone());
        let message = message.filter(|text| !text.is_empty()).or_else(|| status.message.clone());
        return Some(with(pod, EndedBy::Disruption, exit_code, reason, message));
    }
    if end.is_none()
        && !started
        && let Some((name, failure)) = init(pod)
            .filter_map(|status| Some((&status.name, terminated(status)?)))
            .find(|(_, failure)| failure.exit_code != 0)
    {
        let cause = failure.message.as_deref().unwrap_or_default().trim();
        let message = format!("init container {name}, exit code {}: {cause}", failure.exit_code);
        let reason = failure.reason.clone().unwrap_or_else(|| "Error".to_owned());
        return Some(with(pod, EndedBy::InitContainer, None, reason, Some(message)));
    }
    let waited = container.filter(|_| end.is_none() && !started);
    if let Some(state) = waited.and_then(waits_for)
        && of_pod.as_deref() == Some("DeadlineExceeded")
    {
        let reason = "DeadlineExceeded".to_owned();
        return Some(with(pod, EndedBy::NeverStarted, None, reason, Some(words(state))));
    }
    let text = end.and_then(|end| end.message.clone()).filter(|message| !message.is_empty());
    let reason = of_pod.or_else(|| end?.reason.clone()).unwrap_or_else(|| match exit_code {
        Some(0) => "Completed".to_owned(),
        _ => "Error".to_owned(),
    });
    Some(with(pod, EndedBy::Attempt, exit_code, reason, text.or_else(|| status.message.clone())))
}

/// Returns true if the kubelet evicted the Pod because it used more storage than its own limits
/// allow. A node under pressure that rejects a Pod gives the same reason, and old kubelets evict
/// under pressure without the condition DisruptionTarget. Whether a container was started does not
/// tell these apart, as old kubelets drop the containers' statuses, so the message decides.
fn exceeded_its_limit(status: &core::PodStatus) -> bool {
    let message = status.message.as_deref().unwrap_or_default();
    OWN_LIMITS.iter().any(|phrase| message.contains(phrase))
}

fn with(
    pod: &core::Pod,
    by: EndedBy,
    exit_code: Option<i32>,
    reason: String,
    message: Option<String>,
) -> Ended {
    let message = without_environment(pod, &message.unwrap_or_default());
    let started = flash(pod).is_some_and(was_started);
    Ended { by, exit_code, reason, message, started }
}

/// Removes lines that repeat the container's environment, which flash programs print when they
/// start; they say nothing about how the program ended.
fn without_environment(pod: &core::Pod, message: &str) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let variables = containers.flat_map(|container| container.env.iter().flatten());
    let variables: Vec<&core::EnvVar> = variables.collect();
    let repeats = |line: &str| {
        line.split_once(['=', ':']).is_some_and(|(name, text)| {
            let name = name.trim().trim_matches('"');
            variables.iter().any(|variable| variable.name == name && has_value(variable, text))
        })
    };
    let kept: Vec<&str> = message.lines().filter(|line| !repeats(line)).collect();
    kept.join("\n")
}

/// Returns true if a printed text can be this variable's value. A program may begin the line that
/// gives the cause of its failure with a word that is also a variable's name.
fn has_value(variable: &core::EnvVar, text: &str) -> bool {
    // A variable without a literal value takes it from a Secret, a field or the like, and one with
    // references from other variables: neither is known here.
    let literal = variable.value.as_deref().filter(|value| !value.contains("$("));
    literal.is_none_or(|value| {
        let first_line = value.lines().next().unwrap_or_default().trim();
        let text = text.trim();
        text == first_line || text.trim_end_matches(',').trim_matches(['"', '\'']) == first_line
    })
}
