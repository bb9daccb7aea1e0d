//! The flasher against simulated devices, over a network that fails as real ones do.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::devices::{Behaviour, Fleet, Group, Report, Settings};
use crate::firmware::Firmware;

/// Pause before a device is asked again.
const AGAIN: Duration = Duration::from_millis(300);
/// Longer than a device takes that behaves.
const LIMIT: Duration = Duration::from_secs(30);

/// A device, and an address of its own on which a flasher waits for it.
struct Pair {
    fleet: Fleet,
    host: &'static str,
    listener: Option<TcpListener>,
    acceptor: TlsAcceptor,
    limit: Duration,
}

impl Pair {
    /// The device calls back to the port of this socket, or to the flasher's where there is none.
    async fn new(host: &'static str, way: Option<&TcpSocket>, behaviour: Behaviour) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind((host, 0)).await.expect("a loopback address");
        let port = |address: std::io::Result<SocketAddr>| address.expect("bound").port();
        let callback_port =
            way.map_or_else(|| port(listener.local_addr()), |way| port(way.local_addr()));
        let fleet = Fleet::new(Settings {
            address: Ipv4Addr::LOCALHOST.into(),
            callback_port,
            reboot_ms: 1,
            receive_timeout_ms: 1000,
        });
        let group = Group {
            device: "esp32".into(),
            application: "thermo".into(),
            version: "1".into(),
            count: 1,
        };
        fleet.add(&group).await.expect("a device");
        let environment = Environment(BTreeMap::new());
        let acceptor = acceptor(&environment).expect("TLS");
        let pair = Self { fleet, host, listener: Some(listener), acceptor, limit: LIMIT };
        assert!(pair.fleet.behave(&pair.report().id, behaviour));
        pair
    }

    fn report(&self) -> Report {
        self.fleet.reports().remove(0)
    }

    /// One attempt.
    async fn flash(&mut self) -> anyhow::Result<()> {
        let endpoint = self.report().endpoint;
        self.flash_at(&endpoint).await
    }

    async fn flash_at(&mut self, endpoint: &str) -> anyhow::Result<()> {
        let listener = self.listener.take().expect("one attempt");
        let callback = Callback { endpoint, address: self.host, limit: self.limit, again: AGAIN };
        let caller = callback.wait(listener, &self.acceptor).await?;
        transfer::hand_over(caller, &Environment(BTreeMap::new()), &firmware()).await
    }

    /// Waits until something is true of the device.
    async fn becomes(&self, what: &str, holds: impl Fn(&Report) -> bool) -> Report {
        for _ in 0..2000 {
            let report = self.report();
            if holds(&report) {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the device never came to this: {what}: {:?}", self.report());
    }
}

fn firmware() -> Vec<u8> {
    let firmware = Firmware {
        device: "esp32".into(),
        application: "thermo".into(),
        version: "2".into(),
        payload: vec![1; 2 << 20],
    };
    firmware.encode().expect("encoded")
}

/// A port to which connections are refused until it listens.
fn closed_port(host: &str) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{host}:0").parse().expect("an address")).expect("a free port");
    socket
}

/// Leads connections on to the flasher, as a node does. With `bytes` the first one stands still
/// after so many towards the device, and neither end is told.
fn lead(way: TcpSocket, to: SocketAddr, mut bytes: Option<u64>) {
    let listener = way.listen(8).expect("listening");
    tokio::spawn(async move {
        while let Ok((mut device, _)) = listener.accept().await {
            let bytes = bytes.take();
            tokio::spawn(async move {
                let mut flasher = TcpStream::connect(to).await?;
                let Some(bytes) = bytes else {
                    return tokio::io::copy_bidirectional(&mut device, &mut flasher)
                        .await
                        .map(|_| ());
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
    let mut pair = Pair::new("127.77.1.1", None, Behaviour::default()).await;
    pair.flash().await.expect("flashed");
    let report = pair.becomes("flashed", |report| report.flashed > 0).await;
    assert_eq!((report.version.as_str(), report.previous_version.as_str()), ("2", "1"));
    assert_eq!((report.updates, report.repeats, report.conflicts), (1, 0, 0), "{report:?}");
}

#[tokio::test]
async fn a_device_that_cuts_the_transfer_stays_what_it_was() {
    let behaviour = Behaviour { cut_transfer: true, ..Behaviour::default() };
    let mut pair = Pair::new("127.77.1.2", None, behaviour).await;
    let error = pair.flash().await.expect_err("the transfer broke");
    assert!(format!("{error:#}").contains("the transfer broke"), "{error:#}");
    let report = pair.becomes("refused", |report| report.refused > 0).await;
    assert_eq!((report.version.as_str(), report.flashed, report.updates), ("1", 0, 1));
}

#[tokio::test]
async fn a_device_that_no_node_leads_here_at_first_is_asked_again_and_flashed_in_the_same_attempt()
{
    let way = closed_port("127.77.1.3");
    let mut pair = Pair::new("127.77.1.3", Some(&way), Behaviour::default()).await;
    let flasher = pair.listener.as_ref().expect("listening").local_addr().expect("bound");
    let late = async {
        tokio::time::sleep(AGAIN * 7).await;
        lead(way, flasher, None);
        std::future::pending::<()>().await
    };
    tokio::select! {
        flashed = pair.flash() => flashed.expect("flashed"),
        () = late => {}
    }
    let report = pair.becomes("flashed", |report| report.flashed > 0).await;
    assert!((2..=5).contains(&report.updates), "the pauses grow: {report:?}");
    assert_eq!(report.unreached, report.updates - 1, "each refusal ended an update: {report:?}");
    assert_eq!((report.callbacks, report.conflicts), (1, 0), "{report:?}");
}

#[tokio::test]
async fn a_device_that_is_slow_to_call_is_asked_again_and_still_calls_once() {
    let slow = Behaviour { callback_delay_ms: 1500, transfer_ms: 1500, ..Behaviour::default() };
    let mut pair = Pair::new("127.77.1.4", None, slow).await;
    pair.flash().await.expect("flashed");
    let report = pair.becomes("flashed", |report| report.flashed > 0).await;
    assert!(report.repeats > 0, "{report:?}");
    // Once it has called it is not asked any more: that would be a conflict.
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
    let mut pair = Pair::new("127.77.1.5", None, heedless).await;
    pair.flash().await.expect("flashed");
    let report = pair
        .becomes("every update has ended", |report| {
            report.flashed + report.refused + report.unreached == report.updates
        })
        .await;
    assert!(report.updates > 1, "{report:?}");
    assert_eq!((report.version.as_str(), report.flashed), ("2", 1), "{report:?}");
}

#[tokio::test]
async fn a_device_cut_off_in_mid_transfer_gives_up_and_the_next_attempt_waits_for_that() {
    let way = closed_port("127.77.1.6");
    let mut pair = Pair::new("127.77.1.6", Some(&way), Behaviour::default()).await;
    let flasher = pair.listener.as_ref().expect("listening").local_addr().expect("bound");
    lead(way, flasher, Some(1 << 20));
    let cut = tokio::time::timeout(AGAIN * 2, pair.flash()).await;
    assert!(cut.is_err(), "the transfer stands still");
    assert_eq!(pair.report().refused, 0, "the device waits for more");
    pair.listener = Some(TcpListener::bind(flasher).await.expect("the same address"));
    pair.flash().await.expect("flashed");
    let report = pair.becomes("flashed", |report| report.flashed > 0).await;
    assert!(report.conflicts > 0, "it was asked while it waited for more: {report:?}");
    assert_eq!((report.updates, report.refused, report.callbacks), (2, 1, 2), "{report:?}");
}

#[tokio::test]
async fn a_connection_that_shows_no_certificate_does_not_end_the_wait() {
    let slow = Behaviour { callback_delay_ms: 1000, ..Behaviour::default() };
    let mut pair = Pair::new("127.77.1.7", None, slow).await;
    let flasher = pair.listener.as_ref().expect("listening").local_addr().expect("bound");
    drop(TcpStream::connect(flasher).await.expect("connected"));
    let others = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let _silent = TcpStream::connect(flasher).await.expect("connected");
        let mut noise = TcpStream::connect(flasher).await.expect("connected");
        noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
        std::future::pending::<()>().await
    };
    tokio::select! {
        flashed = pair.flash() => flashed.expect("flashed"),
        () = others => {}
    }
    let report = pair.becomes("flashed", |report| report.flashed > 0).await;
    assert_eq!((report.updates, report.callbacks, report.conflicts), (1, 1, 0), "{report:?}");
}

#[tokio::test]
async fn what_a_device_refuses_for_good_fails_at_once_and_a_busy_one_at_the_limit() {
    for (host, status, asked) in [
        ("127.77.1.8", StatusCode::NOT_FOUND, "answers 404"),
        ("127.77.1.9", StatusCode::CONFLICT, "asked 3 times, last it answers 409"),
    ] {
        let server = TcpListener::bind((host, 0)).await.expect("a loopback address");
        let endpoint = server.local_addr().expect("bound").to_string();
        let routes = Router::new().route("/update", post(move || async move { status }));
        tokio::spawn(async move { axum::serve(server, routes).await });
        let mut pair = Pair::new(host, None, Behaviour::default()).await;
        pair.limit = AGAIN * 4;
        let error = pair.flash_at(&endpoint).await.expect_err("not flashed");
        assert!(format!("{error:#}").contains(asked), "{error:#}");
    }
}
