//! A program of one's own on this machine: news as JSON on its standard input, words in its environment.
use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending, call, clean, count, read,
    words::{self, Mood},
};
use crate::{
    config::{
        mistake::Problem,
        secret::{Redactor, SecretSource, TextOrSecret},
        units::Span,
    },
    process::{self, Exit, Limits, Tree},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "command",
    summary: "A program of one's own, with the news on its standard input",
    example: r#"[notifier.bell]
kind    = "command"
command = ["/usr/local/bin/ring", "--long"]   # a list, which no shell reads
env     = { RING_TOKEN = { file = "secrets/ring" } }
timeout = "1m"
"#,
    parse: read::<Command>,
    schema: Command::json_schema,
};

/// What the environment holds of the words; the news on standard input are whole.
const MOST_BYTES: usize = 16_000;
/// What is kept of what it prints, to say why it failed.
const REASON: usize = 200;
/// It is to be tried again, by the old convention of mail programs.
const TRY_AGAIN: i32 = 75;
/// It will not work until somebody changes something, by the same.
const WRONG_SETTINGS: i32 = 78;

/// A program.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Command {
    /// The program and its arguments; no shell reads them.
    command: Vec<String>,
    /// Where it runs; relative to the home folder, which is also the default.
    #[serde(default)]
    folder: Option<PathBuf>,
    /// Added to its environment: texts, or secrets such as `{ file = "secrets/token" }`.
    #[serde(default)]
    env: BTreeMap<String, TextOrSecret>,
    /// It is ended after so long [default: 1m].
    #[serde(default = "a_minute")]
    timeout: Span,
}

fn a_minute() -> Span {
    Span::seconds(60)
}

#[async_trait]
impl Notifier for Command {
    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        match self.command.first() {
            None => problems.push(Problem::new("command", "the command is empty")),
            Some(program) if program.trim().is_empty() => {
                problems.push(Problem::new("command[0]", "the program has no name"));
            }
            Some(program) if self.command.len() == 1 && program.contains(' ') => problems.push(
                Problem::new("command[0]", format!("`{program}` would be the name of one program"))
                    .hint("write each argument as a text of its own: `[\"ring\", \"--long\"]`"),
            ),
            Some(_) => {}
        }
        for name in self.env.keys() {
            let key = format!("env.{name}");
            if name.is_empty() || name.contains(['=', '\0']) {
                problems.push(Problem::new(key, format!("`{name}` cannot be the name of a variable")));
            } else if name.starts_with("RUSUBAN_") {
                problems.push(Problem::new(key, format!("`{name}` is not yours to set")));
            }
        }
        if self.timeout == Span::seconds(0) {
            problems.push(Problem::new("timeout", "no program ends in no time"));
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets(self.env.values())
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let told = words::write(message);
        let text = told.whole().fit(|text| count::bytes(text) <= MOST_BYTES);
        let mood = match told.mood {
            Mood::Good => "good",
            Mood::Bad => "bad",
            Mood::Neutral => "neutral",
        };
        let severity = json!(told.severity);
        let input = json!({
            "key": message.key,
            "host": message.host,
            "language": message.language.code(),
            "severity": severity,
            "mood": mood,
            "title": told.title,
            "line": told.line,
            "text": text,
            "news": message.news,
        });
        let input = input.to_string();
        let mut environment = Vec::new();
        let mut hidden = Vec::new();
        for (name, value) in &self.env {
            let secret = call::read(cx, &format!("env.{name}"), value).await?;
            environment.push((name.clone(), secret.reveal().to_owned()));
            if value.secret().is_some() {
                hidden.push(secret);
            }
        }
        let words = [
            ("KEY", message.key.clone()),
            ("HOST", clean::line(&message.host)),
            ("SEVERITY", severity.as_str().unwrap_or_default().to_owned()),
            ("MOOD", mood.to_owned()),
            ("TITLE", told.title.clone()),
            ("TEXT", text),
        ];
        environment.extend(words.into_iter().map(|(name, value)| (format!("RUSUBAN_{name}"), value)));
        let command = process::Command {
            arguments: self.command.clone(),
            folder: Some(self.folder.as_ref().map_or_else(|| cx.home.clone(), |folder| cx.home.join(folder))),
            environment,
            user: None,
            tree: Tree::of_variable("RUSUBAN_MESSAGE", &super::name(&message.key)),
            limits: Limits::default(),
            grace: Some(std::time::Duration::from_secs(2)),
        };
        let stop = cx.cancelled.child_token();
        let mut last = String::new();
        let ended = {
            let _timer = end_after(stop.clone(), self.timeout);
            let on_line = |line: &str| {
                if !line.trim().is_empty() {
                    line.clone_into(&mut last);
                }
            };
            process::run_with_input(&command, input.as_bytes(), &stop, on_line).await
        };
        let program = self.command.first().map_or("", String::as_str);
        let redactor = Redactor::new(hidden);
        let clean = |text: &str| clean::line(&redactor.clean(&cx.redactor.clean(text)));
        let ended = ended.map_err(|error| Refusal::Never { why: clean(&format!("{error:#}")) })?;
        let last = clean(&last);
        let reason = &last[..last.floor_char_boundary(REASON.min(last.len()))];
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let why = |what: &str| format!("the command `{program}` {what}{reason}");
        match ended.exit {
            _ if ended.stopped && !cx.cancelled.is_cancelled() => {
                Err(Refusal::Later { after: None, why: why(&format!("had not ended after {}", self.timeout)) })
            }
            _ if ended.stopped => Err(Refusal::Later { after: None, why: why("was ended with Rusuban") }),
            Exit::Code(0) => Ok(Receipt::default()),
            Exit::Code(TRY_AGAIN) => Err(Refusal::Later { after: None, why: why("wants to be tried again") }),
            Exit::Code(WRONG_SETTINGS) => Err(Refusal::Never { why: why("says that it is set up wrongly") }),
            exit => Err(Refusal::Later { after: None, why: why(&format!("ended with {exit}")) }),
        }
    }
}

/// Sets `stop` when the time is over, unless it is dropped before.
fn end_after(stop: CancellationToken, timeout: Span) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(async move {
        tokio::time::sleep(timeout.0).await;
        stop.cancel();
    }))
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
