//! What a command is given: its secrets in each of the ways, its environment, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::harness::{Daemon, Sandbox, eventually};

/// Many lines, bytes that are no text, and no line ending.
const BINARY: &[u8] = b"first line\nsecond \xff\xfe line\r\n\ttab and \x1b escape";

/// Signals 32 and 33, which glibc leaves ignored in what it spawns and lets nobody set.
const OF_THE_C_LIBRARY: u64 = 3 << 31;

/// Runs one task `t` at start to its end; `rest` are its further keys, indented by four.
fn run(sandbox: &Sandbox, rest: &str) -> Daemon {
    let daemon = sandbox.daemon(&config(rest));
    daemon.wait_for_end("t");
    daemon
}

fn config(rest: &str) -> String {
    format!(
        r#"
secrets:
  - {{name: vault, file: ~/vault}}
  - {{name: other, file: ~/other}}
tasks:
  - name: t
    schedule: "@start"
{rest}
"#
    )
}

fn sandbox(vault: &[u8]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("vault", vault);
    sandbox.write("other", "the other secret\n");
    sandbox
}

fn succeeded(daemon: &Daemon) {
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
}

#[test]
fn a_secret_comes_through_a_command() {
    let sandbox = sandbox(BINARY);
    let daemon = run(
        &sandbox,
        r#"
    environment: {VAULT: {secret: vault, as: command}}
    command: [sh, -c, 'printf %s "$VAULT" > command; eval "$VAULT" > got']"#,
    );
    succeeded(&daemon);
    assert_eq!(sandbox.read_bytes("got"), BINARY);
    // A whole word in double quotes, single spaces: what restic, rclone and a shell all read alike.
    let command = sandbox.read("command");
    let (program, token) = command.split_once(" secretbox ").expect("a command line");
    assert_eq!(program, format!("\"{}\"", env!("CARGO_BIN_EXE_backupnizza")));
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{command}");
}

#[test]
fn secrets_come_through_files_that_are_no_files() {
    let sandbox = sandbox(BINARY);
    let daemon = run(
        &sandbox,
        r#"
    environment:
      VAULT: {secret: vault, as: file}
      OTHER: {secret: other, as: file, template: "user:{}@host\n"}
    command: [sh, -c, 'echo $VAULT $OTHER > names; cat "$OTHER" > other.got; cat "$VAULT" > got']"#,
    );
    succeeded(&daemon);
    assert_eq!(sandbox.read_bytes("got"), BINARY);
    assert_eq!(sandbox.read("other.got"), "user:the other secret@host\n");
    for name in sandbox.read("names").split_whitespace() {
        assert!(name.starts_with("/dev/fd/"), "{name}");
    }
}

#[test]
fn a_secret_comes_as_the_value_of_a_variable() {
    let sandbox = sandbox(BINARY);
    let daemon = run(
        &sandbox,
        r#"
    environment:
      VAULT: {secret: vault, as: value}
      OTHER: {secret: other, as: value, template: "rest:https://me:{}@host/"}
    command: [sh, -c, 'printf %s "$VAULT" > got; printf %s "$OTHER" > other.got']"#,
    );
    succeeded(&daemon);
    assert_eq!(sandbox.read_bytes("got"), BINARY);
    assert_eq!(sandbox.read("other.got"), "rest:https://me:the other secret@host/");
}

#[test]
fn a_secret_comes_on_standard_input() {
    let sandbox = sandbox(BINARY);
    let daemon = run(
        &sandbox,
        r#"
    steps:
      - {name: given, command: [sh, -c, 'cat > got'], stdin: {secret: vault}}
      - {name: not, command: [sh, -c, 'cat > nothing; readlink /proc/self/fd/0 > stdin || true']}"#,
    );
    succeeded(&daemon);
    assert_eq!(sandbox.read_bytes("got"), BINARY);
    assert_eq!(sandbox.read("nothing"), "");
    assert_eq!(sandbox.read("stdin"), "/dev/null\n");
}

#[test]
fn the_largest_secret_comes_whole_in_every_way() {
    let largest: Vec<u8> = (0..64 * 1024).map(|index| b'!' + (index % 90) as u8).collect();
    let sandbox = sandbox(&largest);
    let daemon = run(
        &sandbox,
        r#"
    environment:
      FILE: {secret: vault, as: file}
      VALUE: {secret: vault, as: value}
      COMMAND: {secret: vault, as: command}
    command: [sh, -c, 'cat > stdin; cat "$FILE" > file; printf %s "$VALUE" > value; eval "$COMMAND" > command']
    stdin: {secret: vault}"#,
    );
    succeeded(&daemon);
    for name in ["stdin", "file", "value", "command"] {
        assert!(sandbox.read_bytes(name) == largest, "{name}");
    }
}

#[test]
fn a_command_may_leave_its_secrets_unread() {
    let largest = vec![b'x'; 64 * 1024];
    let sandbox = sandbox(&largest);
    let daemon = run(
        &sandbox,
        r#"
    environment: {FILE: {secret: vault, as: file}}
    command: ["true"]
    stdin: {secret: vault}"#,
    );
    succeeded(&daemon);
}

#[test]
fn a_secret_with_a_zero_byte_is_no_value_of_a_variable() {
    let sandbox = sandbox(b"one\0two");
    let daemon = run(
        &sandbox,
        r#"
    environment: {VAULT: {secret: vault, as: value}}
    command: [sh, -c, "touch ran"]"#,
    );
    assert!(daemon.wait_for_end("t").contains("outcome=failure"), "{}", daemon.log());
    let error = daemon.wait_for(&["error", "secret vault: has a zero byte", "task=t"]);
    assert!(error.contains("as: file"), "{error}");
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn nobody_sees_a_secret_in_a_list_of_processes() {
    let sandbox = sandbox(b"correct horse battery");
    let daemon = sandbox.daemon(&config(
        r#"
    environment:
      COMMAND: {secret: vault, as: command, max_ttl: 1h}
      FILE: {secret: vault, as: file}
      VALUE: {secret: vault, as: value}
    command: [sh, -c, 'cat > /dev/null; touch started; await ~/go']
    stdin: {secret: vault}"#,
    ));
    sandbox.await_file("started");
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).into_owned();
        assert!(!cmdline.contains("correct horse"), "{cmdline}");
    }
    // An ordinary user cannot even read it, as the daemon is not dumpable.
    let environ = fs::read(format!("/proc/{}/environ", daemon.pid())).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&environ).contains("correct horse"));
    sandbox.signal("go");
    succeeded(&daemon);
}

#[test]
fn a_command_has_the_descriptors_that_it_was_given_and_no_others() {
    if !Path::new("/proc/self/fd").exists() {
        return;
    }
    let sandbox = sandbox(b"correct horse battery");
    let _daemon = sandbox.daemon(&config(
        r#"
    order: parallel
    steps:
      - {name: plain, command: [sh, -c, 'echo $$ > plain; exec sleep 1000']}
      - name: files
        environment:
          FIRST: {secret: vault, as: file}
          SECOND: {secret: other, as: file}
        command: [sh, -c, 'echo $$ $FIRST $SECOND > files; exec sleep 1000']"#,
    ));
    let told = |name: &str| -> (String, Vec<String>) {
        let line = eventually("the command to start", || {
            Some(fs::read_to_string(sandbox.path(name)).ok()?).filter(|line| line.ends_with('\n'))
        });
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().expect("a pid"), words.map(|word| word.replace("/dev/fd/", "")).collect())
    };
    // The loader of `sleep` has a file open for a moment.
    let settles_at = |pid: &str, files: &[String]| {
        eventually("the descriptors that it was given", || (descriptors(pid) == expected(files)).then_some(()));
    };
    let (pid, none) = told("plain");
    assert_eq!(none.len(), 0);
    settles_at(&pid, &[]);
    let (pid, files) = told("files");
    assert_eq!(files.len(), 2);
    settles_at(&pid, &files);
}

fn expected(files: &[String]) -> BTreeSet<String> {
    ["0", "1", "2"].map(str::to_owned).into_iter().chain(files.iter().cloned()).collect()
}

fn descriptors(pid: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors of a process of this user");
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_command_begins_as_from_a_fresh_shell() {
    let sandbox = sandbox(b"correct horse battery");
    let script = sandbox.script(
        "daemon",
        &format!(
            "#!/bin/sh\ntrap '' HUP INT QUIT PIPE USR1\numask 027\nulimit -Sc unlimited 2> /dev/null\nexec '{}' backup.yaml\n",
            env!("CARGO_BIN_EXE_backupnizza")
        ),
    );
    sandbox.config(&config(
        r#"
    command:
      - sh
      - -c
      - |
        umask > umask
        ulimit -c > core
        pwd > folder
        read stat < /proc/self/stat && set -- $stat && echo $(($1 == $5)) > leader
        grep -E 'Sig(Blk|Ign)' /proc/self/status > signals"#,
    ));
    let daemon = Daemon::start(sandbox.command(script));
    daemon.wait_for_end("t");
    assert_eq!(sandbox.read("umask").trim_start_matches('0'), "27\n");
    assert_eq!(sandbox.read("core"), "0\n");
    assert_eq!(Path::new(sandbox.read("folder").trim_end()), sandbox.home());
    if Path::new("/proc/self/stat").exists() {
        assert_eq!(sandbox.read("leader"), "1\n");
        for line in sandbox.read("signals").lines() {
            let set = line.split_whitespace().nth(1).and_then(|set| u64::from_str_radix(set, 16).ok());
            assert_eq!(set.map(|set| set & !OF_THE_C_LIBRARY), Some(0), "{line}");
        }
    }
}

/// The environment that the command of a task with these further keys gets from a daemon with
/// these variables beside those of every test.
fn environment(keys: &str, daemon_variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let sandbox = sandbox(b"correct horse battery");
    sandbox.config(&config(
        &format!("{keys}\n    command: [env, \"-0\"]")
            .replace("[env, \"-0\"]", "[sh, -c, 'cat /proc/$$/environ > environment']"),
    ));
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    command.envs(daemon_variables.iter().copied());
    let daemon = Daemon::start(command);
    succeeded(&daemon);
    let bytes = sandbox.read("environment");
    let home = sandbox.home();
    let home = home.to_str().expect("text");
    let variables = bytes.split_terminator('\0').filter_map(|variable| variable.split_once('='));
    variables.map(|(name, value)| (name.to_owned(), value.replace(home, "~"))).collect()
}

const DAEMON_VARIABLES: &[(&str, &str)] = &[
    ("USER", "me"),
    ("LOGNAME", "me"),
    ("SHELL", "/bin/zsh"),
    ("LANG", "C.UTF-8"),
    ("LC_TIME", "C"),
    ("TZ", "UTC"),
    ("SSH_AUTH_SOCK", "/agent"),
    ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/bus"),
    ("https_proxy", "http://proxy"),
    ("NO_PROXY", "localhost"),
    ("SSL_CERT_FILE", "/certs"),
    ("EDITOR", "vi"),
    ("PAGER", "less"),
    ("MY_TOKEN", "of the daemon"),
    ("LISTEN_FDS", "0"),
    ("LISTEN_PID", "1"),
    ("WATCHDOG_USEC", "600000000"),
    ("CREDENTIALS_DIRECTORY", "/run/credentials"),
    ("BACKUPNIZZA_SOCKET", "/of/another"),
];

const PASSED: &[&str] = &[
    "DBUS_SESSION_BUS_ADDRESS",
    "HOME",
    "LANG",
    "LC_TIME",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "SHELL",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "https_proxy",
];

const OF_THE_RUN: &[&str] =
    &["BACKUPNIZZA_RUN", "BACKUPNIZZA_SLOT", "BACKUPNIZZA_SOCKET", "BACKUPNIZZA_STEP", "BACKUPNIZZA_TASK"];

fn names(variables: &BTreeMap<String, String>) -> Vec<&str> {
    variables.keys().map(String::as_str).collect()
}

fn sorted<'a>(lists: &[&[&'a str]]) -> Vec<&'a str> {
    let mut names = lists.concat();
    names.sort();
    names
}

#[test]
fn a_command_gets_the_documented_variables_and_no_others() {
    if !Path::new("/proc/self/environ").exists() {
        return;
    }
    let plain = environment("", DAEMON_VARIABLES);
    assert_eq!(names(&plain), sorted(&[PASSED, OF_THE_RUN]));
    assert_eq!((&*plain["HOME"], &*plain["SHELL"]), ("~", "/bin/zsh"));
    assert_eq!(
        (&*plain["BACKUPNIZZA_TASK"], &*plain["BACKUPNIZZA_STEP"], &*plain["BACKUPNIZZA_RUN"]),
        ("t", "sh", "1")
    );
    assert!(plain["BACKUPNIZZA_SOCKET"].ends_with("/run/socket"), "{plain:?}");
    assert!(plain["BACKUPNIZZA_SLOT"].contains('T'), "{plain:?}");

    let keys = "    pass_environment: [EDITOR, UNSET]\n    environment: {LANG: C, MINE: ~/here, THIS: a~/b}";
    let asked = environment(keys, DAEMON_VARIABLES);
    assert_eq!(names(&asked), sorted(&[PASSED, OF_THE_RUN, &["EDITOR", "MINE", "THIS"]]));
    assert_eq!((&*asked["LANG"], &*asked["MINE"], &*asked["THIS"]), ("C", "~/here", "a~/b"));

    let all = environment("    pass_environment: all", DAEMON_VARIABLES);
    let further = &["EDITOR", "MY_TOKEN", "PAGER", "RUNTIME_DIRECTORY", "STATE_DIRECTORY"];
    assert_eq!(names(&all), sorted(&[PASSED, OF_THE_RUN, further]));
    assert!(all["BACKUPNIZZA_SOCKET"].ends_with("/run/socket"), "{all:?}");
}

#[test]
fn the_variable_of_an_env_secret_is_never_passed_on() {
    let sandbox = Sandbox::new();
    sandbox.config(
        r#"
secrets: [{name: key, env: MY_KEY}]
tasks:
  - name: t
    schedule: "@start"
    pass_environment: all
    environment: {GIVEN: {secret: key, as: value}}
    command: [sh, -c, 'echo "$GIVEN" > given; echo "${MY_KEY-unset}" > inherited']
"#,
    );
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    command.env("MY_KEY", "correct horse battery");
    let daemon = Daemon::start(command);
    succeeded(&daemon);
    assert_eq!((&*sandbox.read("given"), &*sandbox.read("inherited")), ("correct horse battery\n", "unset\n"));
    let environ = fs::read(format!("/proc/{}/environ", daemon.pid())).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&environ).contains("correct horse"));
}

#[test]
fn a_tilde_at_the_head_is_the_home_directory() {
    let sandbox = sandbox(b"correct horse battery");
    fs::create_dir(sandbox.path("a folder")).expect("a folder");
    let daemon = run(
        &sandbox,
        r#"
    working_directory: ~/a folder
    command: [sh, -c, 'pwd; printf "%s\n" "$@"', ~, ~, ~/a, "--to=~/a", "a~/b", "~me/a", "$HOME", 4]
    environment: {UNUSED: ~}"#,
    );
    succeeded(&daemon);
    let home = sandbox.home();
    let home = home.to_str().expect("text");
    for line in [&format!("{home}/a folder"), home, &format!("{home}/a"), "--to=~/a", "a~/b", "~me/a", "$HOME", "4"] {
        let printed = daemon.lines(&[" | "]);
        let count = printed.iter().filter(|printed| printed.ends_with(&format!(" | {line}"))).count();
        assert_eq!(count, 1, "{line}\n{}", daemon.log());
    }
}

#[test]
fn a_working_directory_that_is_missing_is_a_failure_that_says_so() {
    let sandbox = sandbox(b"correct horse battery");
    let daemon = run(&sandbox, "    working_directory: ~/missing\n    command: [\"true\"]");
    assert!(daemon.wait_for_end("t").contains("outcome=failure"), "{}", daemon.log());
    daemon.wait_for(&["error", "cannot go to its working directory", "task=t"]);
}
