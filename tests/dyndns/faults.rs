//! Bad days of those who are asked: nothing is believed that was not said, nobody is asked again too soon, and no run hangs.
use std::time::{Duration, Instant};

use super::World;
use crate::support::{
    dynamic,
    faults::{self, Fault},
};

#[tokio::test]
async fn a_provider_s_bad_day_is_waited_out_and_never_taken_for_success() {
    let days = faults::ALL.map(|fault| async move {
        let world = World::new().await;
        world.hosts(&["a.example.org"]);
        let fake = dynamic::dyndns2(world.zone(), false).await;
        let keys = world.keys(
            &format!(
                "[provider.dyndns2]\nserver = '{}/nic/update'\nuser = 'user'\npassword = {{ env = 'PASSWORD' }}",
                fake.url()
            ),
            &["a.example.org"],
        );
        // A redirect to the same server asks it again.
        fake.days.come(std::iter::repeat_n(fault, if fault == Fault::RedirectLoop { 6 } else { 1 }));
        let began = Instant::now();
        let failure = world.run(&keys).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(20), "{fault:?} took {:?}", began.elapsed());
        assert!(failure.contains("it is told again in ") && failure.len() < 600, "{fault:?}: {failure}");
        assert!(!failure.contains("secret-"), "{fault:?}: {failure}");
        assert_eq!(world.record("a.example.org"), "93.184.216.1", "{fault:?}");
        let asked = fake.asked();
        // Too fast, in two seconds: no service is asked again within a minute.
        world.clock.step(chrono::TimeDelta::seconds(50));
        world.run(&keys).await.unwrap_err();
        assert_eq!(fake.asked(), asked, "{fault:?}");
        world.later(31);
        world.run(&keys).await.unwrap();
        assert_eq!(world.record("a.example.org"), "93.184.216.34", "{fault:?}");
    });
    futures_util::future::join_all(days).await;
}

#[tokio::test]
async fn every_provider_takes_garbage_for_garbage() {
    let world = World::new().await;
    let secret = "{ env = 'X' }";
    let bad =
        [Fault::GarbageInside, Fault::ErrorInside, Fault::TenMegabytes, Fault::Garbage, Fault::CutOff, Fault::Broken];
    for fault in bad {
        // The fakes have no paths of their own: each provider is led to the fault by whatever it asks for.
        let at = crate::support::http::Server::start(move |seen| fault.reply(seen)).await;
        let url = at.url("");
        for provider in [
            format!("[provider.mydns]\nuser = 'mydns1'\npassword = {secret}\nserver = '{url}'"),
            format!("[provider.cloudflare]\ntoken = {secret}\nserver = '{url}'"),
            format!("[provider.desec]\ntoken = {secret}\nserver = '{url}'"),
            format!("[provider.duckdns]\ntoken = {secret}\nserver = '{url}'"),
            format!(
                "[provider.route53]\naccess_key = {secret}\nsecret_key = {secret}\nzone_id = 'Z1'\nserver = '{url}'"
            ),
            format!("[provider.url]\nurl = '{url}/?{{ipv4}}'\nsuccess = '^ok$'"),
        ] {
            world.kept.facts.lock().unwrap().clear();
            let failure = world.run(&world.keys(&provider, &["a.duckdns.org"])).await.unwrap_err();
            assert!(failure.contains("it is told again in 30 min, not before"), "{fault:?} {provider}: {failure}");
            assert!(!failure.contains("secret-") && failure.len() < 600, "{fault:?} {provider}: {failure}");
        }
    }
}

#[tokio::test]
async fn a_service_that_says_who_calls_may_have_any_day() {
    let world = World::new().await;
    let server = faults::server().await;
    for fault in faults::ALL {
        let lines = rusuban::dyndns::Lines::new(world.cx.services.http.clone(), Duration::from_millis(500));
        let sources: rusuban::dyndns::own::Sources =
            toml::from_str(&format!("web = ['{}']\ndns = []\nagree = 1", server.url(&fault.path()))).unwrap();
        let around = rusuban::dyndns::own::Around {
            folder: world.cx.services.home.clone(),
            tree: rusuban::process::Tree::new(&world.cx.services.home, world.cx.run),
            cancelled: world.cx.cancelled.clone(),
        };
        let why = sources.find(rusuban::dyndns::Family::Ipv4, &lines, &around, false).await.unwrap_err();
        assert!(why.starts_with("no source knows an address that others can reach: web 127.0.0.1"), "{fault:?}: {why}");
        assert!(why.len() < 500, "{fault:?}: {why}");
    }
}
