//! What is due and has to wait: for a condition, a lock, its turn or another try; and what becomes of it when the
//! daemon stops meanwhile.

use std::fs;

use crate::harness::{Daemon, Sandbox, eventually, finish, session_members};

/// The entries of the ledger's history for `task`, each as text.
fn history(sandbox: &Sandbox, task: &str) -> Vec<String> {
    let ledger = fs::read_to_string(sandbox.state_dir().join("ledger")).expect("a ledger");
    let of_task = |line: &&str| line.contains(&format!(" {task} "));
    ledger.lines().filter(|line| line.contains(" past ")).filter(of_task).map(str::to_owned).collect()
}

fn waits(daemon: &Daemon, task: &str, what: &str) {
    daemon.wait_for(&["due, waiting", &format!("task={task} "), what]);
}

#[test]
fn a_run_starts_when_its_condition_is_met() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"
tasks:
  - name: t
    schedule: "@start"
    only_if: {command: [sh, -c, 'echo asked >> ~/asked; test -e ~/drive'], recheck: 1s}
    command: [touch, ran]
"#,
    );
    waits(&daemon, "t", "its condition");
    sandbox.await_file("asked");
    eventually("two questions", || (sandbox.read("asked").lines().count() > 1).then_some(()));
    assert!(!sandbox.path("ran").exists());
    sandbox.signal("drive");
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    assert!(sandbox.path("ran").exists());
}

#[test]
fn without_a_success_for_long_a_run_starts_anyway() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"tasks: [{name: t, schedule: "@start", only_if: ["false"], run_anyway_after: 2s, command: ["true"]}]"#,
    );
    waits(&daemon, "t", "its condition");
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
}

#[test]
fn a_wait_that_is_too_long_ends_and_says_what_was_missing() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, command: ["false"]}]
defaults: {max_wait: 1s}
tasks:
  - {name: holder, schedule: "@start", lock: disk, command: [await, ~/go]}
  - {name: condition, schedule: "@start", only_if: ["false"], command: [touch, ran]}
  - {name: lock, schedule: "@start", lock: disk, command: [touch, ran]}
  - {name: secrets, schedule: "@start", environment: {V: {secret: vault, as: value}}, command: [touch, ran]}
"#,
    );
    for task in ["condition", "lock", "secrets"] {
        daemon.wait_for(&["not run", &format!("task={task} "), &format!("skipped ({task})")]);
    }
    sandbox.signal("go");
    daemon.wait_for_end("holder");
    daemon.stop();
    assert!(!sandbox.path("ran").exists(), "{}", daemon.log());
}

#[test]
fn locks_are_given_in_order_and_shared_by_those_who_share() {
    let sandbox = Sandbox::new();
    let task = |name: &str, lock: &str| {
        let command = format!("[sh, -c, 'touch began-{name}; await ~/go-{name}; rm began-{name}']");
        format!("  - {{name: {name}, schedule: \"@start\", lock: {lock}, command: {command}}}\n")
    };
    let shared = "{name: disk, shared: true}";
    let tasks = [
        task("reader", shared),
        task("second", shared),
        task("writer", "[disk, net]"),
        // It may not overtake the writer, though the lock that it wants is shared or free.
        task("late", shared),
        task("net", "net"),
    ];
    let daemon = sandbox.daemon(&format!("tasks:\n{}", tasks.concat()));
    sandbox.await_file("began-reader");
    sandbox.await_file("began-second");
    for name in ["writer", "late", "net"] {
        waits(&daemon, name, "its lock: ");
    }
    sandbox.signal("go-reader");
    daemon.wait_for_end("reader");
    sandbox.signal("go-second");
    sandbox.await_file("began-writer");
    assert!(!sandbox.path("began-late").exists() && !sandbox.path("began-net").exists(), "{}", daemon.log());
    sandbox.signal("go-writer");
    sandbox.await_file("began-late");
    sandbox.await_file("began-net");
    assert!(!sandbox.path("began-writer").exists());
    sandbox.signal("go-late");
    sandbox.signal("go-net");
    daemon.wait_for_lines(5, &["run ended", "outcome=success"]);
}

#[test]
fn a_timeout_counts_from_the_start_and_ends_a_pause_too() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"
tasks:
  - {name: holder, schedule: "@start", lock: disk, command: [sh, -c, 'await ~/go']}
  - {name: short, schedule: "@start", lock: disk, timeout: 20s, command: ["true"]}
  - {name: pauses, schedule: "@start", timeout: 1s, retry: {times: 9, delay: 1h}, command: ["false"]}
"#,
    );
    daemon.wait_for(&["failed, trying again", "task=pauses"]);
    assert!(daemon.wait_for_end("pauses").contains("outcome=timeout"), "{}", daemon.log());
    sandbox.signal("go");
    assert!(daemon.wait_for_end("short").contains("outcome=success"), "{}", daemon.log());
}

#[test]
fn a_stop_ends_all_that_waits_at_once_and_a_new_daemon_goes_on_from_there() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
max_concurrent_runs: 2
defaults: {missed_delay: 1s, stop_grace: 1s}
tasks:
  - name: stubborn
    schedule: "@reboot"
    lock: disk
    command: [sh, -c, 'trap "" INT TERM; echo $$ >> sessions; echo began >> stubborn; await ~/go']
    finally: [[touch, ~/tidied]]
  - {name: locked, schedule: "@reboot", lock: disk, command: [sh, -c, 'echo ran >> locked']}
  - {name: turned, schedule: "@reboot", command: [sh, -c, 'echo ran >> turned; await ~/go']}
  - {name: third, schedule: "@reboot", command: [sh, -c, 'echo ran >> third']}
  - {name: unmet, schedule: "@reboot", only_if: {command: [test, -e, ~/go], recheck: 1s}, command: [sh, -c, 'echo ran >> unmet']}
"#,
    );
    sandbox.await_file("stubborn");
    waits(&daemon, "locked", "its lock: disk");
    waits(&daemon, "third", "its turn");
    waits(&daemon, "unmet", "its condition");
    daemon.stop();
    daemon.wait_for(&["run ended", "task=stubborn", "outcome=stopped"]);
    daemon.wait_for(&["run ended", "task=turned", "outcome=stopped"]);
    assert!(sandbox.path("tidied").exists());
    for session in sandbox.read("sessions").lines() {
        assert_eq!(session_members(session.parse().expect("a pid")), []);
    }
    for task in ["locked", "third", "unmet"] {
        assert!(!sandbox.path(task).exists() && history(&sandbox, task).is_empty(), "{task}: {}", daemon.log());
    }

    sandbox.signal("go");
    let mut again = sandbox.daemon_again();
    for task in ["stubborn", "turned"] {
        again.wait_for(&["repeating it", &format!("task={task} ")]);
    }
    for task in ["stubborn", "locked", "turned", "third", "unmet"] {
        assert!(again.wait_for_end(task).contains("outcome=success"), "{}", again.log());
    }
    again.stop();

    let mut third = sandbox.daemon_again();
    third.stop();
    for (task, runs) in [("stubborn", 2), ("locked", 1), ("turned", 2), ("third", 1), ("unmet", 1)] {
        assert_eq!(history(&sandbox, task).len(), runs, "{task}");
        assert_eq!(sandbox.read(task).lines().count(), runs, "{task}");
    }
}

#[test]
fn a_stop_ends_the_pause_before_another_try() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox
        .daemon(r#"tasks: [{name: t, schedule: "@start", retry: {times: 1, delay: 1h}, command: [sh, -c, 'exit 7']}]"#);
    daemon.wait_for(&["failed, trying again", "task=t"]);
    daemon.stop();
    let ended = daemon.wait_for_end("t");
    assert!(ended.contains("outcome=stopped") && ended.contains("exit_code=7"), "{ended}");
}

#[test]
fn a_condition_that_is_being_asked_is_not_left_behind() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
tasks:
  - name: t
    schedule: "@start"
    only_if: [sh, -c, 'echo $$ > pid.new; mv pid.new pid; await never']
    command: ["true"]
"#,
    );
    sandbox.await_file("pid");
    daemon.stop();
    let session = sandbox.read("pid").trim().parse().expect("a pid");
    assert_eq!(session_members(session), [], "{}", daemon.log());
}

#[test]
fn whatever_a_run_waits_for_is_shown_and_a_stop_ends_the_wait() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
max_concurrent_runs: 2
secrets: [{name: vault, command: ["false"]}]
tasks:
  - {name: pauses, schedule: "@start", retry: {times: 1, delay: 1h}, command: ["false"]}
  - {name: holder, schedule: "@start", lock: disk, command: [await, ~/go]}
  - {name: locked, schedule: "@start", lock: [disk, net], command: [touch, ran]}
  - {name: unmet, schedule: "@start", only_if: ["false"], command: [touch, ran]}
  - {name: needy, schedule: "@start", environment: {V: {secret: vault, as: value}}, command: [touch, ran]}
  - {name: second, schedule: "@start", command: [await, ~/go]}
  - {name: turned, schedule: "@start", command: [touch, ran]}
"#,
    );
    let client = |arguments: &[&str]| {
        let mut client = sandbox.backupnizza(arguments.iter().copied());
        client.env("BACKUPNIZZA_SOCKET", sandbox.socket());
        finish(client)
    };
    let waits = [
        ("pauses", "retrying", "try 2 of run 1"),
        ("locked", "waiting", "its lock: disk, net"),
        ("unmet", "waiting", "its condition"),
        ("needy", "waiting", "secret vault"),
        ("turned", "waiting", "its turn"),
    ];
    for (task, state, what) in waits {
        let (name, what) = (format!(r#""name":"{task}","state":"{state}""#), format!(r#""waits_for":"{what}"#));
        eventually(&what, || {
            let status = client(&["status", "--json"]).stdout();
            let (_, of_task) = status.split_once(&name)?;
            of_task.split(r#""name":"#).next()?.contains(&what).then_some(())
        });
        client(&["stop", task]).expect(0);
    }
    let ended = daemon.wait_for_end("pauses");
    assert!(ended.contains("outcome=stopped"), "{ended}");
    for task in ["locked", "unmet", "needy", "turned"] {
        daemon.wait_for(&["not run", &format!("task={task} "), "outcome=stopped"]);
        assert!(history(&sandbox, task).iter().all(|past| past.contains(" stopped")), "{task}");
    }
    sandbox.signal("go");
    for task in ["holder", "second"] {
        assert!(daemon.wait_for_end(task).contains("outcome=success"), "{}", daemon.log());
    }
    daemon.stop();
    assert!(!sandbox.path("ran").exists(), "{}", daemon.log());
}
