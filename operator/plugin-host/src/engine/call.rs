//! Calls to a component, and its answers.

use flashjob_types::CallError;

use crate::types::{FirmwareFile, FlashPod, Inspection, Outcome, PluginInfo, Request, Verdict};

/// Call to a component.
#[derive(Clone, Copy)]
pub(crate) enum Call<'a> {
    Describe,
    ValidateSettings(&'a str),
    Build(&'a Request),
    Judge(&'a Request, &'a Outcome),
    Inspect(&'a FirmwareFile),
}

/// Answer to a call, one variant for each kind of call.
#[derive(Debug)]
pub(crate) enum Answer {
    Info(PluginInfo),
    Unit,
    FlashPod(Box<FlashPod>),
    Verdict(Verdict),
    /// None: the component does not inspect firmware of this kind.
    Inspection(Option<Box<Inspection>>),
}

fn other_kind<T>() -> Result<T, CallError> {
    Err(CallError::AnswerRejected("it does not match the call".to_owned()))
}

impl Answer {
    pub fn into_info(self) -> Result<PluginInfo, CallError> {
        if let Self::Info(info) = self { Ok(info) } else { other_kind() }
    }

    pub fn into_unit(self) -> Result<(), CallError> {
        if let Self::Unit = self { Ok(()) } else { other_kind() }
    }

    pub fn into_flash_pod(self) -> Result<FlashPod, CallError> {
        if let Self::FlashPod(flash) = self { Ok(*flash) } else { other_kind() }
    }

    pub fn into_verdict(self) -> Result<Verdict, CallError> {
        if let Self::Verdict(verdict) = self { Ok(verdict) } else { other_kind() }
    }

    pub fn into_inspection(self) -> Result<Option<Inspection>, CallError> {
        match self {
            Self::Inspection(inspection) => Ok(inspection.map(|inspection| *inspection)),
            _ => other_kind(),
        }
    }
}
