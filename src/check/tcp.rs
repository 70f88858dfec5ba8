//! A port: somebody listens there, and says what is expected if anything is.
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    Looking, certificate,
    condition::{Condition, Found, Subject},
    reach::{self, Fail, Phase, Way},
    tls::{Shown, Within},
    verdict,
};
use crate::{
    config::secret::{Redactor, TextOrSecret},
    model::watch::{Trouble, Verdict},
    text,
};

/// So much of what is said is listened to.
const MOST: usize = 64 << 10;

/// What a condition about a port can ask.
pub const SUBJECT: Subject =
    Subject { name: "a port", words: &["time", "size", "body", "json", "count", "certificate", "address"] };

/// A port, and what is said there.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How to get there.
    pub way: Way,
    /// TLS from the first byte on.
    pub tls: bool,
    /// Any certificate will do.
    pub insecure: bool,
    /// Authorities that are trusted beside the machine's: a file of PEM.
    pub ca: Option<PathBuf>,
    /// What is said first.
    pub send: Option<TextOrSecret>,
    /// How long all of it may take.
    pub patience: Duration,
    /// What must be so.
    pub condition: Condition,
}

/// What was heard.
#[derive(Debug, Default)]
struct Heard {
    bytes: Vec<u8>,
    is_cut: bool,
    certificate: Option<Shown>,
    address: Option<std::net::IpAddr>,
    connected: Duration,
}

impl Tcp {
    /// Looks once, over the family that its way names.
    pub async fn look(&self, looking: &Looking) -> Verdict {
        let (send, hidden) = match &self.send {
            None => (None, Redactor::default()),
            Some(text) => match text.read(&looking.secrets).await {
                Ok(read) if text.secret().is_some() => (Some(read.clone()), Redactor::new([read])),
                Ok(read) => (Some(read), Redactor::default()),
                Err(error) => return verdict::unasked(&error.context("read `send`")),
            },
        };
        let (begun, phase) = (Instant::now(), Phase::default());
        let mut heard = Heard::default();
        let talk = self.talk(looking, send.as_ref().map(|text| text.reveal()), &phase, begun, &mut heard);
        let result = tokio::time::timeout(self.patience, talk).await;
        let fail = match result {
            Ok(Ok(())) => None,
            Ok(Err(fail)) => Some(fail),
            // What has been heard by then is judged.
            Err(_) if !heard.bytes.is_empty() => None,
            Err(_) => Some(phase.late(self.patience)),
        };
        let certificate = heard.certificate.as_ref().map(|shown| shown.certificate.clone());
        let mut verdict = match fail {
            Some(fail) => verdict::failed(fail),
            None => self.judge(looking, &heard, begun.elapsed()),
        };
        verdict.what = hidden.clean(&verdict.what);
        Verdict { certificate, address: heard.address, ..verdict }
    }

    async fn talk(
        &self,
        looking: &Looking,
        send: Option<&str>,
        phase: &Phase,
        begun: Instant,
        heard: &mut Heard,
    ) -> Result<(), Fail> {
        let addresses = reach::addresses(looking, self.way.host(&self.host), self.port, &self.way, false).await?;
        phase.set(Phase::KNOCK);
        let mut stream = reach::connect(&addresses).await?;
        heard.address = stream.peer_addr().ok().map(|address| address.ip());
        heard.connected = begun.elapsed();
        if !self.tls {
            return self.listen(&mut stream, send, phase, begun, heard).await;
        }
        phase.set(Phase::TLS);
        let (mut stream, shown) = looking
            .tls
            .begin(
                stream,
                &self.host,
                Within::Anything,
                &looking.clock,
                looking.authorities(self.ca.as_deref()).as_deref(),
            )
            .await?;
        heard.connected = begun.elapsed();
        let distrust = shown.certificate.distrust.clone().filter(|_| !self.insecure);
        heard.certificate = Some(shown);
        match distrust {
            Some(why) if send.is_some() => {
                Err(Fail::new(Trouble::Certificate, format!("the certificate {why}; it was told nothing")))
            }
            _ => self.listen(&mut stream, send, phase, begun, heard).await,
        }
    }

    /// Says what is to be said, and listens until what is expected is there, or nothing more comes.
    async fn listen(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        send: Option<&str>,
        phase: &Phase,
        begun: Instant,
        heard: &mut Heard,
    ) -> Result<(), Fail> {
        let broke = |_| Fail::new(Trouble::Broken, "the connection broke while we talked");
        phase.set(Phase::ANSWER);
        if let Some(text) = send {
            stream.write_all(text.as_bytes()).await.map_err(broke)?;
            stream.flush().await.map_err(broke)?;
        }
        if !self.condition.reads_body() {
            return Ok(());
        }
        let mut piece = [0; 4096];
        loop {
            let count = stream.read(&mut piece).await.map_err(broke)?;
            let room = MOST - heard.bytes.len();
            heard.bytes.extend_from_slice(&piece[..count.min(room)]);
            heard.is_cut = count > room;
            if count == 0 || heard.is_cut || self.failing(heard, begun.elapsed(), None).is_empty() {
                return Ok(());
            }
        }
    }

    fn failing(&self, heard: &Heard, took: Duration, left: Option<i64>) -> Vec<super::condition::Failing> {
        let body = String::from_utf8_lossy(&heard.bytes);
        self.condition.failing(&Found {
            time: took,
            size: Some(heard.bytes.len() as u64),
            body: Some(&body),
            is_cut: heard.is_cut,
            certificate: left,
            address: heard.address,
            ..Found::default()
        })
    }

    fn judge(&self, looking: &Looking, heard: &Heard, took: Duration) -> Verdict {
        let took = if self.condition.reads_body() { took } else { heard.connected };
        let now = looking.clock.now();
        let left = heard.certificate.as_ref().map(|shown| shown.left(now));
        let mut failing = self.failing(heard, took, left);
        for one in &mut failing {
            one.told = one.told.replace("the page ", "what it said ");
        }
        if let Some(shown) = heard.certificate.as_ref().filter(|_| !self.insecure) {
            failing.extend(certificate::worry(shown, now, self.condition.is_about_certificate()));
        }
        let size = if self.condition.reads_body() {
            format!(" with {}", text::size(heard.bytes.len() as u64))
        } else {
            String::new()
        };
        let short = format!("answers{size} in {}", text::duration(took));
        verdict::of(failing, &short, left.map(certificate::words), Some(took), None, self.insecure)
    }
}
