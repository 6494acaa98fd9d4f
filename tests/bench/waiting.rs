//! What happens when nothing does, and how late a task starts after a long wait.
//!
//! All of it takes minutes of waiting, so all of it waits together: a daemon that is idle, some with one
//! task, one with 200, and the floors by hand. A time zone of its own, seconds beside UTC, gives each daemon
//! its whole minutes at a moment that it shares with nobody.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::cron::Cron;
use crate::figure::{Figure, Limit, Samples, Unit};
use crate::sandbox::{Daemon, Effort, Sandbox, effort, stamp_program, stamps};
use crate::start;

/// So many minutes, and in each of them so many single starts; every daemon waits a minute for its own.
const MINUTES: u64 = 3;
const SINGLE: u64 = 6;

/// Seconds of the minute: those of single starts, ours and by hand in turns, then those of the many.
const APART: u64 = 3;
const MANY_OURS: u64 = 42;
const MANY_BY_HAND: u64 = 51;

/// How many tasks share a slot.
const MANY: usize = 200;

const MINUTE: Duration = Duration::from_secs(60);

pub fn figures() -> Vec<Figure> {
    say("waits for slots and looks at an idle daemon");
    let tools = Sandbox::new();
    let stamp = stamp_program(&tools.path(""));
    let stamp = stamp.display().to_string();
    let idle = Sandbox::new();
    idle.config("", &start::tasks(1));
    let many = sandbox_at(MANY_OURS);
    many.config(&format!("max_concurrent_runs: {MANY}\n"), &each_minute(&many, &stamp, MANY));
    let single: Vec<(u64, Sandbox)> =
        (0..SINGLE).map(|number| (2 * number * APART, ())).map(|(at, ())| (at, sandbox_at(at))).collect();
    single.iter().for_each(|(_, sandbox)| sandbox.config("", &each_minute(sandbox, &stamp, 1)));

    // Begun at the end of a minute, so that no daemon meets a slot for which it has not waited.
    wait_until_second(57);
    let idle_daemon = idle.daemon();
    let cron = Cron::start();
    let daemons: Vec<Daemon<'_>> = single.iter().map(|(_, sandbox)| sandbox.daemon()).chain([many.daemon()]).collect();
    let first_minute = Duration::from_secs((wall().as_secs() / 60 + 2) * 60);
    let by_hand: Vec<Sleeper> = (0..MINUTES)
        .flat_map(|minute| {
            let minute = first_minute + MINUTE * minute as u32;
            let single = (0..SINGLE).map(move |number| (minute + Duration::from_secs((2 * number + 1) * APART), 1));
            single.chain([(minute + Duration::from_secs(MANY_BY_HAND), MANY)])
        })
        .enumerate()
        .map(|(number, (at, count))| Sleeper::start(&tools, number, at, count, &stamp))
        .collect();
    thread::sleep(Duration::from_secs(2));
    let before = [Some(idle_daemon.pid()), cron.as_ref().map(Cron::pid)].map(|pid| pid.map(effort));
    say("one minute idle");
    thread::sleep(MINUTE);
    let after = [Some(idle_daemon.pid()), cron.as_ref().map(Cron::pid)].map(|pid| pid.map(effort));
    say(&format!("{MINUTES} minutes of slots"));
    let floors: Vec<(Duration, usize, Vec<Duration>)> = by_hand.into_iter().map(Sleeper::wait).collect();
    wait_until_second(57);
    drop(daemons);
    let ours = single.iter().flat_map(|(at, sandbox)| latenesses(sandbox, *at, first_minute));
    let ours_many = last_of_each_minute(&many, MANY_OURS, first_minute);
    let floor = |count: usize| {
        let of_count = floors.iter().filter(move |(_, started, _)| *started == count);
        let late = of_count.filter_map(|(at, _, stamps)| stamps.iter().max().map(|last| milliseconds(*last - *at)));
        Samples::new(late.collect())
    };
    let mut figures = vec![
        Figure::new("slot to first instruction, one task", Unit::Milliseconds, Samples::new(ours.collect()))
            .beside("clock_nanosleep, fork and exec", floor(1))
            .limit(Limit::OverFloor { median: 2.0, max: Some(5.0) }),
        Figure::new("slot to first instruction, last of 200", Unit::Milliseconds, ours_many)
            .beside("200 × fork and exec", floor(MANY))
            .limit(Limit::TimesFloor { median: 2.0, p95: None }),
    ];
    figures.extend(idle_minute(&before, &after));
    figures
}

fn idle_minute(before: &[Option<Effort>; 2], after: &[Option<Effort>; 2]) -> [Figure; 2] {
    let spent = |of: usize| {
        let (before, after) = (before[of]?, after[of]?);
        Some((after.switches - before.switches, milliseconds(after.cpu - before.cpu)))
    };
    let (switches, cpu) = spent(0).expect("the daemon was looked at");
    let figures = [
        Figure::new("context switches, idle, a minute", Unit::Count, Samples::one(switches)).limit(Limit::AtMost(4.0)),
        Figure::new("CPU, idle, a minute", Unit::Milliseconds, Samples::one(cpu)).limit(Limit::AtMost(0.3)),
    ];
    let Some((switches, cpu)) = spent(1) else { return figures };
    let [first, second] = figures;
    [first.beside("Debian's cron", Samples::one(switches)), second.beside("Debian's cron", Samples::one(cpu))]
}

/// A daemon's, whose whole minutes come at this second of UTC's.
fn sandbox_at(second: u64) -> Sandbox {
    Sandbox::new().ahead_of_utc(((60 - second) % 60) as u32)
}

fn each_minute(sandbox: &Sandbox, stamp: &str, count: usize) -> String {
    let file = sandbox.text("stamps");
    let task = |number| format!("  - {{name: task-{number}, schedule: \"* * * * *\", command: [{stamp}, {file}]}}\n");
    (0..count).map(task).collect()
}

/// How late, in milliseconds, each start since `from` came that was due at this second of a minute.
fn latenesses(sandbox: &Sandbox, second: u64, from: Duration) -> Vec<f64> {
    let stamps = stamps(&sandbox.path("stamps"));
    stamps.into_iter().filter(|stamp| *stamp >= from).map(|stamp| milliseconds(after_slot(stamp, second))).collect()
}

/// As `latenesses`, the last of each minute.
fn last_of_each_minute(sandbox: &Sandbox, second: u64, from: Duration) -> Samples {
    let stamps: Vec<Duration> = stamps(&sandbox.path("stamps")).into_iter().filter(|stamp| *stamp >= from).collect();
    let slot = |stamp: &Duration| stamp.as_secs() - after_slot(*stamp, second).as_secs();
    let groups = stamps.chunk_by(|one, next| slot(one) == slot(next));
    let last = |group: &[Duration]| {
        assert_eq!(group.len(), MANY, "not all tasks have started in their minute");
        group.iter().max().map(|stamp| milliseconds(after_slot(*stamp, second)))
    };
    Samples::new(groups.filter_map(last).collect())
}

fn after_slot(stamp: Duration, second: u64) -> Duration {
    let whole = (stamp.as_secs() + 60 - second) % 60;
    Duration::new(whole, stamp.subsec_nanos())
}

/// A process that starts the stamp program by hand.
struct Sleeper {
    child: Child,
    at: Duration,
    count: usize,
    file: std::path::PathBuf,
}

impl Sleeper {
    fn start(tools: &Sandbox, number: usize, at: Duration, count: usize, stamp: &str) -> Sleeper {
        let own = std::env::current_exe().expect("this program");
        let file = tools.path(&format!("by-hand-{number}"));
        let mut command = Command::new(own);
        command.arg("sleeper").arg(at.as_secs().to_string()).arg(count.to_string()).arg(stamp).arg(&file);
        Sleeper { child: command.spawn().expect("a process"), at, count, file }
    }

    fn wait(mut self) -> (Duration, usize, Vec<Duration>) {
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "a start by hand failed");
        let stamps = stamps(&self.file);
        let _ = fs::remove_file(&self.file);
        (self.at, self.count, stamps)
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970")
}

fn wait_until_second(second: u64) {
    let now = wall();
    let whole = (second + 60 - now.as_secs() % 60) % 60;
    thread::sleep(Duration::from_secs(whole).saturating_sub(Duration::from_nanos(u64::from(now.subsec_nanos()))));
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn say(what: &str) {
    crate::say(&format!("waiting: {what}"));
}
