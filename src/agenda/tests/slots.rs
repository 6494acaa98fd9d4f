//! Which slots come, when they are noticed, and what the clocks may do meanwhile.

use super::*;

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
    let jittery = || with(nightly(), |task| policy(task).jitter = Duration::from_secs(HOUR));
    let offset = crate::agenda::slots::offset(Duration::from_secs(HOUR), "machine", "nightly");
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
fn a_tick_costs_nothing_when_nothing_is_due() {
    let tasks: Vec<Task> = (0..10_000).map(|index| task(&format!("task{index}"), &["30 2 * * *"])).collect();
    let mut world = World::new(EVENING, tasks);
    let actions = world.agenda.handle(world.now, Event::Tick);
    assert_eq!(actions.capacity(), 0);
}
