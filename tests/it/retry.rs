//! Trying again: when, with what, and what ends it before its time.

use std::collections::BTreeSet;

use crate::harness::{Sandbox, finish};

#[test]
fn the_delay_before_another_try_doubles() {
    let sandbox = Sandbox::new();
    let daemon = sandbox
        .daemon(r#"tasks: [{name: t, schedule: "@start", retry: {times: 3, delay: 1s}, command: [sh, -c, exit 4]}]"#);
    let ended = daemon.wait_for_end("t");
    for (attempt, delay) in [(2, "1s"), (3, "2s"), (4, "4s")] {
        let attempt = format!("attempt={attempt} ");
        daemon.wait_for(&["failed, trying again", "task=t run=1 ", &attempt, &format!("in={delay}")]);
    }
    assert!(ended.contains("outcome=failure") && ended.contains("exit_code=4"), "{ended}");
    assert_eq!(daemon.lines(&["run started", "task=t run=1 "]).len(), 4, "{}", daemon.log());
}

#[test]
fn each_try_has_tokens_of_its_own_and_those_of_the_last_are_dead() {
    let sandbox = Sandbox::new();
    sandbox.write("vault", "the secret of the vault");
    // At first it does not use its token; later it tries the one before, and then its own.
    sandbox.script(
        "bin/task",
        "#!/bin/sh\n[ -e last ] && sh last >> stolen\necho \"$ASK\" > last\necho \"$ASK\" >> asked\n\
         [ $(wc -l < asked) -eq 1 ] && exit 1\neval \"$ASK\" >> got\necho >> got\n[ $(wc -l < got) -eq 2 ]\n",
    );
    let daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, file: ~/vault}]
tasks:
  - name: t
    schedule: "@start"
    retry: {times: 5, delay: 1s}
    environment: {ASK: {secret: vault, as: command}}
    command: [task]
"#,
    );
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    let asked = sandbox.read("asked");
    assert_eq!(asked.lines().collect::<BTreeSet<_>>().len(), 3, "{asked}");
    assert_eq!(sandbox.read("got"), "the secret of the vault\n".repeat(2));
    assert_eq!(sandbox.read("stolen"), "", "{}", daemon.log());
}

#[test]
fn a_stop_ends_the_pause_at_once_and_frees_the_lock_that_it_kept() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"
tasks:
  - {name: pauses, schedule: "@start", lock: disk, retry: {times: 1, delay: 1h}, command: [sh, -c, exit 7]}
  - {name: other, schedule: "@start", lock: disk, command: ["true"]}
"#,
    );
    daemon.wait_for(&["failed, trying again", "task=pauses", "in=1h"]);
    daemon.wait_for(&["due, waiting", "task=other ", "its lock: disk"]);
    assert_eq!(daemon.lines(&["run started", "task=other "]), [""; 0]);
    let mut stop = sandbox.backupnizza(["stop", "pauses"]);
    stop.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(stop).expect(0);
    let ended = daemon.wait_for_end("pauses");
    assert!(ended.contains("outcome=stopped") && ended.contains("exit_code=7"), "{ended}");
    assert!(daemon.wait_for_end("other").contains("outcome=success"), "{}", daemon.log());
}

#[test]
fn the_next_slot_takes_the_place_of_another_try() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"tasks: [{name: t, schedule: "@every 2s", retry: {times: 9, delay: 1h}, command: [sh, -c, exit 4]}]"#,
    );
    daemon.wait_for(&["the next slot takes the place of another try", "task=t run=1"]);
    let ended = daemon.wait_for_end("t");
    assert!(ended.contains("run=1 ") && ended.contains("outcome=failure") && ended.contains("exit_code=4"), "{ended}");
    daemon.wait_for(&["run started", "task=t run=2 ", "attempt=1"]);
}

#[test]
fn a_run_by_hand_takes_the_place_of_another_try() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"tasks: [{name: t, schedule: "@start", retry: {times: 9, delay: 1h}, command: [sh, -c, 'test -e ~/mended']}]"#,
    );
    daemon.wait_for(&["failed, trying again", "task=t run=1 "]);
    sandbox.signal("mended");
    let mut run = sandbox.backupnizza(["run", "t"]);
    run.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(run).expect(0);
    daemon.wait_for(&["another run takes the place of the try", "task=t run=1"]);
    assert_eq!(daemon.lines(&["the next slot takes"]), [""; 0]);
}
