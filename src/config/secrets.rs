//! Reading secrets, and finding out early that one cannot be read.
use std::{
    fs,
    io::ErrorKind,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    home::{Environment, Home},
    mistake::{Problem, nearest},
    read::{Found, Table},
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
    mut warn: impl FnMut(Range<usize>, String, String),
) {
    let mut seen: Vec<&SecretSource> = Vec::new();
    for source in sources {
        // One that is named twice is told at both places, once each.
        if seen.contains(&source) {
            continue;
        }
        seen.push(source);
        let mut places = Vec::new();
        find(table.get_ref(), source, &mut places);
        if places.is_empty() {
            places.push(0..0);
        }
        match verdict(home, environment, source) {
            Verdict::Fine => {}
            Verdict::Wrong(message, hint) => {
                found.extend(places.into_iter().map(|at| Found { at, problem: Problem::new("", &message).hint(&hint) }))
            }
            Verdict::Careless(message, hint) => {
                places.into_iter().for_each(|at| warn(at, message.clone(), hint.clone()));
            }
        }
    }
}

enum Verdict {
    Fine,
    Wrong(String, String),
    Careless(String, String),
}

fn verdict(home: &Home, environment: &Environment, source: &SecretSource) -> Verdict {
    match source {
        SecretSource::Env(name) => match environment.get(name) {
            Some("") => Verdict::Wrong(
                format!("the environment variable `{name}` is set to nothing"),
                format!("give {name} a value where Rusuban is started"),
            ),
            Some(_) => Verdict::Fine,
            None if name.is_empty() || name.contains(['=', ' ']) => Verdict::Wrong(
                format!("`{name}` cannot be the name of an environment variable"),
                "write the name alone, such as `{ env = \"S3_ACCESS_KEY\" }`".to_owned(),
            ),
            None => {
                let known: Vec<&str> = environment.names().collect();
                let hint = match nearest(name, &known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("set {name} where Rusuban is started"),
                };
                Verdict::Wrong(format!("the environment variable `{name}` is not set"), hint)
            }
        },
        SecretSource::File(path) if path.as_os_str().is_empty() => {
            Verdict::Wrong("the secret file has no name".to_owned(), "write `{ file = \"secrets/token\" }`".to_owned())
        }
        SecretSource::File(path) => of_file(&home.path().join(path), path),
        SecretSource::Command(arguments) if arguments.first().is_none_or(String::is_empty) => Verdict::Wrong(
            "the command is empty".to_owned(),
            "write it as in `{ command = [\"pass\", \"show\", \"s3\"] }`".to_owned(),
        ),
        SecretSource::Command(_) => Verdict::Fine,
    }
}

/// `shown` is the path as written, which people know.
fn of_file(path: &Path, shown: &Path) -> Verdict {
    let shown = shown.display();
    let opened = fs::File::open(path).and_then(|file| file.metadata());
    match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => Verdict::Wrong(
            format!("there is no secret file {shown}"),
            "a relative path starts in the home folder, where rusuban.toml is".to_owned(),
        ),
        Err(error) => Verdict::Wrong(
            format!("the secret file {shown} cannot be read: {error}"),
            "look at its owner and mode".to_owned(),
        ),
        Ok(metadata) if !metadata.is_file() && metadata.is_dir() => {
            Verdict::Wrong(format!("{shown} is a folder, and a secret is a file"), "name the file in it".to_owned())
        }
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {
            Verdict::Wrong(format!("the secret file {shown} is empty"), "write the secret into it".to_owned())
        }
        Ok(metadata) if metadata.mode() & 0o004 != 0 => Verdict::Careless(
            format!("everybody on this machine can read the secret file {shown}"),
            format!("chmod 600 {shown}"),
        ),
        Ok(_) => Verdict::Fine,
    }
}

/// Where a secret is named.
fn find(table: &DeTable<'_>, source: &SecretSource, places: &mut Vec<Range<usize>>) {
    for value in table.values() {
        find_in(value, source, places);
    }
}

fn find_in(value: &Spanned<DeValue<'_>>, source: &SecretSource, places: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(inner) if inner.len() == 1 && is_it(inner, source) => places.push(value.span()),
        DeValue::Table(inner) => find(inner, source, places),
        DeValue::Array(items) => items.iter().for_each(|item| find_in(item, source, places)),
        _ => {}
    }
}

fn is_it(table: &DeTable<'_>, source: &SecretSource) -> bool {
    let text = |value: &Spanned<DeValue<'_>>| value.get_ref().as_str().map(str::to_owned);
    table.iter().any(|(key, value)| match (source, &**key.get_ref()) {
        (SecretSource::Env(name), "env") => text(value).as_ref() == Some(name),
        (SecretSource::File(path), "file") => text(value).is_some_and(|text| Path::new(&text) == path),
        (SecretSource::Command(arguments), "command") => {
            let items = value.get_ref().as_array().map(|items| items.iter().filter_map(text).collect::<Vec<_>>());
            items.as_ref() == Some(arguments)
        }
        _ => false,
    })
}
