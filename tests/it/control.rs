//! A running daemon tells how it is and does what it is told, and nobody who asks holds it up.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Daemon, Finished, Running, Sandbox, eventually, finish, running};

const SECRET: &str = "correct horse battery staple";

/// backupnizza with these arguments, told where the daemon is.
fn client<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Command {
    let mut command = sandbox.backupnizza(arguments);
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    command
}

fn ask<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Finished {
    finish(client(sandbox, arguments))
}

/// The `status --json` of the daemon.
fn status(sandbox: &Sandbox) -> String {
    ask(sandbox, ["status", "--json"]).stdout()
}

fn await_status(sandbox: &Sandbox, part: &str) -> String {
    eventually(part, || Some(status(sandbox)).filter(|status| status.contains(part)))
}

fn follow(sandbox: &Sandbox, task: &str) -> Running {
    running(&mut client(sandbox, ["run", task]))
}

fn control_socket(sandbox: &Sandbox) -> std::path::PathBuf {
    let mut path = sandbox.socket().into_os_string();
    path.push(".control");
    path.into()
}

fn connect(sandbox: &Sandbox) -> UnixStream {
    let stream = UnixStream::connect(control_socket(sandbox)).expect("a control socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream
}

/// What the daemon sends until it closes the connection.
fn rest(mut stream: UnixStream) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

const TASKS: &str = r#"
tasks:
  - name: good
    schedule: "@daily"
    command: [echo, all well]
  - name: bad
    schedule: "@daily"
    command: [sh, -c, 'echo one; printf "\033[31mFatal: no\ttab\n"; exit 12']
  - name: doubtful
    schedule: "@daily"
    command: [sh, -c, exit 9]
    exit_codes: {warning: [9]}
  - name: off
    schedule: "@daily"
    enabled: false
    command: [nothing-of-this-name]
"#;

#[test]
fn a_daemon_that_cannot_be_reached_is_a_failure_that_says_where() {
    let sandbox = Sandbox::new();
    let asked = finish(sandbox.backupnizza(["status"])).expect(1);
    assert!(asked.stderr.contains("backupnizza/socket.control"), "{}", asked.stderr);
    assert!(asked.stderr.contains("hint: start it: `backupnizza CONFIG`"), "{}", asked.stderr);
    let asked = ask(&sandbox, ["status", "--socket", "/nowhere/socket"]).expect(1);
    assert!(asked.stderr.contains("/nowhere/socket.control"), "{}", asked.stderr);
}

#[test]
fn a_run_is_followed_to_its_end_with_its_exit_status() {
    let sandbox = Sandbox::new();
    let _daemon = daemon(&sandbox, TASKS);
    let good = ask(&sandbox, ["run", "good"]).expect(0);
    assert_eq!(good.stdout(), "all well\n");
    assert!(good.stderr.contains("run 1 started") && good.stderr.contains("run 1 ended: success"), "{}", good.stderr);
    ask(&sandbox, ["run", "doubtful"]).expect(3);
    let bad = ask(&sandbox, ["run", "bad"]).expect(1);
    assert!(bad.stderr.contains("run 3 ended: failure (exit 12)"), "{}", bad.stderr);
    assert!(!bad.stdout().contains('\x1b'), "{}", bad.stdout());
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    let sandbox = Sandbox::new();
    let _daemon = daemon(&sandbox, TASKS);
    let mistyped = ask(&sandbox, ["run", "godo"]).expect(1);
    assert!(mistyped.stderr.contains("no such task") && mistyped.stderr.contains("`good`"), "{}", mistyped.stderr);
    let disabled = ask(&sandbox, ["run", "off"]).expect(1);
    assert!(
        disabled.stderr.contains("not enabled") && disabled.stderr.contains("backup.yaml off`"),
        "{}",
        disabled.stderr
    );
    assert!(ask(&sandbox, ["run", "good\nlock"]).expect(1).stderr.contains("no task can have such a name"));
    assert!(ask(&sandbox, ["stop", "good"]).expect(1).stderr.contains("neither running nor due"));
}

#[test]
fn status_tells_of_a_failure_and_exits_accordingly() {
    let sandbox = Sandbox::new();
    let daemon = daemon(&sandbox, TASKS);
    let fresh = ask(&sandbox, ["status"]).expect(0).stdout();
    assert_eq!(fresh.lines().map(|line| line.split('\t').count()).collect::<Vec<_>>(), [10, 10, 10, 10], "{fresh}");
    assert!(fresh.lines().nth(3).is_some_and(|line| line.starts_with("off\tdisabled\t")), "{fresh}");
    ask(&sandbox, ["run", "bad"]).expect(1);
    let asked = ask(&sandbox, ["status", "--json"]).expect(1).stdout();
    for part in [
        format!("\"pid\":{}", daemon.pid()),
        format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION")),
        "\"ok\":false".to_owned(),
        "\"outcome\":\"failure\",\"reason\":null,\"exit_code\":12".to_owned(),
        "\"last_line\":\"\\\\x1b[31mFatal: no\\ttab\"".to_owned(),
        "\"max_age_seconds\":172800".to_owned(),
    ] {
        assert!(asked.contains(&part), "{part}: {asked}");
    }
    let text = ask(&sandbox, ["status"]).expect(1).stdout();
    let line = text.lines().nth(1).expect("a line of the second task");
    assert!(line.starts_with("bad\tidle\t-\tfailure\t") && line.contains("\tfailing\t"), "{line}");
    assert_eq!(line.split('\t').count(), 10, "{line}");
}

#[test]
fn a_stale_task_is_told() {
    let sandbox = Sandbox::new();
    let _daemon = daemon(&sandbox, "tasks: [{name: t, schedule: '@daily', max_age: 1s, command: [\"true\"]}]");
    await_status(&sandbox, "\"stale\":true");
    assert!(ask(&sandbox, ["status"]).expect(1).stdout().contains("\tstale\t"));
    ask(&sandbox, ["run", "t"]).expect(0);
}

#[test]
fn history_is_told_with_and_without_a_daemon() {
    let sandbox = Sandbox::new();
    let mut daemon = daemon(&sandbox, TASKS);
    for (task, status) in [("good", 0), ("bad", 1), ("good", 0)] {
        ask(&sandbox, ["run", task]).expect(status);
    }
    let tasks = |finished: Finished| -> Vec<String> {
        let text = finished.expect(0).stdout();
        text.lines().map(|line| line.split('\t').nth(1).expect("a task").to_owned()).collect()
    };
    assert_eq!(tasks(ask(&sandbox, ["history"])), ["good", "bad", "good"]);
    assert_eq!(tasks(ask(&sandbox, ["history", "--count", "2"])), ["bad", "good"]);
    assert_eq!(tasks(ask(&sandbox, ["history", "bad"])), ["bad"]);
    assert!(ask(&sandbox, ["history", "godo"]).expect(1).stderr.contains("`good`"));
    let json = ask(&sandbox, ["history", "--json", "--count", "1"]).expect(0).stdout();
    assert!(json.starts_with("{\"task\":\"good\",\"run\":3,") && json.ends_with("\"attempts\":1}\n"), "{json}");
    daemon.stop();
    assert_eq!(tasks(finish(sandbox.backupnizza(["history"]))), ["good", "bad", "good"]);
    let typo = finish(sandbox.backupnizza(["history", "godo"])).expect(1);
    assert!(typo.stderr.contains("godo: there is no such task") && typo.stderr.contains("`good`"), "{}", typo.stderr);
}

#[test]
fn a_secret_that_only_disabled_tasks_use_is_unused_and_not_missing() {
    let sandbox = Sandbox::new();
    let _daemon = daemon(
        &sandbox,
        r#"
secrets: [{name: vault, file: ~/vault}, {name: idle, file: ~/vault}, {name: late, file: ~/absent}]
metrics_file: ~/metrics.prom
tasks:
  - {name: on, schedule: "@daily", environment: {V: {secret: vault, as: value}, L: {secret: late, as: value}}, command: ["true"]}
  - {name: off, schedule: "@daily", enabled: false, environment: {V: {secret: idle, as: value}}, command: ["true"]}
"#,
    );
    let secrets = r#""secrets":[{"name":"vault","state":"loaded"},{"name":"idle","state":"unused"},{"name":"late","state":"missing"}]"#;
    assert!(status(&sandbox).contains(secrets), "{}", status(&sandbox));
    let metrics = eventually("metrics", || std::fs::read_to_string(sandbox.path("metrics.prom")).ok());
    let loaded = metrics.lines().filter(|line| line.starts_with("backupnizza_secret_loaded{"));
    let wanted = ["backupnizza_secret_loaded{secret=\"vault\"} 1", "backupnizza_secret_loaded{secret=\"late\"} 0"];
    assert_eq!(loaded.collect::<Vec<_>>(), wanted);
}

const SLOW: &str = r#"
tasks:
  - name: slow
    schedule: "@daily"
    command: [sh, -c, 'echo begun; touch begun; await go; echo done; touch done']
"#;

#[test]
fn output_is_shown_while_the_run_goes_on() {
    let sandbox = Sandbox::new();
    let _daemon = daemon(&sandbox, SLOW);
    let mut client = client(&sandbox, ["run", "slow"]);
    let log = sandbox.write("output", "");
    let out = std::fs::File::create(&log).expect("a file");
    let mut client = client.stdout(out).spawn().expect("a client");
    eventually("the first line", || (sandbox.read("output") == "begun\n").then_some(()));
    await_status(&sandbox, "\"state\":\"running\"");
    sandbox.signal("go");
    assert!(client.wait().expect("an end").success());
    assert_eq!(sandbox.read("output"), "begun\ndone\n");
}

#[test]
fn ctrl_c_lets_go_of_a_run_that_goes_on() {
    let sandbox = Sandbox::new();
    let daemon = daemon(&sandbox, SLOW);
    let client = follow(&sandbox, "slow");
    sandbox.await_file("begun");
    client.signal("INT");
    let finished = client.finish().expect(1);
    assert!(finished.stderr.contains("detached; run 1 goes on"), "{}", finished.stderr);
    sandbox.signal("go");
    assert!(daemon.wait_for_end("slow").contains("outcome=success"));
}

#[test]
fn ctrl_c_lets_go_of_a_run_that_is_being_stopped() {
    let sandbox = Sandbox::new();
    let config = SLOW.replace("'echo", "\"trap '' INT; echo").replace("done']", "done\"]");
    let daemon = daemon(&sandbox, &config);
    ask(&sandbox, ["run", "slow", "--detach"]).expect(0);
    sandbox.await_file("begun");
    let stop = running(&mut client(&sandbox, ["stop", "slow"]));
    daemon.wait_for(&["stopping", "task=slow"]);
    stop.signal("INT");
    let said = stop.finish().expect(1).stderr;
    assert!(said.contains("detached; the run is still being stopped"), "{said}");
    sandbox.signal("go");
    assert!(daemon.wait_for_end("slow").contains("outcome=stopped"));
}

#[test]
fn a_detached_run_and_a_stopped_one() {
    let sandbox = Sandbox::new();
    let daemon = daemon(&sandbox, SLOW);
    ask(&sandbox, ["run", "slow", "--detach"]).expect(0);
    sandbox.await_file("begun");
    let again = ask(&sandbox, ["run", "slow"]).expect(1);
    assert!(again.stderr.contains("running already (run 1)"), "{}", again.stderr);
    let stopped = ask(&sandbox, ["stop", "slow"]).expect(0);
    assert!(stopped.stderr.contains("run 1 ended: stopped"), "{}", stopped.stderr);
    assert!(daemon.wait_for_end("slow").contains("outcome=stopped"));
}

#[test]
fn a_run_that_somebody_follows_ends_with_the_daemon() {
    let sandbox = Sandbox::new();
    let mut daemon = daemon(&sandbox, SLOW);
    let client = follow(&sandbox, "slow");
    sandbox.await_file("begun");
    daemon.stop();
    assert!(client.finish().expect(1).stderr.contains("run 1 ended: stopped"));
}

#[test]
fn a_run_within_a_run_does_not_wait_for_its_own_lock() {
    let sandbox = Sandbox::new();
    let program = env!("CARGO_BIN_EXE_backupnizza");
    let daemon = daemon(
        &sandbox,
        &format!(
            r#"
tasks:
  - name: outer
    schedule: "@daily"
    lock: vault
    command: [sh, -c, '"{program}" run inner; "{program}" run free && "{program}" run inner --detach']
  - name: inner
    schedule: "@daily"
    lock: vault
    command: [touch, inner]
  - name: free
    schedule: "@daily"
    command: [touch, free]
"#
        ),
    );
    let outer = ask(&sandbox, ["run", "outer"]).expect(0);
    assert!(outer.stdout().contains("would wait for task outer"), "{}", outer.stdout());
    assert!(daemon.wait_for_end("inner").contains("outcome=success"));
    sandbox.await_file("free");
}

/// A task that holds a secret and prints it, and one that has none and prints it all the same.
const WITH_SECRET: &str = r#"
secrets:
  - {name: vault, file: ~/vault}
tasks:
  - name: given
    schedule: "@daily"
    environment: {K: {secret: vault, as: value}}
    command: [sh, -c, 'echo "1 $K"; touch begun; await go; echo "2 $K"; touch done']
  - name: other
    schedule: "@daily"
    command: [sh, -c, 'touch other; await go; echo "other is heard"']
"#;

fn daemon(sandbox: &Sandbox, config: &str) -> Daemon {
    sandbox.write("vault", SECRET);
    sandbox.daemon(config)
}

#[test]
fn lock_wipes_all_secrets_and_refresh_brings_them_back() {
    let sandbox = Sandbox::new();
    let daemon = daemon(&sandbox, WITH_SECRET);
    let (given, other) = (follow(&sandbox, "given"), follow(&sandbox, "other"));
    // What is still in the pipe when the secrets are wiped is withheld too.
    daemon.wait_for(&["1 [secret vault]"]);
    sandbox.await_file("other");
    let said = ask(&sandbox, ["lock"]).expect(0);
    assert!(said.stderr.contains("all secrets are wiped") && said.stdout.is_empty(), "{}", said.stderr);
    assert!(status(&sandbox).contains("{\"name\":\"vault\",\"state\":\"locked\"}"));
    sandbox.signal("go");
    let shown = given.finish().expect(0).stdout();
    assert!(shown.starts_with("1 [secret vault]\n[output withheld") && !shown.contains("2 "), "{shown}");
    assert_eq!(other.finish().expect(0).stdout(), "other is heard\n");

    let again = follow(&sandbox, "given");
    await_status(&sandbox, "\"waits_for\":\"secret vault\"");
    assert!(ask(&sandbox, ["unlock"]).expect(0).stderr.contains("all secrets are renewed"));
    let again = again.finish().expect(0);
    assert_eq!(again.stdout(), "1 [secret vault]\n2 [secret vault]\n");
    assert!(again.stderr.contains("waiting for secret vault"), "{}", again.stderr);
    assert!(!daemon.log().contains(SECRET), "{}", daemon.log());
}

#[test]
fn a_token_that_is_out_is_refused_after_lock() {
    let sandbox = Sandbox::new();
    let daemon = daemon(
        &sandbox,
        r#"
secrets:
  - {name: vault, file: ~/vault}
tasks:
  - name: t
    schedule: "@daily"
    environment: {C: {secret: vault, as: command}}
    command: [sh, -c, 'touch begun; await go; eval "$C" > given']
"#,
    );
    let run = follow(&sandbox, "t");
    sandbox.await_file("begun");
    ask(&sandbox, ["lock"]).expect(0);
    sandbox.signal("go");
    run.finish().expect(1);
    assert_eq!(sandbox.read("given"), "");
    daemon.wait_for(&["token refused", "the secret is not loaded"]);
}

#[test]
fn old_values_stay_out_of_the_output_of_runs_that_began_before_a_refresh() {
    let sandbox = Sandbox::new();
    let daemon = daemon(&sandbox, WITH_SECRET);
    let run = follow(&sandbox, "given");
    sandbox.await_file("begun");
    sandbox.write("vault", "another secret value");
    ask(&sandbox, ["refresh"]).expect(0);
    sandbox.signal("go");
    assert_eq!(run.finish().expect(0).stdout(), "1 [secret vault]\n2 [secret vault]\n");
    let renewed = ask(&sandbox, ["run", "given"]).expect(0).stdout();
    assert_eq!(renewed, "1 [secret vault]\n2 [secret vault]\n");
    for value in [SECRET, "another secret value"] {
        assert!(!daemon.log().contains(value), "{}", daemon.log());
    }
}

#[test]
fn old_values_stay_out_of_the_output_of_a_hook_that_began_before_a_refresh() {
    let sandbox = Sandbox::new();
    let daemon = daemon(
        &sandbox,
        r#"
secrets:
  - {name: vault, file: ~/vault}
tasks:
  - name: t
    schedule: "@daily"
    command: ["true"]
    hooks:
      end: {command: [sh, -c, 'touch begun; await go; echo "the hook has $K"'], environment: {K: {secret: vault, as: value}}}
  - {name: other, schedule: "@daily", command: ["true"]}
"#,
    );
    ask(&sandbox, ["run", "t"]).expect(0);
    sandbox.await_file("begun");
    sandbox.write("vault", "another secret value");
    ask(&sandbox, ["refresh"]).expect(0);
    ask(&sandbox, ["run", "other"]).expect(0);
    sandbox.signal("go");
    daemon.wait_for(&["the hook has [secret vault]"]);
    assert!(!daemon.log().contains(SECRET), "{}", daemon.log());
}

#[test]
fn refresh_exchanges_all_secrets_or_none() {
    let sandbox = Sandbox::new();
    sandbox.write("first", "the first value");
    sandbox.write("second", "the second value");
    let _daemon = daemon(
        &sandbox,
        r#"
secrets:
  - {name: first, file: ~/first}
  - {name: second, file: ~/second}
tasks:
  - name: t
    schedule: "@daily"
    environment: {A: {secret: first, as: value}, B: {secret: second, as: value}}
    command: [sh, -c, 'printf "$A, $B" > given']
"#,
    );
    sandbox.write("first", "the first new value");
    std::fs::remove_file(sandbox.path("second")).expect("it was there");
    let refused = ask(&sandbox, ["refresh"]).expect(1);
    assert!(refused.stderr.contains("secret second:") && refused.stderr.contains("nothing was exchanged"));
    ask(&sandbox, ["run", "t"]).expect(0);
    assert_eq!(sandbox.read("given"), "the first value, the second value");
    sandbox.write("second", "the second new value");
    ask(&sandbox, ["refresh"]).expect(0);
    ask(&sandbox, ["run", "t"]).expect(0);
    assert_eq!(sandbox.read("given"), "the first new value, the second new value");
}

#[test]
fn refresh_looks_at_the_programs_again() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/tool", "#!/bin/sh\necho old\n");
    let _daemon = daemon(&sandbox, "tasks: [{name: t, schedule: '@daily', command: [tool]}]");
    assert_eq!(ask(&sandbox, ["run", "t"]).expect(0).stdout(), "old\n");
    sandbox.script("bin/tool", "#!/bin/sh\necho replaced\n");
    ask(&sandbox, ["run", "t"]).expect(1);
    ask(&sandbox, ["refresh"]).expect(0);
    assert_eq!(ask(&sandbox, ["run", "t"]).expect(0).stdout(), "replaced\n");
    std::fs::set_permissions(sandbox.path("bin/tool"), std::fs::Permissions::from_mode(0o722)).expect("a mode");
    assert!(ask(&sandbox, ["refresh"]).expect(1).stderr.contains("bin/tool"));
}

#[test]
fn fifty_clients_at_once_get_their_answers() {
    let sandbox = Sandbox::new();
    let _daemon = daemon(&sandbox, TASKS);
    let clients: Vec<Running> = (0..50).map(|_| running(&mut client(&sandbox, ["status"]))).collect();
    for client in clients {
        assert_eq!(client.finish().expect(0).stdout().lines().count(), 4);
    }
}

#[test]
fn silent_and_babbling_clients_hold_up_nobody() {
    let sandbox = Sandbox::new();
    let _daemon = daemon(&sandbox, TASKS);
    let halves: Vec<UnixStream> = (0..80)
        .map(|_| {
            let mut stream = connect(&sandbox);
            stream.write_all(b"backupnizza 1 sta").expect("a socket that takes it");
            stream
        })
        .collect();
    ask(&sandbox, ["run", "good"]).expect(0);
    for half in halves {
        assert_eq!(rest(half), "", "half a request is answered by hanging up");
    }
    for nonsense in [&b"GET / HTTP/1.1\n"[..], b"\n", &[b'x'; 8192], b"backupnizza 1 secretbox vault\n"] {
        let mut stream = connect(&sandbox);
        let _ = stream.write_all(nonsense);
        assert_eq!(rest(stream), "");
    }
    let mut other = connect(&sandbox);
    other.write_all(b"backupnizza 99 status\n").expect("a socket that takes it");
    assert_eq!(rest(other), "version\t1\n");
    ask(&sandbox, ["status"]).expect(0);
}

#[test]
fn a_client_that_never_reads_is_dropped_and_the_run_goes_on() {
    let sandbox = Sandbox::new();
    let config = r#"
tasks:
  - name: loud
    schedule: "@daily"
    output: discard
    command: [sh, -c, "yes 'a line of output that nobody reads' | head -n 200000"]
"#;
    let daemon = daemon(&sandbox, config);
    let mut deaf = connect(&sandbox);
    deaf.write_all(b"backupnizza 1 run loud\n").expect("a socket that takes it");
    assert!(daemon.wait_for_end("loud").contains("outcome=success"));
    let heard = rest(deaf);
    assert!(heard.starts_with("started\t1\noutput\t") && !heard.contains("ended"), "{} bytes", heard.len());
}

#[test]
fn clients_that_go_away_are_forgotten() {
    let sandbox = Sandbox::new();
    let daemon = daemon(&sandbox, &SLOW.replace("    command", "    overlap: queue\n    command"));
    // More than can be connected at once, so that each takes the place of one that is gone.
    for _ in 0..100 {
        let mut client = connect(&sandbox);
        client.write_all(b"backupnizza 1 run slow\n").expect("a socket that takes it");
        client.read_exact(&mut [0]).expect("the beginning of an answer");
    }
    ask(&sandbox, ["status"]).expect(0);
    sandbox.signal("go");
    assert!(daemon.wait_for_end("slow").contains("outcome=success"));
}

#[test]
fn the_control_socket_gives_no_secret_and_is_this_users() {
    let sandbox = Sandbox::new();
    let mut daemon = daemon(&sandbox, WITH_SECRET);
    let mode = std::fs::metadata(control_socket(&sandbox)).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let all = [status(&sandbox), ask(&sandbox, ["status"]).stdout(), ask(&sandbox, ["history", "--json"]).stdout()];
    assert!(all.iter().all(|text| !text.contains(SECRET)));
    daemon.stop();
    assert!(!control_socket(&sandbox).exists());
}

#[test]
fn a_table_fits_the_terminal_and_has_colour_only_there() {
    let sandbox = Sandbox::new();
    if !crate::harness::needs("script") {
        return;
    }
    let _daemon = daemon(&sandbox, TASKS);
    ask(&sandbox, ["run", "bad"]).expect(1);
    let on_terminal = |width: usize, no_colour: &str| {
        let program = env!("CARGO_BIN_EXE_backupnizza");
        let mut command: Command = sandbox.command("script");
        command
            .env("COLUMNS", width.to_string())
            .env("NO_COLOR", no_colour)
            .env("BACKUPNIZZA_SOCKET", sandbox.socket())
            .args(["-qec", &format!("{program} status"), "/dev/null"]);
        finish(command).stdout()
    };
    for width in [20, 40, 60, 80] {
        let plain = on_terminal(width, "1");
        assert!(plain.lines().all(|line| line.trim_end().chars().count() <= width), "{width}: {plain}");
        let all = plain.split_whitespace().collect::<String>();
        for part in ["TASK", "failure", "(exit", "12)", "took", "Fatal:notab", "doubtful", "disabled", "secretsin"] {
            assert!(all.contains(part), "{part}: {width}: {plain}");
        }
        assert!(!plain.contains('\x1b') && !plain.contains('…'), "{width}: {plain}");
    }
    assert!(on_terminal(80, "").contains("\x1b[31mfailure"));
}
