//! A token gives its secret once, in time, to its own step, and to nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Daemon, Finished, Sandbox, finish, needs};

const SECRET: &str = "correct horse battery staple";

/// A task `t` that runs `script` at start, with the secret's command in `$VAULT`; `delivery` is
/// added to it.
fn config(script: &str, delivery: &str) -> String {
    let script = script.replace('\n', "\n          ");
    format!(
        r#"
secrets:
  - {{name: vault, file: ~/vault}}
tasks:
  - name: t
    schedule: "@start"
    environment:
      VAULT: {{secret: vault, as: command{delivery}}}
    command:
      - sh
      - -c
      - |
          {script}
"#
    )
}

/// Runs `script` to its end in a daemon.
fn run(sandbox: &Sandbox, script: &str, delivery: &str) -> Daemon {
    sandbox.write("vault", SECRET);
    let daemon = sandbox.daemon(&config(script, delivery));
    daemon.wait_for_end("t");
    daemon
}

/// The token out of the variable's value.
fn token(command: &str) -> String {
    command.rsplit(' ').next().expect("a token").to_owned()
}

#[test]
fn a_token_works_once() {
    let sandbox = Sandbox::new();
    let script = r#"
eval "$VAULT" > first; echo $? > first.status
eval "$VAULT" > second; echo $? > second.status
printf %s "$VAULT" > leaked"#;
    let daemon = run(&sandbox, script, "");
    assert_eq!((sandbox.read("first"), sandbox.read("first.status")), (SECRET.to_owned(), "0\n".to_owned()));
    assert_eq!((sandbox.read("second"), sandbox.read("second.status")), (String::new(), "1\n".to_owned()));
    daemon.wait_for(&["warn", "token refused", "the token is spent"]);
    let handed_out = daemon.lines(&["info", "secret handed out", "secret=vault task=t", "run=1", "pid="]);
    assert_eq!(handed_out.len(), 1, "{}", daemon.log());
    assert!(!daemon.log().contains(&token(&sandbox.read("leaked"))), "{}", daemon.log());
    assert!(!daemon.log().contains(SECRET), "{}", daemon.log());
}

#[test]
fn a_token_works_as_often_as_uses_says() {
    let sandbox = Sandbox::new();
    let script = r#"for i in 1 2 3 4; do eval "$VAULT" > out.$i; echo $? >> status; done"#;
    run(&sandbox, script, ", uses: 3");
    assert_eq!(sandbox.read("status"), "0\n0\n0\n1\n");
    assert_eq!(sandbox.read("out.3"), SECRET);
    assert_eq!(sandbox.read("out.4"), "");
}

#[test]
fn a_token_dies_at_its_time() {
    let sandbox = Sandbox::new();
    // By the clock that the daemon goes by, to its second after the token's last.
    let script = r#"
now() { read up rest < /proc/uptime; echo ${up%.*}; }
[ -e /proc/uptime ] || now() { date +%s; }
end=$(($(now) + 3)); while [ $(now) -lt $end ]; do sleep 0.1; done
eval "$VAULT" > late; echo $? > status"#;
    let daemon = run(&sandbox, script, ", max_ttl: 1s, uses: 5");
    assert_eq!((sandbox.read("late"), sandbox.read("status")), (String::new(), "1\n".to_owned()));
    daemon.wait_for(&["warn", "token refused", "the token has expired"]);
}

#[test]
fn a_token_dies_with_its_step_though_its_session_lives_on() {
    let sandbox = Sandbox::new();
    let script = r#"
(await ~/go; eval "$VAULT" > late; echo $? > status) < /dev/null > /dev/null 2>&1 &
eval "$VAULT" > early"#;
    let daemon = run(&sandbox, script, ", uses: 5, max_ttl: 1h");
    daemon.wait_for(&["processes of the command go on after its end", "task=t"]);
    assert_eq!(sandbox.read("early"), SECRET);
    sandbox.signal("go");
    daemon.wait_for(&["warn", "token refused"]);
    sandbox.await_file("status");
    assert_eq!(sandbox.read("late"), "");
}

#[test]
fn a_token_is_of_no_use_outside_of_its_session() {
    if !needs("setsid") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    let script = r#"
setsid -w sh -c "$VAULT" > stolen; echo $? > status
printf %s "$VAULT" > leaked.new; mv leaked.new leaked
await ~/go
eval "$VAULT" > own"#;
    let daemon = sandbox.daemon(&config(script, ", max_ttl: 1h"));
    sandbox.await_file("leaked");
    let refused = daemon.wait_for(&["warn", "token refused", "outside of every step's session", "`stdin`", "pid="]);
    assert!(refused.contains(" uid="), "{refused}");
    assert_eq!((sandbox.read("stolen"), sandbox.read("status")), (String::new(), "1\n".to_owned()));

    let leaked = sandbox.read("leaked");
    redeem(&sandbox, &token(&leaked)).expect(1);
    daemon.wait_for_lines(2, &["warn", "token refused", "outside of every step's session"]);
    // All of that has spent nothing.
    sandbox.signal("go");
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    assert_eq!(sandbox.read("own"), SECRET);
    for secret in [SECRET, &token(&leaked)] {
        assert!(!daemon.log().contains(secret), "{}", daemon.log());
    }
}

/// Redeems a token from the test's own session.
fn redeem(sandbox: &Sandbox, token: &str) -> Finished {
    let mut command = sandbox.backupnizza(["secretbox", token]);
    finish_with_socket(&mut command, &sandbox.socket())
}

fn finish_with_socket(command: &mut std::process::Command, socket: &Path) -> Finished {
    command.env("BACKUPNIZZA_SOCKET", socket);
    crate::harness::running(command).finish()
}

#[test]
fn a_step_cannot_use_the_token_of_another() {
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    let daemon = sandbox.daemon(
        r#"
secrets:
  - {name: vault, file: ~/vault}
tasks:
  - name: t
    schedule: "@start"
    order: parallel
    environment:
      VAULT: {secret: vault, as: command, max_ttl: 1h}
    steps:
      - name: owner
        command: [sh, -c, 'printf %s "$VAULT" > token.new; mv token.new token; await ~/done']
      - name: thief
        command: [sh, -c, 'await ~/token; eval "$(cat token)" > stolen; echo $? > status; eval "$VAULT" > own; touch done']
"#,
    );
    daemon.wait_for_end("t");
    daemon.wait_for(&["warn", "token refused", "the token belongs to another session"]);
    assert_eq!((sandbox.read("stolen"), sandbox.read("status")), (String::new(), "1\n".to_owned()));
    assert_eq!(sandbox.read("own"), SECRET);
}

#[test]
fn every_refusal_looks_the_same_to_the_client() {
    if !needs("setsid") {
        return;
    }
    let sandbox = Sandbox::new();
    let script = r#"
try() { "$@" > stdout 2> stderr; echo "status $?" > "$NAME"; cat stdout stderr >> "$NAME"; }
NAME=other-session try setsid -w sh -c "$VAULT"
NAME=unknown try sh -c "${VAULT%% secretbox*} secretbox $(printf '%064d' 0)"
eval "$VAULT" > first
NAME=spent try sh -c "$VAULT"
"#;
    run(&sandbox, script, ", max_ttl: 1h");
    let spent = sandbox.read("spent");
    assert!(spent.starts_with("status 1\nbackupnizza: error: secretbox: the daemon refused the token\n"), "{spent}");
    for other in ["other-session", "unknown"] {
        assert_eq!(sandbox.read(other), spent, "{other}");
    }
}

#[test]
fn secretbox_prints_exactly_the_bytes_of_the_secret() {
    let mut large: Vec<u8> = (0..64 * 1024).map(|index| (index % 251) as u8).collect();
    large[64 * 1024 - 1] = b'.';
    for (value, expected) in [
        (&b"plain\n"[..], &b"plain"[..]),
        (b"no line ending", b"no line ending"),
        (b"  blanks before and after \t\n", b"  blanks before and after \t"),
        (b"two line endings\n\n", b"two line endings\n"),
        (b"many\nlines\r\nof text\n", b"many\nlines\r\nof text"),
        (b"\x00\xff\xfe binary \x1b[0m\x00", b"\x00\xff\xfe binary \x1b[0m\x00"),
        (&large, &large),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("vault", value);
        let daemon = sandbox.daemon(&config(r#"eval "$VAULT" > got"#, ""));
        daemon.wait_for_end("t");
        assert_eq!(sandbox.read_bytes("got"), expected, "{}", daemon.log());
    }
}

#[test]
fn many_clients_at_once_are_all_served() {
    let sandbox = Sandbox::new();
    let script = r#"
for i in $(seq 60); do eval "$VAULT" > got.$i & done
wait
cat got.* > all"#;
    run(&sandbox, script, ", uses: 60, max_ttl: 1h");
    assert_eq!(sandbox.read("all"), SECRET.repeat(60));
}

#[test]
fn a_client_without_a_daemon_says_so() {
    let sandbox = Sandbox::new();
    let token = "0".repeat(64);
    let alone = redeem(&sandbox, &token).expect(1);
    assert!(alone.stdout.is_empty());
    assert!(alone.stderr.contains("backupnizza: hint: start it: `backupnizza CONFIG`"), "{}", alone.stderr);
    assert!(!alone.stderr.contains(&token), "{}", alone.stderr);

    let no_token = finish(sandbox.backupnizza(["secretbox"])).expect(2);
    assert!(no_token.stderr.contains("backupnizza: error: "), "{}", no_token.stderr);
}

/// A daemon that runs from a copy of the program in `folder`, with a task that redeems its token
/// each second.
fn from_a_copy(sandbox: &Sandbox, folder: &str) -> (PathBuf, Command) {
    let copy = sandbox.path(folder).join("backupnizza");
    fs::create_dir_all(sandbox.path(folder)).expect("a folder");
    fs::copy(env!("CARGO_BIN_EXE_backupnizza"), &copy).expect("a copy");
    sandbox.write("vault", SECRET);
    sandbox.config(&config(r#"eval "$VAULT" > out"#, "").replace("@start", "@every 1s"));
    let mut command = sandbox.command(&copy);
    command.arg("backup.yaml");
    (copy, command)
}

#[test]
fn no_token_is_made_once_the_client_was_exchanged() {
    let sandbox = Sandbox::new();
    let (copy, command) = from_a_copy(&sandbox, "own");
    let mut daemon = Daemon::start(command);
    daemon.wait_for(&["run ended", "task=t", "outcome=success"]);
    fs::remove_file(&copy).expect("the client goes");
    sandbox.write("own/backupnizza", "#!/bin/sh\ntouch ~/stolen\n");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("its mode");
    daemon.wait_for(&["error", "own/backupnizza: has changed since the start", "task=t"]);
    daemon.wait_for(&["run ended", "task=t", "outcome=failure"]);
    daemon.stop();
    assert!(!sandbox.path("stolen").exists(), "{}", daemon.log());
}

#[test]
fn a_client_that_others_could_exchange_is_refused_at_the_start() {
    let sandbox = Sandbox::new();
    let (copy, command) = from_a_copy(&sandbox, "open");
    let folder = copy.parent().expect("a folder");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("its mode");
    let finished = finish(command).expect(1);
    assert!(finished.stderr.contains("open: writable by"), "{}", finished.stderr);
    assert!(finished.stderr.contains("-m 0711"), "{}", finished.stderr);
}

#[test]
fn silent_peers_of_one_step_keep_no_other_from_its_secret() {
    if !needs("python3") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    sandbox.write(
        "hog.py",
        "import os, socket\nall = [socket.socket(socket.AF_UNIX) for _ in range(100)]\n\
         for one in all: one.connect(os.environ['BACKUPNIZZA_SOCKET'])\n\
         open('hogging', 'w').close()\nos.execvp('await', ['await', 'go'])\n",
    );
    let mut daemon = sandbox.daemon(
        r#"
secrets:
  - {name: vault, file: ~/vault}
defaults:
  environment: {VAULT: {secret: vault, as: command, max_ttl: 1h}}
tasks:
  - {name: hog, schedule: "@start", command: [python3, ~/hog.py]}
  - {name: t, schedule: "@start", command: [sh, -c, 'await hogging; eval "$VAULT" > out']}
"#,
    );
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    assert_eq!(sandbox.read("out"), SECRET);
    sandbox.signal("go");
    daemon.wait_for_end("hog");
    daemon.stop();
}
