//! A real SSH server with a real Docker engine behind it, and an `ssh` that knows its key and no other.
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::garage::Kept;

/// It ends when it is dropped.
pub(crate) struct Sshd {
    folder: PathBuf,
    /// Where it lets us in.
    pub(crate) port: u16,
    /// Where there is no `docker`.
    pub(crate) bare: u16,
    /// Where we have no rights.
    pub(crate) stranger: u16,
    _process: Kept,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Sshd {
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("rusuban-sshd").tempdir().unwrap().keep();
        let [port, bare, stranger] = [(); 3].map(|()| free_port());
        let script = r#"
            mkdir -p /run/sshd bin nothing
            ssh-keygen -q -t ed25519 -N '' -f host
            ssh-keygen -q -t ed25519 -N '' -f key
            ssh-keygen -q -t ed25519 -N '' -f other
            cp key.pub authorized_keys
            for port in "$2" "$3" "$4"; do echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 host.pub)"; done > known
            cat > server <<END
Port $2
Port $3
Port $4
ListenAddress 127.0.0.1
HostKey $1/host
AuthorizedKeysFile $1/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
Match LocalPort $3
    ForceCommand PATH=$1/nothing; export PATH; eval "\$SSH_ORIGINAL_COMMAND"
Match LocalPort $4
    ForceCommand exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "\$SSH_ORIGINAL_COMMAND"
END
            # The settings of a person, who is another one in each test.
            cat > client <<END
IdentityFile $1/key
IdentitiesOnly yes
UserKnownHostsFile $1/known
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
END
            printf '#!/bin/sh\nexec /usr/bin/ssh -F "%s" "$@"\n' "$1/client" > bin/ssh
            chmod +x bin/ssh
        "#;
        let ports = [port, bare, stranger].map(|port| port.to_string());
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sshd"]).arg(&folder).args(&ports).current_dir(&folder);
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(folder.join("server"));
        let mut process = Kept::start(&folder, &mut command);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", stranger)).is_err() {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(!process.has_ended() && begun.elapsed() < Duration::from_secs(30), "sshd: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { folder, port, bare, stranger, _process: process }
    }

    /// A folder that comes first in `PATH`.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// The address of an engine there.
    pub(crate) fn host(&self, port: u16, socket: &Path) -> String {
        format!("ssh://root@127.0.0.1:{port}{}", socket.display())
    }

    /// From now on the person has this instead of that in the settings.
    pub(crate) fn instead(&self, of: &str, other: &str) {
        let file = self.folder.join("client");
        fs::write(&file, fs::read_to_string(&file).unwrap().replace(of, other)).unwrap();
    }
}
