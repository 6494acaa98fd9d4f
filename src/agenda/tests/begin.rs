//! What a new daemon makes of what the last one left: missed slots, runs that were cut, tasks that are new or changed.

use super::*;

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
fn slots_missed_while_not_running_run_once_or_are_skipped() {
    let world = World::new(EVENING, vec![nightly()]);
    let mut world = world.restart(2 * DAY, vec![nightly()]);
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), ["03T20:01:00 nightly 03T02:30:00 missed"]);
    world.end("nightly", Outcome::Success);
    let skipping = || with(nightly(), |task| policy(task).missed = Missed::Skip);
    let mut world = world.restart(2 * DAY, vec![skipping()]);
    world.pass(2 * HOUR);
    assert_eq!(world.starts(), [""; 0]);
    assert_eq!(world.ends(), ["nightly skipped (missed)"]);
    assert_eq!(world.ledger.history(Some("nightly")).len(), 2);
}

#[test]
fn a_missed_slot_waits_for_its_delay_after_each_start() {
    let world = World::new(EVENING, vec![nightly()]);
    let mut world = world.restart(2 * DAY, vec![nightly()]);
    world.pass(10);
    assert_eq!(world.waits("nightly"), Some(Wait::Start));
    let mut world = world.restart(HOUR, vec![nightly()]);
    assert_eq!(world.starts(), [""; 0], "the network may not be there yet");
    world.pass(2 * MINUTE);
    assert_eq!(world.starts(), ["03T21:01:10 nightly 03T02:30:00 missed"]);
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
fn a_slot_that_is_due_ahead_is_not_noticed_again_by_the_next_daemon() {
    let condition = || Box::new(Condition { check: step(None), recheck: Duration::from_secs(300) });
    let tasks = || vec![with(task("beat", &["@every 1s"]), |task| policy(task).only_if = Some(condition()))];
    let world = World::new(EVENING, tasks());
    assert_eq!(world.waits("beat"), Some(Wait::Condition), "one second ahead");
    let mut world = world.restart(0, tasks());
    assert_eq!(world.waits("beat"), Some(Wait::Condition));
    assert_eq!(world.ends(), [""; 0], "it is the same slot");
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
            with(task("skipping", &["30 2 * * *"]), |task| policy(task).missed = Missed::Skip),
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
