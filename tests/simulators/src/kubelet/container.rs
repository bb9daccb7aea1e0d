//! Runs a Pod's container as a process, with the Pod's environment and nothing of this process's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret};
use kube::{Api, Client, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::{deletion, status};

/// Number of bytes kept of a container's output if it left no termination message.
const MESSAGE_BYTES: usize = 2048;

/// Runs the containers of a node.
pub(super) struct Runtime {
    pub client: Client,
    /// Images and their programs, as `pattern=program arguments`.
    pub images: Vec<String>,
    /// Environment of all images, as `NAME=value`.
    pub image_env: Vec<String>,
    /// Folder of the Pods' files.
    pub root: PathBuf,
}

impl Runtime {
    /// Runs the container until it ends, and returns the Pod's last status.
    pub async fn run(
        &self,
        pod: &Pod,
        states: &mut watch::Receiver<Option<Pod>>,
    ) -> anyhow::Result<Value> {
        let spec = pod.spec.as_ref().context("the Pod has no spec")?;
        let container = spec.containers.first().context("the Pod has no container")?;
        let Some(program) = program(&self.images, container.image.as_deref().unwrap_or_default())
        else {
            return self.wait_for_an_image(pod, states).await;
        };
        let folder = self.root.join(pod.uid().unwrap_or_default());
        std::fs::create_dir_all(folder.join("dev"))?;
        self.mount(pod, container, &folder).await?;
        let environment = self.environment(pod, container, &folder).await?;
        let mut child = start(container, &program, &environment, &folder)?;
        // Waiting for the child would close its standard input, and thereby end it.
        let _open = child.stdin.take();
        let started = status::now();
        status::report(&self.client, pod, status::running(pod)).await;
        let deadline = spec
            .active_deadline_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(Duration::from_secs(u64::MAX / 4), Duration::from_secs);
        let mut pod_reason = None;
        let ended = tokio::select! {
            ended = child.wait() => ended?,
            () = tokio::time::sleep(deadline) => {
                pod_reason = Some("DeadlineExceeded");
                child.kill().await?;
                child.wait().await?
            }
            deleted = deletion::requested(states) => {
                let grace = match deleted {
                    Ok(()) => spec.termination_grace_period_seconds.unwrap_or(30),
                    Err(_) => 0,
                };
                stop(&mut child, u64::try_from(grace).unwrap_or(0)).await?
            }
        };
        use std::os::unix::process::ExitStatusExt;
        let code = ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or(9));
        let end = status::End { code, message: message(&folder, code), pod_reason };
        let status = status::ended(pod, &end, &started);
        let _ = std::fs::remove_dir_all(&folder);
        Ok(status)
    }

    async fn wait_for_an_image(
        &self,
        pod: &Pod,
        states: &mut watch::Receiver<Option<Pod>>,
    ) -> anyhow::Result<Value> {
        for reason in ["ErrImagePull", "ImagePullBackOff"].iter().cycle() {
            status::report(&self.client, pod, status::pulling_fails(pod, reason)).await;
            let waited =
                tokio::time::timeout(Duration::from_secs(10), deletion::requested(states)).await;
            if waited.is_ok() {
                break;
            }
        }
        Ok(status::never_started(pod))
    }

    /// Writes Secrets and creates folders at the container's mount paths, below its root folder.
    async fn mount(&self, pod: &Pod, container: &Container, folder: &Path) -> anyhow::Result<()> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        for mount in container.volume_mounts.iter().flatten() {
            let path = below(folder, &mount.mount_path);
            std::fs::create_dir_all(&path)?;
            let volume = volumes.clone().find(|volume| volume.name == mount.name);
            let Some(source) = volume.and_then(|volume| volume.secret.as_ref()) else { continue };
            let name = source.secret_name.clone().unwrap_or_default();
            let secret = Api::<Secret>::namespaced(
                self.client.clone(),
                &pod.namespace().unwrap_or_default(),
            )
            .get(&name)
            .await?;
            let data = secret.data.unwrap_or_default();
            let is_selected = |key: &str| {
                source.items.as_ref().is_none_or(|items| items.iter().any(|item| item.key == key))
            };
            for (key, bytes) in data.iter().filter(|(key, _)| is_selected(key)) {
                std::fs::write(path.join(key), &bytes.0)?;
            }
        }
        Ok(())
    }

    async fn environment(
        &self,
        pod: &Pod,
        container: &Container,
        folder: &Path,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("HOSTNAME".to_owned(), pod.name_any()),
        ]);
        // With this variable, programs of this machine that run in place of images find the
        // container's files.
        environment.insert("SIMULATED_ROOT".to_owned(), folder.display().to_string());
        for (name, value) in self.image_env.iter().filter_map(|pair| pair.split_once('=')) {
            environment.insert(name.to_owned(), expand(value, &environment));
        }
        for variable in container.env.iter().flatten() {
            let value = self.value(pod, variable, &environment).await?;
            environment.insert(variable.name.clone(), value);
        }
        Ok(environment)
    }

    async fn value(
        &self,
        pod: &Pod,
        variable: &EnvVar,
        variables: &BTreeMap<String, String>,
    ) -> anyhow::Result<String> {
        let Some(source) = &variable.value_from else {
            return Ok(expand(variable.value.as_deref().unwrap_or_default(), variables));
        };
        let namespace = pod.namespace().unwrap_or_default();
        if let Some(reference) = &source.secret_key_ref {
            let secret = Api::<Secret>::namespaced(self.client.clone(), &namespace)
                .get(&reference.name)
                .await?;
            let data = secret.data.unwrap_or_default();
            let bytes = data.get(&reference.key).with_context(|| {
                format!("Secret {} has no key {}", reference.name, reference.key)
            })?;
            return Ok(String::from_utf8(bytes.0.clone())?);
        }
        if let Some(reference) = &source.config_map_key_ref {
            let map = Api::<ConfigMap>::namespaced(self.client.clone(), &namespace)
                .get(&reference.name)
                .await?;
            return Ok(map
                .data
                .unwrap_or_default()
                .get(&reference.key)
                .cloned()
                .unwrap_or_default());
        }
        Ok(match source.field_ref.as_ref().map(|field| field.field_path.as_str()) {
            Some("metadata.name") => pod.name_any(),
            Some("metadata.namespace") => namespace,
            Some("metadata.uid") => pod.uid().unwrap_or_default(),
            Some("status.podIP" | "status.hostIP") => "127.0.0.1".to_owned(),
            _ => String::new(),
        })
    }
}

/// Returns the program and arguments that run in place of an image.
fn program(images: &[String], image: &str) -> Option<Vec<String>> {
    let mut pairs = images.iter().filter_map(|pair| pair.split_once('='));
    let (_, program) = pairs.find(|(pattern, _)| matches(pattern, image))?;
    Some(program.split_whitespace().map(str::to_owned).collect())
}

/// Returns true if the text matches the pattern, in which `*` matches any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(tail, &rest[at..]))
        }),
    }
}

fn start(
    container: &Container,
    program: &[String],
    environment: &BTreeMap<String, String>,
    folder: &Path,
) -> anyhow::Result<Child> {
    let (first, entrypoint_arguments) =
        program.split_first().context("an image stands for no program")?;
    let output = std::fs::File::create(folder.join("output"))?;
    let entrypoint_arguments = entrypoint_arguments.iter().map(|word| expand(word, environment));
    // A Pod's command replaces the entrypoint, but its program is that of the image.
    let command = container.command.iter().flatten().skip(1);
    let arguments = command.chain(container.args.iter().flatten());
    let arguments = arguments.map(|word| expand(word, environment));
    // Like a container runtime, create a working directory that the image does not have.
    let directory = below(folder, container.working_dir.as_deref().unwrap_or_default());
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("working directory {}", directory.display()))?;
    let mut command = Command::new(first);
    command
        .args(entrypoint_arguments)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(directory);
    // The program ends when its standard input does, which ends with this process.
    command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {first}"))
}

/// Returns a path in the container as a path below the folder that is its root.
fn below(folder: &Path, path: &str) -> PathBuf {
    folder.join(path.trim_start_matches('/'))
}

async fn stop(child: &mut Child, grace: u64) -> anyhow::Result<std::process::ExitStatus> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    match tokio::time::timeout(Duration::from_secs(grace), child.wait()).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            child.kill().await?;
            Ok(child.wait().await?)
        }
    }
}

/// Returns the container's termination message; if it failed without one, the end of its output.
fn message(folder: &Path, code: i32) -> String {
    let termination_log =
        std::fs::read_to_string(folder.join("dev/termination-log")).unwrap_or_default();
    if !termination_log.is_empty() || code == 0 {
        return termination_log.chars().take(4096).collect();
    }
    let output = std::fs::read(folder.join("output")).unwrap_or_default();
    String::from_utf8_lossy(&output[output.len().saturating_sub(MESSAGE_BYTES)..]).into_owned()
}

/// Expands variables: `$(NAME)` is a known variable, `$$` a dollar; anything else stays unchanged.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let variable = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        (rest, _) = match (after.strip_prefix('$'), variable) {
            (Some(after), _) => (after, expanded.push('$')),
            (None, Some((name, after))) if variables.contains_key(name) => {
                (after, expanded.push_str(&variables[name]))
            }
            _ => (after, expanded.push('$')),
        };
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_and_doubled_dollars_are_not() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in
            [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("a$", "a$"), ("$$$(A)", "$1")]
        {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_program_starts_in_the_working_directory_of_its_container_or_in_its_root() {
        let (root, program) = (tempfile::tempdir().expect("a folder"), ["/bin/pwd".to_owned()]);
        let folder = root.path().canonicalize().expect("a folder");
        for (directory, expected) in
            [(None, folder.clone()), (Some("/kiln/in the yard"), folder.join("kiln/in the yard"))]
        {
            let container =
                Container { working_dir: directory.map(str::to_owned), ..Container::default() };
            let mut child =
                start(&container, &program, &BTreeMap::new(), &folder).expect("started");
            assert!(child.wait().await.expect("ended").success());
            let output = std::fs::read_to_string(folder.join("output")).expect("its output");
            assert_eq!(Path::new(output.trim_end()), expected);
        }
    }

    #[test]
    fn an_image_is_what_the_first_matching_pattern_says() {
        let images = ["*/esp32-sota:*=flasher --exit-with-stdin".to_owned()];
        assert_eq!(
            program(&images, "harbor.nbfc.io/x/esp32-sota:1"),
            Some(vec!["flasher".into(), "--exit-with-stdin".into()])
        );
        assert_eq!(program(&images, "other:1"), None);
    }
}
