//! Lines: for locks, for file locks, for a turn.

use super::*;

#[test]
fn runs_that_share_a_lock_wait_in_order_and_nobody_starves() {
    let locked = |name: &str, lock| with(task(name, &[]), |task| policy(task).locks = vec![lock]);
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
    let locked = |name: &str, locks| with(task(name, &[]), |task| policy(task).locks = locks);
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
    let locked = with(task("locked", &[]), |task| policy(task).locks = vec![exclusive(0)]);
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
    let lock = |index| move |task: &mut Task| policy(task).locks = vec![exclusive(index)];
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

#[test]
fn tasks_that_would_wait_for_each_other_conflict() {
    let locked = |name: &str, lock| with(task(name, &[]), |task| policy(task).locks = vec![lock]);
    let tasks = vec![locked("a", exclusive(0)), locked("b", shared(0)), locked("c", shared(0)), locked("d", shared(1))];
    let world = World::new(EVENING, tasks);
    let conflict = |a: &str, b: &str| world.agenda.conflict(world.id(a), world.id(b));
    assert!(conflict("a", "b") && conflict("b", "a") && conflict("a", "a"));
    assert!(!conflict("b", "c") && !conflict("b", "d"));
}

#[test]
fn what_a_start_takes_is_made_ready_before_the_slot_also_for_those_that_wait_for_their_turn() {
    let tasks = ["a", "b", "c"].map(|name| task(name, &["@hourly"])).into();
    let mut world = World::with_turns(EVENING, tasks, 1);
    world.manual("b");
    assert_eq!(world.made_ready, 0, "it starts at once");
    world.end("b", Outcome::Success);
    world.pass(HOUR - 2);
    assert_eq!(world.made_ready, 0);
    world.pass(1);
    assert_eq!((world.made_ready, world.starts().len()), (3, 1), "the one by hand alone has started");
    for name in ["a", "b", "c"] {
        world.pass(1);
        world.end(name, Outcome::Success);
    }
    assert_eq!(world.made_ready, 3, "once for each");
}
