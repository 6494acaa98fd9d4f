//! Root's passive look at the daemon's memory finds no secret, no piece of one and no live token,
//! however much the daemon has been used.

use std::path::PathBuf;
use std::process::Command;

use super::scan::{Found, Needles};
use super::thief;
use crate::harness::{Daemon, Sandbox, finish, needs, needs_root, running};

/// Five secrets by five kinds of sources, and tasks that are given them in every way, print them, and
/// have hooks that are told of what was printed.
const CONFIG: &str = r#"
secretbox: {memory: MEMORY, max_token_ttl: 1h}
secrets:
  - {name: disk, file: ~/disk}
  - {name: tool, command: [cat, ~/tool]}
  - {name: key, env: SECRET_KEY}
  - {name: system, credential: system}
  - {name: vault, onepassword: "op://Private/vault/password"}
defaults:
  hooks:
    start: [sh, -c, 'cat > /dev/null; echo "$S"']
    end: {command: [sh, -c, 'cat; echo "$S"'], environment: {S: {secret: disk, as: value}}}
tasks:
  - name: hold
    environment: {DISK: {secret: disk, as: command}, TOOL: {secret: tool, as: command, uses: 3}}
    command: [sh, -c, 'printf %s "$DISK $TOOL" > new; mv new live; await ~/go']
  - {name: sneak, command: [sh, -c, 'printf "%s" "$A"; sleep 0.01; cat', x], stdin: {secret: tool}, environment: {A: {secret: key, as: value}}}
  - name: many
    order: parallel
    steps:
      - {command: [sh, -c, 'cat; cat "$F"; echo "$V"; eval "$C"; echo "$T"; cat "$U"'], stdin: {secret: disk}, environment: &all {F: {secret: tool, as: file}, V: {secret: key, as: value}, C: {secret: system, as: command}, T: {secret: vault, as: value, template: "rest:https://me:{}@host/"}, U: {secret: disk, as: file, template: "user:{}\n"}}}
      - {name: plain, command: [sh, -c, 'cat "$F" | tr -d "\n"; printf "%s" "$V"; eval "$C"'], environment: *all}
  - name: fails
    environment: {V: {secret: vault, as: value}, C: {secret: tool, as: command}}
    command: [sh, -c, 'eval "$C" >&2; echo "$V" >&2; exit 7']
"#;

const RUNS: usize = 100;

/// A text that is no other's: 48 characters of its own.
fn value(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[(state >> 33) as usize % 64])
    };
    (0..48).map(|_| next()).collect()
}

struct Values {
    disk: String,
    tool: String,
    key: String,
    system: String,
    vault: String,
}

impl Values {
    fn new(seed: u64) -> Values {
        let value = |number| value(seed * 100 + number);
        // Many lines, and one long enough to be moved about.
        let tool = (0..40).map(|line| value(10 + line) + "\n").collect();
        Values { disk: value(1), tool, key: value(2), system: value(3), vault: value(4) }
    }

    fn texts(&self) -> [(&str, &[u8]); 5] {
        [
            ("disk", self.disk.as_bytes()),
            ("tool", self.tool.as_bytes()),
            ("key", self.key.as_bytes()),
            ("system", self.system.as_bytes()),
            ("vault", self.vault.as_bytes()),
        ]
    }

    /// Puts them where the sources find them.
    fn write(&self, sandbox: &Sandbox) {
        sandbox.write("disk", &self.disk);
        sandbox.write("tool", &self.tool);
        sandbox.write("credentials/system", &self.system);
        sandbox.write("op.value", &self.vault);
        sandbox.script("bin/op", "#!/bin/sh\ncat ~/op.value\n");
    }
}

fn start(sandbox: &Sandbox, values: &Values, memory: &str) -> Daemon {
    values.write(sandbox);
    sandbox.config(&CONFIG.replace("MEMORY", memory));
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    command.env("SECRET_KEY", &values.key).env("CREDENTIALS_DIRECTORY", sandbox.path("credentials"));
    let daemon = Daemon::start(command);
    daemon.wait_for(&["ready", "tasks="]);
    daemon
}

fn ask(sandbox: &Sandbox, what: &str) {
    let mut command = sandbox.backupnizza([what]);
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(command).expect(0);
}

/// Runs `count` tasks, three at a time.
fn run_tasks(sandbox: &Sandbox, count: usize) {
    let tasks = [("many", 0), ("sneak", 0), ("fails", 1)];
    for _ in 0..count.div_ceil(tasks.len()) {
        let clients = tasks.map(|(task, status)| {
            let mut command = sandbox.backupnizza(["run", task]);
            (running(command.env("BACKUPNIZZA_SOCKET", sandbox.socket())), status)
        });
        clients.into_iter().for_each(|(client, status)| drop(client.finish().expect(status)));
    }
}

fn memory_holds_nothing(memory: &str) {
    if !needs_root() || !needs("gcore") {
        return;
    }
    let sandbox = Sandbox::new();
    let Some(thief) = thief(&sandbox) else { return };
    let first = Values::new(1);
    let daemon = start(&sandbox, &first, memory);
    let assert_clean = |needles: &Needles<'_>, when: &str| {
        let found = needles.find_in_process(daemon.pid());
        assert_eq!(found.outside, [] as [&str; 0], "{when}");
        found.locked
    };
    // The scan does see what is there: locked memory too, which only secret memory hides from root.
    let control = Needles::new(&sandbox, &thief, [("control", &b"BACKUPNIZZA_TASK"[..])]);
    assert!(!control.find_in_process(daemon.pid()).outside.is_empty(), "the scan finds nothing");
    let needles = Needles::new(&sandbox, &thief, first.texts());
    let locked = assert_clean(&needles, "after the start");
    assert_eq!(locked.iter().any(|found| found.starts_with("vault ")), memory == "locked", "{locked:?}");

    run_tasks(&sandbox, RUNS);
    let mut holding = sandbox.backupnizza(["run", "hold"]);
    let holding = running(holding.env("BACKUPNIZZA_SOCKET", sandbox.socket()));
    sandbox.await_file("live");
    let live = sandbox.read("live");
    let tokens: Vec<&str> = live.split("secretbox ").skip(1).map(|token| &token[..64]).collect();
    let live_tokens = [("a_token", tokens[0].as_bytes()), ("another_token", tokens[1].as_bytes())];
    let with_tokens = Needles::new(&sandbox, &thief, first.texts().into_iter().chain(live_tokens));
    assert_clean(&with_tokens, "after a hundred runs, in another");
    let core = gcore(&sandbox, &daemon);
    // gdb follows the mappings' own advice, so locked memory stays out as well.
    assert_eq!(with_tokens.find_in_file(&core), Found::default(), "a core made by root");
    sandbox.signal("go");
    holding.finish().expect(0);

    // Other values, asked for while the old ones are kept out of output.
    let second = Values { key: first.key.clone(), ..Values::new(2) };
    second.write(&sandbox);
    ask(&sandbox, "refresh");
    run_tasks(&sandbox, 6);
    let both = || first.texts().into_iter().chain(second.texts());
    assert_clean(&Needles::new(&sandbox, &thief, both()), "after a refresh");
    ask(&sandbox, "lock");
    let all = Needles::new(&sandbox, &thief, both());
    assert_eq!(all.find_in_process(daemon.pid()), Found::default(), "after lock");
    let log = sandbox.write("log", daemon.log());
    assert_eq!(all.find_in_file(&log), Found::default(), "the log");
}

/// A core file of the daemon that root makes while it lives.
fn gcore(sandbox: &Sandbox, daemon: &Daemon) -> PathBuf {
    let mut gcore = Command::new("gcore");
    gcore.arg("-o").arg(sandbox.path("core")).arg(daemon.pid().to_string());
    finish(gcore).expect(0);
    sandbox.path(&format!("core.{}", daemon.pid()))
}

#[test]
fn root_finds_no_secret_in_secret_memory() {
    memory_holds_nothing("secret");
}

#[test]
fn root_finds_no_secret_beside_locked_memory() {
    memory_holds_nothing("locked");
}
