//! The real rclone with an encrypted configuration, its password in each of the ways.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use crate::harness::{PATIENCE, Sandbox, needs, signal};

pub const PASSWORD: &str = r#"rclone's "own" \ pass, w,ord 日本"#;

/// Writes rclone's configuration, encrypted with `password`: a remote `store` for folders here,
/// and `hidden`, which encrypts what it puts there.
pub fn configure(sandbox: &Sandbox, password: &str) {
    let store = sandbox.path("hidden store");
    sandbox.write(
        ".config/rclone/rclone.conf",
        format!(
            "[store]\ntype = local\n\n[hidden]\ntype = crypt\nremote = store:{}\npassword = {}\n",
            store.display(),
            obscured(sandbox)
        ),
    );
    let mut command = sandbox.command("sh");
    command.args(["-c", "exec rclone config 2>&1"]);
    // There is no command for it in all versions, so a person's answers.
    let conversation = [
        ("/s/q> ", "s"),
        ("a/q> ", "a"),
        ("\npassword:", password),
        ("\npassword:", password),
        ("/q> ", "q"),
        ("/s/q> ", "q"),
    ];
    converse(command, &conversation);
    let text = sandbox.read(".config/rclone/rclone.conf");
    assert!(text.contains("RCLONE_ENCRYPT_V0"), "rclone did not encrypt its configuration:\n{text}");
}

fn obscured(sandbox: &Sandbox) -> String {
    let mut command = sandbox.command("rclone");
    command.args(["obscure", "of the crypt remote"]);
    crate::harness::finish(command).expect(0).stdout().trim().to_owned()
}

/// Answers each prompt as it comes.
fn converse(mut command: Command, conversation: &[(&str, &str)]) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program to talk to");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let pid = child.id();
    let (done, is_done) = mpsc::channel::<()>();
    thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            signal(pid, "KILL");
        }
    });
    let mut heard = Vec::new();
    for (prompt, answer) in conversation {
        while !heard.ends_with(prompt.as_bytes()) {
            let mut byte = [0];
            if stdout.read(&mut byte).expect("to be heard") == 0 {
                panic!("it ended before it asked {prompt:?}:\n{}", String::from_utf8_lossy(&heard));
            }
            heard.push(byte[0]);
        }
        heard.clear();
        writeln!(stdin, "{answer}").expect("to be answered");
    }
    let status = child.wait().expect("a child");
    drop(done);
    assert!(status.success(), "{status}");
}

const CONFIG: &str = r#"
secrets: [{name: rclone, file: ~/password}]
tasks:
  - name: command
    schedule: "@start"
    environment: {RCLONE_PASSWORD_COMMAND: {secret: rclone, as: command}}
    command: [rclone, sync, ~/My Documents, "hidden:by command"]
  - name: value
    environment: {RCLONE_CONFIG_PASS: {secret: rclone, as: value}}
    command: [rclone, sync, ~/My Documents, "hidden:by value"]
  - name: stdin
    environment: {RCLONE_PASSWORD_COMMAND: cat}
    command: [rclone, sync, ~/My Documents, "hidden:by stdin"]
    stdin: {secret: rclone}
  - name: without
    command: [rclone, --ask-password=false, lsf, "hidden:"]
"#;

#[test]
fn the_password_of_the_configuration_comes_in_each_of_the_ways() {
    if !needs("rclone") {
        return;
    }
    let sandbox = Sandbox::new();
    configure(&sandbox, PASSWORD);
    sandbox.write("password", format!("{PASSWORD}\n"));
    sandbox.write("My Documents/a letter.txt", "Dear rclone\n");

    let mut daemon = sandbox.daemon(CONFIG);
    assert!(daemon.wait_for_end("command").contains("outcome=success"), "{}", daemon.log());
    daemon.stop();
    for task in ["value", "stdin"] {
        sandbox.once([task]).expect(0);
    }
    sandbox.once(["without"]).expect(1);

    let target = sandbox.path("fetched again");
    let target = target.to_str().expect("text");
    sandbox.once(["command", "--", "rclone", "copy", "hidden:", target]).expect(0);
    for folder in ["by command", "by value", "by stdin"] {
        assert_eq!(sandbox.read(&format!("fetched again/{folder}/a letter.txt")), "Dear rclone\n");
    }
    let names = fs::read_dir(sandbox.path("hidden store")).expect("the store").flatten();
    let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert!(names.all(|name| !name.starts_with("by ")), "the remote encrypts names");
}
