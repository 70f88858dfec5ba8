//! Reading secrets, and finding out early that one cannot be read.
use std::{
    fs,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use toml::de::{DeTable, DeValue};

use super::{
    home::{Environment, Home},
    mistake::Problem,
    read::{Found, Table, suggest},
    secret::{Secret, SecretReader, SecretSource},
};

/// Reads secrets of this home.
pub(super) fn reader(home: &Home, environment: &Environment) -> SecretReader {
    let (home, environment) = (home.clone(), environment.clone());
    SecretReader(Arc::new(move |source| read(&home, &environment, source)))
}

fn read(home: &Home, environment: &Environment, source: &SecretSource) -> anyhow::Result<Secret> {
    let text = match source {
        SecretSource::Env(name) => {
            let value =
                environment.get(name).with_context(|| format!("read a secret: the variable {name} is not set"))?;
            value.to_owned()
        }
        SecretSource::File(path) => {
            let path = home.path().join(path);
            fs::read_to_string(&path).with_context(|| format!("read a secret from {}", path.display()))?
        }
        SecretSource::Command(arguments) => {
            let [program, arguments @ ..] = arguments.as_slice() else { bail!("read a secret: the command is empty") };
            let what = || format!("read a secret from the command `{program}`");
            let output = Command::new(program)
                .args(arguments)
                .current_dir(home.path())
                .stdin(Stdio::null())
                .stderr(Stdio::inherit())
                .output()
                .with_context(what)?;
            if !output.status.success() {
                return Err(anyhow::anyhow!("it ended with {}", output.status)).with_context(what);
            }
            String::from_utf8(output.stdout).with_context(what)?
        }
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        bail!("read a secret: {source:?} is empty");
    }
    Ok(Secret::new(text))
}

/// Tells which of these secrets cannot be read; commands are not run.
pub(super) fn check(
    home: &Home,
    environment: &Environment,
    sources: &[SecretSource],
    table: &Table<'_>,
    found: &mut Vec<Found>,
    mut warn: impl FnMut(Range<usize>, String),
) {
    for source in sources {
        let at = place(table.get_ref(), source).unwrap_or_default();
        let mut mistake = |message: String, hint: String| {
            found.push(Found { at: at.clone(), problem: Problem::new("", message).hint(hint) });
        };
        match source {
            SecretSource::Env(name) if environment.get(name).is_none() => {
                let known: Vec<&str> = environment.names().collect();
                let near = suggest(name, &known, "");
                let hint = if near.starts_with("did") { near } else { format!("set {name} where Rusuban is started") };
                mistake(format!("the environment variable `{name}` is not set"), hint);
            }
            SecretSource::File(path) => {
                let path = home.path().join(path);
                match fs::File::open(&path).and_then(|file| file.metadata()) {
                    Err(error) => {
                        mistake(
                            format!("the secret file {} cannot be read: {error}", path.display()),
                            "look at its name, owner and mode".to_owned(),
                        );
                    }
                    Ok(metadata) if metadata.mode() & 0o004 != 0 => {
                        warn(at, format!("everybody on this machine can read {}: `chmod 600` it", path.display()));
                    }
                    Ok(_) => {}
                }
            }
            SecretSource::Command(arguments) if arguments.is_empty() => {
                mistake(
                    "the command is empty".to_owned(),
                    "write `{ command = [\"pass\", \"show\", \"s3\"] }`".to_owned(),
                );
            }
            _ => {}
        }
    }
}

/// Where a secret is named.
fn place(table: &DeTable<'_>, source: &SecretSource) -> Option<Range<usize>> {
    let is_it = |inner: &DeTable<'_>| match source {
        SecretSource::Env(name) => text(inner, "env") == Some(name),
        SecretSource::File(path) => text(inner, "file").map(std::path::Path::new) == Some(path),
        SecretSource::Command(_) => inner.iter().any(|(key, _)| key.get_ref() == "command"),
    };
    table.iter().find_map(|(_, value)| match value.get_ref() {
        DeValue::Table(inner) if inner.len() == 1 && is_it(inner) => Some(value.span()),
        DeValue::Table(inner) => place(inner, source),
        DeValue::Array(items) => items.iter().find_map(|item| place(item.get_ref().as_table()?, source)),
        _ => None,
    })
}

fn text<'a>(table: &'a DeTable<'_>, name: &str) -> Option<&'a str> {
    table.iter().find(|(key, _)| key.get_ref() == name)?.1.get_ref().as_str()
}
