//! Registries that are slow, answer nonsense, close the connection early, or redirect elsewhere;
//! and proxies in front of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Returns the reason for a pull's failure, its message, and whether it is transient.
async fn failure(fake: &Fake) -> (&'static str, String, bool) {
    let error = pull(fake, None).await.expect_err("refused");
    (error.reason(), error.to_string(), error.is_transient())
}

#[tokio::test]
async fn each_status_has_its_reason_and_only_what_may_pass_is_tried_again() {
    for (status, reason, transient) in [
        (400, "RegistryError", false),
        (401, "AccessDenied", false),
        (403, "AccessDenied", false),
        (404, "NotFound", false),
        (418, "RegistryError", false),
        (429, "RegistryError", true),
        (500, "RegistryError", true),
        (503, "RegistryError", true),
    ] {
        for broken in ["/manifests/", "/blobs/"] {
            let fake = Fake::start(move |_, path, _| match path {
                path if path.contains(broken) => answer(status, "<html>"),
                _ => answer(200, manifest(b"component", 9)),
            });
            let (found, message, again) = failure(&fake.await).await;
            assert_eq!((found, again), (reason, transient), "{message}");
            assert!(status == 404 || message.contains(&status.to_string()), "{message}");
            assert!(message.contains("/a/b"), "{message}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_no_manifest_is_refused_by_the_name_of_what_was_asked_for() {
    let whole = manifest(b"component", 9);
    let nonsense = [
        "<html><body>please log in</body></html>".to_owned(),
        String::new(),
        "[]".to_owned(),
        "null".to_owned(),
        r#"{"schemaVersion": 2, "layers": []}"#.to_owned(),
        whole[..whole.len() / 2].to_owned(),
        whole.replace("sha256:", "md5:"),
        whole.replace("\"size\":9", "\"size\":-9"),
        "[".repeat(100_000),
    ];
    for body in nonsense {
        let (content, what) = (body.clone(), body.chars().take(80).collect::<String>());
        let fake = Fake::start(move |_, _, _| answer(200, content.clone())).await;
        let (reason, message, transient) = failure(&fake).await;
        assert_eq!((reason, transient), ("UnexpectedContent", false), "{what}: {message}");
        assert!(message.starts_with(&format!("{}/a/b:1 ", fake.host)), "{what}: {message}");
        assert!(message.len() < 1000 && !message.contains("please log in"), "{what}: {message}");
    }
}

#[tokio::test]
async fn a_token_service_that_answers_nonsense_ends_the_pull() {
    for token in ["<html>", "{}", r#"{"token": ""}"#, r#"{"token": 7}"#, "{\"token\": \"a\\nb\"}"]
    {
        let fake = Fake::start(move |host, path, _| match path {
            path if path.starts_with("/token") => answer(200, token),
            _ => bearer(format!("http://{host}/token")),
        });
        let (fake, credentials) = (fake.await, credentials());
        let error = pull(&fake, Some(&credentials)).await.expect_err("refused");
        assert_eq!(error.reason(), "AccessDenied", "{token}: {error}");
        assert_eq!(fake.asked().len(), 2, "{token}: {:?}", fake.asked());
    }
}

#[tokio::test]
async fn the_first_challenge_that_is_understood_counts() {
    let fake = Fake::start(|_, path, authorization| match (path, authorization) {
        (path, Some("Basic cm9ib3Q6c2VjcmV0")) if path.contains("/blobs/") => {
            answer(200, "component")
        }
        (_, Some("Basic cm9ib3Q6c2VjcmV0")) => answer(200, manifest(b"component", 9)),
        _ => with(
            with(answer(401, ""), "www-authenticate", "Negotiate"),
            "www-authenticate",
            "Basic realm=x",
        ),
    });
    assert_eq!(pull(&fake.await, Some(&credentials())).await.expect("pulled"), b"component");
}

#[tokio::test]
async fn a_storage_gets_no_credentials_wherever_it_is_and_none_is_met_in_the_clear_or_for_ever() {
    let storage = Fake::start(|_, _, _| answer(200, "component")).await;
    let at = format!("http://{}/storage", storage.host);
    let start = |target: String| {
        Fake::start(move |_, path, authorization| match path {
            _ if authorization.is_none() && !path.starts_with("/loop") => {
                with(answer(401, ""), "www-authenticate", "Basic realm=x")
            }
            path if path.contains("/blobs/") || path.starts_with("/loop") => {
                with(answer(307, ""), "location", target.clone())
            }
            _ => answer(200, manifest(b"component", 9)),
        })
    };
    let refused = start(at.clone()).await;
    let error =
        pull(&refused, Some(&credentials())).await.expect_err("http, and not configured so");
    assert!(
        matches!(error, RegistryError::Redirect { .. }) && error.to_string().contains(&at),
        "{error}"
    );
    assert!(storage.asked().is_empty());
    let (followed, credentials) = (start(at).await, credentials());
    let registries = [followed.config(), storage.config()];
    let logins = [(followed.host.clone(), credentials.clone())].into_iter().collect();
    let mut repository =
        Repository::new(&followed.host, "a/b", &registries, &logins).expect("a client");
    let layer = Layer { digest: Digest::of(b"component"), size: 9 };
    assert_eq!(repository.blob(&layer).await.expect("pulled"), b"component");
    assert_eq!(storage.asked(), [("/storage".to_owned(), None)]);
    for target in ["/loop", "ftp://a/b", "http://", "file:///etc/passwd", ""] {
        let fake = start(target.to_owned()).await;
        let error = pull(&fake, Some(&credentials)).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Redirect { .. }), "{target}: {error}");
        assert!(fake.asked().len() < 12, "{target}");
    }
}

/// A server that accepts one connection after the other, reads a request, and answers with exactly
/// these bytes.
async fn raw(bytes: &'static [u8], then_hold: bool) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let serve = async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes).await;
            if then_hold {
                // From here on, only timers are pending.
                tokio::time::pause();
                held.push(stream);
            }
        }
    };
    (host, tokio::spawn(serve))
}

async fn ask(host: &str) -> RegistryError {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = serde_json::json!([{"host": host, "plainHttp": true}]);
    let registries: Vec<RegistryConfig> = serde_json::from_value(config).expect("a configuration");
    let logins = Logins::none();
    let mut repository = Repository::new(host, "a/b", &registries, &logins).expect("a client");
    repository.manifest_bytes("1", None, 1000).await.expect_err("refused")
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_no_http_is_tried_again_later() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"schemaVersion\""[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"sch",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"SSH-2.0-x\r\n",
        b"",
    ] {
        let (host, server) = raw(bytes, false).await;
        let error = ask(&host).await;
        assert!(matches!(error, RegistryError::Reach { .. }) && error.is_transient(), "{error}");
        assert!(error.to_string().contains(&host), "{error}");
        server.abort();
    }
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_given_up() {
    for bytes in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"] {
        let (host, server) = raw(bytes, true).await;
        let started = tokio::time::Instant::now();
        let error = ask(&host).await;
        assert!(matches!(error, RegistryError::Reach { .. }) && error.is_transient(), "{error}");
        assert!(started.elapsed() <= Duration::from_secs(60), "{:?}", started.elapsed());
        tokio::time::resume();
        server.abort();
    }
}

/// Variable that is set for the child process that uses the proxy.
const CHILD: &str = "FLASHJOB_TEST_REGISTRY";
const THIS_TEST: &str =
    "registry::tests::broken::the_usual_variables_name_a_proxy_and_who_is_reached_without";

#[tokio::test]
async fn the_usual_variables_name_a_proxy_and_who_is_reached_without() {
    if let Ok(host) = std::env::var(CHILD) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let logins = [(host.clone(), credentials())].into_iter().collect();
        let mut repository = Repository::new(&host, "a/b", &[], &logins).expect("a client");
        let error = repository
            .manifest_bytes("1", None, 1000)
            .await
            .expect_err("the other end speaks no TLS");
        assert!(matches!(error, RegistryError::Reach { .. }), "{error}");
        return;
    }
    for (proxied, without) in [
        (true, "localhost,.internal"),
        (true, "192.168.0.0/16,"),
        (false, "registry.invalid,127.0.0.1"),
        (false, "localhost registry.invalid"),
        (false, "*.invalid,"),
        (false, "*"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = format!("http://{}", listener.local_addr().expect("an address"));
        let (first, receiver) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.expect("a request");
            let _ = first.send(String::from_utf8_lossy(&request[..read]).into_owned());
            let _ =
                stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        });
        let mut child =
            tokio::process::Command::new(std::env::current_exe().expect("this program"));
        child
            .args([THIS_TEST, "--exact"])
            .env(CHILD, "registry.invalid")
            // Blanks around it are what a value from a file often has.
            .env("HTTPS_PROXY", format!(" {proxy}\n"))
            .env("NO_PROXY", without);
        child
            .env_remove("https_proxy")
            .env_remove("no_proxy")
            .env_remove("ALL_PROXY")
            .env_remove("all_proxy");
        let output = child.output().await.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        if proxied {
            let request = receiver.await.expect("the proxy was asked");
            assert!(request.starts_with("CONNECT registry.invalid:443 "), "{request}");
            assert!(
                !request.to_lowercase().contains("cm9ib3q6"),
                "the proxy sees no password: {request}"
            );
        }
        assert_eq!(server.is_finished(), proxied, "NO_PROXY={without}");
        server.abort();
    }
}
