//! A table in Redis: what it has, and all of it written anew. The few words of Redis' protocol that this takes are spoken here.
use std::{collections::BTreeMap, fmt, pin::Pin, time::Duration};

use anyhow::{Context as _, bail, ensure};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpStream, UnixStream},
};

use crate::config::{
    mistake::Problem,
    secret::{SecretReader, TextOrSecret},
    units::Span,
};

/// What one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is read of one answer at most, in bytes and in parts.
const LARGEST: usize = 16 << 20;
const MOST: usize = 1 << 18;
/// Answers within answers.
const DEEPEST: u8 = 4;

/// A table in Redis.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// The server: `127.0.0.1:6379`, or the path of its socket.
    #[serde(default)]
    pub address: String,
    /// The key of the table (a hash): name → `address:port`. All of it is ours [default: routes].
    #[serde(default = "routes")]
    pub key: String,
    /// As whom [default: Redis' own default user].
    #[serde(default)]
    pub user: Option<String>,
    /// The password: a secret such as `{ file = "secrets/redis" }`.
    #[serde(default)]
    pub password: Option<TextOrSecret>,
    /// The number of the database.
    #[serde(default)]
    pub database: u16,
    /// The table is gone so long after Rusuban was last there: nobody is sent to where a container was days ago.
    #[serde(default = "two_minutes")]
    pub expire: Span,
}

fn routes() -> String {
    "routes".to_owned()
}

fn two_minutes() -> Span {
    Span::seconds(120)
}

impl RedisSettings {
    /// What is wrong with it.
    pub(super) fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let at = self.address.rsplit_once(':');
        let is_port = at.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        if self.address.is_empty() {
            problems.push(
                Problem::new("redis", "the key `address` is missing")
                    .hint("write `address = \"127.0.0.1:6379\"`, or the path of its socket"),
            );
        } else if !self.address.starts_with('/') && (!is_port || self.address.contains("://")) {
            problems.push(
                Problem::new("redis.address", format!("`{}` is no address of a Redis server", self.address))
                    .hint("write `127.0.0.1:6379`, or the path of its socket"),
            );
        }
        if self.key.trim().is_empty() {
            problems.push(Problem::new("redis.key", "the key is empty").hint("such as `routes`"));
        }
        if self.user.is_some() && self.password.is_none() {
            problems.push(
                Problem::new("redis.user", "a user without a password")
                    .hint("add `password = { file = \"secrets/redis\" }`"),
            );
        }
        if self.expire < Span::seconds(3) {
            problems.push(
                Problem::new("redis.expire", "the table would be gone before it is refreshed")
                    .hint("it is refreshed three times in this time: give it a few seconds, such as `2m`"),
            );
        }
        problems
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// A connection to a server that has let us in.
pub(super) struct Redis {
    stream: BufReader<Pin<Box<dyn Stream>>>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Nothing,
    No(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::No(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::List(list) => write!(f, "a list of {}", list.len()),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Redis {
    /// Connects, and says who we are.
    ///
    /// # Errors
    /// When nobody answers, or it does not let us in.
    pub(super) async fn connect(settings: &RedisSettings, secrets: &SecretReader) -> anyhow::Result<Self> {
        let address = &settings.address;
        let connecting = async {
            let stream: Pin<Box<dyn Stream>> = if address.starts_with('/') {
                Box::pin(UnixStream::connect(address).await?)
            } else {
                Box::pin(TcpStream::connect(address.as_str()).await?)
            };
            std::io::Result::Ok(stream)
        };
        let stream = match tokio::time::timeout(PATIENCE, connecting).await {
            Ok(stream) => stream.with_context(|| format!("no Redis server answers at {address}"))?,
            Err(_) => bail!("no Redis server answers at {address} within {}", Span(PATIENCE)),
        };
        let mut redis = Self { stream: BufReader::new(stream) };
        if let Some(password) = &settings.password {
            let password = password.read(secrets).await.context("read `redis.password`")?;
            let user = settings.user.as_deref().map(str::as_bytes);
            let command: Vec<&[u8]> =
                [Some(&b"AUTH"[..]), user, Some(password.reveal().as_bytes())].into_iter().flatten().collect();
            redis.ask(&command).await.with_context(|| format!("sign in to Redis at {address}"))?;
        }
        if settings.database > 0 {
            redis.ask(&[b"SELECT", settings.database.to_string().as_bytes()]).await?;
        }
        Ok(redis)
    }

    /// The table under `key`; empty, if there is none.
    ///
    /// # Errors
    /// When something else is under this key.
    pub(super) async fn table(&mut self, key: &str) -> anyhow::Result<BTreeMap<String, String>> {
        match self.ask(&[b"TYPE", key.as_bytes()]).await? {
            Answer::Text(kind) if kind == "none" => return Ok(BTreeMap::new()),
            Answer::Text(kind) if kind == "hash" => {}
            kind => bail!("there is a {kind} under this key, which is left alone: choose another `key`"),
        }
        let Answer::List(parts) = self.ask(&[b"HGETALL", key.as_bytes()]).await? else {
            bail!("the server did not answer with a table")
        };
        let text = |part: &Answer| part.to_string();
        Ok(parts.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
    }

    /// Puts this table in the place of what is there, all at once, and reads it again.
    ///
    /// # Errors
    /// When that was refused, or is not what is there afterwards.
    pub(super) async fn put(
        &mut self,
        key: &str,
        values: &BTreeMap<String, String>,
        expire: Duration,
    ) -> anyhow::Result<()> {
        let key_bytes = key.as_bytes();
        self.ask(&[b"MULTI"]).await?;
        self.ask(&[b"DEL", key_bytes]).await?;
        if !values.is_empty() {
            let mut command: Vec<&[u8]> = vec![b"HSET", key_bytes];
            command.extend(values.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
            self.ask(&command).await?;
            self.ask(&[b"PEXPIRE", key_bytes, milliseconds(expire).as_bytes()]).await?;
        }
        let Answer::List(done) = self.ask(&[b"EXEC"]).await? else { bail!("the server did not do it") };
        for answer in done {
            if let Answer::No(why) = answer {
                bail!(explained(&why));
            }
        }
        let there = self.table(key).await?;
        ensure!(there == *values, "what is there afterwards is not what was written: does somebody else write to it?");
        Ok(())
    }

    /// Lets the table live on.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) async fn refresh(&mut self, key: &str, expire: Duration, is_empty: bool) -> anyhow::Result<()> {
        if !is_empty {
            self.ask(&[b"PEXPIRE", key.as_bytes(), milliseconds(expire).as_bytes()]).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, command: &[&[u8]]) -> anyhow::Result<Answer> {
        let mut message = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            message.extend(format!("${}\r\n", part.len()).bytes());
            message.extend(*part);
            message.extend(b"\r\n");
        }
        let asking = async {
            self.stream.get_mut().write_all(&message).await.context("the connection to Redis broke")?;
            let mut budget = Budget { bytes: LARGEST, parts: MOST };
            answer(&mut self.stream, &mut budget, 0).await
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(Answer::No(why))) => bail!(explained(&why)),
            Ok(answer) => answer,
            Err(_) => bail!("Redis has not answered within {}", Span(PATIENCE)),
        }
    }
}

fn milliseconds(time: Duration) -> String {
    time.as_millis().to_string()
}

/// What the server says against it, and what to do.
fn explained(said: &str) -> String {
    let hint = match said.split(' ').next().unwrap_or_default() {
        "NOAUTH" => "; it wants a password: `password = { file = \"…\" }` in `[redis]`",
        "WRONGPASS" => "; look at `user` and `password` in `[redis]`",
        "NOPERM" => "; the user needs TYPE, HGETALL, DEL, HSET, PEXPIRE, MULTI and EXEC on this key",
        "READONLY" => "; it is a copy of another server, which is the one to write to",
        _ => "",
    };
    format!("Redis says: {said}{hint}")
}

/// What may still be read of an answer.
struct Budget {
    bytes: usize,
    parts: usize,
}

/// Reads one answer, with all that is in it.
async fn answer<R: AsyncRead + Unpin + Send>(
    stream: &mut BufReader<R>,
    budget: &mut Budget,
    depth: u8,
) -> anyhow::Result<Answer> {
    let broken = "the connection to Redis broke";
    ensure!(depth < DEEPEST && budget.parts > 0, "the answer of Redis has too many parts");
    budget.parts -= 1;
    let mut line = Vec::new();
    let limit = budget.bytes as u64;
    (&mut *stream).take(limit).read_until(b'\n', &mut line).await.context(broken)?;
    budget.bytes = budget.bytes.saturating_sub(line.len());
    let Some(line) = line.strip_suffix(b"\r\n") else { bail!("{broken}, or its answer is too long") };
    let line = String::from_utf8_lossy(line);
    let (kind, rest) = line.split_at_checked(1).context("Redis answered with an empty line")?;
    let number = || rest.parse::<i64>().ok();
    Ok(match kind {
        "+" => Answer::Text(rest.to_owned()),
        "-" => Answer::No(rest.chars().take(300).collect()),
        ":" => Answer::Number(number().context("Redis answered with no number")?),
        "$" => match number() {
            Some(-1) => Answer::Nothing,
            Some(length) => {
                let length = usize::try_from(length).ok().filter(|length| length.saturating_add(2) <= budget.bytes);
                let mut bytes = vec![0; length.context("the answer of Redis is too long")? + 2];
                stream.read_exact(&mut bytes).await.context(broken)?;
                budget.bytes -= bytes.len();
                bytes.truncate(bytes.len() - 2);
                Answer::Bytes(bytes)
            }
            None => bail!("this is no Redis server"),
        },
        "*" => match number() {
            Some(-1) => Answer::Nothing,
            Some(count) => {
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(Box::pin(answer(stream, budget, depth + 1)).await?);
                }
                Answer::List(list)
            }
            None => bail!("this is no Redis server"),
        },
        _ => bail!("this is no Redis server"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(said: &[u8]) -> Result<Answer, String> {
        let mut budget = Budget { bytes: 1000, parts: 20 };
        answer(&mut BufReader::new(said), &mut budget, 0).await.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn answers_are_read_and_what_is_none_or_has_no_end_is_refused() {
        let text = |text: &str| Answer::Bytes(text.into());
        assert_eq!(read(b"+OK\r\n").await, Ok(Answer::Text("OK".into())));
        assert_eq!(read(b"-ERR no\r\n").await, Ok(Answer::No("ERR no".into())));
        assert_eq!(read(b"*2\r\n$1\r\na\r\n$3\r\n\r\nb\r\n").await, Ok(Answer::List(vec![text("a"), text("\r\nb")])));
        assert_eq!(read(b"*-1\r\n").await, Ok(Answer::Nothing));
        for hostile in [
            &b"$99999999999\r\n"[..],
            b"$-5\r\n",
            b"*1000000000\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\xff\xff\r\n",
            b"\r\n",
            b"",
            b"$5\r\nab",
            &[b'+'; 2000],
        ] {
            assert!(read(hostile).await.is_err(), "{}", String::from_utf8_lossy(hostile));
        }
    }

    #[test]
    fn what_cannot_work_is_told_at_its_key() {
        let read = |more: &str| toml::from_str::<RedisSettings>(&format!("key = 'routes'\n{more}")).unwrap().check();
        for fine in ["address = '127.0.0.1:6379'", "address = '/run/redis.sock'\nuser = 'a'\npassword = 'b'"] {
            assert_eq!(read(fine), [], "{fine}");
        }
        for (wrong, key) in [
            ("", "redis"),
            ("address = 'redis://x:1'", "redis.address"),
            ("address = 'localhost'", "redis.address"),
            ("address = 'x:1'\nuser = 'a'", "redis.user"),
            ("address = 'x:1'\nexpire = '1s'", "redis.expire"),
        ] {
            assert_eq!(read(wrong).iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), [key], "{wrong}");
        }
    }
}
