//! A test for each rule of the scheduler, by the name of the rule.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::ledger::State;
use crate::outcome::SkipReason;
use crate::plan::testing::{exclusive, plan, secret, shared, step, task};
use crate::plan::{Condition, Missed, Overlap, Retry};

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// A machine with a daemon, whose clocks are moved by hand.
struct World {
    plan: Arc<Plan>,
    agenda: Agenda,
    ledger: State,
    now: Now,
    boot_id: String,
    /// How `Record` is answered.
    disk_works: bool,
    /// How `TakeFileLocks` is answered.
    file_locks_free: bool,
    syncs: usize,
    /// What is left to look at, without records and their answers.
    seen: Vec<(DateTime<Utc>, Action)>,
}

impl World {
    fn new(begin: &str, tasks: Vec<Task>) -> World {
        World::with_turns(begin, tasks, 16)
    }

    fn with_turns(begin: &str, tasks: Vec<Task>, turns: usize) -> World {
        let now = Now { wall: at(begin), boot: Duration::from_secs(100), awake: Duration::from_secs(100) };
        World::on(State::default(), now, "boot", plan(tasks, turns))
    }

    fn on(ledger: State, now: Now, boot_id: &str, plan: Plan) -> World {
        let plan = Arc::new(plan);
        let (agenda, actions) = Agenda::new(plan.clone(), &ledger, &[], now, boot_id, "machine");
        let mut world = World {
            plan,
            agenda,
            ledger,
            now,
            boot_id: boot_id.to_string(),
            disk_works: true,
            file_locks_free: true,
            syncs: 0,
            seen: Vec::new(),
        };
        world.perform(actions);
        world
    }

    /// The daemon is gone at once, and a new one starts after `seconds` with these tasks.
    fn restart(self, seconds: u64, tasks: Vec<Task>) -> World {
        let mut now = self.now;
        now.wall += TimeDelta::seconds(seconds as i64);
        now.boot += Duration::from_secs(seconds);
        now.awake += Duration::from_secs(seconds);
        World::on(self.ledger, now, &self.boot_id, plan(tasks, self.plan.max_concurrent_runs))
    }

    fn event(&mut self, event: Event) {
        let actions = self.agenda.handle(self.now, event);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let mut locks = Vec::new();
        for action in actions {
            match &action {
                Action::Record(records) => {
                    if self.disk_works {
                        self.syncs += 1;
                        records.iter().for_each(|record| self.ledger.apply(record));
                    }
                    self.event(Event::Recorded(self.disk_works));
                    continue;
                }
                Action::TakeFileLocks { task, .. } => locks.push((*task, self.file_locks_free)),
                _ => {}
            }
            self.seen.push((self.now.wall, action));
        }
        if !locks.is_empty() {
            self.event(Event::FileLocks(locks));
        }
    }

    /// Time passes as it does for a daemon that waits as it is told to.
    fn pass(&mut self, seconds: u64) {
        let end = self.now.boot + Duration::from_secs(seconds);
        let mut idle_wakes = 0;
        while self.now.boot < end {
            let wake = self.agenda.next_wake(self.now).unwrap_or(Duration::MAX);
            idle_wakes = if wake.is_zero() { idle_wakes + 1 } else { 0 };
            assert!(idle_wakes < 3, "it wants to be woken at once for ever");
            let step = wake.min(Duration::from_secs(30)).min(end - self.now.boot);
            self.now.boot += step;
            self.now.awake += step;
            self.now.wall += TimeDelta::from_std(step).expect("short");
            self.event(Event::Tick);
        }
    }

    fn sleep(&mut self, seconds: u64) {
        self.now.boot += Duration::from_secs(seconds);
        self.set_wall(seconds as i64);
    }

    fn set_wall(&mut self, by: i64) {
        self.now.wall += TimeDelta::seconds(by);
        self.event(Event::Tick);
    }

    fn id(&self, name: &str) -> TaskId {
        self.plan.task_named(name).expect("a task of the plan")
    }

    /// The run of the task whose try is under way.
    fn run(&self, name: &str) -> Option<RunId> {
        let id = self.id(name);
        self.agenda.running(self.now).find(|running| running.task == id).map(|running| running.run)
    }

    fn end(&mut self, name: &str, outcome: Outcome) {
        let run = self.run(name).expect("a running task");
        self.event(Event::TryEnded { run, outcome, exit_code: Some(0), fatal: false });
    }

    /// All tries that started since the last call: when, of what, and for which slot.
    fn starts(&mut self) -> Vec<String> {
        let seen = std::mem::take(&mut self.seen);
        let start = |(when, action): &(DateTime<Utc>, Action)| match action {
            Action::StartTry(start) => Some(format!(
                "{} {} {} {}",
                when.format("%dT%H:%M:%S"),
                self.plan.task(start.task).name,
                start.slot.format("%dT%H:%M:%S"),
                start.cause.name()
            )),
            _ => None,
        };
        let starts = seen.iter().filter_map(start).collect();
        self.seen = seen.into_iter().filter(|(_, action)| !matches!(action, Action::StartTry(_))).collect();
        starts
    }

    /// Everything that ended or was skipped since the last call.
    fn ends(&mut self) -> Vec<String> {
        let seen = std::mem::take(&mut self.seen);
        let name = |id: &TaskId| &self.plan.task(*id).name;
        let end = |action: &Action| match action {
            Action::Ended(ended) => Some(format!("{} {}", name(&ended.task), ended.outcome)),
            Action::NotRun { task, outcome, .. } => Some(format!("{} {outcome}", name(task))),
            _ => None,
        };
        seen.iter().filter_map(|(_, action)| end(action)).collect()
    }

    fn waits(&self, name: &str) -> Option<Wait> {
        let id = self.id(name);
        self.agenda.waiting(self.now).find(|waiting| waiting.task == id).map(|waiting| waiting.what)
    }

    fn has_seen(&self, action: &Action) -> bool {
        self.seen.iter().any(|(_, seen)| seen == action)
    }

    fn manual(&mut self, name: &str) -> ManualAnswer {
        let id = self.id(name);
        self.event(Event::Manual { task: id });
        let answer = |(_, action): &(DateTime<Utc>, Action)| match action {
            Action::ManualAnswer { answer, .. } => Some(*answer),
            _ => None,
        };
        self.seen.iter().rev().find_map(answer).expect("an answer")
    }
}

fn with(mut task: Task, change: impl FnOnce(&mut Task)) -> Task {
    change(&mut task);
    task
}

fn nightly() -> Task {
    task("nightly", &["30 2 * * *"])
}

const EVENING: &str = "2026-01-01T20:00:00Z";

#[test]
fn a_slot_starts_its_run_on_the_second() {
    let mut world = World::new(EVENING, vec![nightly()]);
    world.pass(DAY);
    assert_eq!(world.starts(), ["02T02:30:00 nightly 02T02:30:00 slot"]);
    world.end("nightly", Outcome::Success);
    world.pass(DAY);
    assert_eq!(world.starts(), ["03T02:30:00 nightly 03T02:30:00 slot"]);
}

#[test]
fn a_new_task_and_a_changed_schedule_start_from_now() {
    let mut world = World::new(EVENING, vec![nightly()]);
    assert!(world.has_seen(&Action::Notice(Notice::NewTask { task: world.id("nightly") })));
    assert_eq!(world.starts(), [""; 0]);
    let mut world = world.restart(DAY, vec![task("nightly", &["30 3 * * *"])]);
    assert!(world.has_seen(&Action::Notice(Notice::ScheduleChanged { task: world.id("nightly") })));
    world.pass(DAY);
    assert_eq!(world.starts(), ["03T03:30:00 nightly 03T03:30:00 slot"]);
}

#[test]
fn slots_missed_while_asleep_run_once_after_the_delay() {
    let mut world = World::new(EVENING, vec![nightly()]);
    world.pass(HOUR);
    world.sleep(3 * DAY + 8 * HOUR);
    assert_eq!(world.starts(), [""; 0]);
    world.pass(HOUR);
    assert_eq!(world.starts(), ["05T05:01:00 nightly 05T02:30:00 missed"]);
    world.end("nightly", Outcome::Success);
    world.pass(DAY);
    assert_eq!(world.starts(), ["06T02:30:00 nightly 06T02:30:00 slot"]);
}

#[test]
fn a_second_sleep_begins_the_delay_anew() {
    let mut world = World::new(EVENING, vec![nightly()]);
    world.sleep(8 * HOUR);
    world.pass(50);
    world.sleep(HOUR);
    world.pass(HOUR);
    assert_eq!(world.starts(), ["02T05:01:50 nightly 02T02:30:00 missed"]);
}

#[test]
fn slots_missed_while_not_running_run_once_or_are_skipped() {
    let world = World::new(EVENING, vec![nightly()]);
    let mut world = world.restart(2 * DAY, vec![nightly()]);
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), ["03T20:01:00 nightly 03T02:30:00 missed"]);
    world.end("nightly", Outcome::Success);
    let skipping = || with(nightly(), |task| task.policy.missed = Missed::Skip);
    let mut world = world.restart(2 * DAY, vec![skipping()]);
    world.pass(2 * HOUR);
    assert_eq!(world.starts(), [""; 0]);
    assert_eq!(world.ends(), ["nightly skipped (missed)"]);
    assert_eq!(world.ledger.history(Some("nightly")).len(), 2);
}

#[test]
fn a_slot_within_the_last_two_minutes_is_on_time() {
    let world = World::new("2026-01-02T02:00:00Z", vec![nightly()]);
    let mut world = world.restart(31 * MINUTE + 59, vec![nightly()]);
    assert_eq!(world.starts(), ["02T02:31:59 nightly 02T02:30:00 slot"]);
    let world = World::new("2026-01-02T02:00:00Z", vec![nightly()]);
    let mut world = world.restart(32 * MINUTE + 1, vec![nightly()]);
    assert_eq!(world.starts(), [""; 0]);
    world.pass(MINUTE);
    assert_eq!(world.starts(), ["02T02:33:01 nightly 02T02:30:00 missed"]);
}

#[test]
fn slots_of_several_schedules_make_one_run() {
    let mut world = World::new(EVENING, vec![task("both", &["30 2 * * *", "*/30 2 * * *", "0 4 * * *"])]);
    world.pass(7 * HOUR);
    world.end("both", Outcome::Success);
    world.starts();
    world.sleep(10 * HOUR);
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), ["02T13:01:00 both 02T04:00:00 missed"]);
}

#[test]
fn one_sync_covers_all_slots_that_come_due_together() {
    let tasks: Vec<Task> = (0..100).map(|index| task(&format!("task{index}"), &["30 2 * * *"])).collect();
    let mut world = World::with_turns(EVENING, tasks, 100);
    world.pass(6 * HOUR + 29 * MINUTE);
    let before = world.syncs;
    world.pass(2 * MINUTE);
    assert_eq!(world.starts().len(), 100);
    assert_eq!(world.syncs - before, 1);
    assert!(world.agenda.running(world.now).all(|running| running.slot == at("2026-01-02T02:30:00Z")));
}

#[test]
fn nothing_starts_before_the_ledger_has_it() {
    let mut world = World::new("2026-01-02T02:29:00Z", vec![nightly()]);
    world.disk_works = false;
    world.pass(10 * MINUTE);
    assert_eq!(world.starts(), [""; 0]);
    assert_eq!(world.waits("nightly"), Some(Wait::Record));
    world.disk_works = true;
    world.pass(10);
    assert_eq!(world.starts().len(), 1);
    assert!(world.has_seen(&Action::Notice(Notice::RecordedAgain)));
}

#[test]
fn a_run_recorded_ahead_is_due_again_after_a_shutdown() {
    let mut world = World::new("2026-01-02T02:29:00Z", vec![nightly()]);
    world.pass(59);
    world.now.wall += TimeDelta::milliseconds(500);
    world.now.boot += Duration::from_millis(500);
    world.event(Event::Tick);
    assert_eq!(world.ledger.running.len(), 1);
    world.event(Event::Shutdown);
    assert!(world.agenda.is_idle());
    assert!(world.ledger.running.is_empty());
    let mut world = world.restart(HOUR, vec![nightly()]);
    assert_eq!(world.starts(), ["02T03:29:59 nightly 02T02:30:00 slot"]);
}

#[test]
fn jitter_moves_the_start_and_not_the_slot_also_of_missed_runs_but_not_of_manual_ones() {
    let jittery = || with(nightly(), |task| task.policy.jitter = Duration::from_secs(HOUR));
    let offset = slots::offset(Duration::from_secs(HOUR), "machine", "nightly");
    let mut world = World::new(EVENING, vec![jittery()]);
    world.pass(DAY);
    let (when, action) = world.seen.iter().find(|(_, action)| matches!(action, Action::StartTry(_))).expect("a start");
    assert_eq!(*when, at("2026-01-02T02:30:00Z") + TimeDelta::nanoseconds(offset));
    assert!(matches!(action, Action::StartTry(start) if start.slot == at("2026-01-02T02:30:00Z")));
    world.end("nightly", Outcome::Success);
    world.starts();
    world.sleep(DAY);
    let woke = world.now.wall;
    world.pass(2 * HOUR);
    let (when, _) = world.seen.iter().find(|(_, action)| matches!(action, Action::StartTry(_))).expect("a start");
    assert_eq!(*when, woke + TimeDelta::seconds(60) + TimeDelta::nanoseconds(offset));
    world.end("nightly", Outcome::Success);
    world.starts();
    assert_eq!(world.manual("nightly"), ManualAnswer::Starting);
    assert_eq!(world.starts().len(), 1);
}

#[test]
fn after_a_jump_forward_a_task_runs_once_and_after_a_jump_back_not_again() {
    let mut world = World::new(EVENING, vec![task("hourly", &["@hourly"])]);
    world.set_wall(10 * 3_600);
    assert!(world.has_seen(&Action::Notice(Notice::ClockJumped { seconds: 36_000 })));
    assert_eq!(world.starts(), ["02T06:00:00 hourly 02T06:00:00 slot"]);
    world.end("hourly", Outcome::Success);
    world.set_wall(-2 * 3_600);
    world.pass(2 * HOUR + MINUTE);
    assert_eq!(world.starts(), [""; 0]);
    world.pass(HOUR);
    assert_eq!(world.starts(), ["02T07:00:00 hourly 02T07:00:00 slot"]);
}

#[test]
fn a_last_slot_more_than_three_hours_ahead_means_that_the_clock_was_corrected() {
    let mut world = World::new(EVENING, vec![task("hourly", &["@hourly"])]);
    world.set_wall(1_000 * 3_600);
    world.end("hourly", Outcome::Success);
    world.starts();
    world.set_wall(-1_000 * 3_600);
    assert!(world.has_seen(&Action::Notice(Notice::ClockCorrected { tasks: 1 })));
    world.pass(HOUR);
    assert_eq!(world.starts(), ["01T21:00:00 hourly 01T21:00:00 slot"]);
}

#[test]
fn a_clock_that_starts_in_the_past_brings_no_slot_back() {
    let mut world = World::new("2026-01-02T02:00:00Z", vec![nightly()]);
    world.pass(HOUR);
    world.end("nightly", Outcome::Success);
    assert_eq!(world.starts().len(), 1);
    let mut then = world.now;
    then.wall = at("2020-01-01T00:00:00Z");
    let mut world = World::on(world.ledger, then, "boot2", plan(vec![nightly()], 1));
    world.pass(3 * HOUR);
    assert_eq!(world.starts(), ["01T02:30:00 nightly 01T02:30:00 slot"]);
    world.end("nightly", Outcome::Success);
    world.now.wall = at("2026-01-02T09:00:00Z");
    world.pass(HOUR);
    assert_eq!(world.starts(), [""; 0]);
    let mut world = world.restart(HOUR, vec![nightly()]);
    world.pass(18 * HOUR);
    assert_eq!(world.starts(), ["03T02:30:00 nightly 03T02:30:00 slot"]);
}

#[test]
fn every_runs_on_a_grid_from_the_last_start_whatever_the_wall_clock_does() {
    let mut world = World::new(EVENING, vec![task("often", &["@every 10m"])]);
    world.pass(MINUTE);
    world.set_wall(86_400);
    world.pass(9 * MINUTE);
    assert_eq!(world.starts(), ["02T20:10:00 often 02T20:10:00 slot"]);
    world.pass(5 * MINUTE);
    world.end("often", Outcome::Success);
    world.set_wall(-86_400);
    world.pass(5 * MINUTE);
    assert_eq!(world.starts(), ["01T20:20:00 often 01T20:20:00 slot"]);
    world.end("often", Outcome::Success);
    // Across a restart by the recorded wall time of the last start.
    let mut world = world.restart(4 * MINUTE, vec![task("often", &["@every 10m"])]);
    world.pass(7 * MINUTE);
    assert_eq!(world.starts(), ["01T20:30:00 often 01T20:30:00 slot"]);
}

#[test]
fn every_second_runs_each_second_and_skips_none() {
    let mut world = World::new(EVENING, vec![task("beat", &["@every 1s"])]);
    for _ in 0..5 {
        world.pass(1);
        world.end("beat", Outcome::Success);
    }
    assert!(!world.seen.iter().any(|(_, action)| matches!(action, Action::NotRun { .. })), "{:?}", world.seen);
}

#[test]
fn a_slot_that_is_due_ahead_is_not_noticed_again_by_the_next_daemon() {
    let condition = || Box::new(Condition { check: step(None), recheck: Duration::from_secs(300) });
    let tasks = || vec![with(task("beat", &["@every 1s"]), |task| task.policy.only_if = Some(condition()))];
    let world = World::new(EVENING, tasks());
    assert_eq!(world.waits("beat"), Some(Wait::Condition), "one second ahead");
    let mut world = world.restart(0, tasks());
    assert_eq!(world.waits("beat"), Some(Wait::Condition));
    assert_eq!(world.ends(), [""; 0], "it is the same slot");
}

#[test]
fn a_run_that_ends_within_the_last_second_before_a_slot_is_no_overlap() {
    let mut world = World::new(EVENING, vec![task("half", &["*/30 * * * *"])]);
    world.pass(30 * MINUTE + 30 * MINUTE - 1);
    assert!(world.run("half").is_some());
    world.end("half", Outcome::Success);
    world.pass(1);
    assert!(world.run("half").is_some());
    assert!(!world.seen.iter().any(|(_, action)| matches!(action, Action::NotRun { .. })), "{:?}", world.seen);
}

#[test]
fn every_misses_slots_while_asleep_like_any_other() {
    let mut world = World::new(EVENING, vec![task("often", &["@every 1h"])]);
    world.pass(HOUR);
    world.end("often", Outcome::Success);
    world.starts();
    world.sleep(5 * HOUR + 30 * MINUTE);
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), ["02T02:31:00 often 02T02:00:00 missed"]);
    world.end("often", Outcome::Success);
    world.pass(HOUR);
    assert_eq!(world.starts(), ["02T03:31:00 often 02T03:31:00 slot"]);
}

#[test]
fn start_runs_with_each_daemon_and_reboot_with_each_boot() {
    let tasks = || vec![task("start", &["@start"]), task("reboot", &["@reboot"])];
    let mut world = World::new(EVENING, tasks());
    assert_eq!(world.starts(), ["01T20:00:00 start 01T20:00:00 start", "01T20:00:00 reboot 01T20:00:00 reboot"]);
    world.end("start", Outcome::Success);
    world.end("reboot", Outcome::Success);
    let mut world = world.restart(MINUTE, tasks());
    assert_eq!(world.starts(), ["01T20:01:00 start 01T20:01:00 start"]);
    world.end("start", Outcome::Success);
    let mut world = World::on(world.ledger, world.now, "boot2", plan(tasks(), 2));
    assert_eq!(world.starts().len(), 2);
}

#[test]
fn a_run_cut_by_a_crash_is_repeated_once() {
    let mut world = World::new("2026-01-02T02:00:00Z", vec![nightly()]);
    world.pass(HOUR);
    assert_eq!(world.starts().len(), 1);
    let mut world = world.restart(10 * MINUTE, vec![nightly()]);
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), ["02T03:11:00 nightly 02T03:11:00 repeat"]);
    assert_eq!(world.ends(), ["nightly crashed"]);
    let mut world = world.restart(10 * MINUTE, vec![nightly()]);
    world.pass(HOUR);
    assert_eq!(world.starts(), [""; 0]);
    assert_eq!(world.ends(), ["nightly crashed"]);
    world.pass(DAY);
    assert_eq!(world.starts(), ["03T02:30:00 nightly 03T02:30:00 slot"]);
}

#[test]
fn a_run_cut_by_shutdown_is_repeated_and_one_ended_by_stop_is_not() {
    let mut world = World::new("2026-01-02T02:00:00Z", vec![nightly()]);
    world.pass(HOUR);
    let run = world.run("nightly").expect("it runs");
    world.event(Event::Shutdown);
    assert!(world.has_seen(&Action::StopTry { run, why: StopWhy::Shutdown }));
    assert!(!world.agenda.is_idle());
    world.end("nightly", Outcome::Stopped);
    assert!(world.agenda.is_idle());
    let mut world = world.restart(10 * MINUTE, vec![nightly()]);
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), ["02T03:11:00 nightly 02T03:11:00 repeat"]);
    world.end("nightly", Outcome::Success);

    let mut world = World::new("2026-01-02T02:00:00Z", vec![nightly()]);
    world.pass(HOUR);
    let task = world.id("nightly");
    world.event(Event::StopTask { task });
    assert!(world.has_seen(&Action::StopAnswer { task, found: true }));
    world.end("nightly", Outcome::Stopped);
    world.starts();
    let mut world = world.restart(10 * MINUTE, vec![nightly()]);
    world.pass(HOUR);
    assert_eq!(world.starts(), [""; 0]);
}

#[test]
fn a_cut_run_is_not_repeated_under_missed_skip_and_start_is_never_missed() {
    let tasks = || {
        vec![
            with(task("skipping", &["30 2 * * *"]), |task| task.policy.missed = Missed::Skip),
            task("start", &["@start"]),
        ]
    };
    let mut world = World::new("2026-01-02T02:00:00Z", tasks());
    world.pass(HOUR);
    assert_eq!(world.starts().len(), 2);
    let mut world = world.restart(HOUR, tasks());
    world.pass(HOUR);
    assert_eq!(world.starts(), ["02T04:00:00 start 02T04:00:00 start"]);
}

#[test]
fn overlap_skips_the_slot_or_queues_one_run() {
    let tasks = vec![
        task("skips", &["@hourly"]),
        with(task("queues", &["@hourly"]), |task| task.policy.overlap = Overlap::Queue),
    ];
    let mut world = World::new("2026-01-01T20:30:00Z", tasks);
    world.pass(3 * HOUR);
    assert_eq!(world.starts().len(), 2);
    assert!(matches!(world.waits("queues"), Some(Wait::Behind(_))));
    world.end("skips", Outcome::Success);
    world.end("queues", Outcome::Success);
    assert_eq!(world.starts(), ["01T23:30:00 queues 01T23:00:00 slot"]);
    let expected = [
        "skips skipped (overlap)",
        "skips skipped (overlap)",
        "queues skipped (overlap)",
        "skips success",
        "queues success",
    ];
    let ends: BTreeSet<String> = world.ends().into_iter().collect();
    assert_eq!(ends, expected.iter().map(|text| text.to_string()).collect());
}

#[test]
fn a_due_run_waits_for_its_secrets_without_a_turn() {
    let needy = with(task("needy", &["@hourly"]), |task| task.steps = vec![step(Some(secret(1)))]);
    let mut world = World::with_turns("2026-01-01T20:59:00Z", vec![needy, task("other", &["@hourly"])], 1);
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), ["01T21:00:00 other 01T21:00:00 slot"]);
    assert_eq!(world.waits("needy"), Some(Wait::Secrets));
    world.end("other", Outcome::Success);
    world.event(Event::SecretsAvailable(vec![secret(0)]));
    assert_eq!(world.starts(), [""; 0]);
    world.event(Event::SecretsAvailable(vec![secret(0), secret(1)]));
    assert_eq!(world.starts(), ["01T21:01:00 needy 01T21:00:00 slot"]);
}

#[test]
fn secrets_that_vanish_send_a_run_that_has_not_started_back() {
    let needy = |name: &str| {
        with(task(name, &["@hourly"]), |task| {
            task.steps = vec![step(Some(secret(1)))];
            task.policy.locks = vec![exclusive(0)];
        })
    };
    let mut world = World::new("2026-01-01T20:59:00Z", vec![needy("first"), needy("second")]);
    world.event(Event::SecretsAvailable(vec![secret(1)]));
    world.pass(2 * MINUTE);
    assert_eq!(world.waits("second"), Some(Wait::Lock));
    world.event(Event::SecretsAvailable(Vec::new()));
    world.end("first", Outcome::Success);
    assert_eq!(world.waits("second"), Some(Wait::Secrets));
    world.event(Event::SecretsAvailable(vec![secret(1)]));
    assert_eq!(world.starts().len(), 2);
}

fn conditional(name: &str) -> Task {
    with(task(name, &["@hourly"]), |task| {
        task.policy.only_if = Some(Box::new(Condition { check: step(None), recheck: Duration::from_secs(300) }));
    })
}

#[test]
fn a_condition_is_asked_until_it_lets_the_run_start_or_the_next_slot_comes() {
    let mut world = World::new("2026-01-01T20:59:00Z", vec![conditional("picky")]);
    let task = world.id("picky");
    world.pass(2 * MINUTE);
    assert!(world.has_seen(&Action::AskCondition { task }));
    world.event(Event::ConditionAnswered { task, passed: false });
    world.seen.clear();
    world.pass(299);
    assert!(!world.has_seen(&Action::AskCondition { task }));
    world.pass(1);
    assert!(world.has_seen(&Action::AskCondition { task }));
    world.event(Event::ConditionAnswered { task, passed: false });
    for _ in 0..20 {
        world.pass(300);
        world.event(Event::ConditionAnswered { task, passed: false });
    }
    assert_eq!(world.starts(), [""; 0]);
    world.pass(300);
    world.event(Event::ConditionAnswered { task, passed: true });
    assert_eq!(world.starts(), ["01T22:51:00 picky 01T22:00:00 slot"]);
    assert_eq!(world.ends(), ["picky skipped (condition)"]);
}

#[test]
fn a_condition_is_not_asked_once_the_last_success_is_too_long_ago() {
    let picky = with(conditional("picky"), |task| task.policy.run_anyway_after = Some(Duration::from_secs(90 * 60)));
    let mut world = World::new("2026-01-01T20:59:00Z", vec![picky]);
    let task = world.id("picky");
    world.pass(MINUTE);
    world.event(Event::ConditionAnswered { task, passed: true });
    world.end("picky", Outcome::Success);
    world.starts();
    world.pass(HOUR);
    world.event(Event::ConditionAnswered { task, passed: false });
    world.pass(HOUR);
    assert_eq!(world.starts(), ["01T22:30:00 picky 01T22:00:00 slot"]);
}

#[test]
fn max_wait_ends_a_wait() {
    let picky = with(conditional("picky"), |task| task.policy.max_wait = Some(Duration::from_secs(600)));
    let mut world = World::new("2026-01-01T20:59:00Z", vec![picky]);
    let task = world.id("picky");
    world.pass(MINUTE);
    world.event(Event::ConditionAnswered { task, passed: false });
    world.pass(10 * MINUTE - 1);
    assert_eq!(world.waits("picky"), Some(Wait::Condition));
    world.pass(1);
    assert_eq!(world.waits("picky"), None);
    world.event(Event::ConditionAnswered { task, passed: true });
    assert_eq!(world.ends(), ["picky skipped (condition)"]);
}

#[test]
fn a_waiting_run_survives_a_restart_and_is_not_judged_again() {
    let mut world = World::new("2026-01-01T20:59:00Z", vec![conditional("picky")]);
    world.pass(2 * MINUTE);
    let mut world = world.restart(30 * MINUTE, vec![conditional("picky")]);
    let task = world.id("picky");
    assert_eq!(world.waits("picky"), Some(Wait::Condition));
    world.event(Event::ConditionAnswered { task, passed: true });
    assert_eq!(world.starts(), ["01T21:31:00 picky 01T21:00:00 slot"]);
}

#[test]
fn runs_that_share_a_lock_wait_in_order_and_nobody_starves() {
    let locked = |name: &str, lock| with(task(name, &[]), |task| task.policy.locks = vec![lock]);
    let tasks = vec![
        locked("reader1", shared(0)),
        locked("reader2", shared(0)),
        locked("writer", exclusive(0)),
        locked("reader3", shared(0)),
        locked("writer2", exclusive(0)),
    ];
    let mut world = World::new(EVENING, tasks);
    for name in ["reader1", "reader2", "writer", "reader3", "writer2"] {
        world.manual(name);
    }
    assert_eq!(world.starts().len(), 2);
    world.end("reader1", Outcome::Success);
    assert_eq!(world.starts().len(), 0);
    world.end("reader2", Outcome::Success);
    assert!(world.run("writer").is_some() && world.run("reader3").is_none());
    world.end("writer", Outcome::Success);
    assert!(world.run("reader3").is_some() && world.run("writer2").is_none());
    world.end("reader3", Outcome::Success);
    assert!(world.run("writer2").is_some());
}

#[test]
fn locks_are_taken_all_or_none() {
    let locked = |name: &str, locks| with(task(name, &[]), |task| task.policy.locks = locks);
    let tasks = vec![
        locked("a", vec![exclusive(0)]),
        locked("both", vec![exclusive(0), exclusive(1)]),
        locked("b", vec![exclusive(1)]),
    ];
    let mut world = World::new(EVENING, tasks);
    world.manual("a");
    world.manual("both");
    world.manual("b");
    assert_eq!(world.waits("both"), Some(Wait::Lock));
    assert_eq!(world.waits("b"), Some(Wait::Lock), "it came later");
    let task = world.id("both");
    world.event(Event::StopTask { task });
    assert!(world.run("b").is_some(), "nobody stands before it any more");
}

#[test]
fn file_locks_that_are_busy_are_asked_for_again() {
    let locked = with(task("locked", &[]), |task| task.policy.locks = vec![exclusive(0)]);
    let mut world = World::new(EVENING, vec![locked]);
    world.file_locks_free = false;
    world.manual("locked");
    world.pass(25);
    assert_eq!(world.waits("locked"), Some(Wait::FileLock));
    world.file_locks_free = true;
    world.event(Event::FileLocksFreed);
    assert_eq!(world.starts().len(), 1);
    world.end("locked", Outcome::Success);
    assert!(world.has_seen(&Action::ReleaseFileLocks { task: world.id("locked") }));
}

#[test]
fn file_locks_are_asked_for_only_by_runs_whose_turn_it_is_and_cost_no_turn_while_busy() {
    let lock = |index| move |task: &mut Task| task.policy.locks = vec![exclusive(index)];
    let tasks: Vec<Task> = (0..3).map(|index| with(task(&format!("task{index}"), &[]), lock(index))).collect();
    let mut world = World::with_turns(EVENING, tasks, 1);
    for task in ["task0", "task1", "task2"] {
        assert_eq!(world.manual(task), ManualAnswer::Starting);
    }
    let asked = |world: &World, name: &str| {
        let task = world.id(name);
        world.seen.iter().any(|(_, action)| matches!(action, Action::TakeFileLocks { task: of, .. } if *of == task))
    };
    assert!(asked(&world, "task0") && !asked(&world, "task1"), "{:?}", world.seen);
    world.file_locks_free = false;
    world.end("task0", Outcome::Success);
    assert_eq!(world.waits("task1"), Some(Wait::FileLock));
    assert_eq!(world.waits("task2"), Some(Wait::FileLock), "task1 gave up its turn");
    world.file_locks_free = true;
    world.event(Event::FileLocksFreed);
    assert!(world.run("task1").is_some());
    assert_eq!(world.waits("task2"), Some(Wait::Turn));
}

#[test]
fn more_runs_than_turns_wait_in_order() {
    let tasks: Vec<Task> = (0..5).map(|index| task(&format!("task{index}"), &["@hourly"])).collect();
    let mut world = World::with_turns("2026-01-01T20:59:00Z", tasks, 2);
    world.pass(2 * MINUTE);
    assert_eq!(world.starts().len(), 2);
    world.end("task1", Outcome::Success);
    assert!(world.run("task2").is_some());
    world.end("task0", Outcome::Success);
    assert!(world.run("task3").is_some());
    assert_eq!(world.waits("task4"), Some(Wait::Turn));
}

#[test]
fn whoever_leaves_a_line_lets_the_next_one_pass() {
    let tasks = (0..4).map(|index| task(&format!("task{index}"), &["@hourly"])).collect();
    let mut world = World::with_turns("2026-01-01T20:59:00Z", tasks, 1);
    world.pass(2 * MINUTE);
    for name in ["task1", "task2"] {
        let task = world.id(name);
        world.event(Event::StopTask { task });
    }
    world.end("task0", Outcome::Success);
    assert!(world.run("task3").is_some());
}

fn retrying() -> Task {
    with(task("retrying", &["@hourly"]), |task| {
        task.policy.retry = Retry { times: 3, delay: Duration::from_secs(60) };
        task.policy.locks = vec![exclusive(0)];
    })
}

#[test]
fn a_failure_is_tried_again_with_doubling_delay_keeping_its_locks_but_not_its_turn() {
    let other = with(task("other", &[]), |task| task.policy.locks = vec![exclusive(0)]);
    let mut world = World::with_turns("2026-01-01T20:59:00Z", vec![retrying(), other, task("third", &[])], 1);
    world.pass(MINUTE);
    let run = world.run("retrying");
    world.manual("other");
    world.manual("third");
    world.end("retrying", Outcome::Failure);
    assert!(world.run("third").is_some(), "the turn is free");
    assert_eq!(world.waits("other"), Some(Wait::Lock));
    world.end("third", Outcome::Success);
    world.starts();
    for delay in [60, 120, 240] {
        world.pass(delay - 1);
        assert_eq!(world.starts().len(), 0);
        world.pass(1);
        assert_eq!(world.starts().len(), 1);
        assert_eq!(world.run("retrying"), run);
        world.end("retrying", Outcome::Failure);
    }
    assert!(world.run("other").is_some());
    assert_eq!(world.ends(), ["third success", "retrying failure"]);
}

#[test]
fn a_fatal_failure_and_a_timeout_are_not_tried_again() {
    let mut world = World::new("2026-01-01T20:59:00Z", vec![retrying()]);
    world.pass(MINUTE);
    let run = world.run("retrying").expect("it runs");
    world.event(Event::TryEnded { run, outcome: Outcome::Failure, exit_code: Some(12), fatal: true });
    assert_eq!(world.ends(), ["retrying failure"]);
    world.pass(HOUR);
    world.end("retrying", Outcome::Timeout);
    assert_eq!(world.ends(), ["retrying timeout"]);
}

#[test]
fn a_retry_ends_when_the_next_slot_comes() {
    let slow = with(retrying(), |task| task.policy.retry.delay = Duration::from_secs(2 * HOUR));
    let mut world = World::new("2026-01-01T20:59:00Z", vec![slow]);
    world.pass(MINUTE);
    world.end("retrying", Outcome::Failure);
    world.starts();
    world.pass(HOUR);
    assert_eq!(world.starts(), ["01T22:00:00 retrying 01T22:00:00 slot"]);
    assert_eq!(world.ends(), ["retrying failure"]);
}

#[test]
fn a_failure_is_not_tried_again_while_the_next_run_is_queued_behind_it() {
    let queueing = with(retrying(), |task| task.policy.overlap = Overlap::Queue);
    let mut world = World::new("2026-01-01T20:59:00Z", vec![queueing]);
    world.pass(2 * HOUR);
    world.starts();
    world.end("retrying", Outcome::Failure);
    assert_eq!(world.starts(), ["01T22:59:00 retrying 01T22:00:00 slot"]);
    assert_eq!(world.ends(), ["retrying failure"]);
}

#[test]
fn the_timeout_counts_from_the_first_try_on_the_awake_clock() {
    let short = with(retrying(), |task| task.policy.timeout = Some(Duration::from_secs(150)));
    let mut world = World::new("2026-01-01T20:59:00Z", vec![short]);
    world.pass(MINUTE);
    let started = world.now.awake;
    let deadline = |world: &World| {
        world.seen.iter().rev().find_map(|(_, action)| match action {
            Action::StartTry(start) => start.deadline,
            _ => None,
        })
    };
    assert_eq!(deadline(&world), Some(started + Duration::from_secs(150)));
    world.end("retrying", Outcome::Failure);
    world.pass(60);
    assert_eq!(deadline(&world), Some(started + Duration::from_secs(150)), "all tries are included");
    world.end("retrying", Outcome::Failure);
    world.pass(60);
    world.sleep(20);
    assert_eq!(world.waits("retrying"), Some(Wait::Retry { run: RunId(1), attempt: 3 }));
    world.pass(30);
    assert_eq!(world.ends(), ["retrying timeout"]);
}

#[test]
fn stop_ends_what_waits_at_once() {
    let mut world = World::new("2026-01-01T20:59:00Z", vec![retrying(), conditional("picky")]);
    world.pass(MINUTE);
    world.end("retrying", Outcome::Failure);
    for name in ["retrying", "picky"] {
        let task = world.id(name);
        world.event(Event::StopTask { task });
        assert_eq!(world.waits(name), None);
    }
    assert_eq!(world.ends(), ["retrying stopped", "picky stopped"]);
    let task = world.id("picky");
    world.event(Event::StopTask { task });
    assert!(world.has_seen(&Action::StopAnswer { task, found: false }));
}

#[test]
fn a_retry_ends_at_shutdown_and_is_repeated() {
    let mut world = World::new("2026-01-01T20:59:00Z", vec![retrying()]);
    world.pass(MINUTE);
    world.end("retrying", Outcome::Failure);
    world.starts();
    world.event(Event::Shutdown);
    assert!(world.agenda.is_idle());
    assert_eq!(world.ends(), ["retrying stopped"]);
    let mut world = world.restart(MINUTE, vec![retrying()]);
    world.pass(MINUTE);
    assert_eq!(world.starts(), ["01T21:02:00 retrying 01T21:02:00 repeat"]);
}

#[test]
fn a_manual_run_obeys_overlap_and_hurries_a_waiting_one() {
    let tasks = || {
        vec![
            task("skips", &["@hourly"]),
            with(task("queues", &["@hourly"]), |task| task.policy.overlap = Overlap::Queue),
            conditional("picky"),
            with(task("disabled", &["@hourly"]), |task| task.enabled = false),
        ]
    };
    let mut world = World::new("2026-01-01T20:59:00Z", tasks());
    world.pass(2 * MINUTE);
    let (skips, queues) = (world.run("skips").expect("it runs"), world.run("queues").expect("it runs"));
    assert_eq!(world.manual("skips"), ManualAnswer::Refused(Refusal::Running(skips)));
    assert_eq!(world.manual("queues"), ManualAnswer::Queued { behind: queues });
    assert_eq!(world.manual("queues"), ManualAnswer::Queued { behind: queues });
    assert_eq!(world.manual("disabled"), ManualAnswer::Refused(Refusal::Disabled));
    assert_eq!(world.waits("picky"), Some(Wait::Condition));
    world.starts();
    assert_eq!(world.manual("picky"), ManualAnswer::Starting);
    assert_eq!(world.starts(), ["01T21:01:00 picky 01T21:00:00 slot"]);
    world.end("queues", Outcome::Success);
    assert_eq!(world.starts(), ["01T21:01:00 queues 01T21:01:00 manual"]);
    world.event(Event::Shutdown);
    assert_eq!(world.manual("skips"), ManualAnswer::Refused(Refusal::ShuttingDown));
}

#[test]
fn a_missed_run_gives_way_to_the_next_slot() {
    let late = with(task("late", &["@hourly"]), |task| task.policy.missed_delay = Duration::from_secs(2 * HOUR));
    let mut world = World::new("2026-01-01T20:30:00Z", vec![late]);
    world.sleep(3 * HOUR);
    world.pass(HOUR);
    assert_eq!(world.starts(), ["02T00:00:00 late 02T00:00:00 slot"]);
    assert_eq!(world.ends(), ["late skipped (missed)"]);
}

#[test]
fn a_task_that_was_disabled_or_removed_starts_from_now() {
    let world = World::new(EVENING, vec![nightly()]);
    let world = world.restart(DAY, vec![with(nightly(), |task| task.enabled = false)]);
    let world = world.restart(DAY, vec![nightly()]);
    let world = world.restart(HOUR, vec![]);
    let mut world = world.restart(DAY, vec![nightly()]);
    world.pass(HOUR);
    assert_eq!(world.starts(), [""; 0]);
}

#[test]
fn run_ids_are_never_given_twice() {
    let mut world = World::new(EVENING, vec![task("hourly", &["@hourly"])]);
    let mut ids = BTreeSet::new();
    for _ in 0..10 {
        world.pass(HOUR);
        let run = world.run("hourly").expect("it runs");
        assert!(ids.insert(run));
        world.end("hourly", Outcome::Success);
        world = world.restart(1, vec![task("hourly", &["@hourly"])]);
    }
    assert_eq!(ids.last(), Some(&RunId(10)));
}

#[test]
fn tasks_that_would_wait_for_each_other_conflict() {
    let locked = |name: &str, lock| with(task(name, &[]), |task| task.policy.locks = vec![lock]);
    let tasks = vec![locked("a", exclusive(0)), locked("b", shared(0)), locked("c", shared(0)), locked("d", shared(1))];
    let world = World::new(EVENING, tasks);
    let conflict = |a: &str, b: &str| world.agenda.conflict(world.id(a), world.id(b));
    assert!(conflict("a", "b") && conflict("b", "a") && conflict("a", "a"));
    assert!(!conflict("b", "c") && !conflict("b", "d"));
}

#[test]
fn a_tick_costs_nothing_when_nothing_is_due() {
    let tasks: Vec<Task> = (0..10_000).map(|index| task(&format!("task{index}"), &["30 2 * * *"])).collect();
    let mut world = World::new(EVENING, tasks);
    let actions = world.agenda.handle(world.now, Event::Tick);
    assert_eq!(actions.capacity(), 0);
}

#[test]
fn the_skip_reason_tells_what_was_waited_for() {
    let locked = |name: &str| with(task(name, &["@hourly"]), |task| task.policy.locks = vec![exclusive(0)]);
    let needy = with(task("needy", &["@hourly"]), |task| task.steps = vec![step(Some(secret(1)))]);
    let mut world = World::new("2026-01-01T20:59:00Z", vec![locked("first"), locked("second"), needy]);
    world.pass(2 * HOUR);
    let skipped: BTreeSet<SkipReason> = world
        .seen
        .iter()
        .filter_map(|(_, action)| match action {
            Action::NotRun { outcome, .. } => outcome.reason(),
            _ => None,
        })
        .collect();
    assert_eq!(skipped, BTreeSet::from([SkipReason::Overlap, SkipReason::Secrets, SkipReason::Lock]));
}
