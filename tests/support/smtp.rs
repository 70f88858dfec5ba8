//! A strict mail server on loopback: it wants what RFC 5321 wants, in its order, and keeps the mails that it took.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// How it behaves.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    /// It offers STARTTLS, and takes no mail without.
    pub(crate) tls: Option<TlsAcceptor>,
    /// It takes no mail but from this user with this password.
    pub(crate) login: Option<(String, String)>,
    /// What it says to a command, instead of what it should.
    pub(crate) instead: Option<(&'static str, &'static str)>,
    /// It says nothing at all.
    pub(crate) is_silent: bool,
}

/// A mail that it took.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// Head and body as they came, dots unstuffed.
    pub(crate) text: String,
    /// It came through TLS.
    pub(crate) encrypted: bool,
}

impl Mail {
    /// A header, unfolded.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let head = self.text.split("\r\n\r\n").next().unwrap();
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let mut found = unfolded.split("\r\n").filter_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then(|| value.to_owned())
        });
        let first = found.next();
        assert_eq!(found.next(), None, "`{name}` came twice");
        first
    }
}

pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    task: tokio::task::JoinHandle<()>,
}

impl MailServer {
    pub(crate) async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&mails);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, manners) = (Arc::clone(&kept), manners.clone());
                tokio::spawn(async move { serve(stream, &manners, &kept).await });
            }
        });
        Self { address, mails, task }
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, manners: &Manners, kept: &Mutex<Vec<Mail>>) {
    if manners.is_silent {
        std::future::pending::<()>().await;
    }
    let mut plain = BufReader::new(stream);
    let greeting = said(manners, "GREETING").unwrap_or("220 mail.test ESMTP");
    plain.get_mut().write_all(format!("{greeting}\r\n").as_bytes()).await.unwrap();
    if let (Talk::StartTls, Some(acceptor)) = (talk(&mut plain, manners, false, kept).await, &manners.tls) {
        // A client that does not trust us breaks off.
        let Ok(inside) = acceptor.accept(plain.into_inner()).await else { return };
        talk(&mut BufReader::new(inside), manners, true, kept).await;
    }
}

enum Talk {
    StartTls,
    Over,
}

fn said(manners: &Manners, command: &str) -> Option<&'static str> {
    manners.instead.filter(|(known, _)| *known == command).map(|(_, instead)| instead)
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    manners: &Manners,
    encrypted: bool,
    kept: &Mutex<Vec<Mail>>,
) -> Talk {
    let (mut greeted, mut is_in) = (false, manners.login.is_none());
    let mut mail: Option<Mail> = None;
    loop {
        let Some(line) = line(stream).await else { return Talk::Over };
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let command = command.to_uppercase();
        let must_encrypt = manners.tls.is_some() && !encrypted;
        let reply = match command.as_str() {
            command if said(manners, command).is_some() => said(manners, command).unwrap().to_owned(),
            "EHLO" if !rest.is_empty() => {
                greeted = true;
                let mut lines = vec!["mail.test".to_owned(), "8BITMIME".into(), "SMTPUTF8".into()];
                lines.extend(must_encrypt.then(|| "STARTTLS".into()));
                lines.extend((manners.login.is_some() && !must_encrypt).then(|| "AUTH PLAIN".into()));
                let last = lines.pop().unwrap();
                let lines: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
                format!("{lines}250 {last}")
            }
            "STARTTLS" if greeted && must_encrypt => {
                stream.get_mut().write_all(b"220 go ahead\r\n").await.unwrap();
                return Talk::StartTls;
            }
            "QUIT" => "221 bye".into(),
            "RSET" => {
                mail = None;
                "250 forgotten".into()
            }
            "NOOP" => "250 nothing".into(),
            _ if must_encrypt => "530 5.7.0 Must issue a STARTTLS command first".into(),
            "AUTH" if greeted && !is_in => {
                let (user, password) = manners.login.as_ref().unwrap();
                let expected = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
                is_in = rest == format!("PLAIN {expected}");
                if is_in {
                    "235 welcome".into()
                } else {
                    format!("535 5.7.8 Authentication credentials invalid: {rest}")
                }
            }
            _ if !is_in => "530 5.7.0 Authentication required".into(),
            "MAIL" if greeted && mail.is_none() => {
                mail = Some(Mail { from: path(rest, "FROM:"), to: Vec::new(), text: String::new(), encrypted });
                "250 go on".into()
            }
            "RCPT" if mail.is_some() => {
                mail.as_mut().unwrap().to.push(path(rest, "TO:"));
                "250 I know them".into()
            }
            "DATA" if mail.as_ref().is_some_and(|mail| !mail.to.is_empty()) => {
                stream.get_mut().write_all(b"354 go on, end with a dot\r\n").await.unwrap();
                let mut mail = mail.take().unwrap();
                loop {
                    let Some(line) = self::line(stream).await else { return Talk::Over };
                    if line == "." {
                        break;
                    }
                    assert!(line.len() <= 998, "a line of {} bytes", line.len());
                    mail.text += line.strip_prefix('.').unwrap_or(&line);
                    mail.text += "\r\n";
                }
                match said(manners, "END") {
                    Some(instead) => instead.into(),
                    None => {
                        kept.lock().unwrap().push(mail);
                        "250 taken".into()
                    }
                }
            }
            _ => format!("503 5.5.1 {command} is not due"),
        };
        stream.get_mut().write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
        if command == "QUIT" || reply.starts_with("421") {
            return Talk::Over;
        }
    }
}

async fn line<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut line = String::new();
    match stream.read_line(&mut line).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.strip_suffix("\r\n").expect("lines end with CR LF").to_owned()),
    }
}

/// The address in `FROM:<me@example.org> SIZE=1`.
fn path(rest: &str, word: &str) -> String {
    let path = rest.strip_prefix(word).unwrap_or_else(|| panic!("no {word} in {rest}"));
    path.split('>').next().unwrap().trim_start_matches('<').to_owned()
}
