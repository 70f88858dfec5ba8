//! Name servers that answer with the caller's address.
use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::dyndns::{
    Family,
    ask::said,
    query::{self, What},
};

/// A question whose answer is the caller's address: one that is known by a word, or one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// One that is known, by its place in the list of them.
    Known(usize),
    /// `NAME [CH] TXT|A @SERVER`.
    Own {
        /// The name.
        name: String,
        /// What is asked for; an address is of the family that is looked for.
        what: What,
        /// Whom.
        server: SocketAddr,
    },
}

/// The known ones: word, name, what is asked for, and the server's two addresses.
const KNOWN: [(&str, &str, What, [&str; 2]); 3] = [
    ("cloudflare", "whoami.cloudflare", What::Chaos, ["1.1.1.1:53", "[2606:4700:4700::1111]:53"]),
    ("opendns", "myip.opendns.com", What::Address(Family::Ipv4), ["208.67.222.222:53", "[2620:119:35::35]:53"]),
    ("google", "o-o.myaddr.l.google.com", What::Text, ["216.239.32.10:53", "[2001:4860:4802:32::a]:53"]),
];

/// All of them.
pub(super) const DEFAULT: &[Question] = &[Question::Known(0), Question::Known(1), Question::Known(2)];

impl Question {
    /// The server of an address with or without a port.
    pub(crate) fn place(text: &str) -> Option<SocketAddr> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        text.parse().ok().or_else(|| bare.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 53)))
    }

    /// The caller's address as this server sees it.
    pub(super) async fn ask(&self, family: Family) -> Result<IpAddr, String> {
        let (name, what, server) = match self {
            Self::Known(index) => {
                let (_, name, what, servers) = KNOWN[*index];
                let server = servers[usize::from(family == Family::Ipv6)];
                (name, what, server.parse().map_err(|_| format!("`{server}` is no address of a server"))?)
            }
            Self::Own { name, what, server } => (name.as_str(), *what, *server),
        };
        if Family::of(server.ip()) != family {
            return Err(format!("it is asked over {}, and sees no {family} address", Family::of(server.ip())));
        }
        let what = if matches!(what, What::Address(_)) { What::Address(family) } else { what };
        let found = query::ask(server, name, what, true).await.map_err(|why| why.to_string())?;
        if let Some(address) = found.addresses.first() {
            return Ok(*address);
        }
        match found.texts.first().map(|text| (text.trim().parse(), text)) {
            Some((Ok(address), _)) => Ok(address),
            Some((Err(_), text)) => Err(format!("it answered {}, which is no address", said(text))),
            None => Err("it answered without an address".to_owned()),
        }
    }
}

impl FromStr for Question {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(index) = KNOWN.iter().position(|(word, ..)| *word == text) {
            return Ok(Self::Known(index));
        }
        let wrong = || {
            format!(
                "`{text}` is no question to a name server: write `cloudflare`, `opendns`, `google`, or a question such as `whoami.cloudflare CH TXT @1.1.1.1`"
            )
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, what, server) = match words.as_slice() {
            [name, "CH", "TXT", server] => (name, What::Chaos, server),
            [name, "TXT", server] => (name, What::Text, server),
            [name, "A" | "AAAA", server] => (name, What::Address(Family::Ipv4), server),
            _ => return Err(wrong()),
        };
        let server = server.strip_prefix('@').and_then(Self::place).ok_or_else(wrong)?;
        query::question(name, what)?;
        Ok(Self::Own { name: (*name).to_owned(), what, server })
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(index) => write!(f, "dns {}", KNOWN[*index].0),
            Self::Own { server, .. } => write!(f, "dns {server}"),
        }
    }
}

impl<'de> Deserialize<'de> for Question {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Question {
    fn schema_name() -> Cow<'static, str> {
        "Question".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_words_or_what_dig_takes() {
        assert_eq!("opendns".parse(), Ok(Question::Known(1)));
        let own = Question::Own {
            name: "whoami.cloudflare".into(),
            what: What::Chaos,
            server: "127.0.0.1:5353".parse().unwrap(),
        };
        assert_eq!("whoami.cloudflare CH TXT @127.0.0.1:5353".parse(), Ok(own));
        for fine in ["a.b A @1.1.1.1", "a.b TXT @[::1]:53", "a.b AAAA @::1"] {
            fine.parse::<Question>().unwrap();
        }
        for wrong in ["", "quad9", "a.b A 1.1.1.1", "a.b MX @1.1.1.1", "a.b A @example.org", "a..b A @1.1.1.1"] {
            wrong.parse::<Question>().unwrap_err();
        }
    }
}
