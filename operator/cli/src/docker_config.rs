//! Credentials from Docker's configuration, where `docker login`, `oras login` and others store
//! them. An entry that does not work is an error, and never causes an anonymous request.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use flashjob_plugin_host::{
    Credentials, CredentialsError, docker_key, docker_servers, parse_docker_config_json,
};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::cause::root;
use crate::failure::{Code, Failure};

/// Time limit for a credential helper, which may ask the user something.
const HELPER_LIMIT: Duration = Duration::from_secs(120);
/// Message of a helper that has no credentials for a registry.
const NOTHING_KNOWN: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    creds_store: Option<String>,
    cred_helpers: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Returns the credentials for a repository of a registry; none if nothing is configured for it.
///
/// # Errors
/// The configured credentials cannot be used.
pub async fn credentials(
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, Failure> {
    let Some(path) = path() else { return Ok(None) };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(broken(&path, &root(&error))),
    };
    // The parser's message could quote a password.
    let config: Config = serde_json::from_slice(&text).map_err(|error| {
        broken(
            &path,
            &format!(
                "not a Docker configuration, at line {}, column {}",
                error.line(),
                error.column()
            ),
        )
    })?;
    let place = format!("{registry}/{repository}");
    // As in Docker, the helper of a registry goes before `credsStore` and `auths`.
    let helpers = config.cred_helpers.unwrap_or_default();
    let helper = docker_key(helpers.keys().map(String::as_str), &place);
    if let Some(helper) = helper.and_then(|key| helpers.get(key)) {
        return ask(&path, helper, registry).await;
    }
    // Docker writes an empty name for "no store".
    let store = config.creds_store.filter(|store| !store.is_empty());
    match (parse_docker_config_json(&text, &place), store) {
        (Ok(credentials), _) => Ok(Some(credentials)),
        // If there is a credential store, entries are empty.
        (Err(CredentialsError::Missing(_) | CredentialsError::Incomplete(_)), Some(store)) => {
            ask(&path, &store, registry).await
        }
        // Only a missing entry permits an anonymous request; a broken one is an error.
        (Err(CredentialsError::Missing(_)), None) => Ok(None),
        (Err(error), _) => Err(broken(&path, &error.to_string())),
    }
}

fn path() -> Option<PathBuf> {
    let non_empty =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder =
        non_empty("DOCKER_CONFIG").or_else(|| non_empty("HOME").map(|home| home.join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

fn broken(path: &Path, message: &str) -> Failure {
    Failure::new(
        Code::Unavailable,
        "CredentialsBroken",
        format!("{}: {message}; log in again, or remove the entry", path.display()),
    )
}

/// Asks a helper for the credentials of a registry, under each name that clients give it.
async fn ask(path: &Path, helper: &str, registry: &str) -> Result<Option<Credentials>, Failure> {
    for server in docker_servers(registry) {
        if let Some(credentials) = run(path, helper, &server).await? {
            return Ok(Some(credentials));
        }
    }
    Ok(None)
}

/// Runs `docker-credential-<helper>`, as Docker does.
async fn run(path: &Path, helper: &str, server: &str) -> Result<Option<Credentials>, Failure> {
    let program = format!("docker-credential-{helper}");
    let failed = |message: &str| {
        broken(path, &format!("{program} returned no credentials for {server}: {message}"))
    };
    let mut command = Command::new(&program);
    command
        .arg("get")
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(|error| failed(&root(&error)))?;
    // The helper reads until the end of its input, which is closed where `input` goes out of
    // scope.
    if let Some(mut input) = child.stdin.take() {
        // If the helper does not read its input, its exit code and output tell the cause.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let output = tokio::time::timeout(HELPER_LIMIT, child.wait_with_output()).await;
    let output = output
        .map_err(|_| failed("it does not answer"))?
        .map_err(|error| failed(&root(&error)))?;
    if !output.status.success() {
        // Helpers write their errors to standard output: `credentials not found in native
        // keychain`.
        let message = String::from_utf8_lossy(&output.stdout);
        return if message.contains(NOTHING_KNOWN) {
            Ok(None)
        } else {
            Err(failed(message.lines().next().unwrap_or("it failed")))
        };
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer cannot be read"))?;
    Ok(Some(Credentials { username: answer.username, password: answer.secret }))
}
