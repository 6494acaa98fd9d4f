//! The threads that carry out runs.
//!
//! The start and the end of a thread hold up all others of the process, so those for runs that come in a moment are
//! started before, and one that has done its work stays for more until the daemon rests.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{locked, spawn};

type Work = Box<dyn FnOnce() + Send>;

/// The most threads that stand ready.
const READY_MAX: usize = 256;

/// A thread that has had no work for so long ends, however busy the daemon is.
const IDLE_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Crew {
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    /// How many threads are to be ready.
    wanted: usize,
    /// Those that have been started to be so, and are on their way.
    coming: usize,
    /// Those that wait for work.
    idle: usize,
    dismissed: bool,
}

impl Crew {
    /// Says that there will be so many works more in a moment; `fill` is to be called then.
    pub fn want(&self, more: usize) {
        let mut state = locked(&self.state);
        state.wanted = (state.wanted + more).min(READY_MAX);
        state.dismissed = false;
    }

    /// Starts the threads that are wanted.
    pub fn fill(self: &Arc<Self>) {
        while locked(&self.state).lets_one_come() {
            let crew = self.clone();
            if !spawn("run", move || crew.serve(true)) {
                locked(&self.state).coming -= 1;
                return;
            }
        }
    }

    /// Carries out `work` at once. False: there is no thread to be had, which is logged.
    pub fn carry_out(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> bool {
        let mut state = locked(&self.state);
        state.wanted = state.wanted.saturating_sub(1);
        if state.idle > state.work.len() {
            state.work.push_back(Box::new(work));
            // Who is called takes the lock.
            drop(state);
            self.called.notify_one();
            return true;
        }
        drop(state);
        let crew = self.clone();
        spawn("run", move || {
            work();
            crew.serve(false);
        })
    }

    /// Those that have no work end, and until the next `want` whoever has done his. True: there were some.
    pub fn dismiss(&self) -> bool {
        let mut state = locked(&self.state);
        state.wanted = 0;
        state.dismissed = true;
        let were_some = state.idle + state.coming > 0;
        drop(state);
        self.called.notify_all();
        were_some
    }

    /// The life of a thread.
    fn serve(&self, mut is_new: bool) {
        while let Some(work) = self.next(mem::take(&mut is_new)) {
            work();
        }
    }

    /// Waits for work. `None`: there will be none.
    fn next(&self, is_new: bool) -> Option<Work> {
        let mut state = locked(&self.state);
        state.coming -= usize::from(is_new);
        state.idle += 1;
        let lacks_work = |state: &mut State| state.work.is_empty() && !state.dismissed;
        let waited = self.called.wait_timeout_while(state, IDLE_MAX, lacks_work);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state.work.pop_front()
    }
}

impl State {
    /// Counts one more as coming, if one is lacking.
    fn lets_one_come(&mut self) -> bool {
        let lacks_one = self.idle + self.coming < self.wanted + self.work.len();
        self.coming += usize::from(lacks_one);
        lacks_one
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn all_work_is_carried_out_at_the_same_time_however_many_threads_were_ready() {
        for ready in [0, 3, 10] {
            let crew = Arc::new(Crew::default());
            crew.want(ready);
            crew.fill();
            let all = Arc::new(Barrier::new(8));
            let (done, ends) = mpsc::channel();
            for _ in 0..7 {
                let (all, done) = (all.clone(), done.clone());
                assert!(crew.carry_out(move || {
                    all.wait();
                    done.send(()).expect("somebody waits");
                }));
            }
            all.wait();
            assert_eq!(ends.iter().take(7).count(), 7);
            crew.dismiss();
        }
    }

    #[test]
    fn none_is_started_that_is_wanted_no_longer() {
        let crew = Arc::new(Crew::default());
        crew.want(2);
        for _ in 0..2 {
            assert!(crew.carry_out(|| {}));
        }
        crew.fill();
        crew.want(5);
        crew.dismiss();
        crew.fill();
        let state = locked(&crew.state);
        assert_eq!((state.wanted, state.coming), (0, 0));
    }

    #[test]
    fn a_thread_that_has_done_its_work_stays_until_it_is_dismissed() {
        let crew = Arc::new(Crew::default());
        let (tell, told) = mpsc::channel();
        let name_thread = |crew: &Arc<Crew>| {
            let tell = tell.clone();
            assert!(crew.carry_out(move || tell.send(std::thread::current().id()).expect("somebody waits")));
            told.recv().expect("the thread")
        };
        let first = name_thread(&crew);
        while locked(&crew.state).idle == 0 {
            std::thread::yield_now();
        }
        assert_eq!(name_thread(&crew), first);
        while locked(&crew.state).idle == 0 {
            std::thread::yield_now();
        }
        crew.dismiss();
        while Arc::strong_count(&crew) > 1 {
            std::thread::yield_now();
        }
        assert_ne!(name_thread(&crew), first);
    }
}
