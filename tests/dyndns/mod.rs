//! `dynamic-dns` against providers that are as strict as the real ones, name servers, a router, and services that say who calls.
mod address;
mod faults;
mod hostile;
mod providers;
mod targets;
mod user;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use chrono::{DateTime, TimeDelta};
use rusuban::{clock::Clock, dyndns::Addresses, kinds::Cx};
use serde_json::Value;

use crate::support::{
    http::{Server, answer},
    kind::{Kept, context, read},
    name_server::{NameServer, Zone},
};

/// A home, its line outwards, and the name servers of the world.
struct World {
    _home: tempfile::TempDir,
    clock: Clock,
    cx: Cx,
    kept: Arc<Kept>,
    /// What the rest of the world sees of this host.
    seen: Arc<Mutex<Addresses>>,
    web: Server,
    names: NameServer,
}

fn addresses(text: &str) -> Addresses {
    text.split_whitespace().map(|one| one.parse::<IpAddr>().unwrap()).collect()
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(DateTime::from_timestamp(1_795_000_000, 0).unwrap());
        let (cx, kept) = context(home.path(), clock.clone(), []);
        let names = NameServer::start().await;
        let seen = Arc::clone(&names.caller);
        *seen.lock().unwrap() = addresses("93.184.216.34");
        let web = echo(Arc::clone(&seen)).await;
        Self { _home: home, clock, cx, kept, seen, web, names }
    }

    fn zone(&self) -> Zone {
        Arc::clone(&self.names.zone)
    }

    /// These hosts are in the zone, with an old address.
    fn hosts(&self, names: &[&str]) {
        for name in names {
            self.names.zone.lock().unwrap().insert((*name).to_owned(), addresses("93.184.216.1"));
        }
    }

    /// The address is another now.
    fn moves_to(&self, text: &str) {
        *self.seen.lock().unwrap() = addresses(text);
    }

    fn later(&self, minutes: i64) {
        self.clock.step(TimeDelta::minutes(minutes));
    }

    /// A job file: a provider, hosts, and the world's own sources.
    fn keys(&self, provider: &str, hosts: &[&str]) -> String {
        self.keys_with("", provider, hosts)
    }

    fn keys_with(&self, more: &str, provider: &str, hosts: &[&str]) -> String {
        let hosts: String = hosts.iter().map(|name| format!("[[host]]\nname = '{name}'\n")).collect();
        let sources = if more.contains("address = ") {
            String::new()
        } else {
            format!(
                "[address]\nweb = ['{}']\ndns = ['whoami.test CH TXT @{}']\n",
                self.web.url("/"),
                self.names.address
            )
        };
        let name_server = self.names.address;
        format!(
            "resolver = '{name_server}'\nverify_within = '0s'\npatience = '1s'\n{more}\n{sources}{provider}\n{hosts}"
        )
    }

    /// A run: its summary or its error.
    async fn run(&self, keys: &str) -> Result<String, String> {
        self.kept.lines.lock().unwrap().clear();
        read("dynamic-dns", keys).run(&self.cx).await.map_err(|error| format!("{error:#}"))
    }

    fn log(&self) -> String {
        self.kept.text()
    }

    /// What is remembered.
    fn memory(&self) -> Value {
        self.kept.facts.lock().unwrap().get("address").cloned().unwrap_or_default()
    }

    fn record(&self, host: &str) -> String {
        self.names.zone.lock().unwrap().get(host).map_or_else(String::new, ToString::to_string)
    }
}

/// A web service that says who calls.
async fn echo(seen: Arc<Mutex<Addresses>>) -> Server {
    Server::start(move |_| {
        let address = seen.lock().unwrap().ipv4;
        answer("200 OK", "content-type: text/plain\r\n", address.map_or_else(String::new, |one| format!("{one}\n")))
    })
    .await
}
