//! Where secrets come from: `pass`, a keyring and a terminal as they are, `op` and `security` as
//! small scripts that behave as those are documented to.
//!
//! What a source gave is seen by a command that `once` runs with it. What it says when it gives
//! nothing is what `check --secrets` says, which asks every source; a daemon's start fails by
//! those alone that are wrong in themselves.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::harness::{self, Finished, Running, Sandbox, finish, needs, running};

/// A configuration with the secrets of these sources, named `s0`, `s1`, …, in `S0`, `S1`, … of
/// the task `t`.
fn config(sources: &[&str]) -> String {
    let numbered = || sources.iter().enumerate();
    let secrets: String = numbered().map(|(number, source)| format!("  - {{name: s{number}, {source}}}\n")).collect();
    let variables: Vec<String> =
        numbered().map(|(number, _)| format!("S{number}: {{secret: s{number}, as: value}}")).collect();
    format!(
        "metrics_file: ~/metrics\nsecrets:\n{secrets}tasks:\n  - {{name: t, schedule: \"@yearly\", command: [\"true\"], \
         environment: {{{}}}}}\n",
        variables.join(", ")
    )
}

/// Asks one source by way of `once`; returns the value.
fn value(sandbox: &Sandbox, source: &str) -> String {
    sandbox.config(&config(&[source]));
    let said = sandbox.once(["t", "--", "printenv", "S0"]).expect(0);
    said.stdout().strip_suffix('\n').expect("a line").to_owned()
}

/// Asks all sources strictly.
fn check(sandbox: &Sandbox, sources: &[&str]) -> Finished {
    sandbox.config(&config(sources));
    finish(sandbox.backupnizza(["check", "--secrets", "backup.yaml"]))
}

/// The messages of this kind (`error`, `warning`), without their hints.
fn messages<'a>(said: &'a Finished, kind: &str) -> Vec<&'a str> {
    let prefix = format!("backupnizza: {kind}: ");
    said.stderr.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

/// The one error of a source that gave nothing, with its hint.
fn error(sandbox: &Sandbox, source: &str) -> String {
    let said = check(sandbox, &[source]).expect(1);
    assert_eq!(messages(&said, "error").len(), 1, "{}", said.stderr);
    said.stderr
}

// ---- Password managers -------------------------------------------------------------------------

#[test]
fn pass_is_asked_with_its_own_environment() {
    if !needs("pass") || !needs("gpg") {
        return;
    }
    let sandbox = Sandbox::new();
    // A socket's path may be too long in the sandbox.
    let gnupg = Path::new("/tmp").join(format!("backupnizza-gpg-{}", std::process::id()));
    let with_store = |mut command: Command| {
        command.env("GNUPGHOME", &gnupg).env("PASSWORD_STORE_DIR", sandbox.path("store"));
        finish(command)
    };
    let script = |text: &str| {
        let mut shell = sandbox.command("sh");
        shell.args(["-ec", text]);
        with_store(shell)
    };
    script(
        "mkdir -m 700 $GNUPGHOME
         gpg --batch --quiet --passphrase '' --quick-generate-key tester@example.org default default never
         pass init tester@example.org
         printf 'correct horse\\n' | pass insert --multiline vault/restic",
    )
    .expect(0);
    sandbox.config(&config(&["command: [pass, show, vault/restic]"]));
    let said = with_store(sandbox.backupnizza(["once", "backup.yaml", "t", "--", "printenv", "S0"]));
    assert_eq!(said.expect(0).stdout(), "correct horse\n");
    sandbox.config(&config(&["command: [pass, show, vault/none]"]));
    let said = with_store(sandbox.backupnizza(["check", "--secrets", "backup.yaml"])).expect(1);
    assert_eq!(
        messages(&said, "error"),
        ["secret s0: pass exited with status 1: Error: vault/none is not in the password store."]
    );
    script("gpgconf --kill all; rm -r $GNUPGHOME").expect(0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_keyring_is_asked_through_secret_tool() {
    if !needs("secret-tool") || !needs("gnome-keyring-daemon") || !needs("dbus-run-session") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.config(&config(&["secret_service: {service: restic}", "secret_service: {-service: restic}"]));
    sandbox.write("other.yaml", config(&["secret_service: {service: other}"]));
    // A bus that starts nothing by itself: it would start a second keyring, a locked one, if it is
    // asked for it before the first has said its name.
    let bus = sandbox.write(
        "bus.conf",
        r#"<busconfig>
             <type>session</type>
             <listen>unix:tmpdir=/tmp</listen>
             <policy context="default">
               <allow own="*"/>
               <allow eavesdrop="true"/>
               <allow send_destination="*" eavesdrop="true"/>
             </policy>
           </busconfig>"#,
    );
    let mut session = sandbox.command("dbus-run-session");
    session.arg("--config-file").arg(bus).args(["--", "sh", "-ec"]).arg(
        r#"printf pw | gnome-keyring-daemon --unlock --components=secrets --control-directory="$HOME/control" \
             --daemonize > /dev/null
           until printf 'pass wörd' | secret-tool store --label=test service restic; do sleep 0.02; done
           printf 'dashed' | secret-tool store --label=test -- -service restic
           "$1" once backup.yaml t -- sh -c 'printf %s "$S0, $S1" > answers'
           ! "$1" check --secrets other.yaml 2> refusal"#,
    );
    session.args(["sh", env!("CARGO_BIN_EXE_backupnizza")]);
    finish(session).expect(0);
    // The session's own output is also that of the bus and of what it starts.
    assert_eq!(sandbox.read("answers"), "pass wörd, dashed");
    let refusal = sandbox.read("refusal");
    assert!(refusal.contains("backupnizza: error: secret s0: secret-tool exited with status 1\n"), "{refusal}");
    assert!(refusal.contains("backupnizza: hint: unlock the keyring"), "{refusal}");
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_session_bus_secret_tool_says_so() {
    if !needs("secret-tool") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.config(&config(&["secret_service: {service: restic}"]));
    let mut command = sandbox.backupnizza(["check", "--secrets", "backup.yaml"]);
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let said = finish(command).expect(1);
    let expected = "secret s0: secret-tool exited with status 1: secret-tool: ";
    assert!(messages(&said, "error")[0].starts_with(expected), "{}", said.stderr);
}

#[test]
fn onepassword_is_read_by_op() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "bin/op",
        "#!/bin/sh\n[ \"$*\" = 'read --no-newline op://Private/restic/one time' ] && printf 'correct horse'\n",
    );
    assert_eq!(value(&sandbox, "onepassword: op://Private/restic/one time"), "correct horse");
    let line =
        "[ERROR] 2026/01/02 03:04:05 You are not currently signed in. Please run `op signin --help` for instructions";
    sandbox.script("bin/op", &format!("#!/bin/sh\necho '{line}' >&2\nexit 1\n"));
    let said = error(&sandbox, "onepassword: op://Private/restic/password");
    let expected = format!(
        "{line}\nbackupnizza: error: secret s0: op exited with status 1: {line}\n\
         backupnizza: hint: run `op signin` or unlock 1Password, then try again\n"
    );
    assert_eq!(said, expected, "its own words as they come, and in the message");
}

#[test]
fn a_keychain_is_asked_through_security() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "bin/security",
        "#!/bin/sh\ncase \"$*\" in\n\
         'find-generic-password -s restic -a me -w') echo 'correct horse' ;;\n\
         'find-generic-password -s restic -w') echo 'battery staple' ;;\n\
         *) echo 'security: SecKeychainSearchCopyNext: The specified item could not be found in the keychain.' >&2; exit 44 ;;\n\
         esac\n",
    );
    assert_eq!(value(&sandbox, "keychain: {service: restic, account: me}"), "correct horse");
    assert_eq!(value(&sandbox, "keychain: {service: restic}"), "battery staple");
    let said = error(&sandbox, "keychain: {service: restic, account: you}");
    assert!(
        said.contains("secret s0: security exited with status 44: security: SecKeychainSearchCopyNext: "),
        "{said}"
    );
    assert!(said.contains("hint: `security add-generic-password -s SERVICE -a ACCOUNT -w` adds the item"), "{said}");
}

#[test]
fn a_keychain_password_that_security_turned_into_hex_is_a_warning() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/security", "#!/bin/sh\necho \"$3\"\n");
    // "pässword", once as bytes and once as C's negative chars; then passwords of such digits.
    let printed =
        ["70c3a47373776f7264", "70ffffffc3ffffffa47373776f7264", "8f3b62d5c07e91aa4f9d10e6b7c85d23", "deadbeef"];
    let sources = printed.map(|text| format!("keychain: {{service: \"{text}\"}}"));
    let said = check(&sandbox, &sources.each_ref().map(String::as_str)).expect(0);
    let warning = "looks like the hexadecimal form in which security prints what is not plain ASCII";
    assert_eq!(messages(&said, "warning"), [format!("secret s0: {warning}"), format!("secret s1: {warning}")]);
    assert_eq!(value(&sandbox, &sources[2]), printed[2], "given as it is");
}

// ---- Commands ----------------------------------------------------------------------------------

/// A `command:` source of a line of shell.
fn shell(script: &str) -> String {
    format!("command: [sh, -c, {script:?}]")
}

#[test]
fn what_a_command_prints_is_the_value_without_one_line_ending() {
    let sandbox = Sandbox::new();
    assert_eq!(value(&sandbox, &shell("printf 'correct horse\\n'")), "correct horse");
    assert_eq!(value(&sandbox, &shell("printf 'correct\\nhorse\\r\\n'")), "correct\nhorse");
    assert_eq!(value(&sandbox, &shell("head -c 65536 /dev/zero | tr '\\0' x")).len(), 65536);
}

#[test]
fn odd_values_are_warnings() {
    let sandbox = Sandbox::new();
    let sources = [
        "printf ' correct horse'",
        "printf 'correct horse\\n\\n'",
        "printf 'correct horse\\302\\240'",
        "printf 'x\\377 '",
        "printf 'horse\\n'",
        "printf 'horses\\n'",
    ]
    .map(shell);
    let said = check(&sandbox, &sources.each_ref().map(String::as_str)).expect(0);
    let blanks = "begins or ends with blanks or line endings, which restic and others take away";
    let short = "shorter than 6 bytes, so it is not redacted from output";
    let expected = [(0, blanks), (1, blanks), (2, blanks), (3, blanks), (3, short), (4, short)];
    assert_eq!(messages(&said, "warning"), expected.map(|(number, what)| format!("secret s{number}: {what}")));
}

/// All that is wrong is told at once, and what may yet come does not keep a daemon from starting.
#[test]
fn sources_that_are_wrong_in_themselves_stop_the_start_all_listed() {
    let sandbox = Sandbox::new();
    sandbox.write("empty", "\n");
    sandbox.write("long", "x".repeat(65537));
    for (name, mode) in [("readable", 0o604), ("writable", 0o602)] {
        let path = sandbox.write(name, "correct horse");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let (mut wrong, mut unavailable) = (Vec::new(), Vec::new());
    let mut sources = Vec::new();
    for (source, is_wrong, what) in [
        (shell("true"), true, "the answer of sh is empty"),
        (shell("echo"), true, "the answer of sh is empty"),
        (shell("exec yes"), true, "the answer of sh is longer than 64 KiB"),
        (shell("echo not this value; exit 7"), false, "sh exited with status 7"),
        (shell("echo not this value; kill -9 $$"), false, "sh was ended by signal 9 (SIGKILL)"),
        (
            shell("printf 'first\\nlast \\033[31m\\007words\\n\\n \\n' >&2; exit 1"),
            false,
            r"sh exited with status 1: last \u{1b}[31m\u{7}words",
        ),
        ("file: ~/none".into(), false, "its file HOME/none is missing"),
        ("file: ~/empty".into(), true, "its file HOME/empty is empty"),
        ("file: ~/long".into(), true, "its file HOME/long is longer than 64 KiB"),
        ("file: ~/readable".into(), true, "its file HOME/readable is readable by others"),
        ("file: ~/writable".into(), true, "its file HOME/writable is writable by others"),
        ("file: ~/".into(), true, "its file HOME/ is not a regular file"),
        ("file: /dev/null".into(), true, "its file /dev/null is not a regular file"),
        ("file: ~/pipe".into(), true, "its file HOME/pipe is not a regular file"),
        ("env: UNSET".into(), true, "its environment variable is not set"),
        ("env: EMPTY".into(), true, "its environment variable is empty"),
        (
            "credential: rest".into(),
            true,
            "there are no credentials: CREDENTIALS_DIRECTORY is not set by a service manager",
        ),
    ] {
        let what = what.replace("HOME", &sandbox.home().display().to_string());
        let message = format!("secret s{}: {what}", sources.len());
        if is_wrong {
            wrong.push(message)
        } else {
            unavailable.push(message)
        }
        sources.push(source);
    }
    make_pipe(&sandbox);
    sandbox.config(&config(&sources.iter().map(String::as_str).collect::<Vec<_>>()));
    let run = |arguments: &[&str]| {
        let mut command = sandbox.backupnizza(arguments.iter().copied());
        command.env("EMPTY", "");
        finish(command).expect(1)
    };
    assert_eq!(messages(&run(&["backup.yaml"]), "error"), wrong);
    let said = run(&["check", "--secrets", "backup.yaml"]);
    assert_eq!(messages(&said, "error"), [wrong, unavailable].concat());
    assert!(!said.stderr.contains("not this value"));
    // `check` alone asks none.
    finish(sandbox.backupnizza(["check", "backup.yaml"])).expect(0);
}

#[test]
fn a_program_that_is_not_there_is_wrong_in_itself() {
    let sandbox = Sandbox::new();
    sandbox.config(&config(&["command: [no-such-program]"]));
    for arguments in [&["backup.yaml"][..], &["check", "backup.yaml"], &["once", "backup.yaml", "t"]] {
        let said = finish(sandbox.backupnizza(arguments.iter().copied())).expect(1);
        assert!(said.stderr.contains("no-such-program: not found on PATH"), "{arguments:?}: {}", said.stderr);
    }
    let said = check(&sandbox, &["command: [no-such-program]"]).expect(1);
    let expected = ["no-such-program: not found on PATH, needed by secret s0"];
    assert_eq!(messages(&said, "error"), expected, "once");
    sandbox.script("bin/no-interpreter", "#!/nonexistent/python\n");
    let said = error(&sandbox, "command: [no-interpreter]");
    assert!(said.contains("bin/no-interpreter: its interpreter: /nonexistent: does not exist"), "{said}");
}

/// A pipe with a name, out of which a script's `read` waits for ever.
fn make_pipe(sandbox: &Sandbox) {
    let mut mkfifo = sandbox.command("mkfifo");
    mkfifo.arg("pipe");
    finish(mkfifo).expect(0);
}

/// The tool wrote its pid into a file; it is there no more.
fn assert_gone(sandbox: &Sandbox) {
    let pid = sandbox.read("pid").trim().parse().expect("a pid");
    assert!(!harness::is_alive(pid));
}

#[test]
fn a_tool_that_does_not_answer_is_given_up_and_gone() {
    let sandbox = Sandbox::new();
    make_pipe(&sandbox);
    for script in [
        "echo $$ > ~/pid; exec 3<>~/pipe; read line <&3",
        "trap '' TERM; echo $$ > ~/pid; exec 3<>~/pipe; while :; do read line <&3; done",
        // One that has answered must also end.
        "echo $$ > ~/pid; exec 3<>~/pipe; echo correct horse; exec >&- 2>&-; read line <&3",
    ] {
        let said = error(&sandbox, &format!("{}, timeout: 1s", shell(script)));
        assert!(said.contains("secret s0: sh gave no answer within 1 s"), "{said}");
        assert_gone(&sandbox);
    }
}

#[test]
fn an_agent_that_keeps_the_pipe_open_is_not_waited_for() {
    let sandbox = Sandbox::new();
    make_pipe(&sandbox);
    let source = shell("exec 3<>~/pipe; (read line <&3) & echo correct horse");
    assert_eq!(value(&sandbox, &format!("{source}, timeout: 0")), "correct horse");
    // Lets the agent go.
    fs::File::options()
        .write(true)
        .open(sandbox.path("pipe"))
        .and_then(|mut pipe| pipe.write_all(b"\n"))
        .expect("told");
}

#[test]
fn a_question_that_is_called_off_ends_at_once() {
    let sandbox = Sandbox::new();
    make_pipe(&sandbox);
    let source = shell("echo $$ > ~/pid.new; mv ~/pid.new ~/pid; exec 3<>~/pipe; read line <&3");
    sandbox.config(&config(&[&format!("{source}, timeout: 0")]));
    let asking: Running = running(&mut sandbox.backupnizza(["once", "backup.yaml", "t"]));
    sandbox.await_file("pid");
    asking.signal("TERM");
    let said = asking.finish().expect(1);
    assert_eq!(messages(&said, "error"), ["secret s0: interrupted while it was asked for"]);
    assert_gone(&sandbox);
}

// ---- Files, credentials and variables ----------------------------------------------------------

#[test]
fn a_file_is_read_without_its_line_ending() {
    let sandbox = Sandbox::new();
    sandbox.write("key", "correct horse\n");
    assert_eq!(value(&sandbox, "file: ~/key"), "correct horse");
    assert_eq!(check(&sandbox, &["file: ~/key"]).expect(0).stderr, "");
}

#[test]
fn a_file_of_a_group_is_a_warning_and_one_of_another_user_wrong() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("key", "correct horse");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("its mode");
    if chown(&path, Some(0), Some(1)).is_err() {
        harness::not_tested("files of other users and groups: not root");
        return;
    }
    let said = check(&sandbox, &["file: ~/key"]).expect(0);
    assert_eq!(
        messages(&said, "warning"),
        [format!("secret s0: its file {} is readable or writable by its group", path.display())]
    );
    chown(&path, Some(1), Some(1)).expect("chown");
    let said = error(&sandbox, "file: ~/key");
    assert!(said.contains("/key belongs to another user"), "{said}");
}

#[test]
fn a_file_that_others_could_put_another_in_place_of_is_wrong() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("open/key", "correct horse");
    let folder = path.parent().expect("a folder");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("its mode");
    std::os::unix::fs::symlink("open/key", sandbox.path("link")).expect("a link");
    for source in ["file: ~/open/key", "file: ~/link"] {
        let said = error(&sandbox, source);
        assert!(said.contains("secret s0: its file: ") && said.contains("/open: writable by everyone"), "{said}");
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777)).expect("its mode");
    check(&sandbox, &["file: ~/open/key"]).expect(0);
}

#[test]
fn a_credential_is_read_from_the_folder_of_the_service_manager() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("credentials/rest-password", "correct horse");
    fs::set_permissions(path, fs::Permissions::from_mode(0o440)).expect("its mode");
    sandbox.config(&config(&["credential: rest-password"]));
    let with_folder = |arguments: &[&str]| {
        let mut command = sandbox.backupnizza(arguments.iter().copied());
        command.env("CREDENTIALS_DIRECTORY", sandbox.path("credentials"));
        finish(command)
    };
    let said = with_folder(&["once", "backup.yaml", "t", "--", "printenv", "S0"]).expect(0);
    assert_eq!(said.stdout(), "correct horse\n");
    sandbox.config(&config(&["credential: other"]));
    // It never comes, so a daemon does not wait for it.
    let said = with_folder(&["backup.yaml"]).expect(1);
    assert_eq!(messages(&said, "error"), ["secret s0: its credential is missing"]);
    assert!(said.stderr.contains("hint: give the service a LoadCredential="), "{}", said.stderr);
}

#[test]
fn a_variable_is_given_as_it_is_and_gone_from_the_process_and_its_tools() {
    let sandbox = Sandbox::new();
    let tool = shell("env; cat /proc/$PPID/environ 2>/dev/null | tr '\\0' '\\n'");
    sandbox.config(&config(&["env: KEY_OF_TEST", &tool]));
    let mut command =
        sandbox.backupnizza(["once", "backup.yaml", "t", "--", "sh", "-c", "printf '%s\n' \"$S0\" \"$S1\""]);
    command.env("KEY_OF_TEST", "correct horse ").env("OTHER_OF_TEST", "passed on");
    let shown = finish(command).expect(0).stdout();
    let (given, seen) = shown.split_once('\n').expect("two values");
    assert_eq!(given, "correct horse ");
    assert!(seen.contains("OTHER_OF_TEST=passed on"), "{seen}");
    assert!(!seen.contains("correct horse"), "{seen}");
    // What is left of it is its name, in the process's own block only: the tool has not even that.
    assert_eq!(seen.matches("KEY_OF_TEST=").count() + 1, seen.matches("OTHER_OF_TEST=").count(), "{seen}");
}

// ---- The terminal ------------------------------------------------------------------------------

const PROMPT: &str = "prompt: \"Passphrase: \"";

/// Runs backupnizza with these arguments on a terminal of its own and follows `steps`, which
/// terminal.py describes; returns what the terminal showed.
fn on_terminal(source: &str, arguments: &[&str], steps: &[&str]) -> Option<String> {
    if !needs("python3") {
        return None;
    }
    let sandbox = Sandbox::new();
    sandbox.config(&config(&[source]));
    let mut driver = sandbox.command("python3");
    driver.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/terminal.py")).args(steps).arg("--");
    driver.arg(env!("CARGO_BIN_EXE_backupnizza")).args(arguments);
    Some(finish(driver).expect(0).stdout())
}

/// `once` takes signals itself and shows what it got.
const ONCE: &[&str] = &["once", "backup.yaml", "t", "--", "sh", "-c", "echo \"answer: [$S0]\""];

/// `check` leaves signals to their default.
const CHECK: &[&str] = &["check", "--secrets", "backup.yaml"];

#[test]
fn a_passphrase_is_typed_without_echo() {
    let steps = ["expect", "Passphrase: ", "echo", "off", "type", "correct horse^M"];
    let then = ["expect", "answer: [correct horse]", "ended", "0", "echo", "on"];
    let Some(shown) = on_terminal(PROMPT, ONCE, &[&steps[..], &then].concat()) else { return };
    assert_eq!(shown.matches("correct horse").count(), 1, "{shown}");
}

#[test]
fn a_passphrase_may_end_with_an_end_of_file_but_not_be_one() {
    let steps = ["expect", "Passphrase: ", "type", "correct^D", "type", " horse^D^D", "ended", "0", "echo", "on"];
    let Some(shown) = on_terminal(PROMPT, ONCE, &steps) else { return };
    assert!(shown.contains("answer: [correct horse]"), "{shown}");
    for nothing in ["^D", "^M"] {
        let steps = ["expect", "Passphrase: ", "type", nothing, "ended", "1", "echo", "on"];
        let Some(shown) = on_terminal(PROMPT, ONCE, &steps) else { return };
        assert!(shown.contains("error: secret s0: the answer is empty"), "{shown}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_line_that_a_terminal_cuts_is_no_passphrase() {
    let line = "x".repeat(5000) + "^M";
    let steps = ["expect", "Passphrase: ", "type", &line, "ended", "1", "echo", "on"];
    let Some(shown) = on_terminal(PROMPT, ONCE, &steps) else { return };
    assert!(shown.contains("error: secret s0: the answer is 4095 bytes or longer"), "{shown}");
    let line = "x".repeat(4000) + "^M";
    let steps = ["expect", "Passphrase: ", "type", &line, "expect", "answer: [xxx", "ended", "0", "echo", "on"];
    on_terminal(PROMPT, ONCE, &steps);
}

#[test]
fn echo_comes_back_after_a_key_or_a_signal_that_ends() {
    for (verb, word, end) in [
        ("type", "half a passphrase^C", "SIGINT"),
        ("type", "half a passphrase^\\", "SIGQUIT"),
        ("signal", "TERM", "SIGTERM"),
        ("signal", "HUP", "SIGHUP"),
        ("signal", "INT", "SIGINT"),
    ] {
        let steps = ["expect", "Passphrase: ", "echo", "off", verb, word, "ended", end, "echo", "on"];
        let Some(shown) = on_terminal(PROMPT, CHECK, &steps) else { return };
        assert!(!shown.contains("half"), "{shown}");
    }
}

#[test]
fn a_signal_that_is_handled_ends_the_question_in_order() {
    for (verb, word) in [("signal", "TERM"), ("type", "half^C")] {
        let steps = ["expect", "Passphrase: ", "echo", "off", verb, word];
        let then = ["expect", "error: secret s0: interrupted while it was asked for", "ended", "1", "echo", "on"];
        on_terminal(PROMPT, ONCE, &[&steps[..], &then].concat());
    }
}

#[test]
fn echo_is_on_while_the_question_is_paused_and_it_is_asked_again() {
    for (verb, word) in [("type", "half^Z"), ("signal", "TSTP")] {
        let pause = ["expect", "Passphrase: ", "echo", "off", verb, word, "paused", "echo", "on", "signal", "CONT"];
        let again = ["expect", "Passphrase: ", "echo", "off", "type", "correct horse^M"];
        let then = ["expect", "answer: [correct horse]", "ended", "0", "echo", "on"];
        on_terminal(PROMPT, ONCE, &[&pause[..], &again, &then].concat());
    }
}

#[test]
fn echo_comes_back_when_nobody_answers() {
    let steps = ["expect", "Passphrase: ", "expect", "error: secret s0: the terminal gave no answer within 1 s"];
    on_terminal(&format!("{PROMPT}, timeout: 1s"), CHECK, &[&steps[..], &["ended", "1", "echo", "on"]].concat());
}

#[test]
fn a_job_in_the_background_is_told_so_and_not_stopped() {
    let steps = ["background", "expect", "error: secret s0: backupnizza runs in the background", "ended", "1"];
    on_terminal(PROMPT, CHECK, &steps);
}

#[test]
fn without_a_terminal_a_prompt_is_wrong_in_itself() {
    if !needs("python3") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.config(&config(&[PROMPT]));
    let mut command = sandbox.command("python3");
    command.args(["-c", "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"]);
    command.args([env!("CARGO_BIN_EXE_backupnizza"), "backup.yaml"]);
    let said = finish(command).expect(1);
    assert_eq!(messages(&said, "error"), ["secret s0: there is no terminal to ask on"]);
    assert!(said.stderr.contains("hint: start backupnizza in a terminal, or use another source"), "{}", said.stderr);
}

#[test]
fn echo_comes_back_after_a_tool_that_was_given_up() {
    let tool = shell("stty -echo; trap '' TERM; echo ready >&2; while :; do read line; done");
    let steps = ["expect", "ready", "echo", "off", "signal", "TERM"];
    let then = ["expect", "error: secret s0: interrupted", "ended", "1", "echo", "on"];
    on_terminal(&tool, ONCE, &[&steps[..], &then].concat());
}

#[test]
fn a_tool_may_ask_on_the_terminal() {
    let tool = shell("printf 'PIN? ' >&2; read pin; echo \"secret for $pin\"");
    let steps = ["expect", "PIN? ", "type", "1234^M", "expect", "answer: [secret for 1234]", "ended", "0"];
    on_terminal(&tool, ONCE, &steps);
}
