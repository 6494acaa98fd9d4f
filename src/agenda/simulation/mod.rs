//! Years of a machine that sleeps, crashes, reboots, loses its disk and has its clock set, in a moment.
//!
//! The dice are seeded, so a run of the simulation that breaks a promise breaks it again. `tasks` is what runs,
//! `machine` what happens, and `witness` looks at each step whether a promise is broken.

mod dice;
mod machine;
mod tasks;
mod witness;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{env, thread};

use chrono::{DateTime, Utc};

use crate::clock::Zone;
use machine::{Clock, Machine};

/// The zones of `tests/it/cron_oracle.py`: those with the strangest changes of offset, and some without any.
const ZONES: [&str; 20] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Europe/London",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "America/Asuncion",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "America/St_Johns",
    "Europe/Dublin",
    "Africa/Cairo",
    "America/Havana",
    "Asia/Tokyo",
    "America/Sao_Paulo",
    "Asia/Tehran",
];

/// Tells the test that simulates one zone that it is to; `TZ` says which.
const ONE_ZONE: &str = "BACKUPNIZZA_SIMULATE_ONE_ZONE";

/// How many years pass in each zone under a steady clock, by default one.
const YEARS: &str = "BACKUPNIZZA_YEARS";

type Counts = BTreeMap<String, u64>;

fn simulate(seed: u64, clock: Clock, zone: Zone, begin: DateTime<Utc>, days: u64) -> Counts {
    let mut machine = Machine::new(seed, clock, zone, begin);
    machine.live(days);
    machine.rest();
    machine.counts()
}

fn year(number: u64) -> DateTime<Utc> {
    format!("{number}-01-01T00:00:00Z").parse().expect("a time")
}

#[test]
fn a_year_passes_in_which_everything_happens() {
    let mut counts = Counts::new();
    for seed in 0..3 {
        for (what, count) in simulate(seed, Clock::Steady, Zone::Utc, year(2026), 365) {
            *counts.entry(what).or_default() += count;
        }
    }
    let often = ["Slot", "Missed", "Start", "Reboot", "Repeat", "Manual", "death", "sleep", "success", "warning"];
    let sometimes = [
        "failure",
        "timeout",
        "stopped",
        "crashed",
        "skipped (overlap)",
        "skipped (condition)",
        "skipped (secrets)",
        "skipped (lock)",
        "skipped (missed)",
        "renamed",
        "rescheduled",
        "toggled",
        "torn",
    ];
    let all = often.iter().map(|what| (what, 20)).chain(sometimes.iter().map(|what| (what, 5)));
    for (what, least) in all {
        assert!(counts.get(*what).is_some_and(|count| *count > least), "{what} was hardly seen: {counts:?}");
    }
}

/// Zones are the process's, so each has a process of its own.
#[test]
fn years_pass_in_every_zone_under_any_clock() {
    if env::var_os(ONE_ZONE).is_some() {
        return pass_in_zone_of_this_process();
    }
    if !Path::new("/usr/share/zoneinfo/Europe/Berlin").exists() {
        assert!(env::var_os("CI").is_none(), "the time zones are not installed");
        return;
    }
    let waiting = std::sync::Mutex::new(ZONES.iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((number, zone)) = { waiting.lock().expect("zones").next() } {
                    pass_in_a_process(number, zone);
                }
            });
        }
    });
}

fn pass_in_a_process(number: usize, zone: &str) {
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "agenda::simulation::years_pass_in_every_zone_under_any_clock"])
        .env("TZ", zone)
        .env(ONE_ZONE, number.to_string())
        .output()
        .expect("this program again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "in {zone}:\n{said}");
}

fn pass_in_zone_of_this_process() {
    let seed: u64 = env::var(ONE_ZONE).ok().and_then(|number| number.parse().ok()).expect("a number");
    let years: u64 = env::var(YEARS).ok().and_then(|years| years.parse().ok()).unwrap_or(1);
    // Zones change their rules; each is seen in other years.
    let begin = year(2016 + seed % 12);
    simulate(1_000 + seed, Clock::Steady, Zone::Local, begin, years * 365);
    simulate(2_000 + seed, Clock::Wobbling, Zone::Local, begin, 120);
    simulate(3_000 + seed, Clock::Wild, Zone::Local, begin, 90);
}
