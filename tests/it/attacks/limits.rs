//! Protected memory where there is little of it, or none of the better kind: it works, says what it
//! does, or says what to raise.

use std::process::Command;

use super::{SECRET, text, thief};
use crate::harness::{Daemon, Sandbox, finish};

const CONFIG: &str = r#"
secrets: [{name: vault, file: ~/vault}]
tasks:
  - name: t
    environment: {V: {secret: vault, as: value}, F: {secret: vault, as: file}, C: {secret: vault, as: command}}
    command: [sh, -c, '{ cat; echo "$V"; cat "$F"; } > all; eval "$C" > got; echo "it is $V"']
    stdin: {secret: vault}
"#;

/// A daemon that may lock so many KiB.
fn limited(sandbox: &Sandbox, kib: usize) -> Command {
    sandbox.config(CONFIG);
    let mut command = sandbox.command("sh");
    command.args(["-c", &format!("ulimit -l {kib} && exec \"$0\" backup.yaml"), text(sandbox.program())]);
    command
}

fn ask(sandbox: &Sandbox, arguments: [&str; 2]) -> crate::harness::Finished {
    let mut command = sandbox.backupnizza(arguments.into_iter().filter(|word| !word.is_empty()));
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(command)
}

#[test]
fn without_secret_memory_secrets_are_in_locked_memory_and_the_log_says_so() {
    let sandbox = Sandbox::of_ordinary_user();
    let Some(thief) = thief(&sandbox) else { return };
    sandbox.write("vault", SECRET);
    sandbox.config(CONFIG);
    let mut command = sandbox.command(thief);
    command.args(["without-secret-memory", text(sandbox.program()), "backup.yaml"]);
    let daemon = Daemon::start(command);
    daemon.wait_for(&["warn", "secrets are in locked memory, not in secret memory", "reason="]);
    assert!(daemon.wait_for(&["ready", "tasks="]).contains("memory=locked"), "{}", daemon.log());
    ask(&sandbox, ["run", "t"]).expect(0);
    assert_eq!(sandbox.read("got"), SECRET);
    daemon.wait_for(&["it is [secret vault]"]);
}

#[test]
fn where_nothing_may_be_locked_the_start_says_what_to_raise() {
    let sandbox = Sandbox::of_ordinary_user();
    sandbox.write("vault", SECRET);
    let said = finish(limited(&sandbox, 8)).expect(1);
    assert!(
        said.stderr.contains("backupnizza: error: protected memory: no more protected memory: "),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("backupnizza: hint: raise the limit of locked memory (LimitMEMLOCK= "),
        "{}",
        said.stderr
    );
}

/// The limit of old kernels and of containers.
#[test]
fn at_a_limit_of_64_kib_passwords_work_and_what_does_not_fit_names_the_limit() {
    let sandbox = Sandbox::of_ordinary_user();
    sandbox.write("vault", SECRET);
    let mut daemon = Daemon::start(limited(&sandbox, 64));
    daemon.wait_for(&["ready", "tasks="]);
    for _ in 0..5 {
        ask(&sandbox, ["run", "t"]).expect(0);
        assert_eq!(sandbox.read("got"), SECRET);
        ask(&sandbox, ["refresh", ""]).expect(0);
    }
    daemon.stop();
    assert!(!daemon.log().contains(SECRET), "{}", daemon.log());

    sandbox.write("vault", "x".repeat(65_536));
    let daemon = Daemon::start(limited(&sandbox, 64));
    let refused = daemon.wait_for(&["secret vault: ", "no more protected memory"]);
    assert!(refused.contains("LimitMEMLOCK"), "{refused}");
}

/// A `refresh` has the old values and the new ones, and reads the largest of them by doubling.
#[test]
fn the_largest_secrets_are_refreshed_within_thrice_their_size() {
    const COUNT: usize = 4;
    let sandbox = Sandbox::of_ordinary_user();
    let largest = |first: char| format!("{first}{}", "0123456789abcdef".repeat(4096))[..65_536].to_owned();
    let secrets: String = (0..COUNT).map(|n| format!("  - {{name: s{n}, file: ~/s{n}}}\n")).collect();
    let variables: String = (0..COUNT).map(|n| format!("S{n}: {{secret: s{n}, as: file}}, ")).collect();
    let write = |first: char| (0..COUNT).for_each(|n| drop(sandbox.write(&format!("s{n}"), largest(first))));
    write('a');
    let command = limited(&sandbox, 3 * 64 * COUNT);
    sandbox.config(&format!(
        "secrets:\n{secrets}tasks:\n  - {{name: t, environment: {{{variables}}}, command: [sh, -c, 'cat $S0 $S1 $S2 $S3 > got']}}\n"
    ));
    let daemon = Daemon::start(command);
    daemon.wait_for(&["ready", "tasks="]);
    for (first, with_run) in [('b', true), ('c', true), ('d', false), ('e', false), ('f', false), ('g', true)] {
        write(first);
        ask(&sandbox, ["refresh", ""]).expect(0);
        if !with_run {
            continue;
        }
        ask(&sandbox, ["run", "t"]).expect(0);
        assert!(sandbox.read("got") == largest(first).repeat(COUNT), "{first}\n{}", daemon.log());
    }
}
