//! Stopping: the switch by which a run is told to, and the signals by which a session is.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::signal::{self, SIGCONT, SIGKILL};

use crate::plan::{Signal, StopPolicy};
use crate::sys::{self, Process};

/// How often a session that was told to end is looked at again.
pub const STOP_PAUSE: Duration = Duration::from_millis(50);

/// How many listings of all processes are made to find two alike, while others come and go.
const LISTINGS_MAX: usize = 10;

/// A process that does not die of KILL within this hangs in the kernel; it is left alone then,
/// unless it is the command itself.
pub const KILL_TIME: Duration = Duration::from_secs(10);

/// What a run is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// End by `stop_signal` and grace.
    Stop,
    /// End now.
    Kill,
    /// Pass a signal on and leave the rest to the command: a person's Ctrl-C.
    Forward(i32),
}

/// Orders on their way to the one who watches a command: each a byte in a pipe, so that they can be waited for
/// together with the command's output and its end.
pub struct Orders {
    reader: PipeReader,
    writer: Arc<PipeWriter>,
}

impl Orders {
    pub fn new() -> io::Result<Orders> {
        let (reader, writer) = io::pipe()?;
        Ok(Orders { reader, writer: Arc::new(writer) })
    }

    /// The next one; waits for it.
    pub fn take(&self) -> io::Result<Order> {
        let mut byte = [0];
        (&self.reader).read_exact(&mut byte)?;
        Ok(Order::from_byte(byte[0]))
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Order {
    /// No signal has such a number.
    const STOP: u8 = 254;
    const KILL: u8 = 255;

    fn to_byte(self) -> u8 {
        match self {
            Order::Stop => Order::STOP,
            Order::Kill => Order::KILL,
            Order::Forward(signal) => signal as u8,
        }
    }

    fn from_byte(byte: u8) -> Order {
        match byte {
            Order::STOP => Order::Stop,
            Order::KILL => Order::Kill,
            signal => Order::Forward(i32::from(signal)),
        }
    }
}

/// Told once, heard by whatever the run is doing then and later.
#[derive(Debug, Default)]
pub struct StopSwitch {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    killed: bool,
    listeners: Vec<(u64, Arc<PipeWriter>)>,
    next_listener: u64,
}

/// That somebody listens to a switch, until this is dropped.
pub struct Listening<'a> {
    switch: &'a StopSwitch,
    number: u64,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.switch.state().listeners.retain(|(number, _)| *number != self.number);
    }
}

impl StopSwitch {
    pub fn tell(&self, order: Order) {
        let mut state = self.state();
        match order {
            Order::Stop => state.stopped = true,
            Order::Kill => (state.stopped, state.killed) = (true, true),
            Order::Forward(_) => {}
        }
        for (_, listener) in &state.listeners {
            send(listener, order);
        }
        drop(state);
        self.told.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    pub fn is_killed(&self) -> bool {
        self.state().killed
    }

    /// Sends to `orders` all that are to come, and the last one that still holds.
    pub fn listen(&self, orders: &Orders) -> Listening<'_> {
        let listener = orders.writer.clone();
        let mut state = self.state();
        let standing = if state.killed { Some(Order::Kill) } else { state.stopped.then_some(Order::Stop) };
        if let Some(order) = standing {
            send(&listener, order);
        }
        let number = state.next_listener;
        state.next_listener += 1;
        state.listeners.push((number, listener));
        Listening { switch: self, number }
    }

    /// Waits for `time`; false if a stop cut the wait short.
    pub fn pause(&self, time: Duration) -> bool {
        let waited = self.told.wait_timeout_while(self.state(), time, |state| !state.stopped);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pipe holds thousands of orders, and whoever listens reads them as they come.
fn send(mut listener: &PipeWriter, order: Order) {
    let _ = listener.write(&[order.to_byte()]);
}

/// The switches of one run: `finally` steps hear only that they are to end now.
#[derive(Debug, Default)]
pub struct RunSwitch {
    pub steps: StopSwitch,
    pub finally: StopSwitch,
}

impl RunSwitch {
    pub fn tell(&self, order: Order) {
        self.steps.tell(order);
        if order == Order::Kill {
            self.finally.tell(order);
        }
    }
}

/// Programs that end their helpers (ssh, rclone) themselves, in order; a helper that goes first
/// leaves them without their repository, and so with a stale lock.
const MANAGES_ITS_HELPERS: &[&str] = &["restic", "borg"];

/// A program that must not be asked to end while it is younger than this. restic before 0.17 knows nothing yet of the
/// lock that it has just written: it waits 200 ms to see whether another came first, and if it is asked to end then,
/// it leaves the lock behind. Nothing shows from outside when that is, but it is soon after it has begun: once it has
/// opened the repository, which takes half a second, or some seconds where that is far away.
const NOT_ASKED_WHEN_YOUNG: (&str, Duration) = ("restic", Duration::from_secs(10));

/// The living processes of `session`.
pub fn members(session: i32) -> io::Result<Vec<Process>> {
    let pids = sys::pids()?.into_iter().filter(|&pid| may_be_in(session, pid));
    Ok(pids.filter_map(sys::process).filter(|process| process.session == session && !process.zombie).collect())
}

/// Asked before a process is looked at, which costs a hundred times as much: there may be thousands.
fn may_be_in(session: i32, pid: i32) -> bool {
    sys::session_of(pid).is_none_or(|its| its == session)
}

/// Whether nobody of `session` lives any more. A listing is no snapshot: one that was listed may have begun another
/// and ended before it was looked at. So a listing counts only if it shows nobody who was not dead in the one before.
pub fn is_empty(session: i32) -> io::Result<bool> {
    let mut dead_before = BTreeSet::new();
    for _ in 0..LISTINGS_MAX {
        let mut dead = BTreeSet::new();
        for pid in sys::pids()?.into_iter().filter(|&pid| may_be_in(session, pid)) {
            match sys::process(pid) {
                Some(process) if process.session != session => {}
                Some(process) if !process.zombie => return Ok(false),
                Some(_) | None => drop(dead.insert(pid)),
            }
        }
        if dead.is_subset(&dead_before) {
            return Ok(true);
        }
        dead_before = dead;
    }
    Ok(false)
}

/// How a session is brought to its end: each process is asked once, and made to after the grace.
pub struct Ending {
    session: i32,
    signal: Signal,
    asked: Vec<Process>,
    /// From when on the young are asked too: at half of the grace, so that they have the other half.
    asks_all_from: Instant,
    kills_from: Instant,
}

impl Ending {
    pub fn new(session: i32, policy: StopPolicy) -> Ending {
        let now = Instant::now();
        let (asks_all_from, kills_from) = (now + policy.grace / 2, now + policy.grace);
        Ending { session, signal: policy.signal, asked: Vec::new(), asks_all_from, kills_from }
    }

    /// No grace, or no more of it.
    pub fn kill_from(&mut self, now: Instant) {
        self.kills_from = self.kills_from.min(now);
    }

    /// Whether even KILL has not helped within `KILL_TIME`.
    pub fn has_failed(&self, now: Instant) -> bool {
        now >= self.kills_from + KILL_TIME
    }

    /// To be called again after `STOP_PAUSE` until the session is empty: it may grow meanwhile.
    pub fn press(&mut self, now: Instant) -> io::Result<()> {
        if now >= self.kills_from {
            return kill(self.session);
        }
        let members = members(self.session)?;
        let mut to_ask = without_helpers(&members);
        to_ask.retain(|process| !self.asked.iter().any(|before| is_same(before, process)));
        to_ask.retain(|process| now >= self.asks_all_from || !is_too_young(process, sys::age(process)));
        self.asked.extend(to_ask.iter().map(|&process| process.clone()));
        signal_each(self.session, &to_ask, &[number(self.signal), SIGCONT])
    }
}

fn is_too_young(process: &Process, age: Duration) -> bool {
    let (program, grown_up) = NOT_ASKED_WHEN_YOUNG;
    (process.name == program || process.called == program) && age < grown_up
}

fn is_same(one: &Process, other: &Process) -> bool {
    (one.pid, one.started) == (other.pid, other.started)
}

/// Passes on a signal as it came from a person's terminal.
pub fn forward(session: i32, signal: i32) -> io::Result<()> {
    signal_each(session, &without_helpers(&members(session)?), &[signal])
}

/// Ends every process of `session`.
pub fn kill(session: i32) -> io::Result<()> {
    let members = members(session)?;
    signal_each(session, &members.iter().collect::<Vec<_>>(), &[SIGKILL])
}

/// Ends a session that a dead daemon left behind, by the same rules; returns when it is empty, when
/// even KILL did not help within `KILL_TIME`, or when it is to be given up.
pub fn end_session(session: i32, policy: StopPolicy, give_up: &AtomicBool) -> io::Result<()> {
    let mut ending = Ending::new(session, policy);
    while !is_empty(session)? && !ending.has_failed(Instant::now()) && !give_up.load(Ordering::Relaxed) {
        ending.press(Instant::now())?;
        thread::sleep(STOP_PAUSE);
    }
    Ok(())
}

fn signal_each(session: i32, processes: &[&Process], signals: &[i32]) -> io::Result<()> {
    let mut first_error = None;
    for process in processes {
        for &signal in signals {
            if let Err(error) = sys::send_signal_in_session(process, session, signal) {
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

fn without_helpers(members: &[Process]) -> Vec<&Process> {
    members.iter().filter(|process| !is_helper(process, members)).collect()
}

/// Whether an ancestor within the session manages its helpers. The walk is bounded, as the
/// listing is no snapshot and pids may be used again while it is made.
fn is_helper(process: &Process, members: &[Process]) -> bool {
    let manages = |name: &String| MANAGES_ITS_HELPERS.contains(&name.as_str());
    let mut parent = process.parent;
    for _ in 0..members.len() {
        let Some(ancestor) = members.iter().find(|member| member.pid == parent) else {
            return false;
        };
        if manages(&ancestor.name) || manages(&ancestor.called) {
            return true;
        }
        parent = ancestor.parent;
    }
    false
}

fn number(signal: Signal) -> i32 {
    match signal {
        Signal::Hup => signal::SIGHUP,
        Signal::Int => signal::SIGINT,
        Signal::Quit => signal::SIGQUIT,
        Signal::Term => signal::SIGTERM,
        Signal::Usr1 => signal::SIGUSR1,
        Signal::Usr2 => signal::SIGUSR2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, name: &str) -> Process {
        let called = String::new();
        Process { pid, parent, session: 10, started: 0, name: name.to_owned(), called, zombie: false }
    }

    #[test]
    fn the_helpers_of_restic_are_left_to_restic() {
        let members = [
            process(10, 1, "sh"),
            process(11, 10, "restic"),
            process(12, 11, "rclone"),
            process(13, 12, "ssh"),
            process(14, 10, "sleep"),
        ];
        let asked: Vec<i32> = without_helpers(&members).iter().map(|process| process.pid).collect();
        assert_eq!(asked, [10, 11, 14]);
    }

    #[test]
    fn restic_is_not_asked_before_it_can_know_its_lock() {
        let seconds = Duration::from_secs;
        let restic = process(10, 1, "restic");
        assert!(is_too_young(&restic, seconds(0)) && is_too_young(&restic, seconds(9)));
        assert!(!is_too_young(&restic, seconds(10)) && !is_too_young(&process(10, 1, "rclone"), seconds(0)));
    }

    #[test]
    fn a_file_of_another_name_is_restic_where_it_was_called_so() {
        let leader = Process { called: "restic".to_owned(), ..process(10, 1, "restic_0.18") };
        let members = [leader, process(11, 10, "rclone")];
        assert_eq!(without_helpers(&members), [&members[0]]);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let members = [process(10, 11, "a"), process(11, 10, "b")];
        assert_eq!(without_helpers(&members).len(), 2);
    }

    #[test]
    fn an_order_given_early_is_heard_by_those_who_come_late() {
        let switch = StopSwitch::default();
        switch.tell(Order::Stop);
        let orders = Orders::new().expect("a pipe");
        let _listening = switch.listen(&orders);
        switch.tell(Order::Forward(2));
        switch.tell(Order::Kill);
        let heard: Vec<Order> = (0..3).map(|_| orders.take().expect("an order")).collect();
        assert_eq!(heard, [Order::Stop, Order::Forward(2), Order::Kill]);
    }

    #[test]
    fn a_pause_ends_with_its_time_or_with_a_stop() {
        let switch = StopSwitch::default();
        assert!(switch.pause(Duration::from_millis(1)));
        switch.tell(Order::Forward(2));
        assert!(switch.pause(Duration::from_millis(1)), "a signal that is passed on stops nothing");
        thread::scope(|scope| {
            let paused = scope.spawn(|| switch.pause(Duration::MAX));
            switch.tell(Order::Stop);
            assert!(!paused.join().expect("no panic"));
        });
    }
}
