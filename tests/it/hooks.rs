//! Hooks: each is called when its time has come, told what happened, and never changes it; who is in trouble is
//! told of once, and again only after a recovery.

use crate::harness::{Daemon, Sandbox, finish};

fn run(sandbox: &Sandbox, task: &str, status: i32) {
    let mut command = sandbox.backupnizza(["run", task]);
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(command).expect(status);
}

/// Waits until the hooks have written `lines` to `~/heard`, and no other.
fn hears(sandbox: &Sandbox, lines: &[&str]) {
    let read = || std::fs::read_to_string(sandbox.path("heard")).unwrap_or_default();
    crate::harness::eventually(&format!("{lines:?}"), || (read().lines().count() >= lines.len()).then_some(()));
    assert_eq!(read().lines().collect::<Vec<_>>(), lines);
}

/// All seven write their name and what they are told.
fn all_hooks() -> String {
    let names = ["start", "success", "warning", "failure", "end", "stale", "recovery"];
    let hook = |name| {
        let told = "$BACKUPNIZZA_TASK $BACKUPNIZZA_RUN ${BACKUPNIZZA_OUTCOME:-none} ${BACKUPNIZZA_EXIT_CODE:-none}";
        format!("    {name}: [sh, -c, 'echo \"{name} {told} $(cat)\" >> ~/heard']\n")
    };
    format!("defaults:\n  hooks:\n{}", names.map(hook).concat())
}

#[test]
fn all_hooks_are_called_in_their_time_and_told_what_happened() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        &(all_hooks()
            + "tasks: [{name: t, schedule: '@daily', exit_codes: {warning: [3]}, command: [sh, -c, 'cat ~/line; exit $(cat ~/code)']}]"),
    );
    let round = |code: &str, status: i32| {
        sandbox.write("line", format!("ended with {code}"));
        sandbox.write("code", code);
        run(&sandbox, "t", status);
    };
    round("0", 0);
    round("9", 1);
    round("3", 3);
    round("0", 0);
    hears(
        &sandbox,
        &[
            "start t 1 none none ",
            "success t 1 success 0 ended with 0",
            "end t 1 success 0 ended with 0",
            "start t 2 none none ",
            "failure t 2 failure 9 ended with 9",
            "end t 2 failure 9 ended with 9",
            "start t 3 none none ",
            "warning t 3 warning 3 ended with 3",
            "end t 3 warning 3 ended with 3",
            "start t 4 none none ",
            "success t 4 success 0 ended with 0",
            "recovery t 4 success 0 ended with 0",
            "end t 4 success 0 ended with 0",
        ],
    );
    drop(daemon);
}

#[test]
fn a_failure_is_told_after_the_last_retry() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon(
        "defaults: {hooks: {failure: [sh, -c, 'echo failure >> ~/heard']}}\n\
         tasks: [{name: t, schedule: '@daily', retry: {times: 2, delay: 1s}, command: [sh, -c, 'echo try >> ~/heard; exit 1']}]",
    );
    run(&sandbox, "t", 1);
    hears(&sandbox, &["try", "try", "try", "failure"]);
}

#[test]
fn a_hook_has_its_own_secret_and_environment_and_a_redacted_tail() {
    let sandbox = Sandbox::new();
    sandbox.write("vault", "correct horse battery staple");
    sandbox.write("address", "https://example.org/secret-address");
    let daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, file: ~/vault}, {name: address, file: ~/address}]
tasks:
  - name: t
    schedule: "@daily"
    environment: {V: {secret: vault, as: value}, MINE: task}
    command: [sh, -c, 'seq 1 200; echo "it is $V"; exit 1']
    hooks:
      failure:
        command: [sh, -c, 'cat > ~/tail; echo "$A ${V:-no secret of the task} ${MINE:-nor variable}" > ~/given; echo "$A"; exit 7']
        environment: {A: {secret: address, as: value}}
      end: {command: [sh, -c, 'touch ~/begun; exec sleep 600'], timeout: 1s}
"#,
    );
    run(&sandbox, "t", 1);
    daemon.wait_for(&["a hook failed", "hook=failure", "reason=\"exit status 7\""]);
    daemon.wait_for(&["a hook failed", "hook=end", "reason=timeout"]);
    let tail = sandbox.read("tail");
    assert_eq!(tail.lines().count(), 100, "{tail}");
    assert!(tail.starts_with("102\n") && tail.ends_with("\nit is [secret vault]\n"), "{tail}");
    assert_eq!(sandbox.read("given"), "https://example.org/secret-address no secret of the task nor variable\n");
    assert!(sandbox.path("begun").exists());
    // What a hook prints is redacted too, and how it ends changes nothing.
    daemon.wait_for(&["step=failure", "[secret address]"]);
    assert!(daemon.wait_for_end("t").contains("outcome=failure"));
    assert!(!daemon.log().contains("secret-address") && !daemon.log().contains("horse"), "{}", daemon.log());
}

const STALE: &str = r#"
defaults:
  hooks: {stale: [sh, -c, 'echo stale >> ~/heard'], recovery: [sh, -c, 'echo recovery >> ~/heard']}
tasks:
  - {name: t, schedule: "@daily", max_age: 2s, command: [sh, -c, 'test ! -e ~/broken']}
"#;

#[test]
fn stale_is_told_once_also_across_restarts_and_again_after_a_recovery() {
    let sandbox = Sandbox::new();
    let alarm = |daemon: &Daemon| daemon.wait_for(&["stale, its last success is too long ago", "task=t"]);
    // It has never succeeded: that counts from when it was first seen.
    let mut daemon = sandbox.daemon(STALE);
    alarm(&daemon);
    sandbox.signal("broken");
    run(&sandbox, "t", 1);
    daemon.stop();
    hears(&sandbox, &["stale"]);

    let mut daemon = sandbox.daemon(STALE);
    std::fs::remove_file(sandbox.path("broken")).expect("it was there");
    run(&sandbox, "t", 0);
    hears(&sandbox, &["stale", "recovery"]);
    alarm(&daemon);
    hears(&sandbox, &["stale", "recovery", "stale"]);
    daemon.stop();
    assert_eq!(daemon.lines(&["stale, its last success"]).len(), 1, "{}", daemon.log());
}

#[test]
fn a_failure_before_a_restart_ends_in_a_recovery_after_it() {
    let sandbox = Sandbox::new();
    let config = STALE
        .replace("max_age: 2s", "max_age: none, exit_codes: {warning: [3]}")
        .replace("test ! -e ~/broken", "exit $(cat ~/code)");
    for (code, status) in [("1", 1), ("3", 3), ("0", 0)] {
        sandbox.write("code", code);
        let mut daemon = sandbox.daemon(&config);
        run(&sandbox, "t", status);
        daemon.stop();
    }
    hears(&sandbox, &["recovery"]);
}

#[test]
fn who_allows_more_is_no_longer_stale() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(STALE);
    daemon.wait_for(&["stale, its last success is too long ago"]);
    daemon.stop();
    let _daemon = sandbox.daemon(&STALE.replace("max_age: 2s", "max_age: none"));
    let mut command = sandbox.backupnizza(["status"]);
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(command).expect(0);
}

#[test]
fn a_daemon_that_stops_waits_for_its_hooks_and_no_longer() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        "tasks:\n\
         - name: t\n  \
           schedule: '@start'\n  \
           command: ['true']\n  \
           hooks: {end: [sh, -c, 'await ~/go && sleep 1 && touch ~/done']}\n",
    );
    daemon.wait_for_end("t");
    daemon.signal("TERM");
    daemon.wait_for(&["stopping"]);
    sandbox.signal("go");
    assert!(daemon.wait().success());
    assert!(sandbox.path("done").exists());
}
