//! How long a start takes, what a daemon that waits keeps in memory, and how both grow with the number of tasks.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{Datelike, Utc};

use crate::cron::Cron;
use crate::figure::{Figure, Limit, Samples, Unit};
use crate::sandbox::{Sandbox, effort, proportional_memory};

/// How often each start is measured, with so many tasks, and how much longer than `/bin/true` it may take.
const STARTS: [(usize, usize, f64); 3] = [(1, 40, 3.0), (1_000, 20, 15.0), (10_000, 7, 150.0)];

/// For what a start leaves behind to be given back.
const SETTLED: Duration = Duration::from_secs(1);

/// Tasks as people write them, none of which is due soon.
pub fn tasks(count: usize) -> String {
    let month = (Utc::now().month() + 5) % 12 + 1;
    let task = |number: usize| {
        let (minute, hour) = (number % 60, (number / 60) % 24);
        format!(
            "  - name: task-{number}\n    schedule: \"{minute} {hour} 1 {month} *\"\n    command: [/bin/true, backup, ~/Documents]\n    \
             environment:\n      RESTIC_REPOSITORY: ~/Vault\n      RESTIC_PASSWORD_COMMAND: {{secret: vault, as: command}}\n"
        )
    };
    (0..count).map(task).collect()
}

pub fn figures() -> Vec<Figure> {
    let figure = |(count, times, over)| {
        let sandbox = Sandbox::new();
        sandbox.config("", &tasks(count));
        sandbox.time_to_ready();
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..times {
            ours.push(milliseconds(sandbox.time_to_ready()));
            floor.push(milliseconds(time_of_true()));
        }
        Figure::new(format!("ready after start, {count} tasks"), Unit::Milliseconds, Samples::new(ours))
            .beside("/bin/true", Samples::new(floor))
            .limit(Limit::OverFloor { median: over, max: None })
    };
    STARTS.map(figure).into()
}

pub fn memory() -> Vec<Figure> {
    let cron = Cron::start().map(|cron| {
        thread::sleep(SETTLED);
        Samples::one(proportional_memory(cron.pid()))
    });
    let figure = |(count, most)| {
        let sandbox = Sandbox::new();
        sandbox.config("", &tasks(count));
        let figure = Figure::new(
            format!("proportional memory, idle, {count} tasks"),
            Unit::Megabytes,
            Samples::one(settled_memory(&sandbox)),
        )
        .limit(Limit::AtMost(most));
        match &cron {
            Some(cron) => figure.beside("Debian's cron", cron.clone()),
            None => figure,
        }
    };
    let [one, thousand] = [(1, 1.2), (1_000, 2.5)].map(figure);
    vec![one, thousand, memory_after_a_minute()]
}

/// With what the looks at the clock need. Alone: daemons of the same file share its pages, and each would count a part.
fn memory_after_a_minute() -> Figure {
    crate::say("memory: one minute idle");
    let sandbox = Sandbox::new();
    sandbox.config("", &tasks(1));
    let daemon = sandbox.daemon();
    thread::sleep(Duration::from_secs(62));
    let memory = Samples::one(proportional_memory(daemon.pid()));
    Figure::new("proportional memory, idle for a minute, 1 task", Unit::Megabytes, memory).limit(Limit::AtMost(1.2))
}

/// Memory, the first start of all, which also writes the ledger anew, and what it costs the daemon to wake and run the
/// one task that is due while all others wait.
pub fn growth() -> Vec<Figure> {
    let figures = |count| {
        let sandbox = Sandbox::new();
        sandbox.config("", &tasks(count));
        let starts = (0..5).map(|_| {
            let _ = fs::remove_dir_all(sandbox.path("state"));
            milliseconds(sandbox.time_to_ready())
        });
        let first = Samples::new(starts.collect());
        let memory = Samples::one(settled_memory(&sandbox));
        let beat = "  - {name: beat, schedule: \"@every 1s\", command: [/bin/true]}\n";
        sandbox.config("", &(tasks(count) + beat));
        let wakes = Samples::one(cpu_of_a_second(&sandbox));
        [
            Figure::new(format!("growth: CPU of a wake, {count} tasks wait"), Unit::Milliseconds, wakes),
            Figure::new(format!("growth: first start, {count} tasks"), Unit::Milliseconds, first),
            Figure::new(format!("growth: proportional memory, {count} tasks"), Unit::Megabytes, memory),
        ]
    };
    let pairs = [10, 100, 1_000, 10_000].map(figures);
    let of = |kind: usize| pairs.iter().map(move |figures| figures[kind].clone());
    of(1).chain(of(2)).chain(of(0)).collect()
}

/// The time on a processor, in milliseconds, of the daemon's lasting threads for each of some seconds with one run in
/// each.
fn cpu_of_a_second(sandbox: &Sandbox) -> f64 {
    const SECONDS: u32 = 5;
    let daemon = sandbox.daemon();
    daemon.wait_for("run ended task=beat");
    let before = effort(daemon.pid()).cpu;
    thread::sleep(Duration::from_secs(1) * SECONDS);
    milliseconds(effort(daemon.pid()).cpu - before) / f64::from(SECONDS)
}

fn settled_memory(sandbox: &Sandbox) -> f64 {
    let daemon = sandbox.daemon();
    thread::sleep(SETTLED);
    proportional_memory(daemon.pid())
}

fn time_of_true() -> Duration {
    let begun = Instant::now();
    let status = Command::new("/bin/true").stdin(Stdio::null()).stderr(Stdio::piped()).status();
    let took = begun.elapsed();
    assert!(status.is_ok_and(|status| status.success()), "/bin/true fails");
    took
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
