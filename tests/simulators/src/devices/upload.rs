//! Update by upload, as in WLED: a form with the file `update`, and its version as `ver` in the
//! JSON under `/json/info` (its documentation, "JSON API").

use std::sync::Arc;

use axum::Json;
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::device::{Device, lock};
use crate::firmware::Firmware;

/// Handles `GET /json/info`.
pub(super) async fn info(State(device): State<Arc<Device>>) -> Result<Json<Value>, StatusCode> {
    let inner = lock(&device.report);
    match inner.down {
        true => Err(StatusCode::SERVICE_UNAVAILABLE),
        false => Ok(Json(json!({"ver": inner.report.version, "brand": "WLED"}))),
    }
}

/// Handles `POST /update`: answers once the firmware is in its slot, and restarts.
pub(super) async fn update(
    State(device): State<Arc<Device>>,
    mut form: Multipart,
) -> Result<&'static str, StatusCode> {
    lock(&device.report).report.updates += 1;
    let mut image = None;
    while let Some(field) = form.next_field().await.map_err(|_| StatusCode::BAD_REQUEST)? {
        if field.name() == Some("update") {
            image = field.bytes().await.ok();
        }
    }
    let behaviour = lock(&device.report).take_behaviour();
    let firmware = image.and_then(|image| Firmware::decode(&image).ok());
    let Some(firmware) = firmware.filter(|_| !behaviour.refuse_image) else {
        lock(&device.report).report.refused += 1;
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    };
    tokio::spawn(async move {
        if let Err(error) = device.reboot_into(firmware, &behaviour).await {
            tracing::info!("update failed: {error:#}");
        }
    });
    Ok("Update successful! Rebooting...")
}
