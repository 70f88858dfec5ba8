//! The engine's own words, and what we make of them.
use futures_util::TryStreamExt as _;
use rusuban::docker::{Commit, EngineError, State};

use crate::support::docker::{BASE, dockerd, none};

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_listed_inspected_and_driven() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--label", "keep=yes", "-v", "data:/data", BASE]);
    dockerd.run("done", &[BASE, "true"]);
    dockerd.cli(&["wait", "done"]);
    let engine = dockerd.engine().await;
    let listed = engine.containers().await.unwrap();
    let names: Vec<_> = listed.iter().map(|one| (one.name.as_str(), one.state)).collect();
    assert_eq!(names, [("blog", State::Running), ("done", State::Exited)]);
    assert_eq!(listed[0].labels["keep"], "yes");

    let blog = engine.container("blog").await.unwrap();
    assert_eq!((blog.id(), blog.name(), blog.image()), (listed[0].id.as_str(), "blog", BASE));
    let [mount] = &blog.mounts()[..] else { panic!("{:?}", blog.mounts()) };
    assert_eq!(
        (mount.kind.as_str(), mount.volume.as_deref(), mount.target.as_str()),
        ("volume", Some("data"), "/data")
    );
    assert_eq!(blog.written(), None);
    dockerd.cli(&["exec", "blog", "sh", "-c", "head -c 100000 /dev/zero > /file"]);
    assert_eq!(engine.container_with_size("blog").await.unwrap().written(), Some(100_000));

    let chunks: Vec<_> = engine.export("blog").await.unwrap().try_collect().await.unwrap();
    let tar = chunks.concat();
    let file = tar.windows(5).position(|name| name == b"file\0").expect("the file is in the tar");
    assert!(tar.len() > file + 100_000);

    engine.pause("blog").await.unwrap();
    assert_eq!(engine.container("blog").await.unwrap().state(), State::Paused);
    engine.unpause("blog").await.unwrap();
    engine.stop("blog", None).await.unwrap();
    engine.stop("blog", None).await.unwrap();
    assert_eq!(engine.container("blog").await.unwrap().state(), State::Exited);
    engine.start("blog").await.unwrap();
    engine.start("blog").await.unwrap();
    engine.rename("blog", "weblog").await.unwrap();
    assert!(matches!(engine.container("blog").await, Err(EngineError::NotFound(_))));
    assert!(matches!(engine.rename("weblog", "done").await, Err(EngineError::Conflict(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_made_of_a_container_keeps_all_of_its_configuration() {
    let dockerd = dockerd();
    dockerd.build(
        "app:1",
        "FROM base:1\nENV A=1\nHEALTHCHECK --interval=5s CMD true\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/sh\", \"-ec\"]\nLABEL a=b",
    );
    dockerd.run("app", &["-e", "B=2", "-w", "/tmp", "--stop-timeout", "7", "app:1", "sleep", "1000"]);
    let engine = dockerd.engine().await;
    let labels = [("rusuban.test", r#"a "quoted" $text"#.to_owned())];
    let commit = Commit { container: "app", pause: true, comment: "by a test", labels: &labels };
    let id = engine.commit(&commit).await.unwrap();
    assert_eq!(engine.images_labelled("rusuban.test").await.unwrap(), [id.as_str()]);
    engine.tag(&id, "kept/app", "Mon").await.unwrap();
    let image = engine.image("kept/app:Mon").await.unwrap();
    assert_eq!((image.id(), image.names()), (id.as_str(), vec!["kept/app:Mon"]));
    assert_eq!(image.label("rusuban.test"), Some(r#"a "quoted" $text"#));
    assert_eq!((image.label("a"), image.comment()), (Some("b"), "by a test"));
    let (container, kept) = (dockerd.inspect("app"), dockerd.inspect("kept/app:Mon"));
    for key in ["Env", "Cmd", "WorkingDir", "Healthcheck", "StopSignal", "StopTimeout", "Shell"] {
        assert_eq!(container["Config"][key], kept["Config"][key], "{key}");
    }
    engine.tag(&id, "kept/app", "Jan").await.unwrap();
    engine.remove_image("kept/app:Mon").await.unwrap();
    assert_eq!(engine.images_labelled("rusuban.test").await.unwrap(), [id.as_str()]);
    engine.remove_image(&id).await.unwrap();
    assert!(engine.image(&id).await.unwrap_err().is_not_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_is_named() {
    let error = none().connect().await.unwrap_err().to_string();
    assert!(error.starts_with("no Docker engine answers at unix:///nowhere/docker.sock: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_the_engine_has_what_it_had() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--restart", "always", BASE]);
    dockerd.power_cut();
    let engine = dockerd.engine().await;
    assert_eq!(engine.container("blog").await.unwrap().state(), State::Running);
}
