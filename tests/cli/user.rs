//! `user = "name"`, with tables of users and groups of the test's own.
use super::*;

/// The program as root, in a mount namespace of its own where these are `/etc/passwd` and `/etc/group`.
fn with_tables(home: &Path, passwd: &str, group: &str) -> Command {
    fs::write(home.join("passwd"), passwd).unwrap();
    fs::write(home.join("group"), group).unwrap();
    let mut command = Command::new("unshare");
    let line = "mount --bind \"$1/passwd\" /etc/passwd && mount --bind \"$1/group\" /etc/group && shift && exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", line, "sh"])
        .arg(home)
        .arg(env!("CARGO_BIN_EXE_rusuban"))
        .arg("--home")
        .arg(home)
        .env_remove("RUSUBAN_HOME")
        .stdin(Stdio::null());
    command
}

#[test]
fn a_user_has_all_its_groups_and_none_of_ours() {
    // Only root may, and not in every container.
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        return;
    }
    let home = home(
        "who",
        "kind = \"command\"\nuser = \"ann\"\nfolder = \"/\"\nshell = \"id -u; id -ru; id -g; id -G; grep ^Groups /proc/self/status\"\n",
    );
    fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:4711:4712:Ann:/:/bin/sh\n";
    let group = "root:x:0:\nann:x:4712:\nmedia:x:4713:bob,ann\nother:x:4714:bob\nbackup:x:34:ann\n";
    let output = with_tables(home.path(), passwd, group).args(["run", "who"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["4711\n", "4712\n", "4712 34 4713\n", "Groups:\t34 4712 4713"] {
        assert!(said.contains(line), "{line:?} is not in: {said}");
    }
    // Ours are as they were: the next command as ourselves still is root.
    add(home.path(), "ours", "kind = \"command\"\nshell = \"id -u; id -ru\"\n");
    let output = with_tables(home.path(), passwd, group).args(["run", "ours"]).output().unwrap();
    assert!(!text(&output).contains("4711"), "{}", text(&output));
}
