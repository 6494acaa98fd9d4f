//! A token gives its secret once, in time, to its own step, and to nobody else.

use crate::harness::{Daemon, Sandbox};

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
