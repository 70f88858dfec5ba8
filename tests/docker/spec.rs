//! A container that is created again from what is known of it is the same one, but for ids, times and what nobody fixed.
use std::collections::BTreeMap;

use rusuban::docker::{Commit, Creation, Defaults, Engine, Spec};
use serde_json::Value;

use super::same::{assert_equal, assert_same};
use crate::support::{
    docker::{BASE, Dockerd, dockerd},
    mutate::Random,
};

/// An image with a word on everything.
const APP: &str = "FROM base:1\nENV A=1 PATH=/bin\nLABEL maker=them\nEXPOSE 8080 53/udp\nVOLUME /of-image\n\
    HEALTHCHECK --interval=300ms --retries=2 CMD true\nSTOPSIGNAL SIGINT\nWORKDIR /srv\nUSER root\n\
    ENTRYPOINT [\"sh\", \"-c\", \"trap 'exit 0' INT TERM; while :; do sleep 1000 & wait $!; done\"]\nCMD [\"serve\"]";

/// Makes the container again under its name, from the text of its specification. Returns both as they were inspected.
async fn again(dockerd: &Dockerd, engine: &Engine, name: &str) -> (Value, Value) {
    let spec = Spec::of(engine, name).await.unwrap();
    let text = serde_json::to_string(&spec).unwrap();
    let spec: Spec = serde_json::from_str(&text).unwrap();
    assert_eq!(text, serde_json::to_string(&spec).unwrap());
    let before = dockerd.inspect(name);
    let _ = dockerd.try_cli(&["rm", "-f", "before"]);
    dockerd.cli(&["stop", "-t", "0", name]);
    dockerd.cli(&["rename", name, "before"]);
    let image = spec.image_name(engine).await.unwrap().to_owned();
    let made = spec.create(engine, name, &image, &Creation::default()).await.unwrap();
    assert_eq!(dockerd.inspect(name)["State"]["Status"], "created");
    dockerd.cli(&["start", name]);
    let after = dockerd.inspect(name);
    assert_eq!(after["Id"], made.id);
    let twice = Spec::of(engine, name).await.unwrap();
    // Of the same kind again.
    assert_equal(&serde_json::from_str(&text).unwrap(), &serde_json::to_value(twice).unwrap());
    (before, after)
}

fn networks(dockerd: &Dockerd) {
    let make =
        ["network", "create", "--subnet", "10.77.1.0/24", "--label", "a=b", "-o", "com.docker.network.driver.mtu=1400"];
    dockerd.cli(&[&make[..], &["front"]].concat());
    dockerd.cli(&["network", "create", "--internal", "--subnet", "10.77.2.0/24", "back"]);
    dockerd.cli(&["network", "create", "plain"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_everything_is_the_same_again_and_its_data_is_there() {
    let dockerd = dockerd();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("settings");
    std::fs::write(&file, "kept").unwrap();
    let (folder, file) = (place.path().display().to_string(), file.display().to_string());
    dockerd.build("app:1", APP);
    networks(dockerd);
    dockerd.cli(&["volume", "create", "--label", "x=y", "data"]);
    let options = [
        "--network=front --ip=10.77.1.9 --network-alias=web --network-alias=www",
        "-v=data:/data -v=/anonymous --mount=type=volume,target=/by-mount --mount=type=volume,source=named,target=/named",
        "--mount=type=tmpfs,target=/tmpfs-by-mount,tmpfs-size=1000000 --tmpfs=/run:size=2m",
        "--health-cmd=true --health-interval=400ms --health-retries=7 --health-start-period=1s",
        "-p=127.0.0.1:8081:80 -p=8082:81/udp -p=127.0.0.1::83/udp -p=9000-9001:9000-9001 --expose=99",
        "--ulimit=nofile=100:200 --device=/dev/null:/dev/nothing:r --device-cgroup-rule=c,1:3,rwm",
        "--cap-add=NET_ADMIN --cap-drop=MKNOD --security-opt=no-new-privileges --group-add=33",
        "--dns=10.77.1.1 --dns-search=example.test --dns-option=ndots:2 --add-host=there:10.77.1.3",
        "--log-driver=json-file --log-opt=max-size=1m --log-opt=max-file=2 --sysctl=net.ipv4.ip_forward=1",
        "--memory=64m --memory-reservation=32m --cpu-shares=512 --pids-limit=50 --oom-score-adj=100",
        "--init --read-only --hostname=blog --domainname=example.test --stop-signal=SIGTERM --stop-timeout=3 --shm-size=32m",
        "--label=traefik.enable=true --label=com.docker.compose.project=shop --label=com.docker.compose.config-hash=ab",
        "--restart=on-failure:4 -e=A=2 -e=EMPTY= --user=0:0 --workdir=/tmp -t -i",
    ];
    let options = options.join(" ");
    let mut all: Vec<String> = options.split(' ').map(|option| option.replace("c,1:3,rwm", "c 1:3 rwm")).collect();
    all.extend(["-e=SECRET=two words".into(), format!("-v={folder}:/folder:ro")]);
    all.extend([format!("-v={file}:/settings"), format!("--mount=type=bind,source={folder},target=/bound,readonly")]);
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    all.push("app:1");
    let all = [&["create", "--name", "blog"][..], &all].concat();
    dockerd.cli(&all);
    dockerd.cli(&["network", "connect", "--ip", "10.77.2.9", "--alias", "behind", "back", "blog"]);
    dockerd.cli(&["network", "connect", "plain", "blog"]);
    dockerd.cli(&["start", "blog"]);
    let places = ["/data", "/anonymous", "/by-mount", "/named", "/of-image"];
    for target in places {
        dockerd.cli(&["exec", "blog", "sh", "-c", &format!("echo of {target} > {target}/file")]);
    }
    let engine = dockerd.engine().await;
    let (before, after) = again(dockerd, &engine, "blog").await;
    assert_same(&before, &after);
    for target in places {
        assert_eq!(dockerd.cli(&["exec", "blog", "cat", &format!("{target}/file")]), format!("of {target}"));
    }
    let addresses = &after["NetworkSettings"]["Networks"];
    assert_eq!(addresses["front"]["IPAddress"], "10.77.1.9");
    assert_eq!(addresses["back"]["IPAddress"], "10.77.2.9");
    assert_eq!(after["Config"]["Hostname"], "blog");
    let mut spec = Spec::of(&engine, "blog").await.unwrap();
    assert_eq!(spec.project(), Some("shop"));
    let mut told: Vec<_> = spec.config["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // The client gives them in any order.
    told.sort_unstable();
    assert_eq!(told, ["A=2", "EMPTY=", "SECRET=two words"], "nothing that the image says by itself");
    assert!(!format!("{spec:?}").contains("two words"));

    // Newer clients do not say it to older engines any more.
    dockerd.cli(&["rm", "-f", "blog"]);
    spec.config.insert("MacAddress".into(), "02:11:22:33:44:55".into());
    spec.create(&engine, "blog", "app:1", &Creation::default()).await.unwrap();
    dockerd.cli(&["start", "blog"]);
    let (before, after) = again(dockerd, &engine, "blog").await;
    assert_same(&before, &after);
    assert_eq!(after["NetworkSettings"]["Networks"]["front"]["MacAddress"], "02:11:22:33:44:55");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lives_in_the_network_of_another_follows_its_name() {
    let dockerd = dockerd();
    dockerd.build("app:1", APP);
    dockerd.run("parent", &["-v", "/lent", BASE]);
    dockerd.run(
        "blog",
        &["--network", "container:parent", "--volumes-from", "parent:ro", "--pid", "container:parent", "app:1"],
    );
    let engine = dockerd.engine().await;
    let spec = Spec::of(&engine, "blog").await.unwrap();
    assert_eq!(spec.host["NetworkMode"], "container:parent");
    let (before, after) = again(dockerd, &engine, "blog").await;
    assert_same(&before, &after);
    let parent = dockerd.inspect("parent");
    assert_eq!(after["HostConfig"]["NetworkMode"], format!("container:{}", parent["Id"].as_str().unwrap()));
    dockerd.run("linked", &["--link", "parent:database", BASE]);
    let (before, after) = again(dockerd, &engine, "linked").await;
    assert_same(&before, &after);
    dockerd.run("host", &["--network", "host", "--uts", "host", BASE]);
    let (before, after) = again(dockerd, &engine, "host").await;
    assert_same(&before, &after);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_engine_that_has_lost_all_but_the_image_networks_and_volumes_are_made_again() {
    let dockerd = dockerd();
    networks(dockerd);
    dockerd.cli(&[
        "volume",
        "create",
        "--label",
        "x=y",
        "-d",
        "local",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "memory",
    ]);
    dockerd.run("blog", &["--network", "front", "--ip", "10.77.1.9", "-v", "memory:/memory", "-v", "data:/data", BASE]);
    dockerd.cli(&["network", "connect", "plain", "blog"]);
    let engine = dockerd.engine().await;
    let spec = Spec::of(&engine, "blog").await.unwrap();
    let before = ["front", "plain"].map(|name| dockerd.inspect(name));
    let volume = dockerd.inspect("memory");
    dockerd.cli(&["rm", "-f", "blog"]);
    dockerd.cli(&["network", "rm", "front", "plain"]);
    let error = spec.create(&engine, "blog", BASE, &Creation::default()).await.unwrap_err();
    assert_eq!(format!("{error:#}"), "create the container blog: there is no network `front`");
    dockerd.cli(&["volume", "rm", "memory", "data"]);
    dockerd.cli(&["network", "create", "--subnet", "10.77.1.0/24", "front"]);
    dockerd.cli(&["network", "create", "plain"]);
    let error = spec.create(&engine, "blog", BASE, &Creation::default()).await.unwrap_err();
    assert!(format!("{error:#}").contains("there is no volume `"), "{error:#}");
    dockerd.cli(&["network", "rm", "front", "plain"]);
    let anew = Creation { make_missing: true, ..Creation::default() };
    spec.create(&engine, "blog", BASE, &anew).await.unwrap();
    dockerd.cli(&["start", "blog"]);
    let after = ["front", "plain"].map(|name| dockerd.inspect(name));
    for (before, after) in before.iter().zip(&after) {
        for key in ["Name", "Driver", "IPAM", "Internal", "Attachable", "Options", "Labels", "EnableIPv6"] {
            assert_eq!(before[key], after[key], "{key}");
        }
    }
    let again = dockerd.inspect("memory");
    for key in ["Name", "Driver", "Options", "Labels"] {
        assert_eq!(volume[key], again[key], "{key}");
    }
    let again = Spec::of(&engine, "blog").await.unwrap();
    assert_equal(&serde_json::to_value(spec).unwrap(), &serde_json::to_value(again).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_as_it_was_is_refused_and_leaves_nothing() {
    let dockerd = dockerd();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("settings");
    std::fs::write(&file, "kept").unwrap();
    let bind = format!("{}:/settings:ro", file.display());
    dockerd.run("blog", &["-v", &bind, BASE]);
    dockerd.run("task", &["--label", "com.docker.swarm.service.id=ab", BASE]);
    let engine = dockerd.engine().await;
    let spec = Spec::of(&engine, "blog").await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = spec.create(&engine, "other", BASE, &Creation::default()).await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "create the container other: {} is mounted in it and is not there on Docker's host; Docker would make an empty folder of it: bring it back first",
            file.display()
        )
    );
    assert!(!file.exists());
    assert!(dockerd.try_cli(&["inspect", "other"]).is_err());
    let error = Spec::of(&engine, "task").await.unwrap_err().to_string();
    assert!(error.contains("is a task of a swarm's service"), "{error}");
    std::fs::write(&file, "kept").unwrap();
    let error = spec.create(&engine, "blog", BASE, &Creation::default()).await.unwrap_err();
    assert!(format!("{error:#}").contains("already in use"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_beside_takes_nothing_that_the_other_has_for_itself() {
    let dockerd = dockerd();
    networks(dockerd);
    let labels = ["--label", "traefik.enable=true", "--label", "com.docker.compose.project=shop", "--label", "own=1"];
    let options =
        ["--network", "front", "--ip", "10.77.1.9", "--network-alias", "web", "-p", "8080:80", "--restart", "always"];
    dockerd.run("blog", &[&labels[..], &options, &["-v", "data:/data", BASE]].concat());
    dockerd.cli(&["exec", "blog", "sh", "-c", "echo theirs > /data/file"]);
    let engine = dockerd.engine().await;
    let spec = Spec::of(&engine, "blog").await.unwrap();
    let beside = Creation { beside: true, read_only_mounts: true, ..Creation::default() };
    spec.create(&engine, "look", BASE, &beside).await.unwrap();
    dockerd.cli(&["start", "look"]);
    let look = dockerd.inspect("look");
    assert!(look["HostConfig"]["PortBindings"].as_object().is_none_or(serde_json::Map::is_empty));
    assert_eq!(look["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(look["Config"]["Labels"]["traefik.enable"], "");
    assert_eq!(look["Config"]["Labels"]["com.docker.compose.project"], "");
    assert_eq!(look["Config"]["Labels"]["own"], "1");
    let addresses = &look["NetworkSettings"]["Networks"]["front"];
    assert!(addresses["IPAddress"] != "10.77.1.9" && !addresses["Aliases"].to_string().contains("web"), "{addresses}");
    assert_eq!(dockerd.cli(&["exec", "look", "cat", "/data/file"]), "theirs");
    assert!(dockerd.try_cli(&["exec", "look", "touch", "/data/mine"]).is_err());

    let volumes = BTreeMap::from([("data".to_owned(), "other".to_owned())]);
    let apart =
        Creation { beside: true, network: Some("none".into()), make_missing: true, volumes, ..Creation::default() };
    spec.create(&engine, "apart", BASE, &apart).await.unwrap();
    dockerd.cli(&["start", "apart"]);
    let networks = dockerd.inspect("apart")["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks.as_object().unwrap().keys().collect::<Vec<_>>(), ["none"]);
    assert!(dockerd.try_cli(&["exec", "apart", "cat", "/data/file"]).is_err(), "another volume");
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_a_snapshot_keeps_the_configuration_of_today_and_an_update_takes_that_of_the_new_image() {
    let dockerd = dockerd();
    dockerd.build("app:1", APP);
    dockerd.build("app:2", &APP.replace("A=1", "A=3 NEW=1").replace("maker=them", "maker=others"));
    dockerd.run("blog", &["-e", "OLD=1", "-e", "TOKEN=a", "--label", "traefik.enable=true", "app:1"]);
    let engine = dockerd.engine().await;
    let labels = [("rusuban.snapshot.container", "blog".to_owned()), ("rusuban.snapshot.at", "then".to_owned())];
    let commit = Commit { container: "blog", pause: false, comment: "", labels: &labels };
    let image = engine.commit(&commit).await.unwrap();
    engine.tag(&image, "app", "Tue").await.unwrap();
    dockerd.cli(&["rm", "-f", "blog"]);
    // Another token since then, and two settings fewer.
    dockerd.run("blog", &["-e", "TOKEN=b", "--stop-timeout", "3", "app:1"]);
    let spec = Spec::of(&engine, "blog").await.unwrap();
    let kept = Creation::default();
    spec.create(&engine, "back", "app:Tue", &kept).await.unwrap();
    let back = dockerd.inspect("back");
    let mut environment: Vec<_> = back["Config"]["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    environment.sort_unstable();
    assert_eq!(environment, ["A=1", "OLD", "PATH=/bin", "TOKEN=b"]);
    assert_eq!(back["Config"]["Labels"]["traefik.enable"], "");
    for key in ["Cmd", "Entrypoint", "Healthcheck", "StopSignal", "StopTimeout", "User", "WorkingDir"] {
        assert_eq!(back["Config"][key], dockerd.inspect("blog")["Config"][key], "{key}");
    }
    dockerd.cli(&["start", "back"]);
    assert!(!dockerd.cli(&["exec", "back", "env"]).contains("OLD"));

    // The container that came from the snapshot is told what it was told, and not what the snapshot says.
    let of_snapshot = Spec::of(&engine, "back").await.unwrap();
    assert_eq!(of_snapshot.config["Env"], serde_json::json!(["TOKEN=b", "OLD"]));
    let update = Creation { defaults: Defaults::OfImage, ..Creation::default() };
    of_snapshot.create(&engine, "updated", "app:2", &update).await.unwrap();
    let updated = dockerd.inspect("updated");
    let environment = updated["Config"]["Env"].to_string();
    assert!(["A=3", "NEW=1", "TOKEN=b"].iter().all(|entry| environment.contains(entry)), "{environment}");
    assert_eq!(updated["Config"]["Labels"]["maker"], "others");
    assert_eq!(updated["Config"]["StopTimeout"], 3);
}

/// Each time some of these, and what they are given.
fn options(random: &mut Random, place: &str) -> (Vec<String>, Vec<String>) {
    let mut all: Vec<String> = Vec::new();
    let mut some = |options: &[&str]| {
        let option = options[random.below(options.len())];
        all.extend(option.split_whitespace().map(str::to_owned));
    };
    some(&[
        "",
        "",
        "--network=front",
        "--network=front --ip=10.77.1.30",
        "--network=plain --network-alias=x",
        "--network=none",
        "--network=host",
        "--network=container:parent",
    ]);
    some(&[
        "",
        "-v=data:/data",
        "-v=data:/data:ro",
        "--mount=type=volume,target=/data",
        "--mount=type=volume,source=data,target=/data,volume-nocopy",
        "-v=/data",
    ]);
    some(&[
        "",
        "-v=PLACE:/place",
        "-v=PLACE:/place:ro,rprivate",
        "--mount=type=bind,source=PLACE,target=/place",
        "-v=/of-image",
    ]);
    some(&["", "--tmpfs=/run:size=1m", "--mount=type=tmpfs,target=/run"]);
    some(&[
        "",
        "--health-cmd=true",
        "--no-healthcheck",
        "--health-interval=2s",
        "--health-cmd=true --health-retries=9",
    ]);
    some(&[
        "",
        "--memory=32m",
        "--memory=32m --memory-swap=32m",
        "--cpus=0.5",
        "--cpu-shares=100",
        "--cpuset-cpus=0",
        "--blkio-weight=0",
    ]);
    some(&["", "--ulimit=nofile=64", "--ulimit=nproc=100:200 --ulimit=core=0"]);
    some(&[
        "",
        "--cap-add=SYS_TIME",
        "--cap-drop=ALL",
        "--privileged",
        "--security-opt=seccomp=unconfined",
        "--security-opt=no-new-privileges",
    ]);
    some(&["", "--device=/dev/null:/dev/nothing", "--device=/dev/zero"]);
    some(&["", "--log-driver=none", "--log-opt=max-size=1m", "--log-driver=local"]);
    some(&["", "--restart=always", "--restart=unless-stopped", "--restart=on-failure:3"]);
    some(&["", "-e=A=5", "-e=A=1", "-e=B=x -e=A=2", "-e=A"]);
    some(&["", "--label=maker=me", "--label=x=y --label=com.docker.compose.project=p"]);
    some(&["", "--user=www", "--user=33:33", "--user=0"]);
    some(&["", "--workdir=/tmp", "--stop-signal=SIGKILL", "--stop-timeout=0", "--stop-timeout=5"]);
    some(&["", "--init", "--read-only", "-t", "-i", "--oom-kill-disable=false", "--pids-limit=64", "--shm-size=1m"]);
    some(&["", "--ipc=private", "--ipc=shareable", "--pid=host", "--cgroupns=host", "--ipc=container:parent"]);
    let apart = all.iter().any(|option| option.starts_with("--network=container:") || option == "--network=host");
    let mut some = |options: &[&str]| {
        let option = options[random.below(options.len())];
        all.extend(option.split_whitespace().map(str::to_owned));
    };
    if !apart {
        some(&["", "-p=8080:80", "-p=127.0.0.1::80", "-p=8080-8081:80-81 --expose=99", "-P"]);
        some(&["", "--hostname=blog", "--hostname=blog --domainname=example.test"]);
        some(&["", "--sysctl=net.ipv4.ip_forward=0", "--uts=host"]);
        some(&["", "--dns=10.77.1.1", "--add-host=there:10.0.0.1"]);
    }
    if all.iter().any(|option| option == "--uts=host") {
        all.retain(|option| !option.starts_with("--hostname") && !option.starts_with("--domainname"));
    }
    let image = ["app:1", BASE, "plain:1"][random.below(3)];
    all.push(image.into());
    if random.below(3) == 0 && image != "app:1" {
        all.extend(["sleep".into(), "1000".into()]);
    }
    let further = match random.below(5) {
        0 => "network connect back --ip=10.77.2.30",
        1 => "network connect plain --alias=further",
        2 => "network disconnect bridge",
        _ => "",
    };
    let all = all.into_iter().map(|option| option.replace("PLACE", place)).collect();
    (all, further.split_whitespace().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_container_was_told_it_is_the_same_again() {
    let dockerd = dockerd();
    dockerd.build("app:1", APP);
    dockerd.build("plain:1", "FROM base:1\nENV A=1\nVOLUME /of-image\nUSER www\nHEALTHCHECK CMD true");
    networks(dockerd);
    let place = tempfile::tempdir().unwrap();
    dockerd.run("parent", &["--ipc=shareable", BASE]);
    let engine = dockerd.engine().await;
    let (mut seed, mut tried) = (0, 0);
    while tried < 24 {
        seed += 1;
        assert!(seed < 100, "the engine refuses nearly all of them");
        let (all, further) = options(&mut Random::new(seed), &place.path().display().to_string());
        let all: Vec<&str> = ["create", "--name", "blog"].into_iter().chain(all.iter().map(String::as_str)).collect();
        let further: Vec<&str> = further.iter().map(String::as_str).collect();
        eprintln!("{seed}: docker {} {}", all.join(" "), further.join(" "));
        let begun = dockerd.try_cli(&all).and_then(|_| {
            if let [first, verb, network, rest @ ..] = &further[..] {
                // Not every container is in the bridge, and not every one can be in two networks.
                let _ = dockerd.try_cli(&[&[*first, *verb][..], rest, &[*network, "blog"]].concat());
            }
            dockerd.try_cli(&["start", "blog"])
        });
        match begun {
            // Two options that do not go together.
            Err(why) => eprintln!("   refused: {why}"),
            Ok(_) => {
                let (before, after) = again(dockerd, &engine, "blog").await;
                assert_same(&before, &after);
                tried += 1;
            }
        }
        let _ = dockerd.try_cli(&["rm", "-f", "blog"]);
        let _ = dockerd.try_cli(&["rm", "-f", "before"]);
    }
}
