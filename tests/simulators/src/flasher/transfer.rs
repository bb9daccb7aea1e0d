//! The firmware on its way to a device that has called: attestation, then the bytes.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Environment;
use super::callback::Caller;

/// Bytes handed over at once.
const CHUNK: usize = 16 * 1024;
/// For so long a device may take no byte: it erases flash memory meanwhile.
const STALL: Duration = Duration::from_secs(60);

/// Hands the firmware over, once the device is trusted.
pub(super) async fn hand_over(
    mut caller: Caller,
    environment: &Environment,
    firmware: &[u8],
) -> anyhow::Result<()> {
    trust(environment, &caller.certificate).await?;
    let stream = &mut caller.stream;
    for chunk in firmware.chunks(CHUNK) {
        moving(stream.write_all(chunk)).await?;
    }
    moving(stream.shutdown()).await?;
    // The device closes when it has all.
    let mut rest = Vec::new();
    moving(stream.read_to_end(&mut rest)).await?;
    Ok(())
}

/// Bounds one step of the transfer, as a device that lost its power does not close the connection.
async fn moving<T>(step: impl Future<Output = std::io::Result<T>>) -> anyhow::Result<T> {
    let done = tokio::time::timeout(STALL, step).await;
    let done = done.with_context(|| format!("the transfer broke: it stood still for {STALL:?}"))?;
    done.context("the transfer broke")
}

/// Asks the attestation service, where the cluster has one.
async fn trust(environment: &Environment, certificate: &[u8]) -> anyhow::Result<()> {
    let Some(host) = environment.get("DICE_AUTH_SERVICE_SERVICE_HOST") else { return Ok(()) };
    let text = to_pem(certificate);
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    let answer = client
        .post(format!("http://{host}:8000"))
        .body(text)
        .send()
        .await
        .context("the attestation service does not answer")?;
    ensure!(answer.status().as_u16() == 200, "the device is not trusted");
    Ok(())
}

fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
