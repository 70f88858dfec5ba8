//! `container-update` on a real engine, with a real registry: what is replaced, what goes back, what is left alone.
use std::{sync::Arc, time::Duration};

use rusuban::{
    clock::Clock,
    docker::{Snapshot, label},
    kinds::Cx,
    model::RunId,
};

use crate::support::{
    docker::{BASE, Dockerd, dockerd},
    kind::{Kept, context, read},
};

/// A house with an engine. Facts stay from run to run.
struct House {
    dockerd: &'static Dockerd,
    home: tempfile::TempDir,
    facts: std::collections::BTreeMap<String, serde_json::Value>,
    runs: i64,
}

struct Ran {
    summary: Result<String, String>,
    log: String,
}

impl House {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { dockerd: dockerd(), home, facts: std::collections::BTreeMap::new(), runs: 0 }
    }

    fn context(&mut self) -> (Cx, Arc<Kept>) {
        let (mut cx, kept) = context(self.home.path(), Clock::system(), []);
        self.runs += 1;
        cx.run = RunId(self.runs);
        Arc::get_mut(&mut cx.services).unwrap().docker = self.dockerd.docker();
        kept.facts.lock().unwrap().clone_from(&self.facts);
        (cx, kept)
    }

    /// One run of a job with these keys.
    async fn night(&mut self, keys: &str) -> Ran {
        let (cx, kept) = self.context();
        self.run(&cx, &kept, keys).await
    }

    async fn run(&mut self, cx: &Cx, kept: &Kept, keys: &str) -> Ran {
        let watch = if keys.contains("watch = ") { "" } else { "watch = '1s'\n" };
        let kind = read("container-update", &format!("{watch}wait = '4s'\n{keys}"));
        let summary = kind.run(cx).await.map_err(|error| format!("{error:#}"));
        assert!(kept.debts.lock().unwrap().is_empty());
        self.facts.clone_from(&kept.facts.lock().unwrap());
        Ran { summary, log: kept.text() }
    }

    /// Gives a name to another image: base with these lines.
    fn image(&self, name: &str, lines: &str) {
        self.dockerd.build(name, &format!("FROM {BASE}\n{lines}"));
    }

    fn id(&self, name: &str) -> String {
        self.dockerd.inspect(name)["Id"].as_str().unwrap().to_owned()
    }

    fn in_it(&self, container: &str, line: &str) -> String {
        self.dockerd.cli(&["exec", container, "sh", "-c", line])
    }

    async fn snapshots(&self) -> Vec<Snapshot> {
        self.dockerd.engine().await.snapshots(label::JOB, "job").await.unwrap()
    }

    fn names(&self) -> Vec<String> {
        let listed = self.dockerd.cli(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_image_comes_with_its_defaults_and_the_containers_own_settings_and_data_stay() {
    let mut house = House::new();
    let docker = house.dockerd;
    house.image("blog:1", "ENV VERSION=1 COLOUR=blue OLD=1\nVOLUME /data");
    docker.run("blog", &["-e", "TOKEN=now", "-e", "COLOUR=red", "--restart", "always", "-p", "18080:80", "blog:1"]);
    house.in_it("blog", "echo kept > /data/file; echo written > /file");
    let keys = "containers = ['blog']\npull = false";
    assert_eq!(house.night(keys).await.summary.unwrap(), "1 up to date");
    let old = house.id("blog");

    house.image("blog:1", "ENV VERSION=2 COLOUR=green NEW=1\nVOLUME /data");
    let ran = house.night(&format!("{keys}\nreport = true")).await;
    assert_eq!(ran.summary.unwrap(), "1 has a newer image (blog)");
    assert_eq!((house.id("blog"), house.snapshots().await.len()), (old.clone(), 0));

    let ran = house.night(&format!("{keys}\ncheck = ['sh', '-c', 'test \"$VERSION\" = 2']")).await;
    let summary = ran.summary.unwrap();
    assert!(summary.starts_with("1 updated (blog ") && summary.contains(" → "), "{summary}");
    let blog = docker.inspect("blog");
    assert_ne!(blog["Id"], old.as_str());
    assert_eq!((&blog["Image"], &blog["Config"]["Image"]), (&docker.inspect("blog:1")["Id"], &"blog:1".into()));
    assert_eq!(blog["HostConfig"]["RestartPolicy"]["Name"], "always");
    assert_eq!(blog["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "18080");
    let environment = house.in_it("blog", "echo $VERSION $COLOUR $NEW$OLD $TOKEN; cat /data/file; test ! -e /file");
    assert_eq!(environment, "2 red 1 now\nkept");
    assert_eq!(house.names(), ["blog running"]);
    let snapshots = house.snapshots().await;
    assert_eq!(snapshots[0].names, ["blog:before-update-blog"]);
    assert_eq!(docker.cli(&["run", "--rm", "blog:before-update-blog", "cat", "/file"]), "written");
    assert_eq!(house.night(keys).await.summary.unwrap(), "1 up to date");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_goes_back_and_is_not_tried_again_and_what_needs_it_stays_behind() {
    let mut house = House::new();
    let docker = house.dockerd;
    house.image("db:1", "ENV VERSION=1");
    house.image("web:1", "ENV VERSION=1");
    let compose = |service: &str, needs: &str| {
        let label = |name: &str, value: &str| format!("com.docker.compose.{name}={value}");
        [label("project", "p"), label("service", service), label("depends_on", needs)]
    };
    // By name the one that needs comes first.
    for (name, image, service, needs) in
        [("p-a-web", "web:1", "web", "db:service_started:false"), ("p-db", "db:1", "db", "")]
    {
        let labels = compose(service, needs);
        let labels: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
        docker.run(name, &[&labels[..], &[image]].concat());
    }
    docker.run("alone", &["web:1"]);
    house.image("web:1", "ENV VERSION=2");
    house.image("db:1", "ENV VERSION=2\nHEALTHCHECK --interval=200ms --retries=2 CMD echo no tables; false");
    let (db, web) = (house.id("p-db"), house.id("p-a-web"));
    let keys = "compose = ['p']\ncontainers = ['alone', 'gone']\npull = false";
    let ran = house.night(keys).await;
    let said = ran.summary.unwrap_err();
    assert!(said.contains("no container `gone`"), "{said}");
    assert!(
        said.contains(
            "p-db: p-db runs again as it was before: the new container is not well: its health check fails: no tables"
        ),
        "{said}"
    );
    assert!(said.contains("; 1 updated (alone "), "{said}");
    assert!(said.ends_with("1 went back (p-db), 1 not tried (p-a-web)"), "{said}");
    assert!(ran.log.contains("w p-a-web: not updated, because it needs p-db, which was not\n"), "{}", ran.log);
    assert_eq!((house.id("p-db"), house.id("p-a-web")), (db.clone(), web));
    assert_eq!(house.names(), ["alone running", "p-a-web running", "p-db running"]);
    let mut snapshots: Vec<String> = house.snapshots().await.into_iter().flat_map(|one| one.names).collect();
    snapshots.sort();
    assert_eq!(snapshots, ["db:before-update-p-db", "web:before-update-alone"]);

    let keys = "compose = ['p']\npull = false";
    let ran = house.night(keys).await;
    assert_eq!(ran.summary.unwrap(), "2 not tried (p-db, p-a-web)");
    assert!(ran.log.contains("was bad and is not tried again until there is another"), "{}", ran.log);
    assert_eq!(house.id("p-db"), db);

    house.image("db:1", "ENV VERSION=3");
    let summary = house.night(keys).await.summary.unwrap();
    let (first, second) = (summary.find("p-db ").unwrap(), summary.find("p-a-web ").unwrap());
    assert!(summary.starts_with("2 updated (") && first < second, "{summary}");
    assert_eq!(house.in_it("p-db", "echo $VERSION"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_own_check_and_what_dies_while_it_is_watched_take_it_back() {
    let mut house = House::new();
    let docker = house.dockerd;
    house.image("blog:1", "ENV VERSION=1");
    docker.run("blog", &["blog:1"]);
    let old = house.id("blog");
    house.image("blog:1", "ENV VERSION=2");
    let keys = "containers = ['blog']\npull = false\nsnapshot = false";
    let ran = house.night(&format!("{keys}\ncheck = ['sh', '-c', 'echo not yet; exit 7']")).await;
    let said = ran.summary.unwrap_err();
    assert!(said.contains("not well after 4s: its check ended with exit code 7: not yet"), "{said}");
    assert_eq!((house.id("blog"), house.names()), (old.clone(), vec!["blog running".to_owned()]));

    house.image("blog:1", "HEALTHCHECK --interval=300ms CMD true\nCMD [\"sleep\", \"1\"]");
    let ran = house.night(&format!("{keys}\nwatch = '20s'")).await;
    let said = ran.summary.unwrap_err();
    assert!(said.contains("blog runs again as it was before: the new container "), "{said}");
    assert_eq!((house.id("blog"), house.names()), (old, vec!["blog running".to_owned()]));
    assert_eq!(house.snapshots().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_the_old_one_is_back_and_the_image_may_be_tried_again() {
    let mut house = House::new();
    house.image("blog:1", "ENV VERSION=1");
    house.dockerd.run("blog", &["blog:1"]);
    let old = house.id("blog");
    house.image("blog:1", "ENV VERSION=2");
    let (cx, kept) = house.context();
    let (token, log) = (cx.cancelled.clone(), Arc::clone(&kept));
    tokio::spawn(async move {
        while !log.text().contains("i starting blog from blog:1") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        token.cancel();
    });
    let keys = "containers = ['blog']\npull = false";
    let said = house.run(&cx, &kept, keys).await.summary.unwrap_err();
    assert!(said.contains("it was asked to stop"), "{said}");
    assert_eq!((house.id("blog"), house.names()), (old, vec!["blog running".to_owned()]));
    assert!(house.night(keys).await.summary.unwrap().starts_with("1 updated (blog "));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_newer_image_to_be_of_is_left_out() {
    let mut house = House::new();
    let docker = house.dockerd;
    house.image("blog:1", "ENV VERSION=1");
    let id = docker.inspect("blog:1")["Id"].as_str().unwrap().to_owned();
    docker.run("bare", &[&id]);
    docker.run("fleeting", &["--rm", "blog:1"]);
    docker.run("task", &["--label", "com.docker.swarm.service.id=1", "blog:1"]);
    docker.run("blog", &["blog:1"]);
    let snapshot = read("container-snapshot", "containers = ['blog']\ntags = ['kept']");
    snapshot.run(&house.context().0).await.unwrap();
    docker.cli(&["rm", "-f", "blog"]);
    docker.run("blog", &["blog:kept"]);
    docker.run("vpn", &["blog:1"]);
    docker.run("inside", &["--network", "container:vpn", "blog:1"]);
    house.image("blog:1", "ENV VERSION=2");
    let before = docker.cli(&["ps", "-q", "--no-trunc"]);
    let ran = house.night("all = true\nexclude = ['inside']\npull = false").await;
    let said = ran.summary.unwrap_err();
    assert!(said.starts_with("vpn: the container inside lives in the network"), "{said}");
    assert!(said.ends_with("; 4 left out"), "{said}");
    for line in [
        "i bare: left out: its image has no name, only an id",
        "i fleeting: left out: it was started with `--rm`",
        "i task: left out: a swarm's service",
        "w blog: left out: it runs from the snapshot blog:kept",
    ] {
        assert!(ran.log.contains(line), "{line}\n{}", ran.log);
    }
    assert_eq!(docker.cli(&["ps", "-q", "--no-trunc"]), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_has_is_told_and_fetched() {
    let mut house = House::new();
    let docker = house.dockerd;
    let _registry = docker.registry();
    let name = "127.0.0.1:5000/some/blog:1";
    let publish = |version: u32| {
        house.image(name, &format!("ENV VERSION={version}\nCOPY --from={BASE} /bin/busybox /more{version}"));
        docker.push(name);
        docker.inspect(name)["Id"].clone()
    };
    let one = publish(1);
    docker.run("blog", &[name]);
    // Somebody publishes another elsewhere; this host still has the first one.
    docker.cli(&["tag", name, "first:1"]);
    publish(2);
    docker.cli(&["rmi", name]);
    docker.cli(&["tag", "first:1", name]);
    assert_eq!(docker.inspect(name)["Id"], one);

    let keys = "containers = ['blog']";
    let ran = house.night(&format!("{keys}\nreport = true")).await;
    assert_eq!(ran.summary.unwrap(), "1 has a newer image (blog)", "{}", ran.log);
    assert_eq!(docker.inspect(name)["Id"], one);
    assert_eq!(house.night(&format!("{keys}\npull = false")).await.summary.unwrap(), "1 up to date");

    let ran = house.night(keys).await;
    let summary = ran.summary.unwrap();
    assert!(summary.starts_with("1 updated (blog "), "{summary}\n{}", ran.log);
    assert_eq!(house.in_it("blog", "echo $VERSION"), "2");
    assert_eq!(house.night(keys).await.summary.unwrap(), "1 up to date");
    assert_eq!(house.night(&format!("{keys}\nreport = true")).await.summary.unwrap(), "1 up to date");

    // One that the registry does not have is not touched.
    docker.cli(&["tag", name, "127.0.0.1:5000/some/other:1"]);
    docker.run("other", &["127.0.0.1:5000/some/other:1"]);
    let said = house.night("containers = ['other']").await.summary.unwrap_err();
    assert!(said.starts_with("other: pull 127.0.0.1:5000/some/other:1: "), "{said}");
}
