//! E-mail, handed to a server by SMTP. Messages of one incident are one thread.
use std::{path::PathBuf, time::SystemTime};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor,
    message::{
        Mailbox, SinglePart,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
        extension::ClientId,
    },
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Message, Notifier, NotifierEntry, Receipt, Refusal, Sending, call, clean, count, read, words};
use crate::{
    config::{
        mistake::Problem,
        secret::{Redactor, Secret, SecretSource, TextOrSecret},
    },
    text,
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "email",
    summary: "E-mail, by a mail server",
    example: r#"[notifier.mail]
kind       = "email"
server     = "mail.example.org"
user       = "attic@example.org"
password   = { env = "MAIL_PASSWORD" }
from       = "Attic <attic@example.org>"
to         = ["me@example.org"]
encryption = "starttls"               # or "tls", from the first byte; "none" on this machine only
"#,
    parse: read::<Email>,
    schema: Email::json_schema,
};

/// Longer mails help nobody.
const MOST_BYTES: usize = 100_000;
/// Mail servers keep strangers waiting on purpose: so many time limits of a call.
const PATIENCE: u32 = 4;

/// A mail server and who writes to whom.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Email {
    /// The mail server.
    server: String,
    /// Its port [default: 587, with `tls` 465, with `none` 25].
    #[serde(default)]
    port: Option<u16>,
    /// How the connection is kept secret [default: starttls].
    #[serde(default)]
    encryption: Encryption,
    /// A file of certificates (PEM) to trust beside the system's; relative to the home folder.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// The user there, where the server asks for one.
    #[serde(default)]
    user: Option<TextOrSecret>,
    /// The user's password.
    #[serde(default)]
    password: Option<TextOrSecret>,
    /// Who writes: `attic@example.org`, or `Attic <attic@example.org>`.
    from: String,
    /// To whom.
    to: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Encryption {
    /// Begun in the clear, and encrypted before anything is said; without that nothing is sent.
    #[default]
    Starttls,
    /// From the first byte.
    Tls,
    /// Not at all.
    None,
}

#[async_trait]
impl Notifier for Email {
    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let address = |key: String, text: &str| {
            let wrong = text.parse::<Mailbox>().err()?;
            let message = format!("`{text}` is no mail address: {}", wrong.to_string().to_lowercase());
            Some(Problem::new(key, message).hint("write it as in `me@example.org` or `Me <me@example.org>`"))
        };
        problems.extend(address("from".to_owned(), &self.from));
        problems.extend(self.to.iter().enumerate().filter_map(|(index, to)| address(format!("to[{index}]"), to)));
        if self.to.is_empty() {
            problems.push(Problem::new("to", "nobody would get it").hint("write at least one address"));
        }
        if self.server.is_empty() || self.server.contains(['/', ' ', ':']) {
            problems.push(
                Problem::new("server", format!("`{}` is no server's name", self.server))
                    .hint("write the name alone, such as `mail.example.org`; the port is a key of its own"),
            );
        }
        match (&self.user, &self.password) {
            (Some(_), None) => problems.push(Problem::new("user", "a user needs a `password`")),
            (None, Some(_)) => problems.push(Problem::new("password", "a password needs a `user`")),
            (Some(_), Some(_)) if self.encryption == Encryption::None && !self.is_here() => problems.push(
                Problem::new("encryption", "the password could be read on its way")
                    .hint("use `starttls` or `tls`; `none` with a password is for a server on this machine"),
            ),
            _ => {}
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets(self.user.iter().chain(&self.password))
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let never = |why: String| Refusal::Never { why: format!("mail to {}: {why}", self.server) };
        let password = match &self.password {
            Some(password) => Some(call::read(cx, "password", password).await?),
            None => None,
        };
        let user = match &self.user {
            Some(user) => Some(call::read(cx, "user", user).await?),
            None => None,
        };
        let ca = match &self.ca {
            Some(ca) => {
                let path = cx.home.join(ca);
                let read = tokio::fs::read(&path).await;
                Some(read.map_err(|error| never(format!("read the certificates in {}: {error}", ca.display())))?)
            }
            None => None,
        };
        let from: Mailbox = self.from.parse().map_err(|_| never(format!("`{}` is no address", self.from)))?;
        let id = format!("<{}@{}>", super::name(&message.key), from.email.domain());
        let first = message.thread.as_ref().and_then(|thread| thread.get("mail")).and_then(Value::as_str);
        let mail = self.mail(message, from, &id, first).map_err(|error| never(error.to_string()))?;
        let transport = self.transport(&message.host, ca.as_deref(), user.as_ref().zip(password.as_ref()), cx);
        let transport = transport.map_err(|error| never(error.to_string()))?;
        // Servers repeat what they were told, in the form in which it was.
        let coded = user.as_ref().zip(password.as_ref()).map(|(user, password)| {
            Secret::new(BASE64_STANDARD.encode(format!("\0{}\0{}", user.reveal(), password.reveal())))
        });
        let redactor = Redactor::new(password.into_iter().chain(user).chain(coded));
        let patience = cx.time_limit * PATIENCE;
        let sent = tokio::select! {
            sent = tokio::time::timeout(patience, transport.send(mail)) => sent,
            () = cx.cancelled.cancelled() => {
                let why = format!("mail to {}: Rusuban ended before the answer came", self.server);
                return Err(Refusal::Later { after: None, why });
            }
        };
        match sent {
            Ok(Ok(_)) => Ok(Receipt { reference: Some(json!({ "mail": first.unwrap_or(&id) })), cost: 0 }),
            Ok(Err(error)) => {
                let refusal = self.refusal(&error);
                Err(clean_refusal(refusal, |why| clean::line(&redactor.clean(&cx.redactor.clean(why)))))
            }
            Err(_) => {
                let limit = text::duration(patience);
                let why = format!("mail to {}: not taken within {limit}: it may have been all the same", self.server);
                Err(Refusal::Later { after: None, why })
            }
        }
    }
}

/// No machine answers a machine.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl Email {
    fn is_here(&self) -> bool {
        matches!(self.server.as_str(), "localhost" | "127.0.0.1" | "::1")
    }

    fn mail(&self, message: &Message, from: Mailbox, id: &str, first: Option<&str>) -> anyhow::Result<lettre::Message> {
        let told = words::write(message);
        let host = clean::line(&message.host);
        let title = count::cut(&told.title, |text| count::bytes(text) <= 500);
        let subject = if title.contains(&host) { title } else { format!("[{host}] {title}") };
        let mut mail = lettre::Message::builder()
            .from(from)
            .subject(subject)
            .date(SystemTime::from(message.now))
            .message_id(Some(id.to_owned()))
            .header(AutoSubmitted);
        for to in &self.to {
            mail = mail.to(to.parse()?);
        }
        if let Some(first) = first {
            mail = mail.in_reply_to(first.to_owned()).references(first.to_owned());
        }
        let body = told.whole().fit(|text| count::bytes(text) <= MOST_BYTES);
        // A line of two hyphens and a space is where programs know that the letter ends.
        let body = format!("{body}\n\n-- \n{}\n", told.foot);
        Ok(mail.singlepart(SinglePart::builder().header(ContentType::TEXT_PLAIN).body(body))?)
    }

    fn transport(
        &self,
        host: &str,
        ca: Option<&[u8]>,
        login: Option<(&Secret, &Secret)>,
        cx: &Sending,
    ) -> anyhow::Result<AsyncSmtpTransport<Tokio1Executor>> {
        let tls = || -> anyhow::Result<TlsParameters> {
            let mut parameters = TlsParameters::builder(self.server.clone());
            if let Some(ca) = ca {
                parameters = parameters.add_root_certificate(Certificate::from_pem(ca)?);
            }
            Ok(parameters.build()?)
        };
        let (port, tls) = match self.encryption {
            Encryption::Starttls => (587, Tls::Required(tls()?)),
            Encryption::Tls => (465, Tls::Wrapper(tls()?)),
            Encryption::None => (25, Tls::None),
        };
        let is_name =
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        let name = if is_name { ClientId::Domain(host.to_owned()) } else { ClientId::default() };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(self.server.clone())
            .port(self.port.unwrap_or(port))
            .tls(tls)
            .hello_name(name)
            .timeout(Some(cx.time_limit));
        if let Some((user, password)) = login {
            transport = transport.credentials(Credentials::new(user.reveal().to_owned(), password.reveal().to_owned()));
        }
        Ok(transport.build())
    }

    fn refusal(&self, error: &lettre::transport::smtp::Error) -> Refusal {
        let mut told = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            if !told.contains(&inner.to_string()) {
                told = format!("{told}: {inner}");
            }
            cause = inner.source();
        }
        let why = format!("mail to {}: {told}", self.server);
        match error.status().map(u16::from) {
            Some(code @ (530 | 534 | 535 | 538)) => {
                Refusal::Never { why: format!("{why} ({code}); look at `user` and `password`") }
            }
            // The enhanced code 5.1 is about addresses.
            Some(550 | 551 | 553) if told.contains("5.1.") => {
                Refusal::Never { why: format!("{why}; look at `from` and `to`") }
            }
            Some(500..=599) => Refusal::NotThis { why },
            None if error.is_client() => Refusal::Never { why: format!("{why}; look at `encryption` and `port`") },
            _ => Refusal::Later { after: None, why },
        }
    }
}

fn clean_refusal(refusal: Refusal, clean: impl Fn(&str) -> String) -> Refusal {
    match refusal {
        Refusal::Later { after, why } => Refusal::Later { after, why: clean(&why) },
        Refusal::NotThis { why } => Refusal::NotThis { why: clean(&why) },
        Refusal::Never { why } => Refusal::Never { why: clean(&why) },
    }
}
