//! No-IP: DynDNS2, with what that service asks of every client.
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Line, Provider, Refresh, Wanted, check_server, dyndns2};
use crate::config::{mistake::Problem, secret::SecretSource};

/// An account at No-IP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoIp {
    /// The user, or that of a DDNS key.
    pub user: String,
    /// The password, or that of the DDNS key.
    pub password: SecretSource,
    /// Your mail address: No-IP wants every client to say whom to write to.
    pub contact: String,
    /// Another server, for trials: its address up to the `?`.
    #[serde(default)]
    pub server: Option<String>,
}

#[async_trait]
impl Provider for NoIp {
    fn name(&self) -> String {
        "No-IP".to_owned()
    }

    fn check(&self, key: &str) -> Vec<Problem> {
        let mut problems: Vec<Problem> = check_server(key, self.server.as_deref()).into_iter().collect();
        if self.user.is_empty() || self.user.contains(':') {
            problems.push(Problem::new(format!("{key}.user"), format!("`{}` is no user of No-IP", self.user)));
        }
        problems.extend(dyndns2::check_contact(key, Some(&self.contact)));
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        vec![self.password.clone()]
    }

    fn refresh(&self) -> Refresh {
        Refresh { usual: Duration::from_secs(28 * 86_400), most: None }
    }

    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        dyndns2::no_ip(self.server.as_deref(), &self.user, &self.password, &self.contact).tell(line, hosts).await
    }
}
