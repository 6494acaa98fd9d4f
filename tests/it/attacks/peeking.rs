//! Another program of the same user, without root, gets nothing out of the daemon or its client,
//! nor out of what is left of them when they crash.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use super::{SECRET, start, text, thief};
use crate::harness::{Daemon, Sandbox, eventually, finish, is_root, needs, not_tested, signal};

/// A task that holds a live token in one variable.
const CONFIG: &str = r#"
secrets: [{name: vault, file: ~/vault}, {name: key, env: SECRET_KEY}]
tasks:
  - name: t
    schedule: "@start"
    environment: {VAULT: {secret: vault, as: command, max_ttl: 1h}}
    command:
      - sh
      - -c
      - |
        { head -c 65536 /dev/zero; touch filling; eval "$VAULT"; } | { await ~/go; tail -c +65537; } > got
"#;

fn daemon(sandbox: &Sandbox) -> Daemon {
    sandbox.write("vault", SECRET);
    sandbox.config(CONFIG);
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    command.env("SECRET_KEY", SECRET.replace('-', "+"));
    let daemon = Daemon::start(command);
    daemon.wait_for(&["ready", "tasks="]);
    daemon
}

/// Where the thief found something of process `pid`.
fn look(sandbox: &Sandbox, thief: &std::path::Path, pid: u32) -> String {
    start(sandbox, thief, ["look", &pid.to_string()]).finish().expect(0).stdout()
}

/// The process whose arguments begin like this.
fn process_with(arguments: &[&str]) -> Option<u32> {
    let mut pids = fs::read_dir("/proc").expect("processes").flatten();
    pids.find_map(|entry| {
        let cmdline = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = cmdline.split(|&byte| byte == 0);
        let alike = arguments.iter().all(|argument| words.next() == Some(argument.as_bytes()));
        if alike { entry.file_name().to_str()?.parse().ok() } else { None }
    })
}

#[test]
fn the_same_user_gets_nothing_out_of_the_daemon_and_the_client() {
    let sandbox = Sandbox::of_ordinary_user();
    let Some(thief) = thief(&sandbox) else { return };
    let mut open = sandbox.command("sleep").arg("1000").spawn().expect("a process");
    let control = look(&sandbox, &thief, open.id());
    for way in ["mem", "environ", "maps", "fd", "process_vm_readv", "pidfd_getfd 0", "ptrace"] {
        // ptrace may be off for all of this machine.
        let may_be_shut = !matches!(way, "environ" | "maps" | "fd");
        assert!(may_be_shut || control.lines().any(|line| line == way), "the thief can do nothing: {control}");
    }
    open.kill().and_then(|()| open.wait()).expect("a child");

    let daemon = daemon(&sandbox);
    assert_eq!(look(&sandbox, &thief, daemon.pid()), "");
    // The client has the secret and waits for room in its pipe.
    sandbox.await_file("filling");
    daemon.wait_for(&["secret handed out", "secret=vault"]);
    let program = text(sandbox.program()).to_owned();
    let client = eventually("the client", || process_with(&[&program, "secretbox"]));
    assert_eq!(look(&sandbox, &thief, client), "");
    sandbox.signal("go");
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    assert_eq!(sandbox.read("got"), SECRET);
}

#[test]
fn debuggers_of_the_same_user_are_turned_away() {
    if !needs("gdb") || !needs("gcore") {
        return;
    }
    let sandbox = Sandbox::of_ordinary_user();
    let daemon = daemon(&sandbox);
    let pid = daemon.pid().to_string();
    let mut gdb = sandbox.command("gdb");
    let said = finish({
        gdb.args(["-batch", "-nx", "-p", &pid, "-ex", "info proc mappings", "-ex", "generate-core-file core.gdb"]);
        gdb
    });
    assert!(said.stderr.contains("not permitted") || said.stderr.contains("denied"), "{said:?}");
    let mut gcore = sandbox.command("gcore");
    gcore.args(["-o", "core", &pid]);
    assert_ne!(finish(gcore).status, 0);
    assert_eq!(cores(&sandbox), [] as [PathBuf; 0]);
    sandbox.signal("go");
    daemon.wait_for_end("t");
}

fn cores(sandbox: &Sandbox) -> Vec<PathBuf> {
    let entries = fs::read_dir(sandbox.home()).expect("the home directory").flatten().map(|entry| entry.path());
    entries.filter(|path| text(path).contains("core")).collect()
}

#[test]
fn a_crash_leaves_no_core() {
    let sandbox = Sandbox::of_ordinary_user();
    sandbox.write("vault", SECRET);
    sandbox.config("secrets: [{name: vault, file: ~/vault}]\ntasks: [{name: t, schedule: '@hourly', environment: {V: {secret: vault, as: file}}, command: ['true']}]\n");
    let unlimited = |script: &str| {
        let mut command = sandbox.command("sh");
        command.args(["-c", &format!("ulimit -c unlimited && {script}"), text(sandbox.program())]);
        command
    };
    // To be sure that this system would write one.
    let control = unlimited("kill -ABRT $$").output().expect("a shell").status;
    if !control.core_dumped() {
        return not_tested("processes write no core files here");
    }
    cores(&sandbox).iter().for_each(|core| fs::remove_file(core).expect("the shell's core"));
    for name in ["ABRT", "SEGV"] {
        let mut daemon = Daemon::start(unlimited("exec \"$0\" backup.yaml"));
        daemon.wait_for(&["ready", "tasks="]);
        // The first SEGV only takes away a handler, because it does not come from a bad address.
        let status = eventually("the daemon to crash", || {
            signal(daemon.pid(), name);
            (!daemon.is_running()).then(|| daemon.wait())
        });
        assert!(status.signal().is_some() && !status.core_dumped(), "{name}: {status:?}");
        assert_eq!(cores(&sandbox), [] as [PathBuf; 0], "{name}");
        fs::remove_file(sandbox.socket()).expect("what the dead daemon left");
    }
}

/// Where the tests run as root: a daemon of root's and an ordinary user.
#[test]
fn another_user_gets_nothing_either() {
    if !is_root() {
        return not_tested("only root can have a second user");
    }
    let sandbox = Sandbox::of_ordinary_user();
    let Some(thief) = thief(&sandbox) else { return };
    let roots = Sandbox::new();
    let daemon = daemon(&roots);
    assert_eq!(look(&sandbox, &thief, daemon.pid()), "");
    // Not even the socket can be reached.
    let socket = roots.socket();
    let said = start(&sandbox, &thief, ["redeem", text(&socket), &"0".repeat(64)]).finish();
    assert_eq!(said.stdout(), "redeem -1\n");
    roots.signal("go");
    daemon.wait_for_end("t");
}
