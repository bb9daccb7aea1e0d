//! Tests the flash program against simulated devices, over a network that fails like real ones.

use std::net::SocketAddr;
use std::time::Duration;

use crate::world::{AGAIN, World};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use flashjob_flasher::arguments::Caller;
use flashjob_flasher::outcome::Code;
use flashjob_simulators::devices::Behaviour;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Returns a port that refuses connections until it listens.
fn closed_port(host: &str) -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{host}:0").parse().expect("an address")).expect("a free port");
    let port = socket.local_addr().expect("bound").port();
    (socket, port)
}

/// Forwards connections to the flash program, as a node does. With `bytes`, the first connection
/// stalls after that many bytes to the device, without a notice to either end.
fn lead(way: TcpSocket, to: SocketAddr, mut bytes: Option<u64>) {
    let listener = way.listen(8).expect("listening");
    tokio::spawn(async move {
        while let Ok((mut device, _)) = listener.accept().await {
            let bytes = bytes.take();
            tokio::spawn(async move {
                let mut flasher = TcpStream::connect(to).await?;
                let Some(bytes) = bytes else {
                    let copied = tokio::io::copy_bidirectional(&mut device, &mut flasher).await;
                    return copied.map(|_| ());
                };
                let (from_device, mut to_device) = device.split();
                let (from_flasher, mut to_flasher) = flasher.split();
                let (mut from_device, mut from_flasher) = (from_device, from_flasher.take(bytes));
                let _ = tokio::join!(tokio::io::copy(&mut from_device, &mut to_flasher), async {
                    tokio::io::copy(&mut from_flasher, &mut to_device).await?;
                    std::future::pending::<std::io::Result<()>>().await
                });
                Ok(())
            });
        }
    });
}

#[tokio::test]
async fn a_device_that_calls_back_runs_the_new_firmware_after_one_request() {
    let world = World::new("127.77.1.1", None, Behaviour::default()).await;
    let sent = world.flash().await.expect("flashed");
    assert!(sent.bytes > 2 << 20 && sent.message.contains("firmware/thermo.bin"), "{sent:?}");
    let report = world.becomes("flashed", |report| report.flashed > 0).await;
    assert_eq!((report.version.as_str(), report.previous_version.as_str()), ("2", "1"));
    assert_eq!((report.updates, report.repeats, report.conflicts), (1, 0, 0), "{report:?}");
}

#[tokio::test]
async fn a_device_that_cuts_the_transfer_stays_what_it_was() {
    let behaviour = Behaviour { cut_transfer: true, ..Behaviour::default() };
    let world = World::new("127.77.1.2", None, behaviour).await;
    let failure = world.flash().await.expect_err("the transfer broke");
    assert_eq!(failure.code, Code::TransferBroken, "{failure}");
    let report = world.becomes("refused", |report| report.refused > 0).await;
    assert_eq!((report.version.as_str(), report.flashed, report.updates), ("1", 0, 1));
}

#[tokio::test]
async fn a_device_that_no_node_leads_here_at_first_is_asked_again_and_flashed_in_the_same_attempt()
{
    let (way, port) = closed_port("127.77.1.3");
    let world = World::new("127.77.1.3", Some(port), Behaviour::default()).await;
    let late = async {
        tokio::time::sleep(AGAIN * 7).await;
        lead(way, world.at(), None);
        std::future::pending::<()>().await
    };
    tokio::select! {
        flashed = world.flash() => { flashed.expect("flashed"); }
        () = late => {}
    }
    let report = world.becomes("flashed", |report| report.flashed > 0).await;
    assert!((2..=5).contains(&report.updates), "the pauses grow: {report:?}");
    assert_eq!(report.unreached, report.updates - 1, "each refusal ended an update: {report:?}");
    assert_eq!((report.callbacks, report.conflicts), (1, 0), "{report:?}");
}

#[tokio::test]
async fn a_device_that_is_slow_to_call_is_asked_again_and_still_calls_once() {
    let slow = Behaviour { callback_delay_ms: 1500, transfer_ms: 1500, ..Behaviour::default() };
    let world = World::new("127.77.1.4", None, slow).await;
    world.flash().await.expect("flashed");
    let report = world.becomes("flashed", |report| report.flashed > 0).await;
    assert!(report.repeats > 0, "{report:?}");
    // A device that has called is not asked again: that would be a conflict.
    assert_eq!((report.updates, report.callbacks, report.conflicts), (1, 1, 0), "{report:?}");
}

#[tokio::test]
async fn a_device_without_an_update_state_is_flashed_once_however_often_it_calls() {
    let heedless = Behaviour {
        heedless: true,
        callback_delay_ms: 1000,
        transfer_ms: 1500,
        ..Behaviour::default()
    };
    let world = World::new("127.77.1.5", None, heedless).await;
    world.flash().await.expect("flashed");
    let report = world
        .becomes("every update has ended", |report| {
            report.flashed + report.refused + report.unreached == report.updates
        })
        .await;
    assert!(report.updates > 1, "{report:?}");
    assert_eq!((report.version.as_str(), report.flashed), ("2", 1), "{report:?}");
}

#[tokio::test]
async fn a_device_cut_off_in_mid_transfer_gives_up_and_the_next_attempt_waits_for_that() {
    let (way, port) = closed_port("127.77.1.6");
    let world = World::new("127.77.1.6", Some(port), Behaviour::default()).await;
    lead(way, world.at(), Some(1 << 20));
    let cut = tokio::time::timeout(AGAIN * 2, world.flash()).await;
    assert!(cut.is_err(), "the transfer stands still");
    assert_eq!(world.report().refused, 0, "the device waits for more");
    world.flash().await.expect("flashed");
    let report = world.becomes("flashed", |report| report.flashed > 0).await;
    assert!(report.conflicts > 0, "it was asked while it waited for more: {report:?}");
    assert_eq!((report.updates, report.refused, report.callbacks), (2, 1, 2), "{report:?}");
}

#[tokio::test]
async fn a_transfer_that_stands_still_ends_after_its_time() {
    let (way, port) = closed_port("127.77.1.10");
    let mut world = World::new("127.77.1.10", Some(port), Behaviour::default()).await;
    world.options.stall_timeout = Duration::from_millis(500);
    lead(way, world.at(), Some(1 << 10));
    let failure = world.flash().await.expect_err("the transfer stands still");
    assert_eq!(failure.code, Code::TransferBroken, "{failure}");
}

#[tokio::test]
async fn a_connection_that_shows_no_certificate_does_not_end_the_wait() {
    let slow = Behaviour { callback_delay_ms: 1000, ..Behaviour::default() };
    let world = World::new("127.77.1.7", None, slow).await;
    let other_clients = async {
        let connect = || async {
            loop {
                match TcpStream::connect(world.at()).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        drop(connect().await);
        let _silent = connect().await;
        let mut noise = connect().await;
        noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
        std::future::pending::<()>().await
    };
    tokio::select! {
        flashed = world.flash() => { flashed.expect("flashed"); }
        () = other_clients => {}
    }
    let report = world.becomes("flashed", |report| report.flashed > 0).await;
    assert_eq!((report.callbacks, report.conflicts), (1, 0), "{report:?}");
}

#[tokio::test]
async fn who_does_not_call_from_the_endpoints_address_is_turned_away_where_that_is_demanded() {
    let mut world = World::new("127.77.1.11", None, Behaviour::default()).await;
    world.options.caller = Caller::Address;
    world.flash().await.expect("it calls from the address of its endpoint");
    let elsewhere = TcpListener::bind("127.77.1.12:0").await.expect("a loopback address");
    world.options.host_endpoint = elsewhere.local_addr().expect("bound").to_string();
    // The device that receives the request answers and does not call; another one calls.
    let endpoint = world.report().endpoint;
    let address = world.options.external_ip;
    let other = post(move || async move {
        let request = reqwest::Client::new().post(format!("http://{endpoint}/update"));
        request.body(format!("ip: {address}")).send().await.expect("asked");
    });
    let routes = Router::new().route("/update", other);
    tokio::spawn(async move { axum::serve(elsewhere, routes).await });
    world.options.callback_timeout = AGAIN * 4;
    let failure = world.flash().await.expect_err("turned away");
    assert_eq!(failure.code, Code::NoCallback, "{failure}");
    assert!(failure.to_string().contains("which is not the device's address"), "{failure}");
}

#[tokio::test]
async fn what_a_device_refuses_for_good_fails_at_once_and_a_busy_one_at_the_limit() {
    for (host, status, code, words) in [
        ("127.77.1.8", StatusCode::NOT_FOUND, Code::DeviceRefused, "answers 404"),
        (
            "127.77.1.9",
            StatusCode::CONFLICT,
            Code::NoCallback,
            " times; the last time it answered 409",
        ),
    ] {
        let mut world = World::new(host, None, Behaviour::default()).await;
        let server = TcpListener::bind((host, 0)).await.expect("a loopback address");
        world.options.host_endpoint = server.local_addr().expect("bound").to_string();
        let routes = Router::new().route("/update", post(move || async move { status }));
        tokio::spawn(async move { axum::serve(server, routes).await });
        world.options.callback_timeout = AGAIN * 4;
        let failure = world.flash().await.expect_err("not flashed");
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.to_string().contains(words), "{failure}");
        assert!(!failure.to_string().contains("asked 1 times"), "a busy device is asked again");
    }
    let mut world = World::new("127.77.1.13", None, Behaviour::default()).await;
    world.options.host_endpoint = "127.77.1.13:9".to_owned();
    world.options.callback_timeout = AGAIN;
    let failure = world.flash().await.expect_err("nobody answers");
    assert_eq!(failure.code, Code::DeviceUnreachable, "{failure}");
}

#[tokio::test]
async fn a_device_is_sent_nothing_unless_the_attestation_service_trusts_it() {
    for (host, status, code) in [
        ("127.77.1.14", Some(StatusCode::OK), None),
        ("127.77.1.15", Some(StatusCode::FORBIDDEN), Some(Code::DeviceNotTrusted)),
        (
            "127.77.1.16",
            Some(StatusCode::INTERNAL_SERVER_ERROR),
            Some(Code::AttestationUnavailable),
        ),
        ("127.77.1.17", None, Some(Code::AttestationUnavailable)),
    ] {
        let mut world = World::new(host, None, Behaviour::default()).await;
        world.options.attestation_host = Some(host.to_owned());
        if let Some(status) = status {
            let service = TcpListener::bind((host, 8000)).await.expect("a loopback address");
            let answer = post(move |body: String| async move {
                match body.starts_with("-----BEGIN CERTIFICATE-----\n") {
                    true => status,
                    false => StatusCode::BAD_REQUEST,
                }
            });
            let routes = Router::new().route("/", answer);
            tokio::spawn(async move { axum::serve(service, routes).await });
        }
        let ended = world.flash().await;
        assert_eq!(ended.as_ref().err().map(|failure| failure.code), code, "{ended:?}");
        let report = world.becomes("over", |report| report.flashed + report.refused > 0).await;
        assert_eq!(report.flashed > 0, code.is_none(), "{report:?}");
    }
    let mut world = World::new("127.77.1.18", None, Behaviour::default()).await;
    world.options.require_attestation = true;
    let failure = world.flash().await.expect_err("there is no service");
    assert_eq!(failure.code, Code::BadConfiguration, "{failure}");
    assert_eq!(world.report().updates, 0);
}

#[tokio::test]
async fn a_dry_run_looks_at_everything_and_asks_for_no_update() {
    let mut world = World::new("127.77.1.19", None, Behaviour::default()).await;
    world.options.dry_run = true;
    let sent = world.flash().await.expect("everything is there");
    assert!(sent.bytes == 0 && sent.message.contains("nothing was sent"), "{sent:?}");
    assert_eq!(world.report().updates, 0);
    world.options.host_endpoint = "127.77.1.19:9".to_owned();
    let failure = world.flash().await.expect_err("nobody answers");
    assert_eq!(failure.code, Code::DeviceUnreachable, "{failure}");
}
