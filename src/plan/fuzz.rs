//! Configurations put together at random and good ones damaged: every answer is a plan that is sound, or problems that
//! tell a place and never a value.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::tests::load;
use super::{Plan, Task, source_program};
use crate::config::Problem;
use crate::testing::{Random, fuzz};

/// A text that must never come back in a message; no key looks like it.
const CANARY: &str = "hunter2!";

const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    ",",
    "'",
    "\"",
    "#",
    "&a ",
    "*a",
    "|",
    "~",
    "null",
    "0",
    "-1",
    "1e9",
    "true",
    "\n",
    "\n  ",
    "  ",
    CANARY,
    CANARY,
    "\t",
    "é",
    "\0",
    "<<: ",
    "{}",
    "[]",
    "!x ",
    "99999999999999999999d",
    "\\",
    "name: ",
    "secret: ",
    "command: [x]",
];

/// Keys of which maps are made, each with the values that it may have.
type Keys = [(&'static str, &'static [&'static str])];

const TOP: &Keys = &[
    ("timezone", &["utc", "local"]),
    ("max_concurrent_runs", &["1", "16", "0"]),
    ("state_dir", &["/srv/state", "~/state", "state"]),
    ("metrics_file", &["~/m.prom"]),
    ("log", &["{level: debug}", "{format: json, level: warn}"]),
    ("secretbox", &["{max_token_ttl: 1m}", "{socket: /run/s, memory: locked}"]),
];

const SOURCE: &Keys = &[
    ("command", &["[op, read, x]", "[~/bin/ask]"]),
    ("env", &["A", "B"]),
    ("file", &["/etc/key", "~/key"]),
    ("credential", &["c", "../c"]),
    ("onepassword", &["op://v/i/f"]),
    ("keychain", &["{service: s, account: a}"]),
    ("secret_service", &["{service: s}"]),
    ("prompt", &["'P: '"]),
];

const POLICY: &Keys = &[
    ("environment", &["{A: b, PATH: /bin}", "{A: null, C: {secret: s0, as: command, uses: 2, max_ttl: 1h}}", "null"]),
    ("environment", &["{F: {secret: s1, as: file}}", "{V: {secret: s0, as: value, template: 'a{}b'}}", "{D: ~}"]),
    ("pass_environment", &["all", "[LANG, X]"]),
    ("working_directory", &["/srv", "~", "null"]),
    ("timeout", &["12h", "1s", "null"]),
    ("stop_signal", &["TERM", "USR1"]),
    ("stop_grace", &["0s", "5m"]),
    ("retry", &["{times: 3}", "{times: 1, delay: 5m}", "{times: null}"]),
    ("overlap", &["queue", "skip"]),
    ("missed", &["run", "skip"]),
    ("missed_delay", &["0s"]),
    ("jitter", &["5m"]),
    ("lock", &["a", "[a, {name: b, shared: true}]", "null"]),
    ("only_if", &["[test, -e, x]", "{command: [t], recheck: 1m, timeout: 2s}"]),
    ("run_anyway_after", &["3d"]),
    ("max_wait", &["1h"]),
    ("max_age", &["none", "2d"]),
    ("exit_codes", &["restic", "{success: [0, 3], warning: []}", "{fatal: [1-9]}"]),
    ("output", &["log", "on_failure", "discard"]),
    ("hooks", &["{failure: [x]}", "{end: {command: [y], timeout: 5s}, start: null}", "null"]),
    ("enabled", &["true", "false"]),
];

const TASK: &Keys = &[
    ("profile", &["p0", "[p0, p1]", "p2"]),
    ("schedule", &["'30 2 * * *'", "['@daily', '@every 1h']", "'@reboot'", "'0 0 31 2 *'"]),
    ("order", &["sequence", "parallel"]),
    ("on_error", &["stop", "continue"]),
    ("finally", &["[[umount, /mnt]]", "[{command: [x], name: last}]"]),
];

const WORK: &Keys = &[
    ("command", &["[restic, backup, ~]", "[borg]", "[./x, 14, 0x10, ~]"]),
    ("command", &["[x]\n    stdin: {secret: s0}", "[y]\n    sha256: 00"]),
    ("steps", &["[[x], [x], {name: x-2, command: [y], environment: {E: f}}]", "[{command: [z], timeout: 1m}]"]),
];

/// Values for any key, for when its own are too good.
const WRONG: &[&str] = &["~", "[]", "{}", "''", "-1", "'hunter2!'", "[hunter2!]", "{hunter2!: x}", "1.5", "true"];

fn entry(random: &mut Random, indent: &str, keys: &Keys, text: &mut String) {
    let (key, values) = random.pick(keys);
    let value = if random.once_in(40) { random.pick(WRONG) } else { random.pick(values) };
    text.push_str(&format!("{indent}{key}: {value}\n"));
}

/// Entries of one map, mostly of different keys.
fn entries(random: &mut Random, indent: &str, keys: &Keys, limit: usize, text: &mut String) {
    let start = random.below(keys.len());
    for place in 0..random.below(limit) {
        let key = (start + place * 5) % keys.len();
        entry(random, indent, &keys[key..=key], text);
    }
}

/// Short, so that many can be tried: not every part is in each.
fn made_up(random: &mut Random) -> String {
    let mut text = String::new();
    if random.once_in(4) {
        entries(random, "", TOP, 3, &mut text);
    }
    text.push_str("secrets:\n");
    for number in 0..2 {
        text.push_str(&format!("  - name: s{number}\n"));
        entry(random, "    ", SOURCE, &mut text);
    }
    text.push_str("profiles:\n");
    for number in 0..1 + random.below(2) {
        text.push_str(&format!("  p{number}:\n"));
        entries(random, "    ", POLICY, 2, &mut text);
    }
    if random.once_in(3) {
        text.push_str("defaults:\n");
        entries(random, "  ", POLICY, 3, &mut text);
    }
    text.push_str("tasks:\n");
    for number in 0..1 + random.below(2) {
        text.push_str(&format!("  - name: t{number}\n"));
        entries(random, "    ", TASK, 3, &mut text);
        entries(random, "    ", POLICY, 4, &mut text);
        entry(random, "    ", WORK, &mut text);
    }
    text
}

fn good_cases() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases");
    let files = fs::read_dir(folder).expect("the cases").map(|entry| entry.expect("a case").path());
    let good = files.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        name.starts_with("good-") && name.ends_with(".yaml")
    });
    let mut good: Vec<_> = good.collect();
    good.sort();
    good.iter().map(|path| fs::read_to_string(path).expect("a good case")).collect()
}

#[test]
fn configurations_are_sound_plans_or_problems_that_tell_a_place_and_no_value() {
    let cases = good_cases();
    fuzz(20, |random| {
        let text = match random.below(32) {
            0 => {
                let case = random.pick(&cases);
                random.mutated(&case, PIECES)
            }
            1..=16 => {
                let text = made_up(random);
                random.mutated(&text, PIECES)
            }
            _ => made_up(random),
        };
        match load(&text) {
            Ok((plan, warnings)) => {
                assert_sound(&plan);
                warnings.iter().for_each(|warning| assert_in_the_voice(warning, &text));
                true
            }
            Err(problems) => {
                assert!((1..=101).contains(&problems.len()), "{} problems with {text}", problems.len());
                problems.iter().for_each(|problem| assert_in_the_voice(problem, &text));
                false
            }
        }
    });
}

fn assert_in_the_voice(problem: &Problem, text: &str) {
    assert!(!format!("{problem:?}").contains(CANARY), "{problem:?} with\n{text}");
    assert!(!problem.what.is_empty() && !problem.what.ends_with('.'), "{problem:?} with\n{text}");
    let is_of_the_whole =
        ["empty, expected a map", "a map with `tasks`", "`tasks` is missing", "one document", "further problems"];
    let is_placed = !problem.place.is_empty() || is_of_the_whole.iter().any(|known| problem.what.contains(known));
    assert!(is_placed, "{problem:?} with\n{text}");
}

/// All that a plan refers to is there, and what is to be single is.
fn assert_sound(plan: &Plan) {
    let mut names = HashSet::new();
    for (_, task) in plan.tasks() {
        assert!(names.insert(&task.name) && !task.steps.is_empty());
        assert_task_is_sound(plan, task);
    }
    for (_, secret) in plan.secrets() {
        assert!(source_program(&secret.source).is_none_or(|program| program.index() < plan.programs.len()));
    }
    assert!(plan.needed_secrets().iter().all(|secret| secret.index() < plan.secrets.len()));
}

fn assert_task_is_sound(plan: &Plan, task: &Task) {
    let mut names = HashSet::new();
    assert!(task.steps.iter().chain(&task.finally).all(|step| names.insert(&step.name)));
    assert!(task.policy.locks.iter().all(|request| request.lock.index() < plan.locks.len()));
    assert!(task.policy.locks.is_sorted_by(|one, next| one.lock < next.lock));
    for command in task.commands() {
        assert!(plan.program(command.program).name.len() < 1_000);
        assert!(command.environment.is_sorted_by(|(one, _), (next, _)| one < next));
        assert!(command.secrets().all(|secret| secret.index() < plan.secrets.len()));
    }
}
