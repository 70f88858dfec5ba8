//! A real S3 server: Garage, on free ports of this machine, gone with the test's process.
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rusuban::config::secret::Secret;

/// The bucket that is there from the start.
pub(crate) const BUCKET: &str = "tests";
const KEY: &str = "GK0123456789abcdef01234567";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A server that is up.
pub(crate) struct Garage {
    server: Child,
    _folder: tempfile::TempDir,
    pub(crate) endpoint: String,
}

impl Garage {
    /// Starts a server. `dev/test` builds it.
    #[expect(clippy::disallowed_methods, reason = "a test asks its environment and the time itself")]
    pub(crate) fn start() -> Self {
        let cache = std::env::var_os("RUSUBAN_DEV_CACHE").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/rusuban-dev"),
            PathBuf::from,
        );
        let program = cache.join("bin/garage");
        assert!(program.exists(), "{} is not there: `dev/test` builds it", program.display());
        let folder = tempfile::tempdir().unwrap();
        let [rpc, s3, admin] = [0; 3].map(|_| free_address());
        let root = folder.path().display();
        let settings = format!(
            "metadata_dir = \"{root}/meta\"\ndata_dir = \"{root}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{SECRET}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"{s3}\"\n[admin]\napi_bind_addr = \"{admin}\"\n"
        );
        let file = folder.path().join("garage.toml");
        fs::write(&file, settings).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        // It ends with this process, however that ends.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&program)
            .arg("-c")
            .arg(&file)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let garage = Self { server, _folder: folder, endpoint: format!("http://{s3}") };
        let began = Instant::now();
        while !healthy(admin) {
            assert!(began.elapsed() < Duration::from_secs(30), "Garage does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        garage
    }

    /// The key and its secret.
    pub(crate) fn credentials() -> (Secret, Secret) {
        (Secret::new(KEY), Secret::new(SECRET))
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn healthy(admin: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let mut answer = [0; 12];
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"200")
}
