//! A real S3 server, Garage, on loopback: one for each test process, gone when the process is.
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rusuban::{
    bucket::{
        retrying::Patience,
        s3::{S3, S3Settings},
    },
    clock::Clock,
    config::secret::Secret,
};

const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub(crate) const BUCKET: &str = "house";
pub(crate) const REGION: &str = "garage";

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Garage {
    pub(crate) endpoint: String,
    _process: Mutex<Kept>,
}

impl Garage {
    /// Starts one of one's own, to stop it.
    pub(crate) fn start() -> Self {
        static STARTED: AtomicU16 = AtomicU16::new(0);
        let folder = tempfile::tempdir().unwrap().keep();
        let (own, started) = (own_address(), STARTED.fetch_add(1, SeqCst));
        let [s3, rpc, admin] = [0, 1, 2].map(|n| SocketAddrV4::new(own, 3900 + 3 * started + n));
        let (rpc_secret, place) = ("ab".repeat(32), folder.display());
        let configuration = format!(
            r#"
            metadata_dir = "{place}/meta"
            data_dir = "{place}/data"
            db_engine = "sqlite"
            replication_factor = 1
            rpc_bind_addr = "{rpc}"
            rpc_public_addr = "{rpc}"
            rpc_secret = "{rpc_secret}"
            [s3_api]
            s3_region = "{REGION}"
            api_bind_addr = "{s3}"
            [admin]
            api_bind_addr = "{admin}"
            "#
        );
        std::fs::write(folder.join("garage.toml"), configuration).unwrap();
        let mut command = Command::new(program());
        command.arg("-c").arg(folder.join("garage.toml")).args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY);
        command.env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY);
        command.env("GARAGE_DEFAULT_BUCKET", BUCKET);
        let mut process = Kept::start(&folder, &mut command);
        let begun = Instant::now();
        while !healthy(admin) {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(!process.has_ended(), "Garage ended before it answered: {}", log());
            assert!(begun.elapsed() < Duration::from_secs(60), "Garage does not answer after a minute: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { endpoint: format!("http://{s3}"), _process: Mutex::new(process) }
    }

    /// The key and its secret.
    pub(crate) fn credentials() -> (Secret, Secret) {
        (Secret::new(ACCESS_KEY), Secret::new(SECRET_KEY))
    }
}

/// This process's server, started when first asked for.
pub(crate) fn garage() -> &'static Garage {
    static GARAGE: OnceLock<Garage> = OnceLock::new();
    GARAGE.get_or_init(Garage::start)
}

/// A bucket of one's own in it.
pub(crate) async fn bucket(prefix: &str) -> S3 {
    S3::new(settings(prefix)).await.unwrap()
}

pub(crate) fn settings(prefix: &str) -> S3Settings {
    S3Settings {
        bucket: BUCKET.into(),
        prefix: format!("{prefix}/"),
        endpoint: Some(garage().endpoint.clone()),
        region: Some(REGION.into()),
        path_style: true,
        credentials: Some(Garage::credentials()),
        certificates: None,
        silence: Duration::from_secs(20),
        patience: patience(1),
    }
}

pub(crate) fn patience(tries: u32) -> Patience {
    Patience { clock: Clock::system(), tries, first_wait: Duration::from_millis(5) }
}

/// A loopback address that is this process's alone, so that no two tests that run at once hold each other's server
/// for their own: a port that was free a moment ago may be anybody's now.
fn own_address() -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | std::process::id())
}

/// A process that ends, and its folder with it, when this is dropped or when we die in any way.
#[derive(Debug)]
pub(crate) struct Kept {
    process: Child,
    /// The keeper reads until this is closed.
    _alive: ChildStdin,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Kept {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn start(folder: &Path, command: &mut Command) -> Self {
        Self::with_log(folder, command, r#"kill -9 "$1"; rm -rf "$2""#)
    }

    /// The same; the folder stays.
    pub(crate) fn start_again(folder: &Path, command: &mut Command) -> Self {
        Self::with_log(folder, command, r#"kill -9 "$1""#)
    }

    fn with_log(folder: &Path, command: &mut Command, at_the_end: &str) -> Self {
        let log = File::create(folder.join("log")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let process = process.unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
        let alive = at_our_end(at_the_end, &[process.id().to_string().as_ref(), folder.as_ref()]);
        Self { process, _alive: alive }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }
}

/// Runs a script for the shell when what is returned is dropped, or when we die in any way.
pub(crate) fn at_our_end(script: &str, arguments: &[&OsStr]) -> ChildStdin {
    let mut keeper = Command::new("sh");
    keeper.args(["-c", &format!("cat; {script}"), "keeper"]).args(arguments);
    keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    keeper.spawn().expect("start sh").stdin.take().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test is told by dev/test where the programs are")]
fn program() -> PathBuf {
    let cache = std::env::var_os("RUSUBAN_DEV_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/rusuban-dev"));
    let program = cache.join("bin/garage");
    assert!(program.exists(), "there is no Garage at {}: dev/test puts it there", program.display());
    program
}

fn healthy(admin: SocketAddrV4) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /health HTTP/1.1\r\nHost: garage\r\nConnection: close\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}
