//! When tasks run: `next` against crontab(5) as Debian's cron reads it.
//!
//! The reference is `cron_oracle.py`, which needs cronsim and tzdata from PyPI; `.ci/run` puts
//! them into target/oracle. What happens when clocks are put forward and back is written down
//! here besides, so that it is tested without Python too.

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use serde_yaml::Value;

use crate::harness::{self, Finished, Sandbox, finish};

const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cron_oracle.py");

fn next(zone: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backupnizza"));
    let output = command.arg("next").args(arguments).env("TZ", zone).output().expect("backupnizza");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Finished { status: output.status.code().expect("an exit status"), stdout: output.stdout, stderr }
}

/// The slots of `expression` after `after`, as they are printed.
fn slots(zone: &str, expression: &str, after: &str, count: usize) -> Vec<String> {
    let arguments = ["--schedule", expression, "--from", after, "--count", &count.to_string()];
    next(zone, &arguments).expect(0).stdout().lines().map(str::to_owned).collect()
}

/// What `next` says of an expression that it refuses.
fn refusal(expression: &str) -> String {
    let refused = next("UTC", &["--schedule", expression]).expect(1);
    assert_eq!(refused.stdout(), "", "{expression}");
    refused.stderr
}

// ---- The reference -----------------------------------------------------------------------------

/// A Python that can run the reference.
fn oracle_python() -> Option<PathBuf> {
    let in_target = concat!(env!("CARGO_MANIFEST_DIR"), "/target/oracle/bin/python");
    let told = std::env::var_os("BACKUPNIZZA_TEST_PYTHON").map(PathBuf::from);
    let candidates = told.into_iter().chain([in_target.into(), "python3".into()]);
    let found = candidates.into_iter().find(|python| {
        let imported = Command::new(python).args(["-c", "import cronsim, tzdata"]).output();
        imported.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        harness::not_tested("schedules against cronsim: no Python with cronsim and tzdata");
    }
    found
}

/// The lines that the reference prints, each a JSON object.
fn oracle(arguments: &[&str]) -> Option<Vec<Value>> {
    let output = Command::new(oracle_python()?).arg(ORACLE).args(arguments).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    Some(text.lines().map(|line| serde_yaml::from_str(line).expect("JSON")).collect())
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().expect("a text")
}

fn texts<'a>(case: &'a Value, key: &str) -> Vec<&'a str> {
    case[key].as_sequence().expect("a list").iter().map(|item| item.as_str().expect("a text")).collect()
}

/// What is wrong with what `next` says to a case, if anything.
fn difference(case: &Value) -> Option<String> {
    let (zone, expression, after) = (text(case, "tz"), text(case, "expr"), text(case, "after"));
    let wanted = texts(case, "next");
    let got = slots(zone, expression, after, wanted.len());
    (got != wanted).then(|| format!("{expression} in {zone} after {after}:\nexpected {wanted:?}\n     got {got:?}\n"))
}

/// Compares `count` cases of each seed.
fn compare(profile: &str, seeds: &[&str], count: &str) {
    for seed in seeds {
        let Some(cases) = oracle(&["gen", "--profile", profile, "--seed", seed, "--n", count]) else { return };
        // The reference takes `n/step` in the day of week as ending on Saturday or Sunday by its way of parsing.
        let cases: Vec<_> = cases.iter().filter(|case| !texts(case, "tags").contains(&"dow-n-step")).collect();
        assert!(cases.len() > 100, "the reference gives cases");
        let differences: Vec<String> = thread::scope(|scope| {
            let halves = cases.chunks(cases.len().div_ceil(4));
            let running = halves.map(|half| scope.spawn(|| half.iter().filter_map(|case| difference(case)).collect()));
            let running: Vec<thread::ScopedJoinHandle<'_, Vec<String>>> = running.collect();
            running.into_iter().flat_map(|half| half.join().expect("no panic")).collect()
        });
        assert!(differences.is_empty(), "seed {seed}: {} differ\n{}", differences.len(), differences.concat());
    }
}

#[test]
fn schedules_agree_with_the_reference() {
    compare("common", &["11", "12"], "200");
}

#[test]
fn schedules_with_open_steps_agree_with_the_reference() {
    compare("full", &["21", "22"], "200");
}

#[test]
fn what_the_reference_calls_bad_is_refused_with_the_name_of_the_field() {
    let Some(bad) = oracle(&["bad"]) else { return };
    let names = ["minute", "hour", "day of month", "month", "day of week", "fields", "nickname", "@every"];
    for expression in bad.iter().map(|case| text(case, "expr")) {
        let said = refusal(expression);
        let said =
            said.strip_prefix("backupnizza: error: schedule: ").unwrap_or_else(|| panic!("{expression}: {said}"));
        assert!(names.iter().any(|name| said.contains(name)), "{expression}: {said}");
    }
}

// ---- Refusals ----------------------------------------------------------------------------------

#[test]
fn a_refusal_says_which_field_and_why() {
    for (expression, why) in [
        ("61 * * * *", "minute 61 is outside 0-59"),
        ("* 24 * * *", "hour 24 is outside 0-23"),
        ("* * 0 * *", "day of month 0 is outside 1-31"),
        ("* * * 13 *", "month 13 is outside 1-12"),
        ("* * * * 8", "day of week 8 is outside 0-7"),
        ("0 0 31 2 *", "day of month: such a date never comes in the months given"),
        ("* * * *", "expected five fields (minute, hour, day of month, month, day of week), found 4"),
        ("0 0 0 1 1 *", "found 6"),
        ("@fortnightly", "unknown nickname"),
        ("* * L * *", "day of month: "),
        ("* * * * mon#1", "day of week: "),
        ("* * 15W * *", "day of month: "),
        ("CRON_TZ=UTC 0 0 * * *", "a schedule cannot choose its time zone"),
        ("TZ=UTC 0 0 * * *", "a schedule cannot choose its time zone"),
        ("* ? * * *", "hour: "),
        ("0\u{a0}0 * * * *", "minute: "),
        ("@every 90", "@every: "),
        ("@every 500ms", "@every: "),
    ] {
        let said = refusal(expression);
        assert!(said.starts_with("backupnizza: error: schedule: ") && said.contains(why), "{expression}: {said}");
    }
}

/// The crate that searches the calendar would take these.
#[test]
fn what_the_crate_accepts_but_cron_does_not_is_refused() {
    for expression in [
        "0 0 0 * * * *",
        "0 0 * * * 2030",
        "* * * january *",
        "* * * * monday",
        "* * * * sunday",
        "0 0 ? ? *",
        "0 0 1-31-2 * *",
        "@secondly",
        "@minutely",
    ] {
        refusal(expression);
    }
}

// ---- Daylight saving ---------------------------------------------------------------------------

/// Berlin: 2026-03-29 02:00 becomes 03:00; 2026-10-25 03:00 becomes 02:00 again.
#[test]
fn a_job_at_a_fixed_time_runs_once_when_clocks_are_put_forward_or_back() {
    let zone = "Europe/Berlin";
    assert_eq!(
        slots(zone, "30 2 * * *", "2026-03-28T00:00:00Z", 3),
        ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        "at the first minute after the gap"
    );
    assert_eq!(
        slots(zone, "30 2 * * *", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
        "in the first pass"
    );
    assert_eq!(
        slots(zone, "0,30 2 * * *", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"],
        "once for all that the gap swallowed"
    );
    assert_eq!(
        slots(zone, "30 2 * * *", "2026-10-25T00:45:00Z", 1),
        ["2026-10-26T02:30:00+01:00"],
        "not again in the second pass"
    );
}

#[test]
fn a_job_with_a_star_follows_the_clock() {
    let zone = "Europe/Berlin";
    assert_eq!(
        slots(zone, "30 * * * *", "2026-03-29T00:00:00Z", 3),
        ["2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-29T04:30:00+02:00"],
        "nothing in the skipped hour"
    );
    assert_eq!(
        slots(zone, "30 * * * *", "2026-10-25T00:00:00Z", 3),
        ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"],
        "both passes of the repeated one"
    );
    assert_eq!(
        slots(zone, "*/30 2 * * *", "2026-03-28T12:00:00Z", 2),
        ["2026-03-30T02:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        "a step from a star is a star"
    );
}

/// Clocks that are put forward at midnight, by half an hour, and in the southern spring.
#[test]
fn gaps_need_not_be_an_hour_at_two() {
    assert_eq!(
        slots("America/Santiago", "@daily", "2026-09-05T12:00:00Z", 2),
        ["2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"]
    );
    assert_eq!(
        slots("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00:00:00Z", 2),
        ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]
    );
    assert_eq!(
        slots("Australia/Lord_Howe", "*/15 * * * *", "2026-10-03T15:15:00Z", 3),
        ["2026-10-04T02:30:00+11:00", "2026-10-04T02:45:00+11:00", "2026-10-04T03:00:00+11:00"]
    );
    assert_eq!(
        slots("America/New_York", "0 3 * * *", "2026-03-07T12:00:00Z", 2),
        ["2026-03-08T03:00:00-04:00", "2026-03-09T03:00:00-04:00"],
        "what stands right behind the gap is not moved"
    );
    assert_eq!(
        slots("Asia/Kathmandu", "0 12 29 2 *", "2026-01-01T00:00:00Z", 1),
        ["2028-02-29T12:00:00+05:45"],
        "no daylight saving at all"
    );
}

// ---- Meaning -----------------------------------------------------------------------------------

#[test]
fn two_restricted_day_fields_match_on_either() {
    assert_eq!(
        slots("UTC", "0 0 13 * fri", "2026-03-01T00:00:00Z", 3),
        ["2026-03-06T00:00:00+00:00", "2026-03-13T00:00:00+00:00", "2026-03-20T00:00:00+00:00"]
    );
    assert_eq!(
        slots("UTC", "0 0 */2 * fri", "2026-03-01T00:00:00Z", 2),
        ["2026-03-13T00:00:00+00:00", "2026-03-27T00:00:00+00:00"],
        "a field that begins with a star does not count"
    );
}

#[test]
fn names_ranges_and_steps_mean_what_they_mean_in_crontabs() {
    let week = |expression| {
        let slots = slots("UTC", expression, "2026-02-28T23:59:59Z", 4);
        slots.iter().map(|slot| slot[8..10].parse().expect("a day")).collect::<Vec<u32>>()
    };
    // 2026-03-01 is a Sunday.
    assert_eq!(week("0 0 * mar FRI-sun"), [1, 6, 7, 8]);
    assert_eq!(week("0 0 * * 7"), [1, 8, 15, 22]);
    assert_eq!(week("0 0 * * 0"), [1, 8, 15, 22]);
    assert_eq!(week("0 0 ? * 1/100"), [2, 9, 16, 23]);
    assert_eq!(week("0 0 28/2 Mar ?"), [28, 30, 28, 30]);
    assert_eq!(week("59/70 0 * * *"), [1, 2, 3, 4]);
}

#[test]
fn nicknames_and_intervals_have_slots_but_starts_have_none() {
    let after = "2026-12-30T10:20:30Z";
    for (nickname, first) in [
        ("@yearly", "2027-01-01T00:00:00+00:00"),
        ("@annually", "2027-01-01T00:00:00+00:00"),
        ("@monthly", "2027-01-01T00:00:00+00:00"),
        ("@weekly", "2027-01-03T00:00:00+00:00"),
        ("@daily", "2026-12-31T00:00:00+00:00"),
        ("@midnight", "2026-12-31T00:00:00+00:00"),
        ("@hourly", "2026-12-30T11:00:00+00:00"),
        ("@every 1h30m", "2026-12-30T11:50:30+00:00"),
        ("@every 2d", "2027-01-01T10:20:30+00:00"),
    ] {
        assert_eq!(slots("UTC", nickname, after, 1), [first], "{nickname}");
    }
    for nickname in ["@start", "@reboot"] {
        assert_eq!(slots("UTC", nickname, after, 1), [""; 0], "{nickname}");
    }
}

// ---- The command line --------------------------------------------------------------------------

#[test]
fn from_and_count_are_checked() {
    for (arguments, what) in [
        (["--from", "tomorrow"], "--from"),
        (["--from", "2026-01-01"], "--from"),
        (["--from", "2026-13-01T00:00:00Z"], "--from"),
        (["--count", "0"], "--count takes a whole number from 1 on"),
        (["--count", "-1"], "--count takes"),
        (["--count", "many"], "--count takes"),
    ] {
        let said = next("UTC", &[&["--schedule", "@daily"][..], &arguments].concat()).expect(2);
        assert!(said.stderr.contains(what), "{arguments:?}: {}", said.stderr);
        assert_eq!(said.stdout(), "");
    }
}

#[test]
fn five_slots_are_shown_unless_told_otherwise() {
    assert_eq!(next("UTC", &["--schedule", "@hourly"]).expect(0).stdout().lines().count(), 5);
    assert_eq!(slots("UTC", "* * * * *", "2026-01-01T00:00:00Z", 1000).len(), 1000);
}

#[test]
fn a_time_with_an_offset_is_the_same_instant_in_any_zone() {
    let from = ["2026-06-01T12:00:00+02:00", "2026-06-01T10:00:00Z", "2026-06-01T10:00:00.5Z"];
    for from in from {
        assert_eq!(slots("Asia/Tokyo", "0 * * * *", from, 1), ["2026-06-01T20:00:00+09:00"], "{from}");
    }
}

/// The slots of all of a configuration's tasks, or of one, in order of time.
#[test]
fn next_merges_the_schedules_of_a_configuration() {
    let sandbox = Sandbox::new();
    sandbox.config(
        "
timezone: utc
tasks:
  - {name: often, command: ['true'], schedule: ['0 6,18 * * *', '0 12 * * *', '0 12 * * mon']}
  - {name: nightly, command: ['true'], schedule: '30 2 * * *'}
  - {name: off, command: ['true'], schedule: '* * * * *', enabled: false}
  - {name: by-hand, command: ['true']}
",
    );
    let shown = |arguments: &[&str]| {
        let from = ["next", "backup.yaml", "--from", "2026-05-31T00:00:00Z", "--count", "3"];
        let finished = finish(sandbox.backupnizza(from.into_iter().chain(arguments.iter().copied())));
        finished.expect(0).stdout()
    };
    assert_eq!(
        shown(&["often"]),
        "2026-05-31T06:00:00+00:00\toften\n2026-05-31T12:00:00+00:00\toften\n2026-05-31T18:00:00+00:00\toften\n"
    );
    let all = shown(&[]);
    let rows: Vec<(&str, &str)> = all.lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(
        rows,
        [
            ("2026-05-31T02:30:00+00:00", "nightly"),
            ("2026-05-31T06:00:00+00:00", "often"),
            ("2026-05-31T12:00:00+00:00", "often"),
            ("2026-05-31T18:00:00+00:00", "often"),
            ("2026-06-01T02:30:00+00:00", "nightly"),
            ("2026-06-02T02:30:00+00:00", "nightly"),
        ]
    );
    assert_eq!(shown(&["by-hand"]), "");
    let said = finish(sandbox.backupnizza(["next", "backup.yaml", "nightli"])).expect(1);
    assert!(said.stderr.contains("hint: did you mean `nightly`?"), "{}", said.stderr);
}
