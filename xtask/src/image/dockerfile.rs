//! Converts the last stage of a Dockerfile to an [`Image`]: instructions that copy files and
//! change settings. Reads the Dockerfile.
//!
//! Anything that needs an engine (RUN, a base image to pull) is an error that names the
//! instruction and the line: an image written here must equal the one that an engine builds.

mod instructions;
mod stage;

use std::fs;

use anyhow::{Context, ensure};
use parse_dockerfile::{Dockerfile, parse};

use super::Image;
use super::words::{Variables, expand};
use instructions::{Reader, assignments};
pub use stage::Stage;

impl Stage {
    /// Returns the image that the stage describes.
    ///
    /// # Errors
    /// The Dockerfile cannot be read, does not have the stage or an argument, or the stage needs a
    /// container engine.
    pub fn image(&self) -> anyhow::Result<Image> {
        let location = self.dockerfile.display();
        let text = fs::read_to_string(&self.dockerfile)
            .with_context(|| format!("{location}: cannot be read"))?;
        let file = parse(&text).with_context(|| format!("{location}: is not a Dockerfile"))?;
        self.check_arguments(&file).with_context(|| format!("{location}: build argument"))?;
        let globals = self.globals(&file).with_context(|| location.to_string())?;
        let stage = file
            .stage(&self.target)
            .with_context(|| format!("{location}: has no stage '{}'", self.target))?;
        let base = expand(&stage.from.image.value, &globals)?;
        ensure!(
            base == "scratch",
            "{location}:{}: FROM {base}: only FROM scratch can be built without a container \
             engine; build with docker, podman or buildah",
            line(&text, stage.from.from.span.start)
        );
        let mut reader = Reader::new(self, globals);
        for instruction in stage.instructions {
            reader.read(instruction).map_err(|error| {
                let line = line(&text, instructions::position(instruction));
                error.context(format!("{location}:{line}"))
            })?;
        }
        Ok(reader.into_image())
    }

    /// Returns an error for an argument that no ARG declares: a misspelt name would silently
    /// produce another image.
    fn check_arguments(&self, file: &Dockerfile) -> anyhow::Result<()> {
        let mut declared = Vec::new();
        let stages = file.stages().flat_map(|stage| stage.instructions);
        let inner = stages.filter_map(|instruction| match instruction {
            parse_dockerfile::Instruction::Arg(arg) => Some(arg),
            _ => None,
        });
        for arg in file.global_args().chain(inner) {
            declared
                .extend(assignments(arg, &Variables::new())?.into_iter().map(|(name, _)| name));
        }
        for name in self.arguments.keys() {
            ensure!(declared.contains(name), "{name}: no ARG declares it; check its spelling");
        }
        Ok(())
    }

    /// Returns the values of the arguments before the first FROM, and of those that every engine
    /// sets.
    fn globals(&self, file: &Dockerfile) -> anyhow::Result<Variables> {
        let mut globals = Variables::from([
            ("TARGETOS".to_owned(), "linux".to_owned()),
            ("TARGETARCH".to_owned(), self.architecture.clone()),
            ("TARGETPLATFORM".to_owned(), format!("linux/{}", self.architecture)),
        ]);
        for arg in file.global_args() {
            for (name, default) in assignments(arg, &globals)? {
                if let Some(value) = self.arguments.get(&name).cloned().or(default) {
                    globals.insert(name, value);
                }
            }
        }
        Ok(globals)
    }
}

/// Returns the line number of a byte, from 1.
fn line(text: &str, position: usize) -> usize {
    text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
