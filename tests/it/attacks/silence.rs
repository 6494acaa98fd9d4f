//! Nothing secret reaches a log or a message, at any level and in either form, however things fail.

use super::SECRET;
use crate::harness::{Daemon, Sandbox, finish};

/// The secret's value in pieces, so that none of them is found by chance.
const OTHER: &str = "first-line-of-it\n  second-line-of-it\nthird-line-of-it";

/// Commands that print their secrets in every way, and tasks that fail in every way.
const TASKS: &str = r#"
defaults:
  hooks: {failure: [sh, -c, 'cat >&2']}
tasks:
  - name: prints
    environment: {V: {secret: vault, as: value}, O: {secret: other, as: value}, T: {secret: vault, as: value, template: "rest:https://me:{}@host/"}}
    command:
      - sh
      - -c
      - |
        echo "$V"; echo "$V" >&2; echo "before $V$V after" "$O"; echo "$T"
        printf "$(printf %s "$V" | cut -c 1-9)"; sleep 0.01; printf %s "$V" | cut -c 10-
        printf %s "$V" | fold -w 1 | while read letter || [ "$letter" ]; do printf %s "$letter"; done; echo
        head -c 20000 /dev/zero | tr '\0' x; echo "$V"
        printf %s "$V"
  - {name: tells, schedule: "@start", environment: {C: {secret: vault, as: command, uses: 2}}, command: [sh, -c, 'echo "$C" > tells.new; mv tells.new tells; eval "$C"; eval "$C"; eval "$C"; exit 1']}
  - {name: no-folder, schedule: "@start", working_directory: ~/none, environment: {V: {secret: vault, as: value}}, command: ["true"]}
  - {name: no-exec, schedule: "@start", environment: {V: {secret: vault, as: value}}, command: [broken]}
  - {name: dies, schedule: "@start", environment: {V: {secret: vault, as: value}}, command: [sh, -c, 'set -x; : "$V"; kill -SEGV $$']}
  - {name: too-long, schedule: "@start", environment: {V: {secret: vault, as: value}, L: {secret: long, as: value}, M: {secret: long, as: value}, N: {secret: long, as: value}}, command: ["true"]}
  - {name: zero, schedule: "@start", environment: {Z: {secret: zero, as: value}}, command: ["true"]}
  - {name: times-out, schedule: "@start", timeout: 1s, environment: {V: {secret: vault, as: value}}, command: [sh, -c, 'echo "$V"; await ~/never']}
  - {name: waits, schedule: "@start", environment: {V: {secret: failing, as: value}}, command: ["true"]}
  - {name: hidden, schedule: "@start", output: on_failure, environment: {V: {secret: vault, as: value}}, command: [sh, -c, 'echo "$V"; exit 3']}
"#;

const SOURCES: &str = r#"
secrets:
  - {name: vault, command: [sh, -c, 'set -x; V=$(cat ~/vault); echo "it is $V" >&2; echo "$V"']}
  - {name: other, file: ~/other}
  - {name: long, file: ~/long}
  - {name: zero, file: ~/zero}
  - {name: failing, command: [sh, -c, 'cat ~/vault; echo; echo "no access with $(cat ~/vault)" >&2; exit 4']}
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    sandbox.write("other", OTHER);
    sandbox.write("long", SECRET.repeat(1500));
    sandbox.write("zero", format!("{SECRET}\0{SECRET}"));
    sandbox.script("bin/broken", "\x7fELF nothing of the kind");
    sandbox
}

#[track_caller]
fn assert_silent(said: &str, sandbox: &Sandbox) {
    let token =
        sandbox.path("tells").exists().then(|| sandbox.read("tells").trim().rsplit(' ').next().map(str::to_owned));
    let lines = OTHER.lines().map(|line| line.trim().to_owned());
    for secret in lines.chain([SECRET.to_owned()]).chain(token.flatten()) {
        assert!(!said.contains(&secret), "{secret} in\n{said}");
    }
    // Nor its parts, but for those that a command itself took apart.
    for part in [&SECRET[..16], &SECRET[16..]] {
        assert!(!said.contains(part), "{part} in\n{said}");
    }
}

#[test]
fn no_log_at_any_level_and_in_any_form_has_a_secret_or_a_token() {
    for level in ["error", "warn", "info", "debug", "trace"] {
        for format in ["text", "json"] {
            let sandbox = sandbox();
            let mut daemon =
                sandbox.daemon_unready(&format!("log: {{level: {level}, format: {format}}}\n{SOURCES}{TASKS}"));
            let mut client = sandbox.backupnizza(["run", "prints"]);
            crate::harness::eventually("the control socket", || {
                sandbox.runtime_dir().join("socket.control").exists().then_some(())
            });
            sandbox.await_file("tells");
            let said = finish({
                client.env("BACKUPNIZZA_SOCKET", sandbox.socket());
                client
            });
            assert_silent(&said.stdout(), &sandbox);
            assert_silent(&said.stderr, &sandbox);
            assert!(said.stdout().contains("[secret vault]"), "{said:?}");
            all_have_ended(&sandbox);
            daemon.stop();
            assert_silent(&daemon.log(), &sandbox);
            if level == "info" {
                for shown in ["before [secret vault]", "no access with [secret failing]", "it is [secret vault]"] {
                    assert!(daemon.log().contains(shown), "{shown} in\n{}", daemon.log());
                }
            }
        }
    }
}

/// The ledger knows of each task's run.
fn all_have_ended(sandbox: &Sandbox) {
    let tasks = ["prints", "tells", "no-folder", "no-exec", "dies", "too-long", "zero", "times-out", "hidden"];
    for task in tasks {
        crate::harness::eventually(&format!("the end of {task}"), || {
            let mut command = sandbox.backupnizza(["history", task]);
            command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
            finish(command).stdout().contains(task).then_some(())
        });
    }
}

#[test]
fn no_message_of_a_command_line_has_a_secret() {
    let sandbox = sandbox();
    sandbox.config(&format!("{SOURCES}{TASKS}"));
    let check = finish(sandbox.backupnizza(["check", "backup.yaml", "--secrets"])).expect(1);
    assert!(
        check.stderr.contains("secret failing: sh exited with status 4: no access with [secret failing]"),
        "{}",
        check.stderr
    );
    for task in ["prints", "tells", "no-folder", "no-exec", "dies", "too-long", "zero", "times-out", "hidden"] {
        let said = sandbox.once([task]);
        assert_silent(&said.stdout(), &sandbox);
        assert_silent(&said.stderr, &sandbox);
    }
    assert_silent(&check.stderr, &sandbox);
    assert_silent(&check.stdout(), &sandbox);
}

/// A daemon whose sources say the secret while they are asked anew.
#[test]
fn a_source_that_fails_at_a_refresh_says_nothing_of_its_secret() {
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    let daemon: Daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, command: [sh, -c, 'cat ~/vault; echo "says $(cat ~/vault)" >&2; test ! -e ~/broken']}]
tasks: [{name: t, environment: {V: {secret: vault, as: value}}, command: ["true"]}]
"#,
    );
    sandbox.signal("broken");
    let mut refresh = sandbox.backupnizza(["refresh"]);
    refresh.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    let said = finish(refresh).expect(1);
    assert!(said.stderr.contains("says [secret vault]"), "{}", said.stderr);
    assert_silent(&said.stderr, &sandbox);
    assert_silent(&daemon.log(), &sandbox);
}
