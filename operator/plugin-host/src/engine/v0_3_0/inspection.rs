//! Calls a component to inspect firmware, and checks every bound of its answer.

use flashjob_types::CallError;
use wasmtime::Store;

use super::conversions::answer;
use super::generated::flashjob::plugin::types;
use super::inspecting::InspectorPre;
use crate::engine::bounds::Bounds;
use crate::engine::call::Answer;
use crate::engine::state::State;
use crate::types::{FirmwareFile, Inspection};

/// Instantiates the component and calls it. The outer error is the engine's, the inner one the
/// plugin's.
pub(in crate::engine) async fn inspect(
    store: &mut Store<State>,
    inspector: &InspectorPre<State>,
    of: &FirmwareFile,
    answer_limit: usize,
) -> wasmtime::Result<Result<Answer, CallError>> {
    let instance = inspector.instantiate_async(&mut *store).await?;
    let guest = instance.flashjob_plugin_firmware_inspector();
    let inspected = guest.call_inspect_firmware(store, &file(of)).await?;
    Ok(answer(inspected, &mut Bounds::new(answer_limit), |of, bounds| {
        let of = of.map(|of| inspection(of, bounds)).transpose()?;
        Ok(Answer::Inspection(of.map(Box::new)))
    }))
}

fn file(of: &FirmwareFile) -> types::FirmwareFile {
    types::FirmwareFile {
        device_type: of.device_type.clone(),
        firmware: of.firmware.clone(),
        version: of.version.clone(),
        settings: of.settings.clone(),
        name: of.name.clone(),
        size: of.size,
        beginning: of.beginning.clone(),
    }
}

/// Converts an inspection. Its texts may quote the firmware's header, so control characters are
/// replaced by spaces, and the answer is not rejected for them.
pub(super) fn inspection(
    of: types::Inspection,
    bounds: &mut Bounds,
) -> Result<Inspection, CallError> {
    let mut text = |field: &str, text: Option<String>, longest: usize| {
        text.map(|text| bounds.message(field, &text, longest)).transpose()
    };
    let (version, project) =
        (text("version", of.version, 256)?, text("project", of.project, 256)?);
    let (chip, refusal) = (text("chip", of.chip, 256)?, text("refusal", of.refusal, 1024)?);
    let min_chip_revision = text("min-chip-revision", of.min_chip_revision, 64)?;
    let max_chip_revision = text("max-chip-revision", of.max_chip_revision, 64)?;
    bounds.count("device-types", of.device_types.len(), 256)?;
    let types = of.device_types.iter().map(|text| {
        text.parse().map_err(|error| CallError::AnswerRejected(format!("device-types: {error}")))
    });
    Ok(Inspection {
        version,
        project,
        chip,
        device_types: types.collect::<Result<_, _>>()?,
        secure_version: of.secure_version,
        min_chip_revision,
        max_chip_revision,
        refusal,
    })
}
