//! Engines on other machines, by ssh and by TLS, and volumes that cannot be read from here: the real binary, real servers.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{
    docker::{BASE, Dockerd, dockerd},
    sshd::Sshd,
    trees::{assert_equal, every_kind_of_file, sh},
};

/// The image that reads volumes.
const HELPER: &str = "helper:1";

struct House {
    home: tempfile::TempDir,
    /// Programs that come first.
    programs: Option<PathBuf>,
    variables: Vec<(String, String)>,
}

impl House {
    /// `docker`: what is under `[docker]`.
    fn new(docker: &str) -> Self {
        let house = Self { home: tempfile::tempdir().unwrap(), programs: None, variables: Vec::new() };
        fs::create_dir(house.path("jobs")).unwrap();
        fs::write(house.path("password"), "correct horse").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(house.path("password"), private).unwrap();
        house.reach(docker);
        house.fine(&["repository", "init", "safe"]);
        house
    }

    fn reach(&self, docker: &str) {
        let settings = format!(
            "[docker]\n{docker}\n[bucket.local]\nfolder = \"bucket\"\n[repository.safe]\nbucket = \"local\"\npassword = {{ file = \"password\" }}\n"
        );
        fs::write(self.path("rusuban.toml"), settings).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn job(&self, name: &str, text: &str) {
        fs::write(self.path(&format!("jobs/{name}.toml")), text).unwrap();
    }

    fn jobs(&self, source: &str) {
        self.job("plain", &format!("kind = 'backup'\n[[source]]\n{source}"));
        self.job("dedup", &format!("kind = 'backup'\nrepository = 'safe'\n[[source]]\n{source}"));
    }

    #[expect(clippy::disallowed_methods, reason = "a program of ours comes before those of the system")]
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rusuban"));
        command.arg("--home").arg(self.home.path()).env("TZ", "UTC").env_remove("RUSUBAN_HOME").args(arguments);
        command.env_remove("DOCKER_HOST").envs(self.variables.iter().cloned());
        if let Some(programs) = &self.programs {
            let path = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{path}", programs.display()));
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    fn fine(&self, arguments: &[&str]) -> String {
        let (is_fine, said) = self.run(arguments);
        assert!(is_fine, "{arguments:?}: {said}");
        said
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let (is_fine, said) = self.run(arguments);
        assert!(!is_fine, "{arguments:?}: {said}");
        said
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn restore(&self, job: &str) -> PathBuf {
        let to = self.path(&format!("restored-{job}"));
        let _ = fs::remove_dir_all(&to);
        self.fine(&["restore", job, "--to", to.to_str().unwrap()]);
        to
    }
}

/// A container with a volume, and where that is.
fn blog(dockerd: &Dockerd) -> PathBuf {
    dockerd.import_helper(HELPER);
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    dockerd.cli(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]).into()
}

fn containers(dockerd: &Dockerd) -> String {
    dockerd.cli(&["ps", "-a", "--format", "{{.Names}} {{.State}}"])
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn by_ssh_a_volume_is_backed_up_with_all_that_is_in_it_and_restored() {
    let (dockerd, sshd) = (dockerd(), Sshd::start());
    let volume = blog(dockerd);
    let original = volume.join("tree");
    every_kind_of_file(&original);
    // These only a process with all rights sees.
    sh(&format!("cd '{}'; setfattr -x trusted.t one; setfattr -h -x trusted.l link", original.display()));
    let host = sshd.host(sshd.port, &dockerd.socket());
    let mut house = House::new(&format!("host = '{host}'\nhelper = '{HELPER}'"));
    house.programs = Some(sshd.program());
    house.job("inside", "kind = 'command'\ncontainer = 'blog'\ncommand = ['echo', 'from inside']");
    let said = house.fine(&["check", "--connect"]);
    assert!(said.contains(&format!("at {host}, API ")) && said.contains("on another machine"), "{said}");
    assert!(house.fine(&["run", "inside"]).contains("from inside"));
    for (job, consistency) in [("plain", "stop"), ("dedup", "none"), ("plain", "pause"), ("dedup", "pause")] {
        house.jobs(&format!("volume = 'data'\nconsistency = '{consistency}'"));
        let log = house.fine(&["run", job]);
        assert!(log.contains("read by a container that is made for it"), "{log}");
        assert_equal(&volume, &house.restore(job).join("data"));
        assert_eq!(containers(dockerd), "blog running", "{log}");
    }
    // What is unchanged does not come over the line.
    let log = house.fine(&["run", "dedup"]);
    assert!(log.contains("of which 0 B had to be read in that time"), "{log}");
    for job in ["plain", "dedup"] {
        let said = house.fine(&["restore", job, "--to-volume", "new"]);
        assert!(said.contains("restored data → the volume new"), "{said}");
        let new: PathBuf = dockerd.cli(&["volume", "inspect", "-f", "{{.Mountpoint}}", "new"]).into();
        assert_equal(&volume, &new);
        fs::write(new.join("mine"), "x").unwrap();
        let said = house.fails(&["restore", job, "--to-volume", "new"]);
        assert!(said.contains("it is not empty") && new.join("mine").exists(), "{said}");
        house.fine(&["restore", job, "--to-volume", "new", "--replace"]);
        assert_equal(&volume, &new);
        assert!(house.fails(&["restore", job, "--to-volume", "data", "--replace"]).contains("blog uses the volume"));
        assert_eq!(containers(dockerd), "blog running");
        dockerd.cli(&["volume", "rm", "new"]);
    }
    assert_eq!(fs::read_dir(house.path("data/spool")).unwrap().count(), 0);
    // All volumes of a container, gathered.
    house.jobs("container = 'blog'\nexclude = ['only a hole']");
    for job in ["plain", "dedup"] {
        house.fine(&["run", job]);
        let back = house.restore(job);
        assert!(sh(&format!("find '{}' -name one", back.display())).contains("data/tree/one"));
        assert!(!sh(&format!("find '{}'", back.display())).contains("only a hole"));
    }
    assert_eq!(dockerd.cli(&["volume", "ls", "-q"]), "data");
}

#[test]
fn what_is_wrong_with_ssh_is_said_with_what_to_do() {
    let (dockerd, sshd) = (dockerd(), Sshd::start());
    let mut house = House::new("");
    house.job("inside", "kind = 'command'\ncontainer = 'blog'\ncommand = ['true']");
    house.programs = Some(sshd.program());
    let check = |house: &House, port: u16, expected: &str| {
        house.reach(&format!("host = '{}'", sshd.host(port, &dockerd.socket())));
        let begun = Instant::now();
        let said = house.fails(&["check", "--connect"]);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{expected}: {:?}", begun.elapsed());
    };
    check(&house, sshd.bare, "there is no `docker` program on that machine");
    check(&house, sshd.stranger, "usermod -aG docker root` on that machine");
    house.reach(&format!("host = '{}'", sshd.host(sshd.port, Path::new("/nowhere.sock"))));
    assert!(house.fails(&["check", "--connect"]).contains("Docker does not answer on that machine"));
    check(&house, 1, "Connection refused");
    sshd.instead("/key\n", "/other\n");
    check(&house, sshd.port, "ssh-copy-id -p ");
    sshd.instead("/other\n", "/key\n");
    sshd.instead("/known\n", "/nobody\n");
    check(&house, sshd.port, "is not known here, and nobody is there to be asked");
    let nothing = tempfile::tempdir().unwrap();
    house.variables = vec![("PATH".into(), nothing.path().display().to_string())];
    house.programs = None;
    check(&house, sshd.port, "there is no `ssh` program on this machine");
}

/// Certificates of two authorities, for a server at 127.0.0.1 and for clients.
fn certificates(folder: &Path) {
    let script = "\
        for name in ca other; do openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj \"/CN=$name\" -keyout $name.key -out $name.pem; done
        make() {
            openssl req -newkey rsa:2048 -nodes -subj \"/CN=$1\" -keyout $1.key -out $1.csr
            printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\nextendedKeyUsage=%s\\n' $3 > extensions
            openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 2 -extfile extensions -out $1.pem
        }
        make server ca serverAuth
        make cert ca clientAuth
        make stranger other clientAuth
        cp cert.key key.pem; chmod 600 *.key key.pem";
    let made = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_an_engine_is_reached_by_those_whom_it_knows() {
    let keys = tempfile::tempdir().unwrap();
    certificates(keys.path());
    let file = |name: &str| keys.path().join(name).display().to_string();
    let dockerd = Dockerd::start_with(|_| {
        let words = [
            "-H",
            "tcp://127.0.0.1:2376",
            "--tlsverify",
            "--tlscacert",
            &file("ca.pem"),
            "--tlscert",
            &file("server.pem"),
        ];
        words.iter().map(|word| (*word).to_owned()).chain(["--tlskey".to_owned(), file("server.key")]).collect()
    });
    dockerd.import_base();
    let volume = blog(&dockerd);
    fs::write(volume.join("file"), "kept").unwrap();
    let port = dockerd.port(2376).await;
    let settings = |host: &str, ca: &str, cert: &str, key: &str| {
        let tls = format!("ca = '{}', cert = '{}', key = {{ file = '{}' }}", file(ca), file(cert), file(key));
        format!("host = 'tcp://{host}:{port}'\ntls = {{ {tls} }}\nhelper = '{HELPER}'")
    };
    let mut house = House::new(&settings("127.0.0.1", "ca.pem", "cert.pem", "key.pem"));
    house.job("inside", "kind = 'command'\ncontainer = 'blog'\ncommand = ['echo', 'from inside']");
    house.jobs("volume = 'data'");
    let said = house.fine(&["check", "--connect"]);
    assert!(said.contains(&format!("tcp://127.0.0.1:{port} (TLS)")) && said.contains("on another machine"), "{said}");
    assert!(house.fine(&["run", "inside"]).contains("from inside"));
    for job in ["plain", "dedup"] {
        house.fine(&["run", job]);
        assert_eq!(fs::read_to_string(house.restore(job).join("data/file")).unwrap(), "kept");
    }
    let fails = |house: &House, settings: &str, expected: &str| {
        house.reach(settings);
        let said = house.fails(&["check", "--connect"]);
        assert!(said.contains(expected) && !said.contains("PRIVATE"), "{expected}: {said}");
    };
    fails(
        &house,
        &settings("127.0.0.1", "other.pem", "cert.pem", "key.pem"),
        "signed by another authority than the one of `ca`",
    );
    fails(
        &house,
        &settings("127.0.0.1", "ca.pem", "stranger.pem", "stranger.key"),
        "it does not accept our certificate",
    );
    fails(&house, &settings("localhost", "ca.pem", "cert.pem", "key.pem"), "its certificate is for another name");
    fails(&house, &settings("127.0.0.1", "ca.pem", "cert.pem", "server.pem"), "no certificate and its key in PEM");
    fails(&house, &settings("127.0.0.1", "missing.pem", "cert.pem", "key.pem"), "missing.pem");
    fails(
        &house,
        &format!("host = 'tcp://127.0.0.1:{port}'\ntls = {{ ca = '{}' }}", file("ca.pem")),
        "it wants to see a certificate of ours",
    );
    fails(&house, &format!("host = 'tcp://127.0.0.1:1'\ntls = {{ ca = '{}' }}", file("ca.pem")), "refused");
    // As the `docker` program takes them from the environment.
    house.reach(&format!("helper = '{HELPER}'"));
    house.variables = [
        ("DOCKER_HOST", format!("tcp://127.0.0.1:{port}")),
        ("DOCKER_TLS_VERIFY", "1".into()),
        ("DOCKER_CERT_PATH", keys.path().display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    assert!(house.fine(&["run", "inside"]).contains("from inside"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_is_gone_after_a_crash_and_when_it_dies_nothing_is_kept() {
    let dockerd = dockerd();
    let volume = blog(dockerd);
    sh(&format!("head -c 100000000 /dev/urandom > '{}/big'", volume.display()));
    // An address that is none of this machine's own.
    let afar = dockerd.afar_at("127.0.0.2").await.address().to_string();
    let house = House::new(&format!("host = '{afar}'\nhelper = '{HELPER}'"));
    house.jobs("volume = 'data'");
    house.job("nothing", "kind = 'command'\ncommand = ['true']");
    let is_paused = || containers(dockerd).contains("blog paused");
    for job in ["plain", "dedup"] {
        let mut run = house.start(&["run", job]);
        wait_until("it was never read", is_paused);
        run.kill().unwrap();
        run.wait().unwrap();
        assert!(containers(dockerd).contains("rusuban-"), "{}", containers(dockerd));
        let log = house.fine(&["run", "nothing"]);
        assert_eq!(containers(dockerd), "blog running", "{log}");
        let run = house.start(&["run", job]);
        // In a repository most is read while it goes on.
        wait_until("it was never read", || {
            let running = dockerd.cli(&["ps", "-q", "--filter", "name=rusuban-dedup"]);
            is_paused() || (job == "dedup" && !running.is_empty())
        });
        let helper = dockerd.cli(&["ps", "-q", "--filter", &format!("name=rusuban-{job}")]);
        dockerd.cli(&["kill", &helper]);
        let output = run.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && log.contains("ended with exit code 137"), "{log}");
        assert_eq!(containers(dockerd), "blog running", "{log}");
        assert!(house.fails(&["backups", job]).contains("there is no backup of"), "{log}");
    }
    // A restore that is killed leaves neither its container nor a volume that is not whole.
    house.fine(&["run", "dedup"]);
    let mut restore = house.start(&["restore", "dedup", "--to-volume", "new"]);
    wait_until("it was never filled", || !dockerd.cli(&["ps", "-q", "--filter", "name=rusuban-restore"]).is_empty());
    restore.kill().unwrap();
    restore.wait().unwrap();
    let log = house.fine(&["run", "nothing"]);
    assert_eq!(containers(dockerd), "blog running", "{log}");
    assert_eq!(fs::read_dir(house.path("data/spool")).unwrap().count(), 0, "{log}");
    if dockerd.cli(&["volume", "ls", "-q"]) != "data" {
        // It was too late to keep it from being whole.
        let new = dockerd.cli(&["volume", "inspect", "-f", "{{.Mountpoint}}", "new"]);
        assert_equal(&volume, Path::new(&new));
        dockerd.cli(&["volume", "rm", "new"]);
    }
    // Without an image for it, it says what to do.
    house.reach(&format!("host = '{afar}'"));
    let log = house.fails(&["run", "plain"]);
    assert!(log.contains("and that is not this one") && log.contains("helper = \"IMAGE\""), "{log}");
    house.reach(&format!("host = '{afar}'\nhelper = 'nowhere:1'"));
    let log = house.fails(&["run", "plain"]);
    assert!(log.contains("there is no image `nowhere:1`"), "{log}");
    house.reach(&format!("host = '{afar}'\nhelper = '{BASE}'"));
    let log = house.fails(&["run", "plain"]);
    assert!(log.contains("run `rusuban` in container"), "{log}");
    let log = house.fails(&["restore", "dedup", "--to-volume", "new"]);
    assert!(log.contains("run `rusuban` in container"), "{log}");
    assert_eq!(dockerd.cli(&["volume", "ls", "-q"]), "data", "{log}");
    assert_eq!(containers(dockerd), "blog running");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_made_of_a_program_that_needs_no_libraries_and_the_one_before_goes() {
    let dockerd = dockerd();
    let engine = dockerd.engine().await;
    for tag in ["1", "2", "2"] {
        let made = engine.import(Path::new("/bin/busybox"), tag).await.unwrap();
        assert_eq!((made.image.as_str(), made.path.as_str()), (format!("rusuban-helper:{tag}").as_str(), "/rusuban"));
        // It runs, though by this name it does not know what it is.
        let said = dockerd.try_cli(&["run", "--rm", &made.image, &made.path]).unwrap_err();
        assert!(said.contains("applet not found"), "{said}");
    }
    assert_eq!(dockerd.cli(&["images", "-q", "rusuban-helper", "--format", "{{.Tag}}"]), "2");
}
