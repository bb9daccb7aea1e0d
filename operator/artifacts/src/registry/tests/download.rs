//! Interrupted downloads, and registries that ask for a delay.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;

const BLOB: &[u8] = b"a component that comes in several parts";

/// A server that answers each connection with the next of these answers, repeats the last one
/// indefinitely, and records the first byte that each request asks for.
async fn serve(answers: Vec<Vec<u8>>) -> (String, Arc<Mutex<Vec<Option<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let range_log = ranges.clone();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut line, mut range) = (String::new(), None);
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                let header = line.to_lowercase();
                range = header.strip_prefix("range:").map(|of| of.trim().to_owned()).or(range);
                line.clear();
            }
            range_log.lock().expect("not poisoned").push(range);
            let answer = &answers[number.min(answers.len() - 1)];
            let _ = stream.write_all(answer).await;
            number += 1;
        }
    });
    (host, ranges)
}

/// An answer that announces everything from `from` on, and breaks off before `to`.
fn part(from: usize, to: usize) -> Vec<u8> {
    let (rest, last, size) = (BLOB.len() - from, BLOB.len() - 1, BLOB.len());
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-length: {rest}\r\n\
         content-range: bytes {from}-{last}/{size}\r\nconnection: close\r\n\r\n"
    );
    [head.as_bytes(), &BLOB[from..to]].concat()
}

/// The same of a server that does not support ranges.
fn whole(to: usize) -> Vec<u8> {
    let length = BLOB.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), &BLOB[..to]].concat()
}

fn registries(host: &str) -> Vec<RegistryConfig> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = serde_json::json!([{"host": host, "plainHttp": true}]);
    serde_json::from_value(config).expect("a configuration")
}

async fn fetch(host: &str, digest: Digest) -> Result<Vec<u8>, RegistryError> {
    let (registries, logins) = (registries(host), Logins::none());
    let mut repository = Repository::new(host, "a/b", &registries, &logins).expect("a client");
    repository.blob(&Layer { digest, size: BLOB.len() }).await
}

/// Fetches the first bytes.
async fn start(host: &str, most: usize) -> Result<Vec<u8>, RegistryError> {
    let (registries, logins) = (registries(host), Logins::none());
    let mut repository = Repository::new(host, "a/b", &registries, &logins).expect("a client");
    let layer = Layer { digest: Digest::of(BLOB), size: BLOB.len() };
    repository.blob_start(&layer, most).await
}

#[tokio::test]
async fn of_the_start_of_a_blob_no_more_is_asked_for_and_no_more_is_read() {
    // The second server does not support ranges, and both break off after the requested bytes.
    for answer in [part(0, 12), whole(12), whole(BLOB.len())] {
        let (host, ranges) = serve(vec![answer]).await;
        assert_eq!(start(&host, 10).await.expect("fetched"), BLOB[..10]);
        let ranges = ranges.lock().expect("not poisoned");
        assert_eq!(*ranges, [Some("bytes=0-9".to_owned())]);
    }
    let (host, ranges) = serve(vec![whole(BLOB.len())]).await;
    assert_eq!(start(&host, 1 << 20).await.expect("fetched"), BLOB);
    assert_eq!(start(&host, 0).await.expect("nothing"), b"");
    assert_eq!(ranges.lock().expect("not poisoned").len(), 1);
    let (host, _) = serve(vec![part(5, 12)]).await;
    let error = start(&host, 10).await.expect_err("a range other than");
    assert!(matches!(error, RegistryError::Form { .. }), "{error}");
}

#[tokio::test]
async fn of_a_download_that_is_cut_off_the_rest_is_asked_for() {
    let (host, ranges) = serve(vec![whole(10), part(10, 25), part(25, BLOB.len())]).await;
    assert_eq!(fetch(&host, Digest::of(BLOB)).await.expect("fetched"), BLOB);
    let ranges = ranges.lock().expect("not poisoned");
    assert_eq!(*ranges, [None, Some("bytes=10-".to_owned()), Some("bytes=25-".to_owned())]);
}

#[tokio::test]
async fn a_server_that_sends_all_of_it_again_or_another_part_spoils_nothing() {
    for answer in [whole(BLOB.len()), part(0, BLOB.len())] {
        let (host, _) = serve(vec![whole(10), answer]).await;
        assert_eq!(fetch(&host, Digest::of(BLOB)).await.expect("fetched"), BLOB);
    }
}

#[tokio::test]
async fn a_download_put_together_of_parts_of_another_blob_is_refused() {
    let (host, _) = serve(vec![whole(10), part(10, BLOB.len())]).await;
    let error = fetch(&host, Digest::of(b"another")).await.expect_err("refused");
    assert!(matches!(error, RegistryError::Tampered { .. }), "{error}");
}

#[tokio::test]
async fn a_download_that_never_gets_further_is_given_up() {
    for first in [0, 10] {
        let (host, ranges) = serve(vec![whole(first)]).await;
        let error = fetch(&host, Digest::of(BLOB)).await.expect_err("given up");
        assert!(matches!(error, RegistryError::Reach { .. }) && error.is_transient(), "{error}");
        let requests = ranges.lock().expect("not poisoned").len();
        assert_eq!(
            requests,
            if first == 0 { 1 } else { 4 },
            "where nothing came, a mirror may have it"
        );
    }
}

#[tokio::test]
async fn a_registry_that_asks_to_be_asked_later_is_quoted_with_its_pause() {
    let fake = Fake::start(|_, _, _| with(answer(429, ""), "retry-after", "70")).await;
    let error = pull(&fake, None).await.expect_err("refused");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(70)));
    assert!(error.to_string().ends_with("asks to retry after 70 s"), "{error}");
    let mirrored = error.after(&[]);
    assert_eq!(mirrored.retry_after(), Some(Duration::from_secs(70)));
}
