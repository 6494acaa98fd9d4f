//! What `check` and the command line say: every problem with its place, never a value.
//!
//! Each `cases/NAME.yaml` is checked without looking at this machine; what is said of it is to be
//! `cases/NAME.txt`. The names of bad ones begin with `bad`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_yaml::{Mapping, Value};

use crate::harness::{self, Finished, Sandbox, finish};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cases");

/// Every key of the configuration with a value that passes.
const EVERY_KEY: &str = r#"
timezone: utc
max_concurrent_runs: 3
state_dir: ~/state
metrics_file: ~/metrics.prom
log: {level: info, format: json}
secretbox: {socket: ~/socket, max_token_ttl: 10s, memory: locked}
secrets:
  - {name: vault, command: [op, read, "op://Private/restic/password"], timeout: 2m}
  - {name: b2, env: B2_APPLICATION_KEY}
  - {name: disk, file: ~/disk.key}
  - {name: rest, credential: rest-password}
  - {name: offsite, onepassword: op://Private/offsite/password}
  - {name: desktop, secret_service: {service: restic, account: me}}
  - {name: typed, prompt: "Passphrase: "}
profiles:
  vault:
    environment: {REPOSITORY: ~/Vault, PASSWORD: {secret: vault, as: command, uses: 20, max_ttl: 6h}}
defaults:
  pass_environment: [EDITOR]
  working_directory: ~/work
  timeout: 12h
  stop_signal: TERM
  stop_grace: 10s
  retry: {times: 2, delay: 5m}
  overlap: queue
  missed: skip
  missed_delay: 5m
  jitter: 1m
  lock: [{name: vault, shared: true}, other]
  only_if: {command: [on-ac-power], recheck: 1m, timeout: 5s}
  run_anyway_after: 3d
  max_wait: 1d
  max_age: 2d
  exit_codes: {success: [0, 1], warning: [3], fatal: [10, 12]}
  output: on_failure
  hooks:
    start: [logger, start]
    success: [logger, success]
    warning: [logger, warning]
    failure: {command: [logger, failure], environment: {A: b}, timeout: 30s}
    end: [logger, end]
    stale: [logger, stale]
    recovery: [logger, recovery]
  enabled: true
tasks:
  - name: documents
    profile: [vault]
    schedule: ["30 2 * * *", "@every 3h"]
    command: [restic, backup, ~/Documents]
    stdin: {secret: disk}
    environment: {URL: {secret: rest, as: value, template: "rest:https://me:{}@host/"}}
  - name: copies
    order: parallel
    on_error: continue
    exit_codes: restic
    steps:
      - {name: one, command: [rclone, sync, a, b], environment: {KEY: {secret: offsite, as: file}}, timeout: 1h}
      - [rclone, sync, c, d]
    finally:
      - [umount, /mnt/nas]
"#;

fn check(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    finish(sandbox.backupnizza([&["check"], arguments].concat()))
}

// ---- Cases -------------------------------------------------------------------------------------

fn cases() -> Vec<PathBuf> {
    let files = fs::read_dir(CASES).expect("the cases").map(|entry| entry.expect("an entry").path());
    let mut cases: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "yaml")).collect();
    cases.sort();
    cases
}

#[test]
fn every_case_is_judged_as_the_text_beside_it_says() {
    let sandbox = Sandbox::new();
    let cases = cases();
    assert!(cases.len() > 20);
    for case in cases {
        let name = case.file_name().and_then(|name| name.to_str()).expect("a name");
        let mut command = sandbox.backupnizza(["check", "--offline", name]);
        command.current_dir(CASES);
        let said = finish(command);
        let expected = fs::read_to_string(case.with_extension("txt")).expect("what is expected of it");
        assert_eq!(said.stderr, expected, "{name}");
        assert_eq!(said.status, i32::from(name.starts_with("bad")), "{name}");
        assert!(said.status == 0 || said.stdout.is_empty(), "{name}");
    }
}

#[test]
fn check_shows_each_task_with_its_schedule_programs_and_secrets() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/restic", "#!/bin/sh\n");
    sandbox.config(
        r#"
timezone: utc
metrics_file: ~/metrics
secrets:
  - {name: vault, file: ~/vault}
  - {name: disk, file: ~/vault}
tasks:
  - name: documents
    schedule: ["0 0 1 1 *", "@start"]
    environment:
      RESTIC_PASSWORD_COMMAND: {secret: vault, as: command}
      KEY: {secret: disk, as: file}
    stdin: {secret: disk}
    command: [restic, backup]
  - {name: off, enabled: false, schedule: "@daily", command: [no-such-program]}
  - {name: by-hand, command: [~/bin/restic]}
"#,
    );
    let shown = check(&sandbox, &["backup.yaml"]).expect(0).stdout();
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split('\t').collect()).collect();
    let restic = sandbox.path("bin/restic").display().to_string();
    let deliveries = "disk as file, disk on stdin, vault as command";
    assert_eq!(rows[0][..2], ["documents", "0 0 1 1 *, @start"]);
    assert!(rows[0][2].ends_with("-01-01T00:00:00+00:00"), "{shown}");
    assert_eq!(rows[0][3..], [&restic, deliveries]);
    assert_eq!(rows[1], ["off", "@daily", "disabled", "no-such-program", "-"]);
    assert_eq!(rows[2], ["by-hand", "-", "-", &restic, "-"]);
    let offline = check(&sandbox, &["--offline", "backup.yaml"]).expect(0).stdout();
    assert!(offline.lines().all(|line| !line.contains(&restic)), "{offline}");
}

#[test]
fn what_is_true_of_all_tasks_is_said_once_and_nobody_is_flooded() {
    let sandbox = Sandbox::new();
    let tasks = |count: usize| -> String {
        let task = |n| format!("  - {{name: t{n}, run_anyway_after: 1d, schedule: '@daily', command: [x]}}\n");
        "tasks:\n".to_owned() + &(0..count).map(task).collect::<String>()
    };
    sandbox.config(&tasks(2));
    let said = check(&sandbox, &["--offline", "backup.yaml"]).expect(0).stderr;
    assert_eq!(said.matches("nobody would hear").count(), 1, "{said}");
    assert!(said.contains("backup.yaml: tasks: nobody would hear"), "{said}");
    sandbox.config(&tasks(1_000));
    let said = check(&sandbox, &["--offline", "backup.yaml"]).expect(0).stderr;
    assert!(said.ends_with("backup.yaml: 901 further warnings are not shown\n"), "{said}");
    assert!(said.lines().count() < 110, "{said}");
}

#[test]
fn on_a_terminal_the_table_has_a_head_and_columns() {
    if !harness::needs("python3") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.config("{metrics_file: ~/m, tasks: [{name: documents, schedule: '0 5 * * *', command: ['true']}]}");
    let mut command = sandbox.command("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/terminal.py"));
    command.args(["expect", "TASK       SCHEDULE   NEXT SLOT", "expect", "documents  0 5 * * *  ", "ended", "0", "--"]);
    command.args([env!("CARGO_BIN_EXE_backupnizza"), "check", "backup.yaml"]);
    finish(command).expect(0);
}

#[test]
fn what_is_wrong_with_programs_is_told_all_in_one_go() {
    let sandbox = Sandbox::new();
    sandbox.write("bin/data", "not executable");
    sandbox.script("bin/open", "#!/bin/sh\n");
    fs::set_permissions(sandbox.path("bin/open"), fs::Permissions::from_mode(0o707)).expect("its mode");
    sandbox.config(
        "
tasks:
  - {name: a, command: [no-such-program]}
  - {name: b, command: [~/bin/data]}
  - {name: c, command: [~/bin/open], hooks: {failure: [no-such-program]}}
",
    );
    let said = check(&sandbox, &["backup.yaml"]).expect(1);
    for problem in ["no-such-program: not found on PATH", "bin/data: ", "bin/open: writable by everyone"] {
        assert!(said.stderr.contains(problem), "{problem}\n{}", said.stderr);
    }
    assert!(
        said.stderr
            .contains("no-such-program: not found on PATH, needed by step no-such-program of task a and 1 more\n"),
        "{}",
        said.stderr
    );
    assert_eq!(said.stdout(), "");
    check(&sandbox, &["--offline", "backup.yaml"]).expect(0);
}

#[test]
fn the_secret_that_needs_a_missing_program_is_named() {
    let sandbox = Sandbox::new();
    sandbox.config(
        "
secrets: [{name: vault, command: [passs, show, vault]}]
tasks: [{name: t, command: [\"true\"], environment: {V: {secret: vault, as: value}}}]
",
    );
    let said = check(&sandbox, &["backup.yaml"]).expect(1).stderr;
    assert!(said.contains("passs: not found on PATH, needed by secret vault\n"), "{said}");
}

#[test]
fn folders_that_are_not_there_are_warned_of() {
    let sandbox = Sandbox::new();
    sandbox.config(
        "
metrics_file: ~/nowhere/metrics.prom
tasks:
  - {name: a, command: [\"true\"], working_directory: ~/lost}
  - {name: b, command: [\"true\"]}
",
    );
    let said = check(&sandbox, &["backup.yaml"]).expect(0).stderr;
    let missing = |name: &str, why: &str| {
        format!("backupnizza: warning: {}: there is no such folder, but {why}", sandbox.path(name).display())
    };
    let told: Vec<&str> = said.lines().filter(|line| line.contains("there is no such folder")).collect();
    let expected = [
        missing("lost", "commands of task a start there"),
        missing("nowhere", "`metrics_file` is to be written there"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_only_a_shell_reads_and_secrets_in_the_file_are_warned_of() {
    let sandbox = Sandbox::new();
    let warnings = |keys: &str| {
        sandbox.config(&format!("metrics_file: ~/m\ntasks: [{{name: t, schedule: '@daily', {keys}}}]"));
        let said = check(&sandbox, &["--offline", "backup.yaml"]).expect(0).stderr;
        said.lines().filter(|line| line.contains("warning")).map(str::to_owned).collect::<Vec<_>>()
    };
    let operator = warnings("command: [restic, backup, /srv, '&&', restic, forget]");
    assert!(operator.len() == 1 && operator[0].contains("is `&&`, which no shell reads"), "{operator:?}");
    let key = warnings("command: [restic, backup], environment: {AWS_SECRET_ACCESS_KEY: abcdef}");
    assert!(key.len() == 1 && key[0].contains("AWS_SECRET_ACCESS_KEY stands in the file"), "{key:?}");
    for keys in
        ["command: [sh, -c, 'a && b']", "command: [find, /srv, -exec, rm, '{}', ;]", "command: [env, x, '|', y]"]
    {
        assert_eq!(warnings(keys), [""; 0], "{keys}");
    }
}

#[test]
fn json_is_yaml() {
    let sandbox = Sandbox::new();
    let value: Value = serde_yaml::from_str(EVERY_KEY).expect("YAML");
    sandbox.write("backup.json", json(&value));
    sandbox.write("backup.yaml", EVERY_KEY);
    // All but the next slot, which depends on the moment.
    let shown = |file| -> Vec<Vec<String>> {
        let text = check(&sandbox, &["--offline", file]).expect(0).stdout();
        let rows = text.lines().map(|row| row.split('\t').map(str::to_owned).collect::<Vec<_>>());
        rows.map(|row| [&row[..2], &row[3..]].concat()).collect()
    };
    assert_eq!(shown("backup.json"), shown("backup.yaml"));
    assert_eq!(shown("backup.json").len(), 2);
}

fn json(value: &Value) -> String {
    let join = |items: Vec<String>| items.join(",\n");
    match value {
        Value::Mapping(map) => {
            format!("{{{}}}", join(map.iter().map(|(key, value)| format!("{}: {}", json(key), json(value))).collect()))
        }
        Value::Sequence(items) => format!("[{}]", join(items.iter().map(json).collect())),
        Value::String(text) => format!("{text:?}"),
        other => serde_yaml::to_string(other).expect("a scalar").trim().to_owned(),
    }
}

// ---- Refusals ----------------------------------------------------------------------------------

#[test]
fn files_over_the_limits_are_refused() {
    let sandbox = Sandbox::new();
    for (text, refusal) in [
        ("#".repeat(5 * 1024 * 1024), "larger than 4 MiB"),
        (format!("tasks: {}", "[".repeat(100_000)), "line 1 column 72: nested deeper than 64 lists and maps"),
        (format!("tasks: {}", "[{a: ".repeat(20_000)), "nested deeper than 64 lists and maps"),
        (format!("tasks:\n{}", "- ".repeat(50_000)), "nested deeper than 64 lists and maps"),
    ] {
        sandbox.config(&text);
        let said = check(&sandbox, &["--offline", "backup.yaml"]).expect(1);
        assert!(said.stderr.contains(refusal), "{}", said.stderr);
    }
}

#[test]
fn what_is_no_readable_text_file_is_refused() {
    let sandbox = Sandbox::new();
    let refused = |name: &str, why: &str| {
        let said = check(&sandbox, &["--offline", name]).expect(1);
        assert!(said.stderr.starts_with(&format!("backupnizza: error: {name}: {why}")), "{}", said.stderr);
    };
    refused("none.yaml", "no such file");
    refused(".", "a folder, expected a file");
    refused("/dev/null", "not a regular file");
    if cfg!(target_os = "linux") {
        // Root may open it and fails to read; to others it is closed, as the process cannot be looked into.
        let by_root = fs::metadata("/proc/self").expect("this process").uid() == 0;
        refused("/proc/self/mem", if by_root { "cannot be read: " } else { "permission denied" });
    }
    // Nobody ever writes into it.
    let mut mkfifo = sandbox.command("mkfifo");
    mkfifo.arg("pipe.yaml");
    finish(mkfifo).expect(0);
    refused("pipe.yaml", "not a regular file");
    sandbox.write("nul.yaml", b"tasks:\n  - name: a\0b\n");
    refused("nul.yaml", "line 2 column 12: ");
    sandbox.write("latin1.yaml", b"tasks:\n  - name: caf\xe9\n");
    refused("latin1.yaml", "line 2: not UTF-8");
    let unreadable = sandbox.write("unreadable.yaml", "tasks: []");
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).expect("its mode");
    // Root reads it all the same.
    if fs::read(&unreadable).is_err() {
        refused("unreadable.yaml", "");
    }
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let sandbox = Sandbox::new();
    let config = sandbox.config("tasks: [{name: a, command: ['true']}]");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o602)).expect("its mode");
    let said = check(&sandbox, &["backup.yaml"]).expect(1);
    assert!(said.stderr.contains("backup.yaml: writable by everyone"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: chmod o-w "), "{}", said.stderr);
    check(&sandbox, &["--offline", "backup.yaml"]).expect(0);
}

// ---- Values stay out of messages ----------------------------------------------------------------

const MARKER: &str = "hunter2";
const NUMBER: i64 = 918_273_645;

/// `value` once for each value in it, with something else in its place.
fn broken(value: &Value, substitute: &Value) -> Vec<Value> {
    let mut all = vec![substitute.clone()];
    match value {
        Value::Mapping(map) => {
            for (key, inner) in map {
                all.extend(broken(inner, substitute).into_iter().map(|changed| {
                    let mut copy = map.clone();
                    copy.insert(key.clone(), changed);
                    Value::Mapping(copy)
                }));
            }
        }
        Value::Sequence(items) => {
            for (index, inner) in items.iter().enumerate() {
                all.extend(broken(inner, substitute).into_iter().map(|changed| {
                    let mut copy = items.clone();
                    copy[index] = changed;
                    Value::Sequence(copy)
                }));
            }
        }
        _ => {}
    }
    all
}

#[track_caller]
fn assert_silent(sandbox: &Sandbox, text: &str) {
    sandbox.config(text);
    let said = sandbox.backupnizza(["check", "--offline", "backup.yaml"]).output().expect("backupnizza");
    // The table of what passes shows names and schedules.
    let shown = if said.status.success() { said.stderr } else { [said.stderr, said.stdout].concat() };
    let shown = String::from_utf8(shown).expect("text");
    for marker in [MARKER, &NUMBER.to_string()] {
        assert!(!shown.contains(marker), "{shown}\nof\n{text}");
    }
}

#[test]
fn no_message_repeats_a_value() {
    let sandbox = Sandbox::new();
    let whole: Value = serde_yaml::from_str(EVERY_KEY).expect("YAML");
    let text = Value::from(MARKER);
    let map: Mapping = [("secret", MARKER), ("as", MARKER), ("name", MARKER), ("delay", MARKER)]
        .map(|(key, value)| (Value::from(key), Value::from(value)))
        .into_iter()
        .collect();
    let substitutes = [
        text.clone(),
        Value::from(NUMBER),
        Value::from(format!("* {MARKER} * * *")),
        Value::from(format!("@every {MARKER}")),
        Value::Sequence(vec![text.clone(), text]),
        Value::Mapping(map),
    ];
    for substitute in &substitutes {
        for changed in broken(&whole, substitute) {
            assert_silent(&sandbox, &serde_yaml::to_string(&changed).expect("YAML"));
        }
    }
}

#[test]
fn no_syntax_error_repeats_a_value() {
    let sandbox = Sandbox::new();
    let text = format!("tasks:\n  - name: {MARKER}\n    command: [{MARKER}, '{MARKER}', \"{MARKER}\"]\n");
    let mistakes = ["\"", "'", "[", "{", "}", "]", "\t", ": ", " #", "*", "&", "!", "%", "|", "- ", "\n", "<<: ", "\0"];
    for (at, _) in text.char_indices() {
        for mistake in mistakes {
            let (before, after) = text.split_at(at);
            assert_silent(&sandbox, &format!("{before}{mistake}{}", after.trim_end()));
        }
    }
}

/// Where there is no shell, but not where one is, or where a dollar is meant.
#[test]
fn variables_that_nothing_expands_are_warned_of() {
    let sandbox = Sandbox::new();
    let warned = |keys: &str| {
        let hooks = "hooks: {failure: [\"true\"]}";
        sandbox.config(&format!("tasks: [{{name: t, schedule: '@daily', {hooks}, {keys}}}]"));
        check(&sandbox, &["--offline", "backup.yaml"]).expect(0).stderr.contains("which nothing expands")
    };
    for keys in [
        "command: [restic, backup, $HOME/Documents]",
        "command: [restic, backup, '${HOME}/Documents']",
        "command: [restic, backup], environment: {RESTIC_REPOSITORY: $HOME/Vault}",
        "command: [restic, backup, $HOME]",
    ] {
        assert!(warned(keys), "{keys}");
    }
    for keys in [
        "command: [sh, -c, $HOME/bin/dump]",
        "command: [/bin/bash, -c, '$DUMP'], environment: {DUMP: $HOME/dump}",
        "command: [nice, sh, -c, $HOME/bin/dump]",
        "command: [ssh, host, $HOME/bin/dump]",
        "command: [restic, backup, --exclude, $RECYCLE.BIN, ~/Documents]",
        "command: [restic, backup, a$HOME, $1, $]",
    ] {
        assert!(!warned(keys), "{keys}");
    }
}

// ---- The command line --------------------------------------------------------------------------

#[test]
fn wrong_usage_is_status_2_with_a_hint() {
    let sandbox = Sandbox::new();
    for (line, what) in [
        ("check", "check: a configuration file is missing"),
        ("check one.yaml two.yaml", "check: too many arguments"),
        ("check backup.yaml --count 3", "check: --count has no meaning here"),
        ("once backup.yaml", "once: a TASK is missing"),
        ("next", "next: a configuration file is missing"),
        ("secretbox", "secretbox: a TOKEN is missing"),
        ("example --secrets", "example: --secrets has no meaning here"),
        ("check --nonsense backup.yaml", "--nonsense: no such option"),
        ("next --count", "missing argument for option '--count'"),
        ("-x", "-x: no such option"),
        ("chekc backup.yaml", "chekc: no such command"),
        ("service", "service: expected `systemd` or `launchd`"),
        ("run", "run: a TASK is missing"),
        ("stop", "hint: `backupnizza status` lists the tasks"),
        ("once backup.yaml t restic snapshots", "hint: put `--` before the command"),
        ("once backup.yaml t restic --json", "hint: put `--` before the command"),
        ("once backup.yaml t --dry-run -- restic", "--dry-run: no such option"),
        ("status x", "status: too many arguments"),
        ("start backup.yaml", "usage: no such command, or too many arguments"),
        ("status --socket=", "usage: --socket takes a value that is not empty"),
    ] {
        let said = finish(sandbox.backupnizza(line.split(' '))).expect(2);
        assert!(
            said.stderr.starts_with("backupnizza: error: ") && said.stderr.contains(what),
            "{line}: {}",
            said.stderr
        );
        assert!(said.stderr.contains("\nbackupnizza: hint: "), "{line}: {}", said.stderr);
        assert_eq!(said.stdout(), "", "{line}");
    }
    let said = finish(sandbox.backupnizza([])).expect(2);
    assert!(said.stderr.contains("usage: backupnizza CONFIG"), "{}", said.stderr);
    let said = finish(sandbox.backupnizza(["next", "30 2 * * *"])).expect(1);
    assert!(said.stderr.contains("hint: a schedule is given as --schedule '30 2 * * *'"), "{}", said.stderr);
    let said = finish(sandbox.backupnizza(["list"])).expect(1);
    assert!(said.stderr.contains("hint: `list` is no command either"), "{}", said.stderr);
    let said = finish(sandbox.backupnizza(["run", ""])).expect(2);
    assert!(said.stderr.contains("run: a TASK is missing"), "{}", said.stderr);
    let said = finish(sandbox.backupnizza([""])).expect(2);
    assert!(said.stderr.contains("a configuration file is missing"), "{}", said.stderr);
}

#[test]
fn help_and_version_are_results() {
    let sandbox = Sandbox::new();
    let shown = |arguments: &[&str]| {
        let said = finish(sandbox.backupnizza(arguments.iter().copied())).expect(0);
        assert_eq!(said.stderr, "", "{arguments:?}");
        said.stdout()
    };
    let general = shown(&["--help"]);
    assert_eq!(general, shown(&["-h"]));
    for command in ["check", "once", "next", "secretbox", "example"] {
        assert!(general.contains(&format!("\n  {command} ")), "{general}");
        let help = shown(&[command, "--help"]);
        assert!(help.starts_with(&format!("usage: backupnizza {command}")), "{help}");
        assert_eq!(help, shown(&["-h", command]), "options may stand anywhere");
    }
    assert_eq!(shown(&["--version"]), format!("backupnizza {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(shown(&["-V"]), shown(&["--version"]));
}

#[test]
fn the_example_is_a_configuration() {
    let sandbox = Sandbox::new();
    let example = finish(sandbox.backupnizza(["example"])).expect(0).stdout();
    let file = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("backup.example.yaml"));
    assert_eq!(example, file.expect("the example"));
    sandbox.config(&example);
    let tasks = check(&sandbox, &["--offline", "backup.yaml"]).expect(0).stdout();
    assert!(tasks.starts_with("settings\t@start, @hourly\t"), "{tasks}");
    let slots = finish(sandbox.backupnizza(["next", "backup.yaml", "--count", "1"])).expect(0).stdout();
    assert!(slots.ends_with("\tsettings\n"), "{slots}");
}

#[test]
fn a_reader_that_has_seen_enough_does_no_harm() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backupnizza"));
    command.args(["next", "--schedule", "* * * * *", "--count", "20000"]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("backupnizza");
    let mut line = String::new();
    BufReader::new(running.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let end = running.wait_with_output().expect("its end");
    assert_eq!((end.status.code(), end.stderr), (Some(0), Vec::new()));
}

#[test]
#[cfg(target_os = "linux")]
fn results_that_cannot_be_written_are_a_failure() {
    for arguments in [&["example"][..], &["--help"], &["next", "--schedule", "@daily"]] {
        let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut command = Command::new(env!("CARGO_BIN_EXE_backupnizza"));
        let end = command.args(arguments).stdout(full).output().expect("backupnizza");
        assert_eq!(end.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&end.stderr).starts_with("backupnizza: error: standard output: "));
    }
}
