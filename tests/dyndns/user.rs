//! `rusuban dns`, as a person uses it.
use std::fs;

use crate::{
    cli::{run, text},
    support::dynamic,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_how_it_stands_and_lifts_a_stop() {
    let world = super::World::new().await;
    world.hosts(&["home.example.org"]);
    let fake = dynamic::dyndns2(world.zone(), false).await;
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("jobs")).unwrap();
    let job = |password: &str| {
        let provider = format!(
            "[provider.dyndns2]\nserver = '{}/nic/update'\nuser = 'user'\npassword = {{ command = ['echo', '{password}'] }}",
            fake.url()
        );
        let job = format!("kind = 'dynamic-dns'\n{}", world.keys(&provider, &["home.example.org"]));
        fs::write(home.path().join("jobs/dns.toml"), job).unwrap();
    };
    let rusuban = |arguments: &[&str], code: i32| {
        let output = run(home.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        text(&output)
    };
    job("wrong");
    assert!(rusuban(&["dns", "status"], 0).contains("not told yet"));
    assert!(rusuban(&["dns", "unblock", "dns"], 4).contains("nothing has run yet"));
    let red = rusuban(&["run", "dns"], 1);
    assert!(red.contains("answered badauth: user and password do not fit"), "{red}");
    let status = rusuban(&["dns", "status"], 0);
    assert!(status.contains("stopped") && status.contains("rusuban dns unblock dns"), "{status}");
    rusuban(&["run", "dns"], 1);
    assert_eq!(fake.asked(), 1);

    let json: serde_json::Value =
        serde_json::from_slice(&run(home.path(), &["dns", "status", "dns", "--json"]).stdout).unwrap();
    assert!(json[0]["stopped"]["why"].as_str().unwrap().contains("badauth"), "{json:#}");
    assert!(rusuban(&["dns", "unblock", "dns", "no.example.org"], 4).contains("has no host `no.example.org`"));
    let lifted = rusuban(&["dns", "unblock", "dns"], 0);
    assert!(lifted.contains("1 stop of dns lifted"), "{lifted}");
    assert!(rusuban(&["dns", "status"], 0).contains("lifted"));
    // Lifted, and wrong still: it is told once, and stops again.
    rusuban(&["run", "dns"], 1);
    rusuban(&["run", "dns"], 1);
    assert_eq!(fake.asked(), 2);

    // Mended: the job's settings are others now, which ends the stop by itself.
    job("secret-PASSWORD");
    let green = rusuban(&["run", "dns"], 0);
    assert!(green.contains("was told 93.184.216.34 for the first time"), "{green}");
    let status = rusuban(&["dns", "status"], 0);
    assert!(status.contains("93.184.216.34") && status.contains("right"), "{status}");
    assert!(rusuban(&["dns", "unblock", "dns"], 0).contains("nothing of dns is stopped"));
    let again = rusuban(&["run", "dns"], 0);
    assert!(again.contains("93.184.216.34 as before, since "), "{again}");
    assert_eq!(fake.asked(), 3);
    assert!(rusuban(&["dns", "unblock", "dns", "--forget"], 0).contains("begins anew"));

    fs::write(home.path().join("jobs/other.toml"), "kind = 'command'\ncommand = ['true']\n").unwrap();
    assert!(rusuban(&["dns", "status", "other"], 4).contains("another kind"));
    assert!(rusuban(&["dns", "unblock", "other"], 4).contains("another kind"));
}
