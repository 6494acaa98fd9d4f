//! Daemons that are killed, or stopped, at any moment while tasks run each second, and what their ledger says
//! afterwards.
//!
//! Each run marks its beginning in a file of its own accord, so the ledger has a witness. The
//! moments are random but the same each time; `BACKUPNIZZA_STORM` is the number of rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::time::Duration;

use crate::harness::{Daemon, Sandbox, session_members};

/// The number of rounds, and where all is to be tested.
const ROUNDS: u64 = 20;
const ROUNDS_OF_CI: u64 = 200;

/// So many take longer than a minute.
const ROUNDS_OF_A_MINUTE: u64 = 100;

/// The longest that a daemon lives in the storm, in milliseconds.
const LIFE_MAX: u64 = 2_500;

const CONFIG: &str = r#"
max_concurrent_runs: 4
defaults:
  missed_delay: 0s
  stop_grace: 1s
tasks:
  - {name: quick, schedule: "@every 1s", command: [sh, -c, 'echo "$BACKUPNIZZA_TASK $BACKUPNIZZA_RUN $$" >> ~/marks']}
  - name: queue
    schedule: "@every 1s"
    overlap: queue
    lock: one
    command: [sh, -c, 'echo "$BACKUPNIZZA_TASK $BACKUPNIZZA_RUN $$" >> ~/marks; sleep 0.6']
  - name: hooked
    schedule: "@every 1s"
    lock: {name: one, shared: true}
    command: [sh, -c, 'echo "$BACKUPNIZZA_TASK $BACKUPNIZZA_RUN $$" >> ~/marks; sleep 0.1']
    hooks: {end: [sh, -c, 'echo "hook 0 $$" >> ~/marks; sleep 0.5']}
  - name: endless
    schedule: "@every 5s"
    missed_delay: 1s
    command: [sh, -c, 'echo "$BACKUPNIZZA_TASK $BACKUPNIZZA_RUN $$" >> ~/marks; await never']
  - name: failing
    schedule: "@every 3s"
    retry: {times: 2, delay: 1s}
    command: [sh, -c, 'echo "$BACKUPNIZZA_TASK $BACKUPNIZZA_RUN $$" >> ~/marks; exit 7']
  - name: stubborn
    schedule: "@every 4s"
    command: [sh, -c, 'trap "" INT; echo "$BACKUPNIZZA_TASK $BACKUPNIZZA_RUN $$" >> ~/marks; await never']
  - {name: clock, schedule: "* * * * *", command: [sh, -c, 'echo "$BACKUPNIZZA_TASK $BACKUPNIZZA_RUN $$" >> ~/marks']}
"#;

const TASKS: [&str; 7] = ["quick", "queue", "hooked", "endless", "failing", "stubborn", "clock"];

/// What all ledgers of the storm said of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    task: String,
    slot: String,
    cause: String,
}

#[derive(Default)]
struct History {
    started: BTreeMap<u64, Run>,
    ended: BTreeMap<u64, String>,
    /// Task and slot.
    not_run: BTreeSet<(String, String)>,
    running: BTreeSet<u64>,
}

impl History {
    /// Takes in what a ledger says, which must agree with all that was said before.
    fn read(&mut self, ledger: &str) {
        self.running.clear();
        for line in ledger.lines() {
            let words: Vec<&str> = line.split(' ').skip(2).collect();
            match words[..] {
                ["started" | "running", run, task, slot, cause, _] => {
                    self.start(run, task, slot, cause);
                    self.running.insert(number(run));
                }
                ["ended", run, outcome, ..] => {
                    self.end(run, outcome);
                    assert!(self.running.remove(&number(run)), "{line}: ends what does not run");
                }
                // Its start was taken back before it happened: the run is due again, under a new number.
                ["withdrawn", run] => {
                    self.started.remove(&number(run));
                    self.running.remove(&number(run));
                }
                ["past", "-", task, slot, "slot" | "missed", ..] | ["not-run", task, slot, "slot" | "missed", ..] => {
                    self.not_run.insert((task.to_owned(), slot.to_owned()));
                }
                ["past", run, task, slot, cause, _, _, outcome, ..] if run != "-" => {
                    self.start(run, task, slot, cause);
                    self.end(run, outcome);
                }
                _ => {}
            }
        }
    }

    fn start(&mut self, run: &str, task: &str, slot: &str, cause: &str) {
        let said = Run { task: task.to_owned(), slot: slot.to_owned(), cause: cause.to_owned() };
        let before = self.started.entry(number(run)).or_insert_with(|| said.clone());
        assert_eq!(*before, said, "run {run} was another");
    }

    fn end(&mut self, run: &str, outcome: &str) {
        assert!(self.started.contains_key(&number(run)), "run {run} never started");
        let before = self.ended.entry(number(run)).or_insert_with(|| outcome.to_owned());
        assert_eq!(*before, outcome, "run {run} ended otherwise");
    }

    fn runs_of<'a>(&'a self, task: &'a str) -> impl Iterator<Item = (u64, &'a Run)> {
        self.started.iter().filter(move |(_, run)| run.task == task).map(|(id, run)| (*id, run))
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

/// A number below `below`, from `state` (Knuth's MMIX).
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

fn rounds() -> u64 {
    let default = if std::env::var_os("CI").is_some() { ROUNDS_OF_CI } else { ROUNDS };
    std::env::var("BACKUPNIZZA_STORM").map_or(default, |rounds| number(&rounds))
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_runs_twice() {
    let history = storm(rounds(), |daemon| {
        daemon.signal("KILL");
        daemon.wait();
    });
    judge_cuts(&history, "crashed");
}

#[test]
fn stopped_at_any_moment_all_is_recorded_and_goes_on_from_there() {
    // Each takes the grace of those that do not want to end.
    let history = storm(rounds() / 2, |daemon| {
        let was_ready = !daemon.lines(&["ready", "tasks="]).is_empty();
        daemon.signal("TERM");
        let status = daemon.wait();
        assert!(status.success() || !was_ready, "{status}: {}", daemon.log());
    });
    let crashed = history.ended.values().filter(|outcome| *outcome == "crashed").count();
    assert_eq!(crashed, 0, "what runs is stopped, and that is recorded");
    judge_cuts(&history, "stopped");
}

/// Lets daemons live, one after another, for a random time each, until `end` ends them: so many, and until a whole
/// minute has come. Then one more, which goes on from there until all has run again.
fn storm(rounds: u64, end: impl Fn(&mut Daemon)) -> History {
    let sandbox = Sandbox::new();
    sandbox.config(CONFIG);
    let mut history = History::default();
    let mut seed = 7;
    let mut round = 0;
    while round < rounds || (round < rounds + ROUNDS_OF_A_MINUTE && history.runs_of("clock").next().is_none()) {
        let mut daemon = Daemon::start(sandbox.backupnizza(["backup.yaml"]));
        // Some moments come before the daemon is ready, most while tasks run.
        let life = Duration::from_millis(random(&mut seed, LIFE_MAX));
        assert!(daemon.lives_for(life), "round {round}: {}", daemon.log());
        end(&mut daemon);
        for word in ["damaged", "defect", "cannot"] {
            assert_eq!(daemon.lines(&[word]), [""; 0], "round {round}: {}", daemon.log());
        }
        history.read(&ledger(&sandbox));
        round += 1;
    }
    let mut last = sandbox.daemon_again();
    for task in TASKS.iter().filter(|task| **task != "clock") {
        last.wait_for(&["run started", &format!("task={task} ")]);
    }
    last.stop();
    history.read(&ledger(&sandbox));
    judge(&history, &marks(&sandbox));
    history
}

fn ledger(sandbox: &Sandbox) -> String {
    let bytes = fs::read(sandbox.state_dir().join("ledger")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // What was torn by the kill is not said.
    text.rsplit_once('\n').map_or(String::new(), |(whole, _)| whole.to_owned())
}

/// Task, run and session of each mark.
fn marks(sandbox: &Sandbox) -> Vec<(String, u64, u32)> {
    let text = sandbox.read("marks");
    let mark = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [task, run, pid] => (task.to_owned(), number(run), number(pid) as u32),
        _ => panic!("{line} is no mark"),
    };
    text.lines().map(mark).collect()
}

fn judge(history: &History, marks: &[(String, u64, u32)]) {
    assert_eq!(history.running, BTreeSet::new(), "all have ended");
    let unended: Vec<_> = history.started.keys().filter(|run| !history.ended.contains_key(run)).collect();
    assert!(unended.is_empty(), "runs without an end: {unended:?}");

    let mut seen = BTreeSet::new();
    for (task, run, session) in marks {
        assert_eq!(session_members(*session), [], "a session of {task} survived");
        if task != "hook" {
            let is_first = seen.insert(*run);
            assert!(is_first || task == "failing", "run {run} began twice");
            assert_eq!(history.started.get(run).map(|run| &run.task), Some(task), "run {run} is lost");
        }
    }
    let unmarked = |(run, outcome): &(&u64, &String)| *outcome == "success" && !seen.contains(run);
    let unmarked: Vec<_> = history.ended.iter().filter(unmarked).collect();
    assert!(unmarked.is_empty(), "runs that succeeded without having begun: {unmarked:?}");

    for task in TASKS {
        judge_slots(history, task);
    }
}

/// No slot started twice, none both started and passed over, all in their order.
fn judge_slots(history: &History, task: &str) {
    let mut last = String::new();
    for (run, Run { slot, cause, .. }) in history.runs_of(task) {
        if cause == "slot" || cause == "missed" {
            assert!(comparable(slot) > last, "run {run} of {task} has slot {slot}, not after {last}");
            last = comparable(slot);
            assert!(!history.not_run.contains(&(task.to_owned(), slot.clone())), "slot {slot} of {task} ran");
        }
    }
}

/// RFC 3339 in UTC with as many decimals as are needed, made to sort as text.
fn comparable(slot: &str) -> String {
    let (whole, decimals) = slot.trim_end_matches('Z').split_once('.').unwrap_or((slot.trim_end_matches('Z'), ""));
    format!("{whole}.{decimals:0<9}")
}

/// Each run that was cut, which has this outcome, is followed by another: its repetition, which is none of a
/// repetition, or one for a slot that came meanwhile.
fn judge_cuts(history: &History, outcome: &str) {
    let cut = |run: u64| history.ended.get(&run).is_some_and(|ended| ended == outcome);
    let (mut all_cut, mut repeated) = (0, 0);
    for task in TASKS {
        let mut before: Option<(u64, &Run)> = None;
        for (run, what) in history.runs_of(task) {
            if what.cause == "repeat" {
                repeated += 1;
                let (last, of_what) = before.unwrap_or_else(|| panic!("run {run} repeats nothing"));
                assert!(cut(last), "run {run} repeats run {last}, which was not cut");
                assert_ne!(of_what.cause, "repeat", "run {run} is the second repetition");
            }
            all_cut += usize::from(cut(run));
            before = Some((run, what));
        }
        let (last, _) = before.unwrap_or_else(|| panic!("{task} never ran"));
        let goes_on = task == "clock" || outcome == "stopped" || !cut(last);
        assert!(goes_on, "run {last} of {task} was cut and nothing followed");
    }
    let _ =
        writeln!(std::io::stderr(), "{} runs, {all_cut} {outcome}, {repeated} of them repeated", history.started.len());
    assert!(all_cut > 3 && repeated > 0, "no storm at all");
}
