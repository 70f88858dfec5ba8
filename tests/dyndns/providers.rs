//! What each provider is told, what it answers, and what must follow.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;

use super::{World, addresses};
use crate::support::{
    dynamic::{self, Fake, cloudflare_record},
    http::Server,
    kind::read,
};

fn dyndns2(fake: &Fake) -> String {
    format!(
        "[provider.dyndns2]\nserver = '{}/nic/update'\nuser = 'user'\npassword = {{ env = 'PASSWORD' }}",
        fake.url()
    )
}

fn no_ip(fake: &Fake) -> String {
    format!(
        "[provider.noip]\nserver = '{}/nic/update'\nuser = 'user'\npassword = {{ env = 'PASSWORD' }}\ncontact = 'me@example.org'",
        fake.url()
    )
}

#[tokio::test]
async fn an_address_is_told_once_seen_in_the_record_and_then_costs_no_request() {
    let world = World::new().await;
    world.hosts(&["home.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), false).await;
    let keys = world.keys(&dyndns2(&fake), &["home.example.org"]);
    let summary = world.run(&keys).await.unwrap();
    assert_eq!(
        summary,
        format!(
            "home.example.org: 127.0.0.1 was told 93.184.216.34 for the first time; home.example.org: the record says \
             93.184.216.34 (asked {})",
            world.names.address
        )
    );
    assert_eq!(world.record("home.example.org"), "93.184.216.34");
    let memory = world.memory();
    assert_eq!(memory["ipv4"], "93.184.216.34", "{memory:#}");
    assert!(memory["changed_at"].is_string() && memory["told_at"].is_string(), "{memory:#}");
    assert!(memory["hosts"]["home.example.org"]["ipv4"]["seen_at"].is_string(), "{memory:#}");

    // A month of looks: nothing is sent, nobody asks the name server for the record.
    let asked = world.names.asked.lock().unwrap().iter().filter(|one| one.ends_with(" A")).count();
    for _ in 0..20 {
        world.later(60);
        let summary = world.run(&keys).await.unwrap();
        assert!(
            summary.starts_with("93.184.216.34 as before, since ") && summary.ends_with("; nobody was told"),
            "{summary}"
        );
    }
    assert_eq!(fake.asked(), 1);
    assert_eq!(asked, world.names.asked.lock().unwrap().iter().filter(|one| one.ends_with(" A")).count());

    // It moves: told at the next look, and news.
    world.moves_to("93.184.216.35");
    let summary = world.run(&keys).await.unwrap();
    assert!(summary.contains("was told 93.184.216.35 (it had 93.184.216.34)"), "{summary}");
    assert!(world.log().contains("this host's address is 93.184.216.35 now; it was 93.184.216.34"), "{}", world.log());
    assert_ne!(world.memory()["changed_at"], memory["changed_at"]);
    let told = world.kept.told.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].event, rusuban::model::news::Event::Changed);
    assert_eq!(told[0].what, "this host's address is 93.184.216.35 now; it was 93.184.216.34");

    // The refresh of four weeks: `nochg` is fine then.
    world.later(28 * 24 * 60);
    let summary = world.run(&keys).await.unwrap();
    assert!(summary.contains("again, as it was last told 28 days ago, and had it already"), "{summary}");
    assert_eq!(fake.asked(), 3);
}

#[tokio::test]
async fn what_must_not_be_sent_again_is_not_whoever_restarts_until_it_is_mended() {
    let world = World::new().await;
    world.hosts(&["a.example.org", "b.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), false).await;
    let wrong = dyndns2(&fake).replace("'PASSWORD'", "'WRONG'");
    let keys = world.keys(&wrong, &["a.example.org", "b.example.org"]);
    let failure = world.run(&keys).await.unwrap_err();
    assert!(
        failure.starts_with("2 failures: a.example.org: 127.0.0.1 answered badauth: user and password do not fit"),
        "{failure}"
    );
    assert!(
        failure.contains("look at `user` and `password`") && failure.contains("`rusuban dns unblock job`"),
        "{failure}"
    );
    // The second host was not even tried.
    assert_eq!(fake.asked(), 1);
    for _ in 0..5 {
        world.later(24 * 60);
        world.moves_to("93.184.216.40");
        let failure = world.run(&keys).await.unwrap_err();
        assert!(failure.contains("nothing is sent until that is mended"), "{failure}");
    }
    assert_eq!(fake.asked(), 1);
    let memory = world.memory().to_string();
    assert!(!memory.contains("secret-") && !world.log().contains("secret-"), "{memory}");

    // Other settings: the stop is over by itself.
    let right = world.keys(&dyndns2(&fake), &["a.example.org", "b.example.org"]);
    world.run(&right).await.unwrap();
    assert!(world.log().contains("the settings have changed since the stop"), "{}", world.log());
    assert_eq!((world.record("a.example.org"), fake.asked()), ("93.184.216.40".to_owned(), 3));
}

#[tokio::test]
async fn another_provider_is_told_though_the_one_before_was() {
    let world = World::new().await;
    world.hosts(&["home.duckdns.org"]);
    let (one, other) = (dynamic::dyndns2(world.zone(), false).await, dynamic::duckdns(world.zone()).await);
    world.run(&world.keys(&dyndns2(&one), &["home.duckdns.org"])).await.unwrap();
    let provider = format!("[provider.duckdns]\ntoken = {{ env = 'TOKEN' }}\nserver = '{}'", other.url());
    let summary = world.run(&world.keys(&provider, &["home.duckdns.org"])).await.unwrap();
    assert!(summary.contains("Duck DNS was told 93.184.216.34 for the first time"), "{summary}");
    assert_eq!((one.asked(), other.asked()), (1, 1));
}

#[tokio::test]
async fn a_host_that_is_not_there_stops_itself_and_not_the_others() {
    let world = World::new().await;
    world.hosts(&["a.example.org", "c.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), true).await;
    let all = ["a.example.org", "b.example.org", "c.example.org"];
    let keys = world.keys(&no_ip(&fake), &all);
    let failure = world.run(&keys).await.unwrap_err();
    assert!(failure.starts_with("b.example.org: No-IP answered nohost: the account has no such host"), "{failure}");
    // All in one request, a line each.
    assert_eq!(fake.asked(), 1);
    assert!(
        fake.server.seen()[0].line.contains("hostname=a.example.org,b.example.org,c.example.org&myip=93.184.216.34 ")
    );
    assert_eq!(
        (world.record("a.example.org"), world.record("c.example.org")),
        ("93.184.216.34".into(), "93.184.216.34".into())
    );

    // The others go on; it stays as it is, also when it is there meanwhile, until somebody says so.
    world.hosts(&["b.example.org"]);
    world.moves_to("93.184.216.50");
    world.later(10);
    world.run(&keys).await.unwrap_err();
    assert!(!fake.server.seen()[1].line.contains("b.example.org"));
    let id = world.memory()["hosts"]["b.example.org"]["stopped"]["id"].clone();
    world.kept.facts.lock().unwrap().insert("lifted".into(), json!([id]));
    world.later(10);
    world.run(&keys).await.unwrap();
    assert_eq!(world.record("b.example.org"), "93.184.216.50");
}

#[tokio::test]
async fn every_word_of_dyndns2_has_its_wait() {
    for (word, still, then) in
        [("911", 29, 31), ("dnserr", 29, 31), ("what is this", 29, 31), ("good 93.184.216.99", 29, 31)]
    {
        let world = World::new().await;
        world.hosts(&["a.example.org"]);
        let fake = dynamic::dyndns2(world.zone(), false).await;
        let keys = world.keys(&dyndns2(&fake), &["a.example.org"]);
        fake.says.lock().unwrap().push(word.to_owned());
        let failure = world.run(&keys).await.unwrap_err();
        assert!(failure.contains("it is told again in 30 min, not before"), "{failure}");
        world.later(still);
        world.run(&keys).await.unwrap_err();
        assert_eq!(fake.asked(), 1, "{word}");
        world.later(then - still);
        world.run(&keys).await.unwrap();
        assert_eq!(fake.asked(), 2, "{word}");
    }
    for word in ["abuse", "badagent", "!donator", "good 127.0.0.1", "numhost", "notfqdn", "!yours"] {
        let world = World::new().await;
        world.hosts(&["a.example.org"]);
        let fake = dynamic::dyndns2(world.zone(), false).await;
        let keys = world.keys(&dyndns2(&fake), &["a.example.org"]);
        fake.says.lock().unwrap().push(word.to_owned());
        world.run(&keys).await.unwrap_err();
        world.later(60 * 24 * 60);
        world.run(&keys).await.unwrap_err();
        assert_eq!(fake.asked(), 1, "{word}");
    }
}

#[tokio::test]
async fn a_run_that_dies_between_the_answer_and_its_memory_does_not_make_abuse() {
    let world = World::new().await;
    world.hosts(&["a.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), false).await;
    let keys = world.keys(&dyndns2(&fake), &["a.example.org"]);
    world.run(&keys).await.unwrap();
    // As the memory is when the process dies just after the request: what was written before it, and nothing after.
    let sent = |memory: &mut serde_json::Value| {
        let host = &mut memory["hosts"]["a.example.org"];
        host["tries"] = json!(host["tries"].as_u64().unwrap() + 1);
        host["sending"] = json!({ "at": "2026-11-18T10:26:40Z", "ipv4": "93.184.216.34" });
        host.as_object_mut().unwrap().remove("ipv4");
    };
    let forget = |change: &dyn Fn(&mut serde_json::Value)| {
        change(world.kept.facts.lock().unwrap().get_mut("address").unwrap());
    };
    forget(&sent);
    let summary = world.run(&keys).await.unwrap();
    assert!(world.log().contains("it was taken, the record says 93.184.216.34"), "{summary} {}", world.log());
    assert_eq!(fake.asked(), 1);

    // The record does not tell: it is sent once more, which is one `nochg`; and when that is cut off too, not at once again.
    let silent = crate::support::name_server::Mood::Refuses;
    *world.names.mood.lock().unwrap() = silent;
    forget(&sent);
    let own = world.keys(&dyndns2(&fake), &["a.example.org"]).replace("whoami.test CH TXT", "x.test A");
    let own = own.replace("[address]", "[address]\nagree = 1");
    world.run(&own).await.unwrap();
    assert_eq!(fake.asked(), 2);
    for _ in 0..2 {
        forget(&sent);
    }
    let failure = world.run(&own).await.unwrap_err();
    assert!(
        failure.contains("cut off before their answers were written down") && failure.contains("not before"),
        "{failure}"
    );
    assert_eq!(fake.asked(), 2);
}

#[tokio::test]
async fn asked_to_stop_it_says_what_is_not_known_and_the_next_run_looks() {
    let world = World::new().await;
    world.hosts(&["a.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), false).await;
    let keys = world.keys(&dyndns2(&fake), &["a.example.org"]).replace("patience = '1s'", "patience = '20s'");
    fake.days.come([crate::support::faults::Fault::Hang]);
    let kind = read("dynamic-dns", &keys);
    let cx = world.cx.clone();
    let run = tokio::spawn(async move { kind.run(&cx).await });
    while fake.asked() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.cx.cancelled.cancel();
    let failure = tokio::time::timeout(Duration::from_secs(5), run).await.unwrap().unwrap().unwrap_err();
    assert!(format!("{failure:#}").contains("whether it took 93.184.216.34 is not known"), "{failure:#}");
    assert_eq!(world.memory()["hosts"]["a.example.org"]["sending"]["ipv4"], "93.184.216.34");
}

#[tokio::test]
async fn a_clock_that_jumps_neither_floods_the_provider_nor_silences_us() {
    let world = World::new().await;
    world.hosts(&["a.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), false).await;
    let keys = world.keys(&dyndns2(&fake), &["a.example.org"]);
    world.run(&keys).await.unwrap();
    for days in [400, -800, 1, -3, 2] {
        world.later(days * 24 * 60);
        world.run(&keys).await.unwrap();
    }
    // One refresh, for the clock said that a year had gone by.
    assert_eq!(fake.asked(), 2);
    fake.says.lock().unwrap().push("911".to_owned());
    world.moves_to("93.184.216.60");
    world.run(&keys).await.unwrap_err();
    world.later(-300 * 24 * 60);
    world.run(&keys).await.unwrap_err();
    world.later(31);
    world.run(&keys).await.unwrap();
    assert_eq!(world.record("a.example.org"), "93.184.216.60");
}

#[tokio::test]
async fn mydns_is_told_over_each_family_daily_and_its_page_is_read() {
    let world = World::new().await;
    let own = addresses("93.184.216.34 2a01:4f8::7");
    let zone = world.zone();
    let hosts = ["home.mydns.jp"];
    let reply = |family: usize, zone: super::Zone| {
        let from = own.each().nth(family).unwrap();
        move |seen: &crate::support::http::Seen| dynamic::mydns(seen, from, &hosts, &zone)
    };
    let four = Server::start(reply(0, Arc::clone(&zone))).await;
    let six = Server::start_at("[::1]:0".parse().unwrap(), reply(1, zone)).await.unwrap();
    let provider = |secret: &str| {
        format!(
            "[provider.mydns]\nuser = 'mydns1'\npassword = {{ env = '{secret}' }}\nserver = '{}'\nserver_ipv6 = '{}'",
            four.url(""),
            six.url("")
        )
    };
    let own_address = "ipv6 = true\naddress = { web = [], dns = [], agree = 1, command = ['sh', '-c', 'case $RUSUBAN_FAMILY in ipv4) \
                       echo 93.184.216.34;; ipv6) echo 2a01:4f8::7;; esac'] }";
    let wrong = world.keys_with(own_address, &provider("WRONG"), &hosts);
    let failure = world.run(&wrong).await.unwrap_err();
    assert!(failure.contains("MyDNS.JP says that the login failed (login_status = 0)"), "{failure}");
    let asked = four.seen().len() + six.seen().len();
    let keys = world.keys_with(own_address, &provider("PASSWORD"), &hosts);
    let summary = world.run(&keys).await.unwrap();
    assert!(summary.contains("MyDNS.JP was told 93.184.216.34 and 2a01:4f8::7 for the first time"), "{summary}");
    assert_eq!(world.record("home.mydns.jp"), "93.184.216.34 and 2a01:4f8::7");
    assert_eq!(four.seen().len() + six.seen().len(), asked + 2);
    // Every day, though nothing has changed: it forgets hosts within a week.
    for _ in 0..3 {
        world.later(23 * 60);
        world.run(&keys).await.unwrap();
        world.later(60);
        world.run(&keys).await.unwrap();
    }
    assert_eq!(four.seen().len() + six.seen().len(), asked + 2 + 6);

    // It takes what it sees: that is another address when what we send leaves by another way.
    let other = keys.replace("echo 93.184.216.34", "echo 93.184.216.99");
    let failure = world.run(&other).await.unwrap_err();
    assert!(
        failure.contains(
            "MyDNS.JP took 93.184.216.34, and this host has 93.184.216.99: what is sent leaves by another way"
        ),
        "{failure}"
    );
}

#[tokio::test]
async fn cloudflare_changes_the_address_alone_and_makes_records_only_when_told() {
    let world = World::new().await;
    let old = |id: &str, name: &str, proxied| cloudflare_record(id, "A", name, "93.184.216.1", proxied);
    let records = Arc::new(Mutex::new(vec![
        old("r1", "home.example.org", false),
        old("r2", "blog.example.org", true),
        old("r3", "two.example.org", false),
        old("r4", "two.example.org", false),
    ]));
    let fake = dynamic::cloudflare(world.zone(), Arc::clone(&records)).await;
    let provider =
        |more: &str| format!("[provider.cloudflare]\ntoken = {{ env = 'TOKEN' }}\nserver = '{}'\n{more}", fake.url());
    let hosts = ["home.example.org", "blog.example.org", "two.example.org", "new.example.org"];
    let failure = world.run(&world.keys(&provider(""), &hosts)).await.unwrap_err();
    assert!(failure.contains("two.example.org: Cloudflare has 2 A records of two.example.org"), "{failure}");
    assert!(
        failure.contains("new.example.org: Cloudflare has no A record of new.example.org")
            && failure.contains("create = true"),
        "{failure}"
    );
    for (index, proxied) in [(0, false), (1, true)] {
        let record = records.lock().unwrap()[index].clone();
        let kept = (&record["content"], &record["proxied"], &record["ttl"], &record["comment"]);
        assert_eq!(kept, (&json!("93.184.216.34"), &json!(proxied), &json!(120), &json!("kept by hand")));
    }
    // A proxied record is not looked for at name servers, which show Cloudflare's own addresses.
    let memory = world.memory();
    assert!(memory["hosts"]["blog.example.org"]["ipv4"]["seen_at"].is_string());
    assert!(!world.names.asked.lock().unwrap().contains(&"blog.example.org IN A".to_owned()));

    let hosts = ["home.example.org", "new.example.org"];
    let asked = fake.asked();
    world.run(&world.keys(&provider("create = true\nzone = 'example.org'"), &hosts)).await.unwrap();
    assert_eq!(world.record("new.example.org"), "93.184.216.34");
    assert_eq!(fake.asked(), asked + 4, "the zone once, each record once, and the one that is made");

    let wrong = provider("").replace("'TOKEN'", "'OTHER'");
    world.later(48 * 60);
    let failure = world.run(&world.keys(&wrong, &hosts)).await.unwrap_err();
    assert!(failure.contains("Cloudflare answered 403 Forbidden: \"Authentication error\" (10000)"), "{failure}");
}

#[tokio::test]
async fn duck_dns_takes_all_hosts_at_once_and_ko_is_final() {
    let world = World::new().await;
    world.hosts(&["a.duckdns.org", "b.duckdns.org"]);
    let fake = dynamic::duckdns(world.zone()).await;
    let provider = format!("[provider.duckdns]\ntoken = {{ env = 'TOKEN' }}\nserver = '{}'", fake.url());
    let keys = world.keys(&provider, &["a.duckdns.org", "b.duckdns.org"]);
    world.run(&keys).await.unwrap();
    assert_eq!(world.record("b.duckdns.org"), "93.184.216.34");
    assert_eq!(fake.asked(), 1);
    let keys = world.keys(&provider, &["c.duckdns.org"]);
    let failure = world.run(&keys).await.unwrap_err();
    assert!(failure.contains("Duck DNS answered KO"), "{failure}");
    world.later(10_000);
    world.run(&keys).await.unwrap_err();
    assert_eq!(fake.asked(), 2);
}

#[tokio::test]
async fn desec_keeps_the_ttl() {
    let world = World::new().await;
    let old = json!({ "subname": "home", "type": "A", "ttl": 7200, "records": ["93.184.216.1"] });
    let sets = Arc::new(Mutex::new(BTreeMap::from([("home/A".to_owned(), old)])));
    let fake = dynamic::desec(world.zone(), Arc::clone(&sets)).await;
    let provider =
        |more: &str| format!("[provider.desec]\ntoken = {{ env = 'TOKEN' }}\nserver = '{}'\n{more}", fake.url());
    let hosts = ["home.example.dedyn.io", "example.dedyn.io"];
    let failure = world.run(&world.keys(&provider(""), &hosts)).await.unwrap_err();
    assert!(failure.starts_with("example.dedyn.io: deSEC has no A record of example.dedyn.io"), "{failure}");
    world.run(&world.keys(&provider("create = true"), &hosts)).await.unwrap();
    let sets = sets.lock().unwrap().clone();
    assert_eq!(sets["home/A"]["ttl"], 7200);
    assert_eq!(
        (&sets["home/A"]["records"][0], &sets["/A"]["records"][0]),
        (&json!("93.184.216.34"), &json!("93.184.216.34"))
    );
}

#[tokio::test]
async fn route_53_is_asked_with_a_right_signature_and_keeps_the_ttl() {
    let world = World::new().await;
    let old = ("60".to_owned(), "93.184.216.1".to_owned());
    let records = Arc::new(Mutex::new(BTreeMap::from([
        ("home.example.org A".to_owned(), old.clone()),
        ("zoo.example.org A".to_owned(), old),
    ])));
    let fake = dynamic::route53(world.zone(), Arc::clone(&records), world.clock.clone()).await;
    let provider = |secret: &str, zone: &str| {
        format!(
            "[provider.route53]\naccess_key = {{ env = 'ACCESS' }}\nsecret_key = {{ env = '{secret}' }}\nzone_id = '{zone}'\nserver = '{}'",
            fake.url()
        )
    };
    let hosts = ["home.example.org", "new.example.org"];
    let failure = world.run(&world.keys(&provider("KEY", "Z1"), &hosts)).await.unwrap_err();
    // The list begins with the name that follows: that is not this one.
    assert!(failure.starts_with("new.example.org: Route 53 has no A record of new.example.org"), "{failure}");
    assert_eq!(records.lock().unwrap()["home.example.org A"], ("60".into(), "93.184.216.34".into()));
    for (secret, zone, said) in
        [("WRONG", "Z1", "403 Forbidden, SignatureDoesNotMatch"), ("KEY", "Z2", "404 Not Found, NoSuchHostedZone")]
    {
        world.later(48 * 60);
        let failure = world.run(&world.keys(&provider(secret, zone), &["home.example.org"])).await.unwrap_err();
        assert!(failure.contains(said) && failure.contains("dns unblock"), "{failure}");
    }
}

#[tokio::test]
async fn anybody_else_is_told_with_a_request_of_ones_own() {
    let world = World::new().await;
    world.hosts(&["a.example.org"]);
    let fake = dynamic::generic(world.zone()).await;
    let provider = |key: &str| {
        format!(
            "[provider.url]\nurl = '{}/update?name={{host}}'\nmethod = 'POST'\nbody = '{{\"a\": \"{{ipv4}}\"}}'\nheaders = {{ X-Api-Key = {{ env = '{key}' }} }}\n\
             success = '\"status\":\"ok\"'\nfatal = '\"status\":\"denied\"'",
            fake.url()
        )
    };
    let failure = world.run(&world.keys(&provider("OTHER"), &["a.example.org"])).await.unwrap_err();
    assert!(
        failure.contains("\"denied\"") && failure.contains("which `fatal` means") && failure.contains("dns unblock"),
        "{failure}"
    );
    world.run(&world.keys(&provider("KEY"), &["a.example.org"])).await.unwrap();
    assert_eq!(world.record("a.example.org"), "93.184.216.34");
    let failure = world.run(&world.keys(&provider("KEY"), &["b.example.org"])).await.unwrap_err();
    assert!(failure.contains("no such host") && failure.contains("told again in 30 min"), "{failure}");
}
