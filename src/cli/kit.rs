//! `rusuban recovery-kit`: what a person must keep on paper to bring everything back on a bare machine.
use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{Context, Exit, paint, snapshots};
use crate::{
    bucket::settings::BucketSettings,
    config::{
        Config,
        secret::{Secret, SecretSource},
    },
    model::{JobName, host_name},
    repository::settings::Shelf,
    text,
};

/// One repository's page.
#[derive(Debug, Serialize)]
struct Kit {
    title: String,
    written: String,
    sections: Vec<Section>,
}

#[derive(Debug, Serialize)]
struct Section {
    heading: &'static str,
    parts: Vec<Part>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Text(String),
    Facts(Vec<(&'static str, String)>),
    Commands(Vec<String>),
}

/// Prints a page for each repository, or for one.
pub(super) async fn kit(
    context: &mut Context<'_>,
    repository: Option<&str>,
    html: Option<&Path>,
) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let shelves = match repository {
        Some(name) => vec![snapshots::shelf(context, &config, name).await?],
        None => snapshots::shelves(context, &config).await?,
    };
    if shelves.is_empty() {
        return context.missing(
            "rusuban.toml has no repository. Plain backups need no kit but the bucket's keys and, where they are \
             encrypted, the age key: docs/restore.md says how they are opened without Rusuban",
        );
    }
    let (mut kits, mut exit) = (Vec::new(), Exit::Fine);
    for shelf in &shelves {
        match write(context, &config, shelf).await {
            Ok(kit) => kits.push(kit),
            // The others have theirs.
            Err(error) => {
                let name = shelf.name();
                writeln!(context.errors, "{} there is no kit of `{name}`: {error:#}", paint::bad("error:"))?;
                exit = Exit::Failed;
            }
        }
    }
    if kits.is_empty() {
        return Ok(exit);
    }
    if let Some(file) = html {
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let what = || format!("write {}, which must not be there yet", file.display());
        opened.with_context(what)?.write_all(page(&kits).as_bytes()).with_context(what)?;
        writeln!(
            context.out,
            "wrote {}: print it, and then remove it: whoever has it can read every backup",
            file.display()
        )?;
    } else if context.json {
        writeln!(context.out, "{}", serde_json::to_string_pretty(&kits)?)?;
    } else {
        for kit in &kits {
            show(context, kit)?;
        }
    }
    Ok(exit)
}

async fn write(context: &Context<'_>, config: &Config, shelf: &Shelf) -> anyhow::Result<Kit> {
    let settings = shelf.settings();
    let bucket = config.settings.buckets.get(&settings.bucket).context("its bucket is not in rusuban.toml")?;
    let read = |source: &SecretSource| (config.secrets.0)(source);
    // What is printed has opened it: a kit with a wrong password would be worse than none.
    let repository = shelf.open().await.context("it must open with what is printed")?;
    let (snapshots, _) = repository.snapshots().await?;
    let mut jobs: Vec<(JobName, String)> = Vec::new();
    for (_, snapshot) in snapshots.iter().rev() {
        if let Some(job) = snapshot.job()
            && !jobs.iter().any(|(known, _)| *known == job)
        {
            jobs.push((job, text::moment(snapshot.time.to_utc(), config.settings.time_zone)));
        }
    }
    let password = settings.password.as_ref().map(read).transpose()?;
    let own_key = settings.key.as_ref().map(read).transpose()?;
    let place = Place::of(config, bucket, settings.path.as_deref().unwrap_or(shelf.name()), &read)?;
    let now = text::moment(context.clock.now(), config.settings.time_zone);
    let opens = match (&password, &own_key) {
        (Some(password), _) => vec![("password", password.reveal().to_owned())],
        (None, Some(key)) => vec![("key", key.reveal().to_owned())],
        (None, None) => Vec::new(),
    };
    let newest = if jobs.is_empty() {
        Part::Text("There was no backup of a job in it when this was written.".into())
    } else {
        let lines = jobs.iter().map(|(job, at)| format!("{job}, the newest of {at}"));
        Part::Text(format!("It held backups of {}.", lines.collect::<Vec<_>>().join("; ")))
    };
    let job = jobs.first().map_or("JOB", |(job, _)| job.as_str()).to_owned();
    let sections = vec![
        Section {
            heading: "Mind",
            parts: vec![Part::Text(
                "Whoever holds this paper can read every backup, and remove them. Keep it outside of this house, with what you would \
                 not want to lose. Write it anew when a password or a key changes; it was tried out when it was written."
                    .into(),
            )],
        },
        Section { heading: "Where the backups are", parts: vec![Part::Facts(place.facts), newest] },
        Section { heading: "What opens them", parts: vec![Part::Facts(opens)] },
        Section {
            heading: "With Rusuban, on any Linux machine",
            parts: vec![
                Part::Text("In an empty folder:".into()),
                Part::Commands(with_rusuban(shelf, &place.settings, &place.secrets, password.as_ref(), own_key.as_ref(), &job)),
            ],
        },
        with_restic(&place.restic, &place.secrets, &place.options, password.as_ref(), &job),
    ];
    Ok(Kit {
        title: format!("Recovery kit: repository `{}`", shelf.name()),
        written: format!("written {now} on {} by rusuban {}", host_name(), env!("CARGO_PKG_VERSION")),
        sections,
    })
}

/// Where a repository is, in everybody's words.
struct Place {
    facts: Vec<(&'static str, String)>,
    /// Lines of `[bucket.kit]`.
    settings: Vec<String>,
    /// Variables of the environment.
    secrets: Vec<(&'static str, String)>,
    /// What restic calls it.
    restic: String,
    /// What restic must be told beside that.
    options: String,
}

impl Place {
    fn of(
        config: &Config,
        bucket: &BucketSettings,
        path: &str,
        read: &dyn Fn(&SecretSource) -> anyhow::Result<Secret>,
    ) -> anyhow::Result<Self> {
        let below = |top: &str| [top, path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        if let Some(folder) = &bucket.folder {
            let folder = std::path::absolute(config.home.path().join(folder))?;
            return Ok(Self {
                facts: vec![("folder", folder.join(path).display().to_string()), ("on the host", host_name())],
                settings: vec![format!("folder = {}", quoted(&folder.display().to_string()))],
                secrets: Vec::new(),
                restic: folder.join(path).display().to_string(),
                options: String::new(),
            });
        }
        let name = bucket.s3.as_deref().unwrap_or_default().trim_matches('/');
        let endpoint = bucket.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/'));
        let region = bucket.region.as_deref();
        let mut facts =
            vec![("server", endpoint.unwrap_or("Amazon S3").to_owned()), ("bucket and folder", below(name))];
        let mut settings = vec![format!("s3 = {}", quoted(name))];
        let mut options = String::new();
        if let Some(endpoint) = endpoint {
            settings.push(format!("endpoint = {}", quoted(endpoint)));
        }
        if let Some(region) = region {
            facts.push(("region", region.to_owned()));
            settings.push(format!("region = {}", quoted(region)));
            options.push_str(&format!(" -o s3.region={}", shell(region)));
        }
        if let Some(path_style) = bucket.path_style {
            settings.push(format!("path_style = {path_style}"));
            options.push_str(if path_style { " -o s3.bucket-lookup=path" } else { " -o s3.bucket-lookup=dns" });
        }
        if let Some(ca) = &bucket.ca {
            let ca = config.home.path().join(ca);
            facts.push(("certificates", format!("a copy of {}, which is public, belongs to this kit", ca.display())));
            settings.push("ca = \"ca.pem\"".to_owned());
            options.push_str(" --cacert ca.pem");
        }
        let mut secrets = Vec::new();
        match (&bucket.access_key, &bucket.secret_key) {
            (Some(access), Some(secret)) => {
                let (access, secret) = (read(access)?.reveal().to_owned(), read(secret)?.reveal().to_owned());
                facts.extend([("access key", access.clone()), ("secret key", secret.clone())]);
                secrets.extend([("AWS_ACCESS_KEY_ID", access), ("AWS_SECRET_ACCESS_KEY", secret)]);
                settings.push("access_key = { env = \"AWS_ACCESS_KEY_ID\" }".to_owned());
                settings.push("secret_key = { env = \"AWS_SECRET_ACCESS_KEY\" }".to_owned());
            }
            _ => facts.push(("keys", "those of AWS tools on this host; write them here".to_owned())),
        }
        let restic = format!("s3:{}/{}", endpoint.unwrap_or("s3.amazonaws.com"), below(name));
        Ok(Self { facts, settings, secrets, restic, options })
    }
}

fn with_rusuban(
    shelf: &Shelf,
    bucket: &[String],
    secrets: &[(&'static str, String)],
    password: Option<&Secret>,
    own_key: Option<&Secret>,
    job: &str,
) -> Vec<String> {
    let mut lines: Vec<String> =
        secrets.iter().map(|(name, value)| format!("export {name}={}", shell(value))).collect();
    let opens = match (password, own_key) {
        (Some(password), _) => {
            lines.push(format!("export RUSUBAN_PASSWORD={}", shell(password.reveal())));
            "password = { env = \"RUSUBAN_PASSWORD\" }"
        }
        (None, key) => {
            lines.push(format!("export RUSUBAN_KEY={}", shell(key.map_or("", Secret::reveal))));
            "key = { env = \"RUSUBAN_KEY\" }"
        }
    };
    lines.push("cat > rusuban.toml <<'END'".to_owned());
    lines.push("[bucket.kit]".to_owned());
    lines.extend(bucket.iter().cloned());
    lines.push(format!("[repository.{}]", shelf.name()));
    lines.push("bucket = \"kit\"".to_owned());
    lines.push(format!("path = {}", quoted(shelf.settings().path.as_deref().unwrap_or(shelf.name()))));
    lines.push(opens.to_owned());
    lines.push("END".to_owned());
    lines.push("rusuban backups".to_owned());
    lines.push(format!("rusuban restore {job} --to restored"));
    lines
}

fn with_restic(
    place: &str,
    secrets: &[(&'static str, String)],
    options: &str,
    password: Option<&Secret>,
    job: &str,
) -> Section {
    let heading = "Without Rusuban, with restic (0.14 or newer) from any distribution";
    let Some(password) = password else {
        let text = "restic opens a repository by a password only, and rusuban.toml has its key. Add one with \
                    `rusuban repository keys NAME --add FILE`, and write this kit anew.";
        return Section { heading, parts: vec![Part::Text(text.into())] };
    };
    let mut lines: Vec<String> =
        secrets.iter().map(|(name, value)| format!("export {name}={}", shell(value))).collect();
    lines.push(format!("export RESTIC_PASSWORD={}", shell(password.reveal())));
    lines.push(format!("export RESTIC_REPOSITORY={}", shell(place)));
    lines.push(format!("restic{options} snapshots"));
    lines.push(format!("restic{options} restore latest --tag job={job} --target restored"));
    Section { heading, parts: vec![Part::Commands(lines)] }
}

/// A word for the shell.
pub(super) fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A text for TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn show(context: &mut Context<'_>, kit: &Kit) -> anyhow::Result<()> {
    writeln!(context.out, "{}\n{}", paint::good(&kit.title), kit.written)?;
    for Section { heading, parts } in &kit.sections {
        writeln!(context.out, "\n{}", heading.to_uppercase())?;
        for part in parts {
            match part {
                Part::Text(text) => writeln!(context.out, "{}", wrapped(text))?,
                Part::Facts(facts) => {
                    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                    for (name, value) in facts {
                        writeln!(context.out, "  {name:<width$}  {value}")?;
                    }
                }
                // Not indented: they can be copied as they are.
                Part::Commands(lines) => writeln!(context.out, "\n{}", lines.join("\n"))?,
            }
        }
    }
    writeln!(context.out)?;
    Ok(())
}

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { continue };
        if line.len() + word.len() > 90 {
            lines.push(format!("  {word}"));
        } else {
            line.push_str(if line.is_empty() { "  " } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The same, to be printed.
fn page(kits: &[Kit]) -> String {
    let mut body = String::new();
    for kit in kits {
        body.push_str(&format!(
            "<article><h1>{}</h1><p class=\"when\">{}</p>",
            escaped(&kit.title.replace('`', "")),
            escaped(&kit.written)
        ));
        for Section { heading, parts } in &kit.sections {
            body.push_str(&format!("<section><h2>{}</h2>", escaped(heading)));
            for part in parts {
                match part {
                    Part::Text(text) => body.push_str(&format!("<p>{}</p>", escaped(text))),
                    Part::Facts(facts) => {
                        body.push_str("<table>");
                        for (name, value) in facts {
                            body.push_str(&format!("<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value)));
                        }
                        body.push_str("</table>");
                    }
                    // Each line on its own, so that one that is too long for the paper does not look like two.
                    Part::Commands(lines) => {
                        let lines: Vec<_> =
                            lines.iter().map(|line| format!("<span>{}</span>", escaped(line))).collect();
                        body.push_str(&format!("<pre>{}</pre>", lines.join("\n")));
                    }
                }
            }
            body.push_str("</section>");
        }
        body.push_str("</article>");
    }
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Recovery kit</title><style>{STYLE}</style><body>{body}</body></html>\n"
    )
}

const STYLE: &str = "body{font:11pt/1.45 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#111}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:1.4rem 0 .3rem;border-bottom:1px solid #999}.when{color:#555;margin:.2rem 0}\
th{text-align:left;font-weight:600;padding:.15rem 1.2rem .15rem 0;vertical-align:baseline;white-space:nowrap}\
td,pre{font-family:ui-monospace,monospace;font-size:.95em;overflow-wrap:anywhere;white-space:pre-wrap}\
pre{background:#f3f3f3;padding:.6rem .8rem;border-radius:4px}pre span{display:inline-block;padding-left:2em;text-indent:-2em;word-break:break-all}\
table{border-spacing:0}article+article{break-before:page;margin-top:4rem}h2{break-after:avoid}section{break-inside:avoid}\
@media print{article+article{margin-top:0}body{margin:0;max-width:none}pre{background:none;border:1px solid #999}}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Where the page goes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The repository's name in rusuban.toml [default: all]
    pub(super) repository: Option<String>,
    /// Write a page for the printer into this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}
