//! The whole way through the program to an S3 server and back: plain, in a repository, slowly, and when the server dies.
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use aws_sdk_s3::types::ObjectLockRetentionMode;
use rusuban::config::secret::Secret;

use crate::repository::noise;
use crate::support::{
    ceph::{self, CephBucket, DELETE, NEEDED, User},
    garage::{BUCKET, Garage, REGION, garage},
    restic::Restic,
    trees::{assert_equal, sh},
};

fn rusuban(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rusuban"))
        .arg("--home")
        .arg(home)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn succeeds(home: &Path, arguments: &[&str]) -> String {
    let output = rusuban(home, arguments);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}\n{text}");
    text
}

/// A bucket, and a key to it.
struct Place {
    endpoint: String,
    bucket: String,
    region: &'static str,
    credentials: (Secret, Secret),
}

impl Place {
    fn of(server: &Garage) -> Self {
        let (endpoint, bucket, region) = (server.endpoint.clone(), BUCKET.to_owned(), REGION);
        Self { endpoint, bucket, region, credentials: Garage::credentials() }
    }

    /// The repository `home` below that prefix, for stock restic.
    fn restic(&self, prefix: &str) -> Restic {
        let place = format!("s3:{}/{}/{prefix}/home", self.endpoint, self.bucket);
        Restic::new(place.as_ref(), "correct horse")
            .with_environment("AWS_ACCESS_KEY_ID", self.credentials.0.reveal())
            .with_environment("AWS_SECRET_ACCESS_KEY", self.credentials.1.reveal())
            .with_environment("AWS_DEFAULT_REGION", self.region)
    }
}

/// A home whose backups go there, below a prefix of its own.
fn home(place: &Place, prefix: &str, more: &str, job: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("jobs")).unwrap();
    fs::create_dir_all(home.path().join("files/deeper")).unwrap();
    for (name, bytes) in [("one", 1_500_000), ("deeper/two", 40_000), ("deeper/none", 0)] {
        let bytes = noise(bytes, bytes as u32);
        fs::write(home.path().join("files").join(name), bytes).unwrap();
    }
    sh(&format!(
        "sqlite3 '{}' 'CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<9000) INSERT INTO t SELECT hex(i) FROM n'",
        home.path().join("app.db").display()
    ));
    let (key, secret) = &place.credentials;
    for (name, secret) in [("password", "correct horse"), ("key", key.reveal()), ("secret", secret.reveal())] {
        fs::write(home.path().join(name), secret).unwrap();
        sh(&format!("chmod 600 '{}'", home.path().join(name).display()));
    }
    let Place { endpoint, bucket, region, .. } = place;
    let settings = format!(
        "[bucket.home]\ns3 = \"{bucket}/{prefix}\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\n\
         access_key = {{ file = \"key\" }}\nsecret_key = {{ file = \"secret\" }}\n{more}\n\
         [repository.home]\nbucket = \"home\"\npassword = {{ file = \"password\" }}\n"
    );
    fs::write(home.path().join("rusuban.toml"), settings).unwrap();
    let job = format!("kind = \"backup\"\n{job}\n[[source]]\npath = \"files\"\n[[source]]\nsqlite = \"app.db\"\n");
    fs::write(home.path().join("jobs/keep.toml"), job).unwrap();
    home
}

fn assert_back(home: &Path) {
    succeeds(home, &["restore", "keep", "--to", home.join("back").to_str().unwrap()]);
    assert_equal(&home.join("files"), &home.join("back/files"));
    let dump = |file: &Path| sh(&format!("sqlite3 '{}' .dump", file.display()));
    assert_eq!(dump(&home.join("app.db")), dump(&home.join("back/app.db")));
}

#[test]
fn a_plain_backup_goes_there_and_comes_back_also_slowly() {
    for (prefix, more) in [("plain", ""), ("slowly", "upload_limit = \"1 MiB\"\ndownload_limit = \"2 MiB\"")] {
        let home = home(&Place::of(garage()), prefix, more, "bucket = \"home\"\nkeep = { last = 2 }");
        let home = home.path();
        let rounds = if more.is_empty() { 3 } else { 1 };
        if more.is_empty() {
            assert!(succeeds(home, &["bucket", "test", "home"]).contains("works"));
        }
        for _ in 0..rounds {
            assert!(succeeds(home, &["run", "keep"]).contains("read back"));
        }
        let listed = succeeds(home, &["backups", "keep"]);
        assert_eq!(listed.matches("files, app.db").count(), rounds.min(2), "{listed}");
        assert!(succeeds(home, &["verify", "keep"]).contains("whole"));
        assert_back(home);
    }
}

#[test]
fn a_repository_is_made_there_and_stock_restic_reads_it() {
    assert_repository_lives(&Place::of(garage()), "repository");
}

/// A repository is made there, gets backups, forgets and prunes, and gives all back, to stock restic too.
fn assert_repository_lives(place: &Place, prefix: &str) {
    let home = home(place, prefix, "", "repository = \"home\"\nkeep = { last = 2 }");
    let home = home.path();
    succeeds(home, &["repository", "init", "home"]);
    for round in 0..3 {
        fs::write(home.join("files/changes"), format!("round {round}")).unwrap();
        assert!(succeeds(home, &["run", "keep"]).contains("read back"));
    }
    let listed = succeeds(home, &["backups", "keep"]);
    assert_eq!(listed.matches("files, app.db").count(), 2, "{listed}");
    assert!(succeeds(home, &["verify", "keep"]).contains("whole"));
    assert!(succeeds(home, &["repository", "check", "home", "--read-data"]).contains("whole"));
    succeeds(home, &["repository", "prune", "home", "--now"]);
    assert_back(home);
    assert_eq!(succeeds(home, &["dump", "keep", home.join("files/changes").to_str().unwrap()]), "round 2");

    let restic = place.restic(prefix);
    restic.check().unwrap();
    let by_restic = home.join("by-restic");
    restic.restore("latest", &by_restic);
    assert_equal(&home.join("files"), &by_restic.join(home.strip_prefix("/").unwrap()).join("files"));
}

#[test]
fn a_server_that_dies_meanwhile_leaves_a_red_run() {
    let server = Garage::start();
    let more = "upload_limit = \"128 KiB\"\nretries = 1\ntimeout = \"2s\"";
    let home = home(&Place::of(&server), "dies", more, "bucket = \"home\"");
    let path = home.path().to_owned();
    let running = std::thread::spawn(move || rusuban(&path, &["run", "keep"]));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    drop(server);
    let output = running.join().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("failed") && text.contains("unreachable"), "{text}");
    let runs = succeeds(home.path(), &["runs"]);
    assert!(runs.contains("failed") && !runs.contains("succeeded"), "{runs}");
}

mod ceph_server {
    use super::*;

    fn place(bucket: &CephBucket, user: User) -> Place {
        let (endpoint, bucket) = (ceph::endpoint(), bucket.name.clone());
        Place { endpoint, bucket, region: "us-east-1", credentials: user.credentials() }
    }

    async fn repository_lives(bucket: &CephBucket, user: User) {
        let place = place(bucket, user);
        tokio::task::spawn_blocking(move || assert_repository_lives(&place, "repository")).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "run by dev/test --ceph"]
    async fn a_repository_lives_with_a_key_that_may_do_what_is_needed_and_no_more() {
        let bucket = CephBucket::plain().await;
        bucket.let_guest(&[&NEEDED[..], &[DELETE]].concat()).await;
        repository_lives(&bucket, User::Guest).await;
        assert_eq!(bucket.hidden().await, [""; 0]);
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "run by dev/test --ceph"]
    async fn a_repository_lives_in_a_locked_bucket_where_a_prune_hides_and_frees_nothing() {
        let bucket = CephBucket::locked(ObjectLockRetentionMode::Compliance).await;
        repository_lives(&bucket, User::House).await;
        let hidden = bucket.hidden().await;
        for folder in ["repository/home/snapshots/", "repository/home/index/"] {
            assert!(hidden.iter().any(|key| key.starts_with(folder)), "{folder} in {hidden:?}");
        }
    }

    /// Three backups by a key that may add and not remove, of which the rule would keep one.
    async fn only_added(keeper: &'static str) {
        let bucket = CephBucket::plain().await;
        bucket.let_guest_add("added/home").await;
        let place = place(&bucket, User::Guest);
        let work = move || {
            let home = home(&place, "added", "", &format!("{keeper} = \"home\"\nkeep = {{ last = 1 }}"));
            let home = home.path();
            if keeper == "repository" {
                succeeds(home, &["repository", "init", "home"]);
            }
            for round in 1..=3 {
                let told = succeeds(home, &["run", "keep"]);
                assert!(told.contains(&format!("read back; {round} kept")), "{told}");
                assert_eq!(told.contains("warning: ") && told.contains("refused: "), round > 1, "{told}");
            }
            let listed = succeeds(home, &["backups", "keep"]);
            assert_eq!(listed.matches("files, app.db").count(), 3, "{listed}");
            assert!(succeeds(home, &["verify", "keep"]).contains("whole"));
            assert_back(home);
        };
        tokio::task::spawn_blocking(work).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "run by dev/test --ceph"]
    async fn a_key_that_may_only_add_keeps_plain_backups_and_tells_what_did_not_go() {
        only_added("bucket").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "run by dev/test --ceph"]
    async fn a_key_that_may_only_add_and_remove_its_locks_keeps_backups_in_a_repository() {
        only_added("repository").await;
    }
}

/// The commands that a recovery kit prints, in its order.
fn commands(home: &Path) -> Vec<String> {
    let kits: serde_json::Value = serde_json::from_str(&succeeds(home, &["--json", "recovery-kit"])).unwrap();
    let parts = kits[0]["sections"].as_array().unwrap().iter().flat_map(|section| section["parts"].as_array().unwrap());
    let commands = parts.filter_map(|part| part["commands"].as_array());
    commands.map(|lines| lines.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")).collect()
}

/// Types these into a shell on a bare machine: in an empty folder, with no settings.
fn type_in(folder: &Path, commands: &str) {
    fs::create_dir_all(folder).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_rusuban")).parent().unwrap().display().to_string();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", format!("{program}:/usr/local/bin:/usr/bin:/bin"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_a_recovery_kit_says_brings_everything_back_on_a_bare_machine() {
    for in_folder in [false, true] {
        let garage = garage();
        let home = home(&Place::of(garage), "kit", "[bucket.near]\nfolder = \"near\"", "repository = \"home\"");
        let at = home.path();
        if in_folder {
            let settings = fs::read_to_string(at.join("rusuban.toml")).unwrap();
            let settings = settings.replace("bucket = \"home\"", "bucket = \"near\"\npath = \"a/b\"");
            fs::write(at.join("rusuban.toml"), settings).unwrap();
        }
        // A password that a shell and TOML would each like to read otherwise.
        fs::write(at.join("password"), "it's \"$HOME\" \\ `x`").unwrap();
        succeeds(at, &["repository", "init", "home"]);
        succeeds(at, &["run", "keep"]);
        let bare = tempfile::tempdir().unwrap();
        let commands = commands(at);
        let [ours, with_restic] = commands.as_slice() else { panic!("{commands:?}") };
        type_in(&bare.path().join("ours"), ours);
        assert_equal(&at.join("files"), &bare.path().join("ours/restored/files"));
        type_in(&bare.path().join("restic"), with_restic);
        let by_restic = bare.path().join("restic/restored").join(at.join("files").strip_prefix("/").unwrap());
        assert_equal(&at.join("files"), &by_restic);
        // The same for the printer, for its owner's eyes only, and never over another file.
        let page = at.join("kit.html");
        succeeds(at, &["recovery-kit", "home", "--html", page.to_str().unwrap()]);
        let html = fs::read_to_string(&page).unwrap();
        assert!(html.contains("it&#39;s") || html.contains("it's &quot;$HOME&quot;"), "{html}");
        assert_eq!(sh(&format!("stat -c %a '{}'", page.display())).trim(), "600");
        assert!(!rusuban(at, &["recovery-kit", "--html", page.to_str().unwrap()]).status.success());
        // With another password in its file, there is no kit.
        fs::write(at.join("password"), "another").unwrap();
        let output = rusuban(at, &["recovery-kit"]);
        assert!(!output.status.success() && output.stdout.is_empty(), "a kit that opens nothing was printed");
    }
}
