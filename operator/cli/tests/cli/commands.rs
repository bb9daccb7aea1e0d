//! Tests of the commands without a registry: answers, refusals, bad input, and the exit codes.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::author::{CommandOutput, command_output, component, plugin};
use flashjob_testbed::certificates::Authority;
use serde_json::json;

fn ask(folder: &Path, words: &[&str]) -> anyhow::Result<CommandOutput> {
    command_output(plugin(words, folder).output()?)
}

#[test]
fn each_way_to_fail_has_its_exit_code_and_names_the_thing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    std::fs::write(folder.join("text.wasm"), "text")?;
    let esp32 = component("esp32");
    let ask = |words: &[&str]| ask(folder, words);
    ask(&["inspect", "nowhere.wasm"])?.failed(3, "FileUnreadable", "nowhere.wasm");
    ask(&["inspect", "no reference"])?.failed(2, "Usage", "is not a reference");
    let text = "text.wasm is not a WebAssembly component: its first bytes";
    ask(&["inspect", "text.wasm"])?.failed(5, "CompileFailed", text);
    ask(&["verify", &esp32, "--key", "a.pub"])?.failed(2, "Usage", "name a reference");
    ask(&["verify", "registry.example/a:1"])?.failed(2, "Usage", "--key");
    ask(&["verify", "127.0.0.1:1/a:1", "--config", "none.yaml"])?.failed(
        3,
        "FileUnreadable",
        "none.yaml",
    );
    ask(&["push", &esp32, "registry.example/a"])?.failed(2, "Usage", "neither a tag nor a digest");
    ask(&["run", &esp32, "--settings", r#"{"x": 1}"#])?.failed(6, "Refused", "/x");
    ask(&["run", &esp32, "--settings", "[]"])?.failed(2, "Usage", "--settings");
    ask(&["run", &esp32, "--settings", r#"{"runAsRoot": true}"#])?.failed(
        8,
        "GrantDenied",
        "runAsRoot",
    );
    for (name, reason) in [
        ("traps", "Trapped"),
        ("loops", "TimedOut"),
        ("eats-memory", "OutOfMemory"),
        ("huge-list", "AnswerRejected"),
    ] {
        ask(&["run", &component(name)])?.failed(7, reason, "build");
    }
    ask(&["build"])?.failed(2, "Usage", "Cargo.toml");
    ask(&["new", "Bad_Name"])?.failed(2, "Usage", "is not a valid plugin name");
    ask(&["new", "good", "--device-type", "a/b"])?.failed(2, "Usage", "--device-type");
    assert_eq!(ask(&["run", &esp32, "--exit-code", "x"])?.code, Some(2));
    Ok(())
}

#[test]
fn the_api_server_is_reached_through_https_proxy_unless_no_proxy_lists_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path())?;
    let proxy = TcpListener::bind("127.0.0.1:0")?;
    proxy.set_nonblocking(true)?;
    // Nobody has an address of TEST-NET-1 (RFC 5737).
    let cluster = json!({
        "server": "https://192.0.2.7:6443", "certificate-authority": authority.certificate,
    });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": cluster}],
        "contexts": [{"name": "here", "context": {"cluster": "here"}}],
    });
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string())?;
    let address = proxy.local_addr()?;
    for (exempt, scheme, is_proxied) in [
        ("10.0.0.0/8,", "http://robot:secret-word@", true),
        ("10.0.0.0/8", "socks5://", true),
        ("localhost, 192.0.2.0/24,", "http://", false),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-flashjob"));
        command.args(["-o", "json", "status", "--request-timeout", "1"]);
        command.env("KUBECONFIG", &file).env("NO_PROXY", exempt);
        command.env("HTTPS_PROXY", format!("{scheme}{address}"));
        let output = command_output(command.output()?)?;
        let protocol = scheme.split_once("//").map_or(scheme, |(protocol, _)| protocol);
        let named = format!("does not answer through the proxy {protocol}//{address}: ");
        assert_eq!(output.errors.contains(&named), is_proxied, "{}", output.errors);
        assert!(!output.errors.contains("secret-word"), "{}", output.errors);
        output.failed(3, "ClusterUnreachable", "does not answer");
        // The connection waits here even if the program has ended.
        assert_eq!(proxy.accept().is_ok(), is_proxied, "NO_PROXY={exempt}");
    }
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn a_failure_that_nobody_can_read_keeps_its_exit_code() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let status = plugin(&["inspect", "nowhere.wasm"], folder.path()).stderr(full).status()?;
    assert_eq!(status.code(), Some(3));
    Ok(())
}

#[test]
fn a_new_plugin_never_takes_the_place_of_anything() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("thermo"))?;
    ask(folder.path(), &["new", "thermo"])?.failed(2, "FileExists", "--directory");
    assert_eq!(std::fs::read_dir(folder.path().join("thermo"))?.count(), 0);
    ask(folder.path(), &["new", "thermo", "--directory", "other"])?.good()?;
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 2, "nothing else is left behind");
    Ok(())
}

#[test]
fn a_request_that_was_shown_can_be_asked_again_and_a_part_of_one_is_completed()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let esp32 = component("esp32");
    let ask = |words: &[&str]| ask(folder.path(), words);
    let words = [
        "run",
        &esp32,
        "--endpoint",
        "10.0.0.7",
        "--firmware",
        "registry.example/f:2",
        "--firmware-version",
        "2",
        "--attempt",
        "3",
    ];
    let first = ask(&words)?.good()?;
    assert_eq!(first["request"]["device"]["endpoint"], "10.0.0.7");
    std::fs::write(folder.path().join("request.json"), first["request"].to_string())?;
    let again = ask(&["run", &esp32, "--request", "request.json"])?.good()?;
    assert_eq!(
        (&again["request"], &again["build"]["answer"]),
        (&first["request"], &first["build"]["answer"])
    );
    assert_eq!(
        (&again["pod"], &again["service"]),
        (&first["pod"], &first["service"]),
        "the same objects for the same request"
    );
    std::fs::write(
        folder.path().join("part.yaml"),
        "firmware: f\nsettings: {certificates: false}\ndevice: {reportedVersion: null}\n",
    )?;
    let part = ask(&["run", &esp32, "--request", "part.yaml"])?.good()?;
    assert_eq!(
        (&part["request"]["firmware"], &part["request"]["device"]["reportedVersion"]),
        (&json!("f"), &json!(null))
    );
    std::fs::write(folder.path().join("odd.yaml"), "device: {endpointt: x}\n")?;
    ask(&["run", &esp32, "--request", "odd.yaml"])?.failed(2, "Usage", "device.endpointt");
    assert_eq!(
        ask(&["run", &esp32, "--request", "part.yaml", "--firmware", "x"])?.code,
        Some(2),
        "not both"
    );
    Ok(())
}

#[test]
fn the_configuration_s_settings_and_grants_hold_as_in_the_operator() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = json!({
        "apiVersion": "config.flashjob.nbfc.io/v1alpha1", "kind": "OperatorConfig",
        "plugins": [{
            "name": "esp32", "image": "registry.example/esp32:1",
            "lockedSettings": {"runAsRoot": true},
            "grants": {"images": ["registry.example/**"], "runAsRoot": true},
        }],
    });
    std::fs::write(folder.path().join("config.yaml"), config.to_string())?;
    let ask = |image: &str| {
        ask(
            folder.path(),
            &["run", &component("esp32"), "--config", "config.yaml", "--image", image],
        )
    };
    let pod = ask("registry.example/flasher:1")?.good()?;
    assert_eq!(pod["pod"]["spec"]["containers"][0]["securityContext"]["runAsUser"], 0);
    let denied = ask("elsewhere.example/flasher:1")?;
    assert_eq!(denied.json["pod"], json!(null));
    denied.failed(8, "GrantDenied", "grants.images");
    Ok(())
}

#[test]
fn an_interrupted_command_ends_with_130_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let reference = format!("{}/a:1", silent.local_addr()?);
    let mut command = plugin(&["pull", &reference, "a.wasm", "--plain-http"], folder.path());
    let child = command
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // The command has sent its request, and waits for the answer.
    let _connection = silent.accept()?;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    command_output(child.wait_with_output()?)?.failed(130, "Interrupted", "interrupted");
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
    Ok(())
}

#[test]
fn a_device_that_reports_control_characters_writes_no_row_of_its_own() -> anyhow::Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-flashjob"));
    command.args(["plugin", "run", &component("esp32")]);
    command.args(["--device-version", "1\u{1b}[2J\nfirmware  another"]);
    let text = String::from_utf8(command.output()?.stdout)?;
    let device = text.lines().next().unwrap_or_default();
    assert!(device.ends_with("reports 1 [2J firmware  another)"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("firmware")).count(), 1, "{text}");
    Ok(())
}
