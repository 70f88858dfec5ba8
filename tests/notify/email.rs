//! E-mail, to a strict mail server.
use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rusuban::notify::{Notifier, Receipt, Refusal, Sending, words::Language};

use super::{blog_is_down, blog_is_well, message, notifier, sending};
use crate::support::{
    services::secret,
    smtp::{MailServer, Manners},
    tls,
};

const KEYS: &str = "server = '127.0.0.1'\nport = PORT\nfrom = 'Attic <attic@example.org>'\nto = ['me@example.org', 'you@example.net']\n";

pub(super) struct Post {
    pub(super) server: MailServer,
    cx: Sending,
    notifier: std::sync::Arc<dyn Notifier>,
}

impl Post {
    pub(super) async fn with(manners: Manners, keys: &str) -> Self {
        let server = MailServer::start(manners).await;
        let keys = format!("{KEYS}{keys}").replace("PORT", &server.address.port().to_string());
        let mut cx = sending("");
        cx.time_limit = Duration::from_millis(500);
        Self { notifier: notifier("email", &keys), server, cx }
    }

    pub(super) async fn send(&self, message: &rusuban::notify::Message) -> Result<Receipt, Refusal> {
        self.notifier.send(&self.cx, message).await
    }
}

#[tokio::test]
async fn mails_of_an_incident_are_a_thread() {
    let post = Post::with(Manners::default(), "encryption = 'none'").await;
    let first = post.send(&message("k1", vec![blog_is_down()])).await.unwrap();
    let mut second = message("k2", vec![blog_is_well()]);
    second.thread = first.reference.clone();
    assert_eq!(post.send(&second).await.unwrap().reference, first.reference);
    let mails = post.server.mails();
    let [one, other] = mails.as_slice() else { panic!("{mails:?}") };
    assert_eq!(
        (one.from.as_str(), one.to.as_slice()),
        ("attic@example.org", &["me@example.org".to_owned(), "you@example.net".into()][..])
    );
    let header = |name: &str| one.header(name).unwrap_or_default();
    assert_eq!(header("Subject"), "[attic] blog is down");
    assert_eq!(header("From"), "Attic <attic@example.org>");
    assert_eq!(header("Auto-Submitted"), "auto-generated");
    assert_eq!(header("Date"), "Thu, 26 Nov 2026 17:17:00 +0000");
    let id = header("Message-ID");
    assert!(id.starts_with('<') && id.ends_with("@example.org>"), "{id}");
    assert_eq!(other.header("In-Reply-To").unwrap(), id);
    assert_eq!(other.header("References").unwrap(), id);
    assert_ne!(other.header("Message-ID").unwrap(), id);
    for words in [
        "blog is down since 02:14 (3 min): the page lacks \"Welcome\"",
        "likely the container blog-db",
        "`rusuban rollback blog Tue`",
        "Asia/Tokyo",
    ] {
        assert!(one.text.contains(words), "{words}\n{}", one.text);
    }
    // A second try is the same mail to whoever sorts by its name.
    post.send(&message("k1", vec![blog_is_down()])).await.unwrap();
    assert_eq!(post.server.mails()[2].header("Message-ID").unwrap(), id);
}

#[tokio::test]
async fn japanese_survives_in_subject_and_body() {
    let post = Post::with(Manners::default(), "encryption = 'none'").await;
    let mut message = message("k1", vec![blog_is_down()]);
    message.language = Language::Ja;
    post.send(&message).await.unwrap();
    let mail = &post.server.mails()[0];
    assert!(mail.text.is_ascii(), "{}", mail.text);
    let subject: String = mail
        .header("Subject")
        .unwrap()
        .split(' ')
        .map(|word| match word.strip_prefix("=?utf-8?b?").and_then(|word| word.strip_suffix("?=")) {
            Some(coded) => String::from_utf8(BASE64_STANDARD.decode(coded).unwrap()).unwrap(),
            None => word.to_owned(),
        })
        .collect();
    assert_eq!(subject.replace(' ', ""), "[attic]blogが停止しています");
    assert_eq!(mail.header("Content-Transfer-Encoding").as_deref(), Some("quoted-printable"));
    let body = unquoted(mail.text.split_once("\r\n\r\n").unwrap().1);
    assert!(body.starts_with("blog が停止しています（02:14 から3分）: the page lacks"), "{body}");
}

#[tokio::test]
async fn nothing_is_said_before_the_connection_is_secret() {
    let (acceptor, authority) = tls::acceptor();
    let login = Some((secret("MAIL_USER"), secret("MAIL_PASSWORD")));
    let manners = Manners { tls: Some(acceptor), login: login.clone(), ..Manners::default() };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("authority.pem"), &authority).unwrap();
    let user = "user = { env = 'MAIL_USER' }\npassword = { env = 'MAIL_PASSWORD' }\n";
    let mut post = Post::with(manners.clone(), &format!("{user}ca = 'authority.pem'")).await;
    post.cx.home = folder.path().to_owned();
    post.send(&message("k1", vec![blog_is_down()])).await.unwrap();
    assert!(post.server.mails()[0].encrypted);
    // From the first byte: the same behind a TLS front.
    let plain = MailServer::start(Manners { login: login.clone(), ..Manners::default() }).await;
    let front = tls::Front::of(&format!("http://{}", plain.address)).await;
    std::fs::write(folder.path().join("authority.pem"), &front.authority).unwrap();
    let port = front.endpoint.rsplit(':').next().unwrap();
    let keys = format!("{KEYS}{user}ca = 'authority.pem'\nencryption = 'tls'").replace("PORT", port);
    notifier("email", &keys).send(&post.cx, &message("k1", vec![blog_is_down()])).await.unwrap();
    assert_eq!(plain.mails().len(), 1);
    // Who is not trusted hears nothing; who offers no encryption neither.
    let stranger = Post::with(manners, user).await;
    let said = stranger.send(&message("k1", vec![blog_is_down()])).await;
    assert!(matches!(&said, Err(Refusal::Later { .. })), "{said:?}");
    let open = Post::with(Manners { login, ..Manners::default() }, user).await;
    let Err(Refusal::Never { why }) = open.send(&message("k1", vec![blog_is_down()])).await else { panic!() };
    assert!(why.contains("look at `encryption`"), "{why}");
    assert!(stranger.server.mails().is_empty() && open.server.mails().is_empty());
}

#[tokio::test]
async fn what_a_mail_server_refuses_is_told_apart() {
    let later = |refusal: &Refusal| matches!(refusal, Refusal::Later { .. });
    let never = |refusal: &Refusal| matches!(refusal, Refusal::Never { .. });
    let not_this = |refusal: &Refusal| matches!(refusal, Refusal::NotThis { .. });
    type Is<'a> = &'a dyn Fn(&Refusal) -> bool;
    let cases: [(&'static str, &'static str, Is<'_>); 8] = [
        ("GREETING", "421 too busy", &later),
        ("GREETING", "554 no mail from you", &not_this),
        ("MAIL", "451 4.3.0 try again", &later),
        ("RCPT", "550 5.1.1 no such user", &never),
        ("RCPT", "452 4.2.2 mailbox full", &later),
        ("END", "554 5.7.1 that looks like spam", &not_this),
        ("END", "552 too long", &not_this),
        ("DATA", "450 greylisted", &later),
    ];
    for (command, instead, is) in cases {
        let post =
            Post::with(Manners { instead: Some((command, instead)), ..Manners::default() }, "encryption = 'none'")
                .await;
        let refusal = post.send(&message("k1", vec![blog_is_down()])).await.unwrap_err();
        assert!(is(&refusal), "{command} {instead}: {refusal:?}");
        assert!(refusal.to_string().starts_with("mail to 127.0.0.1: "), "{refusal}");
        assert!(post.server.mails().is_empty());
    }
    // A wrong password, which the server repeats.
    let login = Some(("somebody".to_owned(), "else".to_owned()));
    let user = "encryption = 'none'\nuser = { env = 'MAIL_USER' }\npassword = { env = 'MAIL_PASSWORD' }\n";
    let post = Post::with(Manners { login, ..Manners::default() }, user).await;
    let Err(Refusal::Never { why }) = post.send(&message("k1", vec![blog_is_down()])).await else { panic!() };
    assert!(why.contains("look at `user` and `password`") && !why.contains(&secret("MAIL_PASSWORD")), "{why}");
    let coded = BASE64_STANDARD.encode(format!("\0{}\0{}", secret("MAIL_USER"), secret("MAIL_PASSWORD")));
    assert!(!why.contains(&coded), "{why}");
    // Silence.
    let post = Post::with(Manners { is_silent: true, ..Manners::default() }, "encryption = 'none'").await;
    let said = post.send(&message("k1", vec![blog_is_down()])).await;
    assert!(matches!(said, Err(Refusal::Later { .. })), "{said:?}");
}

/// Quoted-printable, undone.
fn unquoted(text: &str) -> String {
    let text = text.replace("=\r\n", "");
    let mut parts = text.split('=');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(code, 16).unwrap());
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}
