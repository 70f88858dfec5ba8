//! Duck DNS: one request for all hosts that have the same addresses, and one word of answer.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, Request};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, End, Line, Provider, Refresh, Wanted, base, check_server, each, said};
use crate::config::{mistake::Problem, secret::SecretSource};

/// An account at Duck DNS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DuckDns {
    /// The account's token.
    pub token: SecretSource,
    /// Another server, for trials.
    #[serde(default)]
    pub server: Option<String>,
}

const DOMAIN: &str = ".duckdns.org";

#[async_trait]
impl Provider for DuckDns {
    fn name(&self) -> String {
        "Duck DNS".to_owned()
    }

    fn check(&self, key: &str) -> Vec<Problem> {
        check_server(key, self.server.as_deref()).into_iter().collect()
    }

    fn check_host(&self, host: &str) -> Option<String> {
        let is_one = host.strip_suffix(DOMAIN).is_some_and(|name| !name.is_empty() && !name.contains('.'));
        (!is_one).then(|| format!("`{host}` is no host of Duck DNS: write it as in `home{DOMAIN}`"))
    }

    fn secrets(&self) -> Vec<SecretSource> {
        vec![self.token.clone()]
    }

    fn refresh(&self) -> Refresh {
        // It says nothing of an end; accounts that are never heard of are removed at times.
        Refresh { usual: Duration::from_secs(7 * 86_400), most: None }
    }

    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        let mut answers = each(hosts, &End::NotSent { why: "there is no address to tell".to_owned() });
        let mut open: Vec<usize> = (0..hosts.len()).collect();
        while let Some(first) = open.first().copied() {
            let (batch, rest): (Vec<usize>, Vec<usize>) =
                open.into_iter().partition(|index| hosts[*index].addresses == hosts[first].addresses);
            open = rest;
            let names: Vec<&str> = batch.iter().map(|index| hosts[*index].host.trim_end_matches(DOMAIN)).collect();
            let answer = match self.send(line, &names, &hosts[first]).await {
                Ok(answer) => answer,
                Err(end) => Answer::end(end),
            };
            // A wrong token is not right for the next ones.
            if !matches!(answer.end, End::Taken { .. } | End::NotSent { .. }) {
                open.drain(..).for_each(|index| answers[index] = Answer::end(answer.end.clone()));
            }
            batch.into_iter().for_each(|index| answers[index] = answer.clone());
        }
        answers
    }
}

impl DuckDns {
    async fn send(&self, line: &Line<'_>, names: &[&str], wanted: &Wanted) -> Result<Answer, End> {
        let mut url = base(self.server.as_deref(), "https://www.duckdns.org")?;
        url.set_path("/update");
        let token = line.read(&self.token).await?;
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("domains", &names.join(",")).append_pair("token", token.reveal());
            if let Some(address) = wanted.addresses.ipv4 {
                pairs.append_pair("ip", &address.to_string());
            }
            if let Some(address) = wanted.addresses.ipv6 {
                pairs.append_pair("ipv6", &address.to_string());
            }
            pairs.append_pair("verbose", "true");
        }
        let reply = line.ask(None, Request::new(Method::GET, url)).await?;
        let lines: Vec<&str> = reply.body.lines().map(str::trim).collect();
        match (reply.status.as_u16(), lines.first()) {
            (200, Some(&"OK")) => Ok(Answer::taken(wanted, lines.last() == Some(&"NOCHANGE"), false)),
            (200, Some(&"KO")) => Err(End::Stop {
                all: true,
                why: "Duck DNS answered KO: the token is wrong, or a host is not of this account".to_owned(),
                mend: "look at the token and at the hosts' names".to_owned(),
            }),
            (status, _) => {
                Err(End::Unknown { why: format!("Duck DNS answered {status}: {}", said(&reply.body, [token])) })
            }
        }
    }
}
