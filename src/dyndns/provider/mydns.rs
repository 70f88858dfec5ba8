//! MyDNS.JP. It takes the address that the request comes from, so the request leaves over the family that is told; it forgets a
//! host that it has not heard of for a week; and it answers 200 to a wrong password: only the page says what became of it.
use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, Request};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, End, Line, Provider, Refresh, Wanted, authorisation, base, check_server, each, said};
use crate::{
    config::{
        mistake::Problem,
        secret::{Secret, SecretSource},
    },
    dyndns::{Addresses, Family},
};

/// An account at MyDNS.JP; all hosts of the account get the address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MyDns {
    /// The master ID: `mydns123456`.
    pub user: String,
    /// Its password.
    pub password: SecretSource,
    /// Another server, for trials.
    #[serde(default)]
    pub server: Option<String>,
    /// Another server over IPv6, for trials.
    #[serde(default)]
    pub server_ipv6: Option<String>,
}

/// What its page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// It took this address.
    Taken(Option<IpAddr>),
    /// The ID or the password is wrong.
    Refused,
    /// Nothing that is known.
    Unknown,
}

#[async_trait]
impl Provider for MyDns {
    fn name(&self) -> String {
        "MyDNS.JP".to_owned()
    }

    fn check(&self, key: &str) -> Vec<Problem> {
        let mut problems: Vec<Problem> = check_server(key, self.server.as_deref()).into_iter().collect();
        problems.extend(
            check_server(key, self.server_ipv6.as_deref())
                .map(|problem| Problem { key: format!("{key}.server_ipv6"), ..problem }),
        );
        if self.user.is_empty() || self.user.contains([':', ' ']) || self.user.contains('@') {
            let hint = "it is the master ID that the service gave you, such as `mydns123456`";
            problems.push(Problem::new(format!("{key}.user"), format!("`{}` is no master ID", self.user)).hint(hint));
        }
        problems
    }

    fn takes_any(&self) -> bool {
        false
    }

    fn secrets(&self) -> Vec<SecretSource> {
        vec![self.password.clone()]
    }

    fn refresh(&self) -> Refresh {
        Refresh { usual: Duration::from_secs(86_400), most: Some(Duration::from_secs(6 * 86_400)) }
    }

    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        // One account, one address of each family: the hosts' suffixes cannot be told here.
        let due: Addresses = hosts.iter().flat_map(|host| host.due.each()).collect();
        let mut parts = Vec::new();
        for address in due.each() {
            let end = self.notify(line, address).await.unwrap_or_else(|end| end);
            let taken = match end {
                End::Taken { .. } => [address].into_iter().collect(),
                _ => Addresses::default(),
            };
            // What is wrong with the account is so over the other family too.
            let stops = matches!(end, End::Stop { .. } | End::Later { .. });
            parts.push(Answer { taken, end });
            if stops {
                break;
            }
        }
        if parts.is_empty() {
            return each(hosts, &End::NotSent { why: "there is no address to tell".to_owned() });
        }
        let answer = Answer::together(parts);
        hosts.iter().map(|_| answer.clone()).collect()
    }
}

impl MyDns {
    async fn notify(&self, line: &Line<'_>, address: IpAddr) -> Result<End, End> {
        let family = Family::of(address);
        let (server, usual) = match family {
            Family::Ipv4 => (&self.server, "https://ipv4.mydns.jp"),
            Family::Ipv6 => (&self.server_ipv6, "https://ipv6.mydns.jp"),
        };
        let mut url = base(server.as_deref(), usual)?;
        url.set_path("/login.html");
        let password = line.read(&self.password).await?;
        let basic = BASE64_STANDARD.encode(format!("{}:{}", self.user, password.reveal()));
        let mut request = Request::new(Method::GET, url);
        authorisation(&mut request, &format!("Basic {basic}"))?;
        let reply = line.ask(Some(family), request).await?;
        let hidden = || [Secret::new(basic.as_str()), password.clone()];
        let stop =
            |why: String| End::Stop { all: true, why, mend: "look at the master ID and the password".to_owned() };
        Ok(match (reply.status.as_u16(), read(&reply.body)) {
            (401 | 403, _) => stop(format!("MyDNS.JP answered {}", reply.status)),
            (200, Page::Taken(Some(taken))) if taken != address => End::Unknown {
                why: format!(
                    "MyDNS.JP took {taken}, and this host has {address}: what is sent leaves by another way (a VPN, a \
                     proxy, a second line), and this service takes the address that it sees"
                ),
            },
            (200, Page::Taken(_)) => End::Taken { had_it: false, proven: false },
            (200, Page::Refused) => stop("MyDNS.JP says that the login failed (login_status = 0)".to_owned()),
            (status, _) => End::Unknown {
                why: format!(
                    "MyDNS.JP answered {status} with what is not known: {}",
                    said(&plain(&reply.body), hidden())
                ),
            },
        })
    }
}

/// Reads the page.
#[must_use]
pub fn read(page: &str) -> Page {
    let status = page.find("login_status").and_then(|at| {
        let rest = page.get(at + "login_status".len()..)?.trim_start().strip_prefix('=')?.trim_start();
        rest.chars().next()
    });
    match status {
        Some('0') => Page::Refused,
        Some('1') => {
            let after = page.find("REMOTE ADDRESS").and_then(|at| page.get(at + "REMOTE ADDRESS".len()..));
            let address = after.and_then(|rest| {
                let words = plain(rest.get(..rest.floor_char_boundary(200.min(rest.len())))?);
                words.split(' ').find_map(|word| word.trim_matches(':').parse().ok().or_else(|| word.parse().ok()))
            });
            Page::Taken(address)
        }
        _ if page.contains("Login and IP address notify OK") => Page::Taken(None),
        _ => Page::Unknown,
    }
}

/// A page without its marks.
fn plain(page: &str) -> String {
    let (mut text, mut inside) = (String::new(), false);
    for letter in page.chars().take(64 << 10) {
        match letter {
            '<' => {
                inside = true;
                text.push(' ');
            }
            '>' => inside = false,
            _ if !inside => text.push(letter),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_became_of_it_not_the_status() {
        let page = |status: &str, address: &str| {
            format!(
                "<HTML><BODY>Login and IP address notify OK.<BR>login_status = {status}<BR><DL><DT>REMOTE ADDRESS:</DT><DD>{address}</DD></DL>"
            )
        };
        assert_eq!(read(&page("1", "93.184.216.34")), Page::Taken("93.184.216.34".parse().ok()));
        assert_eq!(read(&page("1", "2a01:4f8::1")), Page::Taken("2a01:4f8::1".parse().ok()));
        assert_eq!(read(&page("1", "")), Page::Taken(None));
        assert_eq!(read(&page("0", "93.184.216.34")), Page::Refused);
        assert_eq!(read("<HTML>maintenance"), Page::Unknown);
        assert_eq!(read("login_status"), Page::Unknown);
    }
}
