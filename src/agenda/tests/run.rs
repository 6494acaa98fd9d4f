//! Tries, retries and the end of a run.

use super::*;

#[test]
fn a_failure_is_tried_again_with_doubling_delay_keeping_its_locks_but_not_its_turn() {
    let other = with(task("other", &[]), |task| policy(task).locks = vec![exclusive(0)]);
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
    let slow = with(retrying(), |task| policy(task).retry.delay = Duration::from_secs(2 * HOUR));
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
    let queueing = with(retrying(), |task| policy(task).overlap = Overlap::Queue);
    let mut world = World::new("2026-01-01T20:59:00Z", vec![queueing]);
    world.pass(2 * HOUR);
    world.starts();
    world.end("retrying", Outcome::Failure);
    assert_eq!(world.starts(), ["01T22:59:00 retrying 01T22:00:00 slot"]);
    assert_eq!(world.ends(), ["retrying failure"]);
}

#[test]
fn the_timeout_counts_from_the_first_try_on_the_awake_clock() {
    let short = with(retrying(), |task| policy(task).timeout = Some(Duration::from_secs(150)));
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
