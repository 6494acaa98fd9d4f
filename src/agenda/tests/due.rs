//! What a due run waits for, how it starts, and why it comes to nothing.

use super::*;

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
fn overlap_skips_the_slot_or_queues_one_run() {
    let tasks = vec![
        task("skips", &["@hourly"]),
        with(task("queues", &["@hourly"]), |task| policy(task).overlap = Overlap::Queue),
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
            policy(task).locks = vec![exclusive(0)];
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
    let picky = with(conditional("picky"), |task| policy(task).run_anyway_after = Some(Duration::from_secs(90 * 60)));
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
    let picky = with(conditional("picky"), |task| policy(task).max_wait = Some(Duration::from_secs(600)));
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
fn a_missed_run_gives_way_to_the_next_slot() {
    let late = with(task("late", &["@hourly"]), |task| policy(task).missed_delay = Duration::from_secs(2 * HOUR));
    let mut world = World::new("2026-01-01T20:30:00Z", vec![late]);
    world.sleep(3 * HOUR);
    world.pass(HOUR);
    assert_eq!(world.starts(), ["02T00:00:00 late 02T00:00:00 slot"]);
    assert_eq!(world.ends(), ["late skipped (missed)"]);
}

#[test]
fn the_skip_reason_tells_what_was_waited_for() {
    let locked = |name: &str| with(task(name, &["@hourly"]), |task| policy(task).locks = vec![exclusive(0)]);
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
