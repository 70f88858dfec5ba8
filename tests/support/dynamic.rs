//! Dynamic DNS providers, as strict as the real ones: they refuse who does not say who it is, who is not let in, who tells them the
//! same again and again; and they have bad days.
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{NaiveDateTime, TimeDelta};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rusuban::{clock::Clock, dyndns::Addresses, text::hexadecimal};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    faults::Days,
    http::{Reply, Seen, Server, answer},
    name_server::Zone,
};

/// A provider: its server, its bad days, and what it answered.
pub(crate) struct Fake {
    pub(crate) server: Server,
    pub(crate) days: Arc<Days>,
    /// What its next answers are, whatever is asked.
    pub(crate) says: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// How many requests it got.
    pub(crate) fn asked(&self) -> usize {
        self.server.seen().len()
    }
}

async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
    let (days, says) = (Arc::<Days>::default(), Arc::<Mutex<Vec<String>>>::default());
    let (bad, words) = (Arc::clone(&days), Arc::clone(&says));
    let server = Server::start(move |seen| {
        if let Some(bad) = bad.today(seen) {
            return bad;
        }
        let mut words = words.lock().unwrap();
        if !words.is_empty() {
            return answer("200 OK", "", words.remove(0));
        }
        reply(seen)
    })
    .await;
    Fake { server, days, says }
}

fn path(seen: &Seen) -> (&str, BTreeMap<String, String>) {
    let target = seen.line.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let url = reqwest::Url::parse(&format!("http://x/?{query}")).unwrap();
    (path, url.query_pairs().into_owned().collect())
}

fn basic(seen: &Seen) -> Option<String> {
    let text = seen.header("authorization")?.strip_prefix("Basic ")?;
    String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()
}

/// DynDNS2: `user` with the password `secret-PASSWORD`; hosts are those that the zone has. A client without a name is refused; an
/// update without a change is taken once, and is abuse when it comes again.
pub(crate) async fn dyndns2(zone: Zone, wants_contact: bool) -> Fake {
    let unchanged = Mutex::new(BTreeMap::<String, u32>::new());
    start(move |seen| {
        let ok = |text: String| answer("200 OK", "content-type: text/plain\r\n", text);
        let agent = seen.header("user-agent").unwrap_or_default();
        if !agent.contains("rusuban/") || (wants_contact && !agent.contains('@')) {
            return ok("badagent".into());
        }
        match basic(seen) {
            None => return answer("401 Unauthorized", "www-authenticate: Basic\r\n", "badauth"),
            Some(who) if who != "user:secret-PASSWORD" => return ok("badauth".into()),
            Some(_) => {}
        }
        let (path, query) = path(seen);
        assert!(seen.line.starts_with("GET ") && path == "/nic/update", "{}", seen.line);
        let told: Addresses = query["myip"].split(',').map(|one| one.parse::<IpAddr>().unwrap()).collect();
        let (mut zone, mut unchanged) = (zone.lock().unwrap(), unchanged.lock().unwrap());
        let lines = query["hostname"].split(',').map(|host| {
            if !host.contains('.') {
                return "notfqdn".to_owned();
            }
            let Some(known) = zone.get_mut(host) else { return "nohost".to_owned() };
            let again = told.each().all(|address| known.each().any(|one| one == address));
            let count = unchanged.entry(host.to_owned()).or_default();
            *count = if again { *count + 1 } else { 0 };
            if *count > 1 {
                return "abuse".to_owned();
            }
            told.each().for_each(|address| known.set(address));
            format!("{} {told}", if again { "nochg" } else { "good" }).replace(" and ", ",")
        });
        let lines: Vec<String> = lines.collect();
        ok(lines.join("\r\n"))
    })
    .await
}

/// MyDNS.JP: `mydns1` with the password `secret-PASSWORD`. It takes the address that it sees, which is `from`, and
/// answers 200 to a wrong password.
pub(crate) fn mydns(seen: &Seen, from: IpAddr, hosts: &[&str], zone: &Zone) -> Reply {
    let html = "content-type: text/html; charset=UTF-8\r\n";
    if seen.line != "GET /login.html HTTP/1.1" {
        return answer("404 Not Found", "", "");
    }
    let Some(who) = basic(seen) else {
        let realm = "www-authenticate: Basic realm=\"Enter MasterID and Password.\"\r\n";
        return answer("401 Unauthorized", realm, "");
    };
    let is_right = who == "mydns1:secret-PASSWORD";
    if is_right {
        let mut zone = zone.lock().unwrap();
        hosts.iter().for_each(|host| zone.entry((*host).to_owned()).or_default().set(from));
    }
    let (words, status) = if is_right { ("Login and IP address notify OK.", 1) } else { ("Login failed.", 0) };
    answer(
        "200 OK",
        html,
        format!(
            "<HTML><HEAD><TITLE>Free Dynamic DNS (MyDNS.JP)</TITLE></HEAD><BODY>{words}<BR>\nlogin_status = {status}.<BR>\n\
             <DL><DT>REMOTE ADDRESS:</DT><DD>{from}</DD><DT>ACCESS DAYTIME:</DT><DD>2026/11/27 20:00:00 UTC</DD></DL></BODY></HTML>"
        ),
    )
}

/// Duck DNS: the token `secret-TOKEN`.
pub(crate) async fn duckdns(zone: Zone) -> Fake {
    start(move |seen| {
        let (path, query) = path(seen);
        let mut zone = zone.lock().unwrap();
        let hosts: Vec<String> = query["domains"].split(',').map(|name| format!("{name}.duckdns.org")).collect();
        let is_right = path == "/update"
            && query.get("token").map(String::as_str) == Some("secret-TOKEN")
            && hosts.iter().all(|host| zone.contains_key(host));
        if !is_right {
            return answer("200 OK", "", "KO");
        }
        let told: Addresses = ["ip", "ipv6"].iter().filter_map(|key| query.get(*key)?.parse::<IpAddr>().ok()).collect();
        let known = |host: &String| zone[host];
        let again = hosts.iter().all(|host| told.each().all(|one| known(host).each().any(|other| other == one)));
        for host in &hosts {
            let place = zone.get_mut(host).unwrap();
            told.each().for_each(|address| place.set(address));
        }
        let (ipv4, ipv6) = (told.ipv4.map(|one| one.to_string()), told.ipv6.map(|one| one.to_string()));
        let word = if again { "NOCHANGE" } else { "UPDATED" };
        answer("200 OK", "", format!("OK\n{}\n{}\n{word}", ipv4.unwrap_or_default(), ipv6.unwrap_or_default()))
    })
    .await
}

/// A record at Cloudflare.
pub(crate) fn cloudflare_record(id: &str, kind: &str, name: &str, content: &str, proxied: bool) -> Value {
    json!({ "id": id, "type": kind, "name": name, "content": content, "proxied": proxied, "ttl": 120, "comment": "kept by hand" })
}

/// Cloudflare with the zone `example.org` and these records: the token `secret-TOKEN`. Only `content` may be changed.
pub(crate) async fn cloudflare(zone: Zone, records: Arc<Mutex<Vec<Value>>>) -> Fake {
    start(move |seen| {
        let json = |status: &str, value: Value| answer(status, "content-type: application/json\r\n", value.to_string());
        let fault = |status: &str, code: u32, message: &str| {
            let errors = json!([{ "code": code, "message": message }]);
            json(status, json!({ "success": false, "errors": errors, "messages": [], "result": null }))
        };
        let fine =
            |result: Value| json("200 OK", json!({ "success": true, "errors": [], "messages": [], "result": result }));
        match seen.header("authorization") {
            Some("Bearer secret-TOKEN") => {}
            None => return fault("400 Bad Request", 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"),
            Some(_) => return fault("403 Forbidden", 10_000, "Authentication error"),
        }
        let (path, query) = path(seen);
        let verb = seen.line.split(' ').next().unwrap();
        let mut records = records.lock().unwrap();
        let show = |record: &Value| {
            if record["proxied"] == json!(false) {
                let address: IpAddr = record["content"].as_str().unwrap().parse().unwrap();
                let name = record["name"].as_str().unwrap().to_owned();
                zone.lock().unwrap().entry(name).or_default().set(address);
            }
        };
        match (verb, path.split('/').skip(3).collect::<Vec<_>>().as_slice()) {
            ("GET", ["zones"]) => {
                let found = (query["name"] == "example.org").then(|| json!({ "id": "z1", "name": "example.org" }));
                fine(json!(found.into_iter().collect::<Vec<_>>()))
            }
            ("GET", ["zones", "z1", "dns_records"]) => {
                let is_it = |record: &&Value| record["type"] == query["type"] && record["name"] == query["name"];
                fine(json!(records.iter().filter(is_it).collect::<Vec<_>>()))
            }
            ("POST", ["zones", "z1", "dns_records"]) => {
                let mut record: Value = serde_json::from_str(seen.text()).unwrap();
                record["id"] = json!(format!("r{}", records.len() + 1));
                show(&record);
                records.push(record.clone());
                fine(record)
            }
            ("PATCH", ["zones", "z1", "dns_records", id]) => {
                let change: Value = serde_json::from_str(seen.text()).unwrap();
                let only_content = change.as_object().unwrap().keys().eq(["content"]);
                let Some(record) = records.iter_mut().find(|record| record["id"] == **id).filter(|_| only_content)
                else {
                    return fault("400 Bad Request", 1004, "DNS Validation Error");
                };
                record["content"] = change["content"].clone();
                show(record);
                fine(record.clone())
            }
            _ => fault("404 Not Found", 7000, "No route for that URI"),
        }
    })
    .await
}

/// deSEC with the domain `example.dedyn.io`: the token `secret-TOKEN`.
pub(crate) async fn desec(zone: Zone, sets: Arc<Mutex<BTreeMap<String, Value>>>) -> Fake {
    start(move |seen| {
        let json = |status: &str, value: Value| answer(status, "content-type: application/json\r\n", value.to_string());
        if seen.header("authorization") != Some("Token secret-TOKEN") {
            return json("401 Unauthorized", json!({ "detail": "Invalid token." }));
        }
        let (path, query) = path(seen);
        let verb = seen.line.split(' ').next().unwrap();
        let mut sets = sets.lock().unwrap();
        let show = |set: &Value| {
            let name = format!("{}.example.dedyn.io", set["subname"].as_str().unwrap());
            let address: IpAddr = set["records"][0].as_str().unwrap().parse().unwrap();
            zone.lock().unwrap().entry(name.trim_start_matches('.').to_owned()).or_default().set(address);
        };
        let parts: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
        assert!(path.ends_with('/'), "deSEC's addresses end with a stroke");
        match (verb, parts.as_slice()) {
            ("GET", ["domains"]) => {
                let is_ours = query["owns_qname"].ends_with("example.dedyn.io");
                json("200 OK", if is_ours { json!([{ "name": "example.dedyn.io" }]) } else { json!([]) })
            }
            ("POST", ["domains", "example.dedyn.io", "rrsets"]) => {
                let set: Value = serde_json::from_str(seen.text()).unwrap();
                assert!(set["ttl"].as_u64().unwrap() >= 3600);
                show(&set);
                sets.insert(
                    format!("{}/{}", set["subname"].as_str().unwrap(), set["type"].as_str().unwrap()),
                    set.clone(),
                );
                json("201 Created", set)
            }
            (_, ["domains", "example.dedyn.io", "rrsets", name, kind]) => {
                let key = format!("{}/{kind}", if *name == "@" { "" } else { name });
                let Some(set) = sets.get_mut(&key) else {
                    return json("404 Not Found", json!({ "detail": "Not found." }));
                };
                if verb == "PATCH" {
                    let change: Value = serde_json::from_str(seen.text()).unwrap();
                    assert!(change.as_object().unwrap().keys().eq(["records"]), "the TTL stays");
                    set["records"] = change["records"].clone();
                    show(set);
                }
                json("200 OK", set.clone())
            }
            _ => json("404 Not Found", json!({ "detail": "Not found." })),
        }
    })
    .await
}

/// Route 53 with the zone `Z1` of `example.org`: the keys `secret-ACCESS` and `secret-KEY`. It computes each signature itself.
pub(crate) async fn route53(zone: Zone, records: Arc<Mutex<BTreeMap<String, (String, String)>>>, clock: Clock) -> Fake {
    start(move |seen| {
        let refuse = |status: &str, code: &str, message: &str| {
            answer(status, "content-type: text/xml\r\n", format!("<?xml version=\"1.0\"?><ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"))
        };
        if let Err((code, why)) = signature(seen, &clock) {
            return refuse("403 Forbidden", code, &why);
        }
        let (path, query) = path(seen);
        if path != "/2013-04-01/hostedzone/Z1/rrset" {
            return refuse("404 Not Found", "NoSuchHostedZone", "no hosted zone found with that ID");
        }
        let mut records = records.lock().unwrap();
        if seen.line.starts_with("GET ") {
            // The list begins at the name and goes on with what follows.
            let from = format!("{} {}", query["name"].trim_end_matches('.'), query["type"]);
            let found = records.range(from..).next().map_or_else(String::new, |(key, (ttl, value))| {
                let (name, kind) = key.split_once(' ').unwrap();
                format!(
                    "<ResourceRecordSet><Name>{name}.</Name><Type>{kind}</Type><TTL>{ttl}</TTL><ResourceRecords><ResourceRecord><Value>{value}</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>"
                )
            });
            return answer("200 OK", "", format!("<?xml version=\"1.0\"?><ListResourceRecordSetsResponse><ResourceRecordSets>{found}</ResourceRecordSets><IsTruncated>false</IsTruncated></ListResourceRecordSetsResponse>"));
        }
        let body = seen.text();
        let field = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>")).unwrap();
            rest.split_once(&format!("</{name}>")).unwrap().0.to_owned()
        };
        let (name, kind, ttl, value) = (field("Name"), field("Type"), field("TTL"), field("Value"));
        let name = name.trim_end_matches('.').to_owned();
        if field("Action") != "UPSERT" || !name.ends_with("example.org") {
            return refuse("400 Bad Request", "InvalidChangeBatch", "RRSet with DNS name is not permitted in zone example.org.");
        }
        zone.lock().unwrap().entry(name.clone()).or_default().set(value.parse().unwrap());
        records.insert(format!("{name} {kind}"), (ttl, value));
        answer("200 OK", "", "<?xml version=\"1.0\"?><ChangeResourceRecordSetsResponse><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status></ChangeInfo></ChangeResourceRecordSetsResponse>")
    })
    .await
}

/// Whether a request is signed as AWS wants it (Signature Version 4), computed from the request alone.
fn signature(seen: &Seen, clock: &Clock) -> Result<(), (&'static str, String)> {
    let sha = |bytes: &[u8]| hexadecimal(&Sha256::digest(bytes));
    let hmac = |key: &[u8], text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let missing = || ("MissingAuthenticationToken", "Missing Authentication Token".to_owned());
    let signed = seen.header("authorization").ok_or_else(missing)?;
    let rest = signed.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(missing)?;
    let parts: BTreeMap<&str, &str> = rest.split(", ").filter_map(|part| part.split_once('=')).collect();
    let at = seen.header("x-amz-date").ok_or_else(missing)?;
    let time = NaiveDateTime::parse_from_str(at, "%Y%m%dT%H%M%SZ").unwrap().and_utc();
    if (clock.now() - time).abs() > TimeDelta::minutes(5) {
        return Err(("RequestExpired", "the request is too old".to_owned()));
    }
    let scope = format!("{}/us-east-1/route53/aws4_request", &at[..8]);
    if parts["Credential"] != format!("secret-ACCESS/{scope}") {
        return Err(("InvalidClientTokenId", "the key is not known".to_owned()));
    }
    let mut words = seen.line.split(' ');
    let (verb, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    let names: Vec<&str> = parts["SignedHeaders"].split(';').collect();
    assert!(names.contains(&"host") && names.contains(&"x-amz-date"), "{names:?}");
    let headers: String = names.iter().map(|name| format!("{name}:{}\n", seen.header(name).unwrap().trim())).collect();
    let canonical =
        format!("{verb}\n{path}\n{}\n{headers}\n{}\n{}", pairs.join("&"), parts["SignedHeaders"], sha(&seen.body));
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", sha(canonical.as_bytes()));
    let mut key = hmac(b"AWS4secret-KEY", &at[..8]);
    for part in ["us-east-1", "route53", "aws4_request"] {
        key = hmac(&key, part);
    }
    if hexadecimal(&hmac(&key, &text)) != parts["Signature"] {
        return Err(("SignatureDoesNotMatch", "The request signature we calculated does not match".to_owned()));
    }
    Ok(())
}

/// Somebody who takes `POST /update` with a key and says in JSON what became of it.
pub(crate) async fn generic(zone: Zone) -> Fake {
    start(move |seen| {
        let say = |word: &str, detail: &str| {
            answer("200 OK", "", format!("{{\"status\":\"{word}\",\"detail\":\"{detail}\"}}"))
        };
        if seen.header("x-api-key") != Some("secret-KEY") {
            return say("denied", "no key");
        }
        let (path, query) = path(seen);
        let told: Value = serde_json::from_str(seen.text()).unwrap();
        match (path, zone.lock().unwrap().get_mut(&query["name"])) {
            ("/update", Some(known)) => {
                known.set(told["a"].as_str().unwrap().parse().unwrap());
                say("ok", "")
            }
            _ => say("unknown", "no such host"),
        }
    })
    .await
}
