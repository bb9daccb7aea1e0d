//! The minimal program that sends firmware to a device over TLS: it sends the request to the
//! device, accepts its connection, reads its certificate and sends a file. It fetches, verifies,
//! unpacks and limits nothing.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

/// Bytes per write, as in the flash program.
const CHUNK: usize = 16 << 10;

/// The device and the file.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    host_endpoint: String,
    #[arg(long)]
    listen: IpAddr,
    #[arg(long)]
    port: u16,
}

/// Sends the file.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let bytes = std::fs::read(&settings.file)?;
    let identity = rcgen::generate_simple_self_signed(vec!["least".to_owned()])?;
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der());
    let key = key.map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![identity.cert.der().clone()], key)?;
    let listener = TcpListener::bind((settings.listen, settings.port))?;
    ask(settings)?;
    let (stream, _) = listener.accept()?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config))?, stream);
    let mut head = [0; 4];
    stream.read_exact(&mut head).context("the device's certificate")?;
    let mut certificate = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    stream.read_exact(&mut certificate).context("the device's certificate")?;
    for chunk in bytes.chunks(CHUNK) {
        stream.write_all(chunk)?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    // The device closes the connection when it has received everything.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    Ok(())
}

/// Requests the device to connect back.
fn ask(settings: &Settings) -> anyhow::Result<()> {
    let (host, body) = (&settings.host_endpoint, format!("ip: {}", settings.listen));
    let mut stream = TcpStream::connect(host)?;
    let length = body.len();
    write!(
        stream,
        "POST /update HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "the device answers {answer:?}");
    Ok(())
}
