//! From text to plan: the cases in `tests/it/cases`, how layers merge, and text that means nothing.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::{Config, Problem};

pub type Loaded = Result<(Plan, Vec<Problem>), Vec<Problem>>;

pub fn load(text: &str) -> Loaded {
    let config = Config::parse(text).map_err(|problem| vec![problem])?;
    Plan::from_config(&config, &Host::elsewhere("/etc/backup.yaml".into()))
}

fn plan(text: &str) -> Plan {
    load(text).expect("a good configuration").0
}

/// The one problem of `text`, as place and message.
fn problem(text: &str) -> String {
    let problems = load(text).expect_err("a bad configuration");
    let texts: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.place, problem.what)).collect();
    texts.join("; ")
}

/// The variables of a step, as one line.
fn variables(step: &Step) -> String {
    let shown = step.environment.iter().map(|(name, value)| match value {
        Value::Text(text) => format!("{name}={text}"),
        value => format!("{name}={value:?}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn without_a_word_everything_has_its_default() {
    let plan = plan("tasks: [{name: a, command: [restic, backup, ~]}]");
    assert_eq!(plan.zone, Zone::Local);
    assert_eq!(plan.max_concurrent_runs, 16);
    assert_eq!(plan.state_dir, Path::new("/home/user/.local/state/backupnizza"));
    assert_eq!(plan.metrics_file, None);
    assert_eq!(plan.log, LogSettings { level: log::Level::Info, format: log::Format::Text });
    assert_eq!(plan.secretbox.socket, Path::new("/run/user/1000/backupnizza/socket"));
    assert_eq!(plan.secretbox.max_token_ttl, Duration::from_secs(10));
    assert_eq!(plan.secretbox.memory, Protection::Secret);
    let task = &plan.tasks[0];
    assert!(task.enabled && task.schedules.is_empty() && task.finally.is_empty());
    assert_eq!((task.order, task.on_error), (Order::Sequence, OnError::Stop));
    let policy = &task.policy;
    assert_eq!(policy.timeout, None);
    assert_eq!(policy.stop, StopPolicy { signal: Signal::Int, grace: Duration::from_secs(30) });
    assert_eq!(policy.retry, Retry { times: 0, delay: Duration::from_secs(60) });
    assert_eq!((policy.overlap, policy.missed), (Overlap::Skip, Missed::Run));
    assert_eq!((policy.missed_delay, policy.jitter), (Duration::from_secs(60), Duration::ZERO));
    assert!(policy.locks.is_empty() && policy.only_if.is_none());
    assert_eq!((policy.run_anyway_after, policy.max_wait, policy.max_age), (None, None, MaxAge::FromSchedule));
    assert_eq!(policy.output, OutputMode::Log);
    let step = &task.steps[0];
    assert_eq!((step.name.as_str(), step.arguments.join(" ").as_str()), ("restic", "backup /home/user"));
    assert_eq!((step.timeout, step.stdin), (None, None));
    assert_eq!(*step.working_directory, *Path::new("/home/user"));
    assert_eq!(step.pass_environment, PassEnvironment::Named(Vec::new()));
    assert_eq!(plan.program(step.program).name, "restic");
}

#[test]
fn nearer_layers_win_and_null_goes_back_to_the_default() {
    let plan = plan(
        "
defaults: {timeout: 12h, jitter: 5m, working_directory: /srv, max_age: none, overlap: queue}
profiles:
  a: {timeout: 1h, jitter: 1m, lock: one}
  b: {timeout: 2h, working_directory: null, lock: [two, {name: one, shared: true}]}
tasks:
  - {name: t, profile: [a, b], jitter: null, command: [x]}
  - {name: u, profile: [b, a], timeout: 3h, lock: null, command: [x]}
",
    );
    let (t, u) = (&plan.tasks[0], &plan.tasks[1]);
    assert_eq!(t.policy.timeout, Some(Duration::from_secs(7200)));
    assert_eq!(u.policy.timeout, Some(Duration::from_secs(10_800)));
    assert_eq!((t.policy.jitter, u.policy.jitter), (Duration::ZERO, Duration::from_secs(60)));
    assert_eq!(*t.steps[0].working_directory, *Path::new("/home/user"));
    assert_eq!(t.policy.overlap, Overlap::Queue);
    let locks =
        |task: &Task| task.policy.locks.iter().map(|lock| (plan.lock_name(lock.lock), lock.shared)).collect::<Vec<_>>();
    assert_eq!(locks(t), [("one", true), ("two", false)]);
    assert_eq!(locks(u), []);
}

#[test]
fn environments_merge_by_variable_and_null_removes_one() {
    let plan = plan(
        "
defaults: {environment: {A: defaults, B: defaults, C: defaults, D: defaults, E: ~}}
profiles:
  p: {environment: {B: profile, D: null}}
  q: {environment: {B: null, Z: 0x10}}
tasks:
  - name: t
    profile: p
    environment: {C: task, N: null, T: \"~\", H: ~/x, V: 'null', EMPTY: ''}
    steps:
      - [x]
      - {command: [x], environment: {A: step, C: , D: 1.50}}
    finally: [[y]]
  - {name: u, profile: [p, q], command: [x]}
  - {name: v, environment: null, command: [x]}
",
    );
    let t = &plan.tasks[0];
    let of_task = "A=defaults B=profile C=task EMPTY= H=/home/user/x T=/home/user V=null";
    assert_eq!(variables(&t.steps[0]), of_task);
    assert_eq!(variables(&t.finally[0]), of_task);
    assert_eq!(variables(&t.steps[1]), "A=step B=profile D=1.50 EMPTY= H=/home/user/x T=/home/user V=null");
    assert_eq!(variables(&plan.tasks[1].steps[0]), "A=defaults C=defaults Z=0x10");
    assert_eq!(variables(&plan.tasks[2].steps[0]), "");
}

#[test]
fn hooks_merge_by_name_and_have_no_environment_but_their_own() {
    let plan = plan(
        "
secrets: [{name: s, env: S}]
defaults:
  environment: {A: defaults}
  working_directory: /srv
  hooks: {failure: [say, failed], end: [say, ended]}
  only_if: [test, -e, /mnt]
tasks:
  - name: t
    environment: {B: task}
    hooks: {end: null, success: {command: [say, done], environment: {S: {secret: s, as: value}}, timeout: 5s}}
    command: [x]
  - {name: u, hooks: null, only_if: {command: [t], environment: {C: c}, recheck: 1m, timeout: 2s}, command: [x]}
",
    );
    let hooks = &plan.tasks[0].policy.hooks;
    let failure = hooks.failure.as_ref().expect("a hook from the defaults");
    assert_eq!(*failure.arguments, ["failed"]);
    assert_eq!((failure.name.as_str(), variables(failure).as_str()), ("failure", ""));
    assert_eq!(failure.timeout, Some(Duration::from_secs(60)));
    assert_eq!(*failure.working_directory, *Path::new("/srv"));
    assert!(hooks.end.is_none() && hooks.start.is_none());
    let success = hooks.success.as_ref().expect("a hook of the task");
    assert_eq!(success.secrets().count(), 1);
    assert_eq!(success.timeout, Some(Duration::from_secs(5)));
    let condition = plan.tasks[0].policy.only_if.as_ref().expect("a condition from the defaults");
    assert_eq!((condition.recheck, condition.check.timeout), (Duration::from_secs(300), Some(Duration::from_secs(60))));
    assert_eq!(variables(&condition.check), "");
    let u = &plan.tasks[1].policy;
    assert!(u.hooks.failure.is_none());
    let condition = u.only_if.as_ref().expect("a condition of the task");
    assert_eq!((condition.recheck, condition.check.timeout), (Duration::from_secs(60), Some(Duration::from_secs(2))));
    assert_eq!(variables(&condition.check), "C=c");
}

#[test]
fn retry_merges_key_by_key() {
    let plan = plan(
        "
defaults: {retry: {times: 3, delay: 5m}}
tasks:
  - {name: t, retry: {times: 5}, command: [x]}
  - {name: u, retry: {times: null}, command: [x]}
  - {name: v, retry: null, command: [x]}
",
    );
    let retries: Vec<_> =
        plan.tasks.iter().map(|task| (task.policy.retry.times, task.policy.retry.delay.as_secs())).collect();
    assert_eq!(retries, [(5, 300), (0, 300), (0, 60)]);
}

/// Success, warning and fatal statuses as lists.
fn codes(step: &Step) -> [Vec<u8>; 3] {
    let list = |set: &CodeSet| (0..=255).filter(|&code| set.contains(code)).collect();
    [&step.exit_codes.success, &step.exit_codes.warning, &step.exit_codes.fatal].map(list)
}

#[test]
fn known_programs_bring_their_exit_codes_also_by_path() {
    let of = |program: &str| codes(&plan(&format!("tasks: [{{name: t, command: [{program}]}}]")).tasks[0].steps[0]);
    let none: Vec<u8> = Vec::new();
    assert_eq!(of("restic"), [vec![0], vec![3], vec![10, 12]]);
    assert_eq!(of("/usr/local/bin/restic"), [vec![0], vec![3], vec![10, 12]]);
    assert_eq!(of("~/bin/rclone"), [vec![0, 9], none.clone(), vec![6, 7]]);
    assert_eq!(of("rsync"), [vec![0], vec![24], none.clone()]);
    assert_eq!(of("tar"), [vec![0], vec![1], none.clone()]);
    assert_eq!(of("borg")[1].len(), 29);
    assert_eq!(of("resticprofile"), [vec![0], none.clone(), none.clone()]);
}

#[test]
fn exit_codes_merge_set_by_set_and_a_status_has_one_meaning() {
    let plan = plan(
        "
defaults: {exit_codes: {warning: [3, 4]}}
profiles:
  tolerant: {exit_codes: {success: [0, 3]}}
tasks:
  - {name: a, command: [restic]}
  - {name: b, profile: tolerant, command: [restic]}
  - {name: c, exit_codes: rclone, command: [restic]}
  - {name: d, exit_codes: {fatal: [], warning: null}, command: [restic]}
  - {name: e, steps: [{command: [restic], exit_codes: {success: [0, 12]}}]}
  - {name: f, exit_codes: null, command: [restic]}
",
    );
    let of = |index: usize| codes(&plan.tasks[index].steps[0]);
    assert_eq!(of(0), [vec![0], vec![3, 4], vec![10, 12]]);
    assert_eq!(of(1), [vec![0, 3], vec![4], vec![10, 12]]);
    assert_eq!(of(2), [vec![0, 9], vec![], vec![6, 7]]);
    assert_eq!(of(3), [vec![0], vec![3], vec![]]);
    assert_eq!(of(4), [vec![0, 12], vec![3, 4], vec![10]]);
    assert_eq!(of(5), [vec![0], vec![3], vec![10, 12]]);
}

#[test]
fn steps_are_named_and_no_two_alike() {
    let plan = plan(
        "
tasks:
  - name: t
    steps:
      - [/usr/bin/restic, forget]
      - {name: restic-2, command: [restic, copy]}
      - [restic, check]
      - ['my tool!']
      - ['/']
    finally: [[restic, unlock]]
",
    );
    let task = &plan.tasks[0];
    let names: Vec<&str> = task.steps.iter().chain(&task.finally).map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["restic", "restic-2", "restic-3", "my_tool_", "command", "restic-4"]);
}

#[test]
fn words_of_a_command_stay_as_they_are_written() {
    let plan = plan("tasks: [{name: t, command: [x, 14, 0x10, 1.50, True, 1e3, ~, ~/a, '~', null, 'null', '', ~b]}]");
    let expected =
        ["14", "0x10", "1.50", "True", "1e3", "/home/user", "/home/user/a", "/home/user", "null", "null", "", "~b"];
    assert_eq!(*plan.tasks[0].steps[0].arguments, expected);
}

#[test]
fn secrets_reach_commands_in_the_four_ways() {
    let plan = plan(
        "
secrets: [{name: a, env: A}, {name: b, env: B}]
tasks:
  - name: t
    environment:
      C: {secret: a, as: command, uses: 20, max_ttl: 6h}
      F: {secret: b, as: file}
      V: {secret: b, as: value, template: 'rest:https://me:{}@host/'}
      W: {secret: a, as: command}
    stdin: {secret: b}
    command: [x]
",
    );
    let step = &plan.tasks[0].steps[0];
    let (a, b) = (SecretId(0), SecretId(1));
    let wrap = Wrap { prefix: "rest:https://me:".to_string(), suffix: "@host/".to_string() };
    let expected = [
        ("C", Value::Token { secret: a, uses: 20, max_ttl: Some(Duration::from_secs(21_600)) }),
        ("F", Value::File { secret: b, wrap: Wrap::default() }),
        ("V", Value::Plain { secret: b, wrap }),
        ("W", Value::Token { secret: a, uses: 1, max_ttl: None }),
    ];
    assert_eq!(*step.environment, expected.map(|(name, value)| (name.to_string(), value)));
    assert_eq!(step.stdin, Some(b));
    assert_eq!(plan.tasks[0].secrets(), [a, b]);
}

#[test]
fn each_source_has_its_program_and_its_patience() {
    let plan = plan(
        "
secrets:
  - {name: a, command: [pass, show, x]}
  - {name: b, onepassword: 'op://v/i/f'}
  - {name: c, keychain: {service: restic}}
  - {name: d, secret_service: {service: restic, n: 'x'}}
  - {name: e, prompt: 'Passphrase: ', timeout: 0}
  - {name: f, file: ~/key, timeout: 0s}
  - {name: g, credential: rest-password, timeout: 10s}
tasks: []
",
    );
    let timeouts: Vec<_> = plan.secrets.iter().map(|secret| secret.timeout.map(|timeout| timeout.as_secs())).collect();
    assert_eq!(timeouts, [Some(60), Some(300), Some(300), Some(300), None, None, Some(10)]);
    let programs: Vec<_> = plan.programs.iter().map(|program| program.name.as_str()).collect();
    assert_eq!(programs, ["pass", "op", "security", "secret-tool"]);
    assert!(plan.programs.iter().all(|program| program.needed));
    assert!(matches!(&plan.secrets[5].source, Source::File(path) if path == Path::new("/home/user/key")));
}

#[test]
fn commands_that_name_the_same_file_share_a_program() {
    let plan = plan(
        "
tasks:
  - {name: a, command: [restic, one]}
  - {name: b, working_directory: /srv, command: [restic, two]}
  - {name: c, working_directory: /srv, command: [./run, two]}
  - {name: d, working_directory: /mnt, command: [./run, two]}
  - {name: e, enabled: false, command: [gone]}
  - {name: f, enabled: false, command: [restic]}
",
    );
    let programs: Vec<_> =
        plan.programs.iter().map(|program| (program.name.as_str(), program.base.to_str(), program.needed)).collect();
    let expected = [
        ("restic", Some(""), true),
        ("./run", Some("/srv"), true),
        ("./run", Some("/mnt"), true),
        ("gone", Some(""), false),
    ];
    assert_eq!(programs, expected);
}

#[test]
fn what_a_small_file_makes_of_profiles_is_bounded() {
    let mut text = format!("profiles: {{p: {{environment: {{A: {}}}}}}}\ntasks:\n", "x".repeat(100_000));
    for index in 0..1_000 {
        text.push_str(&format!("- {{name: t{index}, profile: p, command: [x]}}\n"));
    }
    assert!(
        problem(&text).starts_with("tasks[670]: the tasks up to this one come to more than 64 MiB"),
        "{}",
        problem(&text)
    );
}

#[test]
fn a_hint_never_repeats_what_can_be_no_name() {
    let text = "profiles: {'hunter2!': {}}\ntasks: [{name: t, profile: hunter2, command: [x]}]";
    let problems = load(text).expect_err("no such profile");
    assert!(!format!("{problems:?}").contains("hunter2!"), "{problems:?}");
}

#[test]
fn of_very_many_problems_only_the_first_are_told() {
    let text = format!("tasks: [{}]", "{name: 5},".repeat(20_000));
    let problems = load(&text).expect_err("no commands");
    assert_eq!(problems.len(), 101);
    assert!(problems[100].what.contains("further problems"));
    assert_eq!(problems[0].place, "tasks[0]");
}
