//! What people ask for: a run, a stop.

use super::*;

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
fn a_manual_run_obeys_overlap_and_hurries_a_waiting_one() {
    let tasks = || {
        vec![
            task("skips", &["@hourly"]),
            with(task("queues", &["@hourly"]), |task| policy(task).overlap = Overlap::Queue),
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
