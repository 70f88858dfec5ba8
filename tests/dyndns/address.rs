//! What this host's address is: who is asked, who is believed, and what is said when they disagree.
use std::sync::{Arc, Mutex};

use super::{World, addresses, echo};
use crate::support::{
    dynamic,
    http::{Server, answer},
    name_server::Mood,
    router,
};

/// A provider that takes all.
async fn provider(world: &World) -> (dynamic::Fake, String) {
    world.hosts(&["a.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), false).await;
    let keys = format!(
        "[provider.dyndns2]\nserver = '{}/nic/update'\nuser = 'user'\npassword = {{ env = 'PASSWORD' }}",
        fake.url()
    );
    (fake, keys)
}

#[tokio::test]
async fn nothing_changes_when_the_sources_disagree_and_who_said_what_is_told() {
    let world = World::new().await;
    let (fake, keys) = provider(&world).await;
    let other = echo(Arc::new(Mutex::new(addresses("93.184.216.77")))).await;
    let sources = |list: &str| format!("address = {{ {list} }}");
    let dns = format!("dns = ['whoami.test CH TXT @{}', 'myip.test A @{}']", world.names.address, world.names.address);
    let failure = world
        .run(&world.keys_with(&sources(&format!("web = ['{}'], {dns}", other.url("/"))), &keys, &["a.example.org"]))
        .await
        .unwrap_err();
    assert_eq!(
        failure,
        format!(
            "IPv4: the sources disagree, so nothing was changed: web {} says 93.184.216.77; dns {} says 93.184.216.34",
            other.address, world.names.address
        )
    );
    assert_eq!(fake.asked(), 0);

    // One that is silent, or answers with a page, is replaced by the next one.
    let page =
        Server::start(|_| answer("200 OK", "content-type: text/html\r\n", format!("<html>{}</html>", "x".repeat(100))))
            .await;
    let web = format!("web = ['{}', 'http://127.0.0.1:1/', '{}']", page.url("/"), world.web.url("/"));
    world.run(&world.keys_with(&sources(&format!("{web}, {dns}")), &keys, &["a.example.org"])).await.unwrap();
    assert_eq!(world.record("a.example.org"), "93.184.216.34");

    // One alone is not believed, and the others' reasons are told.
    let alone = sources(&format!("web = ['{}', '{}'], dns = []", page.url("/"), world.web.url("/")));
    let failure = world.run(&world.keys_with(&alone, &keys, &["a.example.org"])).await.unwrap_err();
    assert!(
        failure.contains("1 of the 2 sources that must agree answered") && failure.contains("it answers with a page"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_name_server_is_believed_only_when_it_answers_what_was_asked() {
    let world = World::new().await;
    let (_fake, keys) = provider(&world).await;
    let keys = world.keys(&keys, &["a.example.org"]);
    let set = |mood| *world.names.mood.lock().unwrap() = mood;
    set(Mood::Forged);
    world.run(&keys).await.unwrap();
    let run = async |mood| {
        set(mood);
        world.run(&keys).await.unwrap_err()
    };
    assert!(run(Mood::Refuses).await.contains("the server says: "));
    // The others are waited for, all at once.
    let (world, keys) = (&world, &keys);
    let silent = [Mood::Garbage, Mood::Other, Mood::Silent].map(|mood| async move {
        let names = crate::support::name_server::NameServer::start().await;
        *names.mood.lock().unwrap() = mood;
        let keys = keys.replace(&format!("TXT @{}", world.names.address), &format!("TXT @{}", names.address));
        read_and_run(world, &keys).await
    });
    for failure in futures_util::future::join_all(silent).await {
        assert!(failure.contains("did not answer within 5 s"), "{failure}");
    }
}

async fn read_and_run(world: &World, keys: &str) -> String {
    format!("{:#}", crate::support::kind::read("dynamic-dns", keys).run(&world.cx).await.unwrap_err())
}

#[tokio::test]
async fn a_router_that_says_another_thing_than_the_web_is_told_in_plain_words() {
    let world = World::new().await;
    let (fake, keys) = provider(&world).await;
    let outer = Arc::new(Mutex::new("100.72.3.4".to_owned()));
    let router = router::start(Arc::clone(&outer)).await;
    let sources = format!(
        "address = {{ web = ['{}'], dns = [], router = '{}' }}",
        world.web.url("/"),
        router.url("/rootDesc.xml")
    );
    let keys = world.keys_with(&sources, &keys, &["a.example.org"]);
    for (address, said) in [
        (
            "100.72.3.4",
            "you are behind your provider's NAT: nobody outside can reach this host (router says 100.72.3.4",
        ),
        ("192.168.178.2", "your router is itself behind a NAT"),
        ("93.184.216.99", "the router says one thing and the web another, so nothing was changed"),
    ] {
        address.clone_into(&mut outer.lock().unwrap());
        let failure = world.run(&keys).await.unwrap_err();
        assert!(failure.contains(said) && failure.contains("says 93.184.216.34"), "{failure}");
    }
    assert_eq!(fake.asked(), 0);
    // A line that is down: there are not two who agree.
    "0.0.0.0".clone_into(&mut outer.lock().unwrap());
    let failure = world.run(&keys).await.unwrap_err();
    assert!(failure.contains("1 of the 2 sources that must agree answered") && failure.contains("router"), "{failure}");
    "93.184.216.34".clone_into(&mut outer.lock().unwrap());
    world.run(&keys).await.unwrap();
    assert_eq!(world.record("a.example.org"), "93.184.216.34");
}

#[tokio::test]
async fn addresses_that_nobody_outside_can_reach_are_told_to_nobody() {
    let world = World::new().await;
    let (fake, keys) = provider(&world).await;
    let keys = world.keys(&keys, &["a.example.org"]);
    for (address, why) in [
        ("192.168.1.5", "a private address, of a network at home"),
        ("100.64.0.9", "an address that a provider shares among its customers"),
        ("203.0.113.9", "an address that is kept for documentation"),
    ] {
        world.moves_to(address);
        let failure = world.run(&keys).await.unwrap_err();
        assert!(
            failure.contains("no source knows an address that others can reach") && failure.contains(why),
            "{failure}"
        );
    }
    assert_eq!(fake.asked(), 0);
    // An interface of this machine has none either, and says so.
    let sources = "address = { web = [], dns = [], interface = 'lo', agree = 1 }";
    let provider = keys.split("[provider").nth(1).unwrap().split("[[host").next().unwrap();
    let failure =
        world.run(&world.keys_with(sources, &format!("[provider{provider}"), &["a.example.org"])).await.unwrap_err();
    assert!(failure.contains("interface lo"), "{failure}");
}

#[tokio::test]
async fn each_machine_keeps_its_half_of_the_address_when_the_network_changes() {
    let world = World::new().await;
    world.hosts(&["nas.example.org", "own.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), false).await;
    let keys = |network: &str| {
        let sources = format!(
            "ipv4 = false\nipv6 = true\naddress = {{ web = [], dns = [], agree = 1, command = ['echo', '{network}::99'] }}"
        );
        let provider = format!(
            "[provider.dyndns2]\nserver = '{}/nic/update'\nuser = 'user'\npassword = {{ env = 'PASSWORD' }}",
            fake.url()
        );
        let keys = world.keys_with(&sources, &provider, &["nas.example.org", "own.example.org"]);
        keys.replace("name = 'nas.example.org'", "name = 'nas.example.org'\nsuffix = '::1:2:3:4'")
    };
    world.run(&keys("2a01:4f8:1:2")).await.unwrap();
    assert_eq!(world.record("nas.example.org"), "93.184.216.1 and 2a01:4f8:1:2:1:2:3:4");
    assert_eq!(world.record("own.example.org"), "93.184.216.1 and 2a01:4f8:1:2::99");
    world.run(&keys("2a01:4f8:7:8")).await.unwrap();
    assert_eq!(world.record("nas.example.org"), "93.184.216.1 and 2a01:4f8:7:8:1:2:3:4");
}

#[tokio::test]
async fn a_record_that_does_not_follow_is_looked_at_again_and_in_the_end_a_failure() {
    let world = World::new().await;
    let (fake, provider) = provider(&world).await;
    let keys = world.keys(&provider, &["a.example.org"]);
    // It says that it took it, and its name servers know nothing of that.
    fake.says.lock().unwrap().push("good 93.184.216.34".to_owned());
    let summary = world.run(&keys).await.unwrap();
    let still = format!("93.184.216.34 was taken, but {} still says 93.184.216.1", world.names.address);
    assert!(summary.contains(&still) && summary.contains("it may be remembered for 60 s"), "{summary}");
    world.later(30);
    assert!(world.run(&keys).await.unwrap().contains(&still));
    world.later(31);
    let failure = world.run(&keys).await.unwrap_err();
    assert!(failure.contains("was taken 61 min ago, and "), "{failure}");
    assert_eq!(fake.asked(), 1);
    world.names.zone.lock().unwrap().insert("a.example.org".into(), addresses("93.184.216.34"));
    let summary = world.run(&keys).await.unwrap();
    assert!(summary.contains("the record says 93.184.216.34"), "{summary}");
    assert!(world.run(&keys).await.unwrap().contains("nobody was told"));
}

#[tokio::test]
async fn without_a_word_the_zone_s_own_servers_are_asked() {
    use rusuban::dyndns::record::{Look, look_by};
    let world = World::new().await;
    let at = world.names.address;
    world.names.zone.lock().unwrap().insert("ns.example.org".into(), addresses("127.0.0.1"));
    world.hosts(&["home.example.org"]);
    let look = async |host: &str, address: &str| look_by(&[at], at.port(), host, address.parse().unwrap()).await;
    assert_eq!(look("home.example.org", "93.184.216.1").await, Look::Right { server: at });
    let Look::Other { why, ttl } = look("home.example.org", "93.184.216.2").await else { panic!() };
    assert_eq!((why, ttl), (format!("{at} still says 93.184.216.1"), Some(60)));
    let Look::Other { why, .. } = look("home.example.org", "2a01::1").await else { panic!() };
    assert_eq!(why, format!("{at} knows no AAAA record of it"));
    let Look::Other { why, .. } = look("nobody.example.org", "93.184.216.1").await else { panic!() };
    assert_eq!(why, format!("{at} knows no nobody.example.org"));
    // From the host's name upwards, to the zone.
    let asked = world.names.asked.lock().unwrap()[..3].to_vec();
    assert_eq!(asked, ["home.example.org IN NS", "example.org IN NS", "ns.example.org IN A"]);
    let Look::Unknown { why } = look("home.example.com", "93.184.216.1").await else { panic!() };
    assert_eq!(why, "no name server of home.example.com was found");
    *world.names.mood.lock().unwrap() = Mood::Alias;
    let Look::Other { why, .. } =
        rusuban::dyndns::record::look("home.example.org", "93.184.216.1".parse().unwrap(), Some(at)).await
    else {
        panic!()
    };
    assert_eq!(why, format!("{at} says that it is another name of elsewhere.test."));
}
