//! Tests of the way from `plugin new` to a signed plugin in a real registry.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::author::{Author, command_output, component, plugin};
use anyhow::Context;
use flashjob_testbed::keyless::{Signing, Sigstore};
use flashjob_testbed::process::{repository, script};
use flashjob_testbed::signatures::{Signer, attach_simple};
use serde_json::json;

/// Creates a plugin, tests and builds it with the build cache of earlier runs, and returns the
/// output of `plugin build`.
fn build(author: &Author) -> anyhow::Result<serde_json::Value> {
    let work = repository().join("target/authoring");
    let folder = work.join("thermo");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let words = [
        "new",
        "thermo",
        "--device-type",
        "Thermo-1",
        "--directory",
        &folder.display().to_string(),
    ];
    let report = command_output(plugin(&words, author.folder.path()).output()?)?.good()?;
    assert_eq!(report["deviceType"], "thermo1");
    // The same crates as in this repository, which are available without a network.
    std::fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let toolchain = script("tests/wasm/toolchain.sh")?;
    let toolchain: Vec<(&str, &str)> =
        toolchain.lines().filter_map(|line| line.split_once('=')).collect();
    let prepare = |command: &mut Command| {
        command
            .current_dir(&folder)
            .env("CARGO_TARGET_DIR", work.join("target"))
            .env("CARGO_NET_OFFLINE", "true");
        command.envs(toolchain.iter().copied());
    };
    let mut tests = Command::new("cargo");
    prepare(&mut tests);
    // In this profile, the tests share build artifacts with the component.
    let tested = tests
        .args(["test", "--release", "--quiet"])
        .env_remove("CARGO_UNSTABLE_BUILD_STD")
        .output()?;
    anyhow::ensure!(
        tested.status.success(),
        "the plugin's own tests: {}",
        String::from_utf8_lossy(&tested.stderr)
    );
    let mut build = plugin(&["build"], author.folder.path());
    prepare(&mut build);
    command_output(build.output()?)?.good()
}

#[tokio::test]
async fn a_new_plugin_tests_itself_and_is_built_pushed_inspected_signed_verified_run_and_pulled()
-> anyhow::Result<()> {
    let author = Author::new().await?;
    let built = build(&author)?;
    assert_eq!((&built["name"], &built["version"]), (&json!("thermo"), &json!("0.1.0")));
    let file = built["file"].as_str().context("a file")?;
    let reference = author.reference("plugins/thermo:0.1.0");
    let pushed = author.plugin(&["push", file, &reference])?.good()?;
    assert_eq!(
        author.plugin(&["push", file, &reference])?.good()?["digest"],
        pushed["digest"],
        "the same artifact each time"
    );
    author.plugin(&["push", file, &author.reference("plugins/thermo:0.2.0")])?.failed(
        2,
        "Usage",
        "has version 0.1.0",
    );

    let inspected = author.plugin(&["inspect", &reference])?.good()?;
    assert_eq!(inspected["source"]["digest"], pushed["digest"]);
    assert_eq!(
        (&inspected["name"], &inspected["deviceTypes"]),
        (&json!("thermo"), &json!(["thermo1"]))
    );
    let exports = ["device-plugin", "firmware-inspector"]
        .map(|name| format!("flashjob:plugin/{name}@0.3.0"));
    assert_eq!(inspected["exports"], json!(exports));
    assert_eq!(inspected["settingsSchema"]["properties"]["timeoutSeconds"]["type"], "integer");
    assert_eq!(
        inspected["manifest"]["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(inspected["manifest"]["annotations"]["org.opencontainers.image.version"], "0.1.0");
    let names =
        |inspected: &serde_json::Value| inspected["manifest"]["layers"][0]["annotations"].clone();
    assert_eq!(
        names(&inspected),
        json!({"org.opencontainers.image.title": "thermo.wasm"}),
        "other tools write the file that has a name"
    );
    assert_eq!(inspected["signatures"], json!([]));
    let titled = author.reference("plugins/titled:0.1.0");
    author
        .plugin(&[
            "push",
            file,
            &titled,
            "--annotation",
            "org.opencontainers.image.title=../A thermometer",
            "--annotation",
            "org.opencontainers.image.description=Reads\ttwo\n\"sensors\"",
        ])?
        .good()?;
    let inspected_title = author.plugin(&["inspect", &titled])?.good()?;
    // Line breaks and quotes are preserved.
    assert_eq!(
        inspected_title["manifest"]["annotations"]["org.opencontainers.image.description"],
        "Reads\ttwo\n\"sensors\""
    );
    assert_eq!(
        inspected_title["manifest"]["annotations"]["org.opencontainers.image.title"],
        "../A thermometer"
    );
    assert_eq!(
        names(&inspected_title),
        json!({"org.opencontainers.image.title": "A thermometer.wasm"})
    );

    let (ours, foreign) = (
        Signer::new(author.folder.path(), "ours")?,
        Signer::new(author.folder.path(), "foreign")?,
    );
    let (ours_file, foreign_file) =
        (ours.public_key.display().to_string(), foreign.public_key.display().to_string());
    author.plugin(&["verify", &reference, "--key", &ours_file])?.failed(
        4,
        "Unsigned",
        "is not signed",
    );
    let digest = pushed["digest"].as_str().context("a digest")?;
    ours.sign_bundle(&author.registry, "plugins/thermo", digest, digest).await?;
    let verified = author.plugin(&["verify", &reference, "--key", &ours_file])?.good()?;
    assert_eq!(
        (&verified["source"]["trust"], &verified["source"]["digest"]),
        (&json!("Signed"), &pushed["digest"])
    );
    author.plugin(&["verify", &reference, "--key", &foreign_file])?.failed(
        4,
        "WrongKey",
        "with none of the keys",
    );
    author
        .plugin(&[
            "verify",
            &reference,
            "--all-keys",
            "--key",
            &ours_file,
            "--key",
            &foreign_file,
        ])?
        .failed(4, "KeysMissing", "foreign.pub");
    author.plugin(&["run", &reference, "--key", &foreign_file])?.failed(
        4,
        "WrongKey",
        "with none of the keys",
    );
    assert_eq!(
        author.plugin(&["inspect", &reference])?.good()?["signatures"],
        json!([{"form": "bundle"}])
    );
    verified_without_a_key(&author, &reference, digest).await?;

    let words = [
        "run",
        &reference,
        "--key",
        &ours_file,
        "--settings",
        r#"{"timeoutSeconds": 60}"#,
        "--exit-code",
        "2",
    ];
    let ran = author.plugin(&words)?.good()?;
    assert_eq!(
        ran["pod"]["metadata"]["annotations"]["application.flashjob.nbfc.io/plugin-digest"],
        pushed["digest"]
    );
    assert_eq!(ran["pod"]["spec"]["activeDeadlineSeconds"], 60);
    assert_eq!(ran["service"]["spec"]["ports"][0]["port"], 4433);
    assert_eq!(ran["judge"]["answer"], json!({"giveUp": "Error"}));

    author.plugin(&["pull", &reference, "--key", &ours_file])?.good()?;
    assert_eq!(std::fs::read(author.folder.path().join("thermo.wasm"))?, std::fs::read(file)?);
    author.plugin(&["pull", &reference])?.failed(2, "FileExists", "--force");
    Ok(())
}

/// Signs once more, keyless, and verifies with cosign's own options.
async fn verified_without_a_key(
    author: &Author,
    reference: &str,
    digest: &str,
) -> anyhow::Result<()> {
    let (subject, issuer) =
        ("https://git.example/plugins/.ci/release.yml@refs/tags/v1", "https://ci.example");
    let sigstore = Sigstore::new()?;
    let root = author.folder.path().join("trusted-root.json");
    std::fs::write(&root, sigstore.trusted_root().to_string())?;
    let root = root.display().to_string();
    let verify = |identity: &str, name: &str, issuer: &str| {
        let identity =
            [identity, name, "--certificate-oidc-issuer", issuer, "--trusted-root", &root];
        author.plugin(&[&["verify", reference][..], &identity].concat())
    };
    verify("--certificate-identity", subject, issuer)?.failed(
        4,
        "SignatureUnproven",
        "made with a key",
    );
    let (payload, annotations) = sigstore.simple(&Signing::now(subject, issuer), digest)?;
    attach_simple(&author.registry, "plugins/thermo", digest, payload, annotations).await?;
    assert_eq!(
        verify("--certificate-identity", subject, issuer)?.good()?["source"]["trust"],
        "Signed"
    );
    let pattern = "^https://git[.]example/plugins/[.]ci/release[.]yml@refs/tags/.+$";
    assert_eq!(
        verify("--certificate-identity-regexp", pattern, issuer)?.good()?["source"]["trust"],
        "Signed"
    );
    verify("--certificate-identity", "who@evil.example", issuer)?.failed(
        4,
        "WrongIdentity",
        subject,
    );
    verify("--certificate-identity", subject, "https://evil.example")?.failed(
        4,
        "WrongIdentity",
        issuer,
    );
    verify("--certificate-identity-regexp", "git[.]example", issuer)?.failed(
        2,
        "Usage",
        "from ^ to $",
    );
    for (words, missing) in [
        (["--trusted-root", &root], "--certificate-oidc-issuer"),
        (["--trusted-root", &root], "--certificate-identity"),
        (["--certificate-identity", subject], "--trusted-root"),
        (["--certificate-oidc-issuer", issuer], "--trusted-root"),
    ] {
        let output = author.plugin(&[&["verify", reference][..], &words].concat())?;
        assert!(
            output.code == Some(2) && output.errors.contains(missing),
            "{words:?}: {}",
            output.errors
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_registry_that_lets_nobody_in_is_told_apart_from_one_without_the_plugin()
-> anyhow::Result<()> {
    let author = Author::new().await?;
    let (file, reference) = (component("toaster"), author.reference("plugins/toaster:1.0.0"));
    author.plugin(&["push", &file, &reference])?.good()?;
    author.plugin(&["inspect", &author.reference("plugins/none:1")])?.failed(
        3,
        "NotFound",
        "plugins/none:1",
    );
    let host = &author.registry.host;
    for (config, reason) in [
        (json!({"auths": {host: {"username": "robot", "password": "wrong"}}}), "AccessDenied"),
        (json!({"auths": {}}), "AccessDenied"),
        (json!({"auths": {host: {"username": "robot"}}}), "CredentialsBroken"),
        (json!({"auths": {host: {}}, "credsStore": "is-not-there"}), "CredentialsBroken"),
        (json!({"credHelpers": {host: "is-not-there"}}), "CredentialsBroken"),
        (json!("x"), "CredentialsBroken"),
    ] {
        author.log_in(&config.to_string())?;
        for words in
            [vec!["inspect", reference.as_str()], vec!["push", file.as_str(), reference.as_str()]]
        {
            author.plugin(&words)?.failed(3, reason, "");
        }
    }
    author.log_in("{}")?;
    command_output(plugin(&["inspect", "127.0.0.1:1/a/b:1"], author.folder.path()).output()?)?
        .failed(3, "RegistryUnreachable", "127.0.0.1:1");
    Ok(())
}

#[test]
fn a_credential_helper_is_asked_for_the_name_under_which_docker_stores_a_registry()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let helper = folder.path().join("docker-credential-echo");
    // It fails, so that nothing is requested from the registry.
    std::fs::write(&helper, "#!/bin/sh\necho \"asked for $(cat) by $1\"\nexit 1\n")?;
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755))?;
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = [folder.path().to_owned()].into_iter().chain(std::env::split_paths(&folders));
    let search = std::env::join_paths(folders)?;
    let hub = "https://index.docker.io/v1/";
    for (config, registry, server) in [
        (json!({"credsStore": "echo"}), "docker.io", hub),
        (json!({"credsStore": "echo", "auths": {}}), "registry-1.docker.io", hub),
        (json!({"credHelpers": {"index.docker.io": "echo"}}), "docker.io", hub),
        (json!({"credHelpers": {hub: "echo"}}), "registry-1.docker.io", hub),
        (json!({"credHelpers": {"reg.example": "echo"}}), "reg.example:443", "reg.example:443"),
        (json!({"credHelpers": {"reg.example:443": "echo"}}), "reg.example", "reg.example"),
    ] {
        std::fs::write(folder.path().join("config.json"), config.to_string())?;
        let reference = format!("{registry}/team/plugin:1");
        let mut command = plugin(&["inspect", &reference], folder.path());
        let expected = format!("asked for {server} by get");
        command_output(command.env("PATH", &search).output()?)?.failed(
            3,
            "CredentialsBroken",
            &expected,
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_the_registry_says_decides_what_is_advised_and_its_mirror_is_named_beside()
-> anyhow::Result<()> {
    let author = Author::new().await?;
    let config = author.folder.path().join("operator.json");
    let mirrored = json!({
        "apiVersion": "config.flashjob.nbfc.io/v1alpha1", "kind": "OperatorConfig",
        "registries": [{"host": author.registry.host, "mirrors": ["127.0.0.1:1"]}],
    });
    std::fs::write(&config, mirrored.to_string())?;
    let config = config.display().to_string();
    let inspect =
        |name: &str| author.plugin(&["inspect", &author.reference(name), "--config", &config]);
    let down = "mirrors tried before: cannot reach registry 127.0.0.1:1";
    inspect("plugins/none:1")?.failed(3, "NotFound", down);
    author.log_in("{}")?;
    inspect("plugins/none:1")?.failed(3, "AccessDenied", down);
    inspect("plugins/none:1")?.failed(
        3,
        "AccessDenied",
        &format!("log in with docker login {}", author.registry.host),
    );
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_the_contract_is_pushed_only_by_force_and_then_refused_everywhere()
-> anyhow::Result<()> {
    let author = Author::new().await?;
    let file = author.folder.path().join("no-component.wasm");
    std::fs::write(&file, b"\0asm\x01\0\0\0")?;
    let (file, reference) = (file.display().to_string(), author.reference("plugins/broken:1"));
    author.plugin(&["push", &file, &reference])?.failed(
        5,
        "CompileFailed",
        "nothing was published",
    );
    author.plugin(&["inspect", &reference])?.failed(3, "NotFound", "plugins/broken:1");
    author.plugin(&["push", &file, &reference, "--force"])?.good()?;
    // Without the certificate of the registry's authority.
    command_output(plugin(&["inspect", &reference], author.folder.path()).output()?)?.failed(
        3,
        "RegistryUnreachable",
        "signed by an unknown authority; set",
    );
    author.plugin(&["inspect", &reference])?.failed(
        5,
        "CompileFailed",
        "is not a WebAssembly component",
    );
    let config = Path::new(&file).with_file_name("operator.yaml");
    std::fs::write(
        &config,
        "apiVersion: config.flashjob.nbfc.io/v1alpha1\nkind: OperatorConfig\n",
    )?;
    let config = config.display().to_string();
    author.plugin(&["verify", &reference, "--config", &config])?.failed(
        4,
        "NotTrusted",
        "no entry under trust",
    );
    Ok(())
}
