//! A real Docker engine in namespaces of its own: one for each test process, gone, with all that it runs, when the process is.
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Output, Stdio},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use rusuban::docker::{Address, Docker, Engine};
use tokio::net::{TcpListener, UnixStream};

use super::garage::{Kept, at_our_end};

/// An image with busybox in it, and `sleep` as what it does.
pub(crate) const BASE: &str = "base:1";

/// An engine that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Dockerd {
    folder: PathBuf,
    /// More words for it.
    more: Vec<String>,
    process: Mutex<Option<Kept>>,
    _swept: ChildStdin,
}

/// This process's engine, started when first asked for, with [`BASE`] in it.
pub(crate) fn dockerd() -> &'static Dockerd {
    static DOCKERD: OnceLock<Dockerd> = OnceLock::new();
    DOCKERD.get_or_init(|| {
        let dockerd = Dockerd::start();
        dockerd.import_base();
        dockerd
    })
}

/// Which engine `dev/test --engines` wants to be tried, and the root of the system that it is in: `docker`, `containerd` or `podman`.
#[expect(clippy::disallowed_methods, reason = "a test is told by dev/test which engine it is to use")]
fn other_engine() -> (String, String) {
    let said = |name: &str| std::env::var(name).unwrap_or_default();
    (said("RUSUBAN_TEST_ENGINE"), said("RUSUBAN_TEST_ENGINE_ROOT"))
}

/// A socket by TCP, until the runtime ends; where it is reached.
pub(crate) async fn reach(host: &str, socket: PathBuf) -> String {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let mut there = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
        }
    });
    address.to_string()
}

/// No engine at all.
pub(crate) fn none() -> Docker {
    Docker::at(Address::Socket("/nowhere/docker.sock".into()))
}

impl Dockerd {
    /// Starts one of one's own, without any image.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// The same, with more words on its command line; its folder is there before it is.
    pub(crate) fn start_with(more: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("rusuban-docker").tempdir().unwrap().keep();
        // The kernel keeps empty cgroups of containers that died with their engine.
        let sweep = r#"sleep 1; rm -rf "$1"; find /sys/fs/cgroup -depth -type d -path "*/$2*" -exec rmdir {} +"#;
        let swept = at_our_end(sweep, &[folder.as_os_str(), folder.file_name().unwrap()]);
        let more = more(&folder);
        let dockerd = Self { folder, more, process: Mutex::new(None), _swept: swept };
        dockerd.launch();
        dockerd
    }

    fn launch(&self) {
        // In a PID namespace of its own all that it started dies with it; in a network namespace of its own it cannot touch
        // the interfaces of another engine; in a mount namespace of its own its mounts go with it.
        let script = r#"
            mount --make-rprivate /
            ip link set lo up
            folder=$1 root=$2
            shift 2
            # As after a power cut, where it lies in memory: numbers of processes in it would be those of others by now.
            rm -rf "$folder/pid" "$folder/sock" "$folder/exec"
            [ -n "$root" ] || exec "$@"
            # It must be a mount; and nothing of ours stays in it.
            mount --bind "$root" "$root"
            for of in /tmp /run /var/tmp /mnt; do mount -t tmpfs tmpfs "$root$of"; done
            mkdir -p "$root$folder" "$root/mnt/old"
            mount --bind "$folder" "$root$folder"
            for of in /dev /sys; do mount --rbind "$of" "$root$of"; done
            mount -t proc proc "$root/proc"
            cd "$root"
            pivot_root . mnt/old
            umount -l /mnt/old
            exec "$@"
        "#;
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
            "sh",
            "-ec",
            script,
            "engine",
        ]);
        let (make, root) = other_engine();
        command.arg(&self.folder).arg(root).args(self.words(&make)).args(&self.more);
        let mut process = Kept::start_again(&self.folder, &mut command);
        let begun = Instant::now();
        while !self.answers() {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(!process.has_ended(), "dockerd ended before it answered: {}", log());
            assert!(begun.elapsed() < Duration::from_secs(60), "dockerd does not answer after a minute: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.process.lock().unwrap() = Some(process);
    }

    /// Kills it and all that it runs, as a power cut does, and starts it again.
    pub(crate) fn power_cut(&self) {
        drop(self.process.lock().unwrap().take());
        // Frozen processes cannot be killed, and the next ones of their container would be frozen as well.
        let thaw = r#"
            for state in /sys/fs/cgroup/freezer/"$1"/*/freezer.state; do [ ! -e "$state" ] || echo THAWED > "$state"; done
            for state in /sys/fs/cgroup/"$1"/*/cgroup.freeze; do [ ! -e "$state" ] || echo 0 > "$state"; done
        "#;
        let thawed = Command::new("sh").args(["-c", thaw, "thaw"]).arg(self.folder.file_name().unwrap()).output();
        assert!(thawed.unwrap().status.success());
        self.launch();
    }

    /// Its command line.
    fn words(&self, make: &str) -> Vec<String> {
        let [root, exec, pid] = ["root", "exec", "pid"].map(|name| self.folder.join(name).display().to_string());
        let (host, group) = (self.host(), self.folder.file_name().unwrap().to_string_lossy().into_owned());
        if make == "podman" {
            let service = [
                "podman",
                "--root",
                &root,
                "--runroot",
                &exec,
                "--cgroup-manager",
                "cgroupfs",
                // The other one wants the newer kind of control groups.
                "--runtime",
                "runc",
                "system",
                "service",
                "--time",
                "0",
                &host,
            ];
            return service.map(str::to_owned).to_vec();
        }
        let settings = self.folder.join("daemon.json");
        let is_containerd = make == "containerd";
        fs::write(&settings, format!("{{ \"features\": {{ \"containerd-snapshotter\": {is_containerd} }} }}")).unwrap();
        let (driver, settings) = (if is_containerd { "overlayfs" } else { "overlay2" }, settings.display().to_string());
        let group = format!("/{group}");
        let words = [
            "dockerd",
            "--data-root",
            &root,
            "--exec-root",
            &exec,
            "--pidfile",
            &pid,
            "-H",
            &host,
            "--cgroup-parent",
            &group,
            "--iptables=false",
            "--ip-masq=false",
        ];
        let words = words.into_iter().chain(["--storage-driver", driver, "--config-file", &settings]);
        words.map(str::to_owned).collect()
    }

    fn answers(&self) -> bool {
        self.socket().exists() && self.try_cli(&["version"]).is_ok()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("sock")
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn docker(&self) -> Docker {
        Docker::at(Address::Socket(self.socket()))
    }

    pub(crate) async fn engine(&self) -> Engine {
        self.docker().connect().await.unwrap()
    }

    /// The engine as from another host: by TCP, its processes not to be looked for.
    pub(crate) async fn afar(&self) -> Docker {
        self.afar_at("127.0.0.1").await
    }

    /// The same at an address of one's choice.
    pub(crate) async fn afar_at(&self, host: &str) -> Docker {
        Docker::at(Address::Http(reach(host, self.socket()).await))
    }

    /// A port of this machine behind which there is `port` of the engine's own network, until the runtime ends.
    pub(crate) async fn port(&self, port: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let engine = self.process.lock().unwrap().as_ref().expect("the engine runs").id();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut command = tokio::process::Command::new("nsenter");
                command.arg(format!("--net=/proc/{engine}/ns/net"));
                command.args(["busybox", "nc", "127.0.0.1", &port.to_string()]).kill_on_drop(true);
                let server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
                tokio::spawn(async move {
                    // All of it, or it would be killed at once.
                    let mut server = server;
                    let mut there = tokio::io::join(server.stdout.take().unwrap(), server.stdin.take().unwrap());
                    tokio::io::copy_bidirectional(&mut client, &mut there).await
                });
            }
        });
        here
    }

    /// Makes an image with this program in it, and the libraries that it needs.
    pub(crate) fn import_helper(&self, name: &str) {
        let script = r#"
            mkdir -p usr/bin
            cp "$1" usr/bin/rusuban
            for library in $(ldd "$1" | grep -o '/[^ )]*'); do
                mkdir -p ".$(dirname "$library")"
                cp -L "$library" ".$library"
            done
            tar -c .
        "#;
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-ec", script, "helper", env!("CARGO_BIN_EXE_rusuban")]).current_dir(place.path());
        let tar = command.output().unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        self.with_input(&["import", "-", name], &tar.stdout);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.host()]).args(arguments).env("DOCKER_BUILDKIT", "0").env_remove("DOCKER_HOST");
        command
    }

    /// Runs the `docker` command: what it printed, or what it complained of.
    pub(crate) fn try_cli(&self, arguments: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } =
            self.command(arguments).output().expect("docker is installed by dev/test");
        let [printed, said] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        if status.success() { Ok(printed) } else { Err(format!("docker {}: {said}", arguments.join(" "))) }
    }

    /// Runs the `docker` command, which must succeed.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        self.try_cli(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `docker inspect` says.
    pub(crate) fn inspect(&self, name: &str) -> serde_json::Value {
        let said: serde_json::Value = serde_json::from_str(&self.cli(&["inspect", name])).unwrap();
        said[0].clone()
    }

    /// Builds an image from a Dockerfile's text.
    pub(crate) fn build(&self, name: &str, dockerfile: &str) {
        self.with_input(&["build", "-t", name, "-"], dockerfile.as_bytes());
    }

    /// A container that runs until it is told to end.
    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> String {
        let all: Vec<&str> = ["run", "-d", "--name", name].iter().chain(arguments).copied().collect();
        self.cli(&all)
    }

    fn with_input(&self, arguments: &[&str], input: &[u8]) {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("docker runs");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert!(status.success(), "docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&stderr));
    }

    /// A registry at `127.0.0.1:5000`, as the engine sees it, until it is dropped.
    pub(crate) fn registry(&self) -> Kept {
        let folder = tempfile::tempdir().unwrap().keep();
        let settings = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:5000\n",
            folder.join("data").display()
        );
        std::fs::write(folder.join("registry.yml"), settings).unwrap();
        let engine = self.process.lock().unwrap().as_ref().expect("the engine runs").id();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{engine}/ns/net")).args(["docker-registry", "serve"]);
        Kept::start(&folder, command.arg(folder.join("registry.yml")))
    }

    /// The same command in the engine's network, where the addresses of its containers are theirs.
    pub(crate) fn beside(&self, command: &Command) -> Command {
        let engine = self.process.lock().unwrap().as_ref().expect("the engine runs").id();
        let mut beside = Command::new("nsenter");
        beside.arg(format!("--net=/proc/{engine}/ns/net")).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => beside.env(name, value),
                None => beside.env_remove(name),
            };
        }
        beside.stdin(Stdio::null());
        beside
    }

    /// Publishes an image at the registry, once that answers.
    pub(crate) fn push(&self, name: &str) {
        let begun = Instant::now();
        while let Err(error) = self.try_cli(&["push", name]) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Makes the image `name` of base and a program of this machine, with the libraries that it needs.
    pub(crate) fn image_with(&self, name: &str, program: &str, changes: &[&str]) {
        let script = r#"
            mkdir -p "usr/bin" && cp -L "$(command -v "$1")" usr/bin/
            for library in $(ldd "usr/bin/$1" | grep -o '/[^ ]*'); do mkdir -p ".$(dirname "$library")"; cp -L "$library" ".$library"; done
        "#;
        let place = tempfile::tempdir().unwrap();
        let copied =
            Command::new("sh").args(["-ec", script, "copy", program]).current_dir(place.path()).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let made = self.cli(&["create", BASE]);
        self.cli(&["cp", &format!("{}/.", place.path().display()), &format!("{made}:/")]);
        let changes = changes.iter().flat_map(|change| ["--change", *change]);
        let commit: Vec<&str> = ["commit"].into_iter().chain(changes).chain([made.as_str(), name]).collect();
        self.cli(&commit);
        self.cli(&["rm", &made]);
    }

    /// Makes [`BASE`]: busybox under all its names, and a command that ends when it is asked to.
    pub(crate) fn import_base(&self) {
        let script = r#"
            mkdir bin etc proc sys tmp root
            cp -L "$(command -v busybox)" bin/busybox
            for name in $(bin/busybox --list); do [ "$name" = busybox ] || ln -s busybox "bin/$name"; done
            echo root:x:0:0:root:/root:/bin/sh > etc/passwd
            echo www:x:33:33:www:/:/bin/sh >> etc/passwd
            tar -c .
        "#;
        let place = tempfile::tempdir().unwrap();
        let tar = Command::new("sh").args(["-ec", script]).current_dir(place.path()).output().unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        let wait = r#"CMD ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"]"#;
        self.with_input(&["import", "-c", wait, "-", BASE], &tar.stdout);
    }
}
