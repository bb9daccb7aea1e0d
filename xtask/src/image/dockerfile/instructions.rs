//! Reads the instructions of a stage, one after the other. No I/O.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use anyhow::{Context, bail, ensure};
use parse_dockerfile::{ArgInstruction, Command, CopyInstruction, Instruction, Source};

use super::stage::Stage;
use crate::image::words::{Variables, expand, split};
use crate::image::{Copy, Image};

/// Reader of a stage: the image so far, and the variables for the next instruction.
pub struct Reader<'a> {
    stage: &'a Stage,
    /// Arguments declared before the first FROM, which an ARG of the stage makes available.
    globals: Variables,
    variables: Variables,
    image: Image,
}

impl<'a> Reader<'a> {
    pub fn new(stage: &'a Stage, globals: Variables) -> Self {
        let image = Image { architecture: stage.architecture.clone(), ..Image::default() };
        Self { stage, globals, variables: Variables::new(), image }
    }

    pub fn into_image(self) -> Image {
        self.image
    }

    pub fn read(&mut self, instruction: &Instruction) -> anyhow::Result<()> {
        match instruction {
            Instruction::Arg(arg) => self.declare(assignments(arg, &self.variables)?),
            Instruction::Copy(copy) => self.copy(copy)?,
            Instruction::Label(label) => {
                let pairs = pairs("LABEL", &label.arguments.value, &self.variables)?;
                self.image.labels.extend(pairs);
            }
            Instruction::Env(env) => {
                for (name, value) in pairs("ENV", &env.arguments.value, &self.variables)? {
                    self.set_env(name, value);
                }
            }
            Instruction::User(user) => {
                self.image.user = Some(expand(&user.arguments.value, &self.variables)?);
            }
            Instruction::Entrypoint(entrypoint) => match &entrypoint.arguments {
                Command::Exec(words) => {
                    let words = words.value.iter().map(|word| word.value.to_string());
                    self.image.entrypoint = words.collect();
                }
                _ => bail!("ENTRYPOINT: there is no shell in the image; write it as a JSON array"),
            },
            other => bail!(
                "{}: not supported without a container engine; build with docker, podman or \
                 buildah",
                name(other)
            ),
        }
        Ok(())
    }

    /// Declares arguments with the given value, or else the stage's default, or else the value
    /// from before the first FROM. ENV overrides ARG.
    fn declare(&mut self, declared: Vec<(String, Option<String>)>) {
        let env: BTreeSet<_> = self.image.env.iter().map(|(name, _)| name.clone()).collect();
        for (name, default) in declared {
            let argument = self.stage.arguments.get(&name).cloned();
            let value = argument.or(default).or_else(|| self.globals.get(&name).cloned());
            if let Some(value) = value.filter(|_| !env.contains(&name)) {
                self.variables.insert(name, value);
            }
        }
    }

    fn set_env(&mut self, name: String, value: String) {
        self.variables.insert(name.clone(), value.clone());
        match self.image.env.iter_mut().find(|(set, _)| *set == name) {
            Some((_, set)) => *set = value,
            None => self.image.env.push((name, value)),
        }
    }

    fn copy(&mut self, copy: &CopyInstruction) -> anyhow::Result<()> {
        let mut context = None;
        for option in &copy.options {
            let name = option.name.value.as_ref();
            ensure!(name == "from", "COPY --{name}: only --from is supported here");
            let value = option.value.as_ref().context("COPY --from: no stage is given")?;
            context = Some(expand(&value.value, &self.variables)?);
        }
        let name =
            context.context("COPY without --from: only files of another stage are copied")?;
        let folder = self.stage.contexts.get(&name).with_context(|| {
            format!(
                "COPY --from={name}: no folder is given for it; add --build-context {name}=FOLDER"
            )
        })?;
        let destination = expand(&copy.dest.value, &self.variables)?;
        ensure!(
            copy.src.len() == 1 || destination.ends_with('/'),
            "COPY: several files are copied, so the destination must end in '/'"
        );
        for source in &copy.src {
            let Source::Path(path) = source else {
                bail!("COPY <<: here-documents are not supported here");
            };
            let path = expand(&path.value, &self.variables)?;
            let source = folder.join(within(&path)?);
            self.image.copies.push(Copy { source, destination: destination.clone() });
        }
        Ok(())
    }
}

/// Returns the names of an ARG, with their default values.
pub fn assignments(
    arg: &ArgInstruction,
    variables: &Variables,
) -> anyhow::Result<Vec<(String, Option<String>)>> {
    let words = split(&arg.arguments.value, variables)?;
    Ok(words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        })
        .collect())
}

/// Returns a path of another stage relative to its root.
fn within(path: &str) -> anyhow::Result<&Path> {
    ensure!(
        !path.contains(['*', '?', '[']),
        "COPY {path}: patterns are not supported here; give the file or folder"
    );
    let path = Path::new(path);
    ensure!(
        !path.components().any(|component| component == Component::ParentDir),
        "COPY {}: must not contain '..'",
        path.display()
    );
    Ok(path.strip_prefix("/").unwrap_or(path))
}

/// Returns the assignments of an instruction of the form `NAME=value NAME=value`.
fn pairs(
    instruction: &str,
    text: &str,
    variables: &Variables,
) -> anyhow::Result<Vec<(String, String)>> {
    split(text, variables)?
        .into_iter()
        .map(|word| {
            let (name, value) = word
                .split_once('=')
                .with_context(|| format!("{instruction} {word}: expected NAME=value"))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Returns the name of an unsupported instruction.
fn name(instruction: &Instruction) -> &'static str {
    match instruction {
        Instruction::Add(_) => "ADD",
        Instruction::Cmd(_) => "CMD",
        Instruction::Expose(_) => "EXPOSE",
        Instruction::Healthcheck(_) => "HEALTHCHECK",
        Instruction::Maintainer(_) => "MAINTAINER",
        Instruction::Onbuild(_) => "ONBUILD",
        Instruction::Run(_) => "RUN",
        Instruction::Shell(_) => "SHELL",
        Instruction::Stopsignal(_) => "STOPSIGNAL",
        Instruction::Volume(_) => "VOLUME",
        Instruction::Workdir(_) => "WORKDIR",
        _ => "instruction",
    }
}

/// Returns the position of an instruction in the text.
pub fn position(instruction: &Instruction) -> usize {
    let keyword = match instruction {
        Instruction::Add(add) => &add.add,
        Instruction::Arg(arg) => &arg.arg,
        Instruction::Cmd(cmd) => &cmd.cmd,
        Instruction::Copy(copy) => &copy.copy,
        Instruction::Entrypoint(entrypoint) => &entrypoint.entrypoint,
        Instruction::Env(env) => &env.env,
        Instruction::Expose(expose) => &expose.expose,
        Instruction::From(from) => &from.from,
        Instruction::Healthcheck(healthcheck) => &healthcheck.healthcheck,
        Instruction::Label(label) => &label.label,
        Instruction::Maintainer(maintainer) => &maintainer.maintainer,
        Instruction::Onbuild(onbuild) => &onbuild.onbuild,
        Instruction::Run(run) => &run.run,
        Instruction::Shell(shell) => &shell.shell,
        Instruction::Stopsignal(stopsignal) => &stopsignal.stopsignal,
        Instruction::User(user) => &user.user,
        Instruction::Volume(volume) => &volume.volume,
        Instruction::Workdir(workdir) => &workdir.workdir,
        _ => return 0,
    };
    keyword.span.start
}
