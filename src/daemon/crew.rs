//! The threads that carry out runs.
//!
//! The start and the end of a thread hold up all others of the process, so those for runs that come in a moment are
//! started before, and one that has done its work stays for more until the daemon rests.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{locked, spawn};

type Work = Box<dyn FnOnce() + Send>;

/// The most threads that are started before there is work for them.
const READY_MAX: usize = 256;

#[derive(Default)]
pub struct Crew {
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    /// Threads that wait for work.
    idle: usize,
    dismissed: bool,
}

impl Crew {
    /// Has threads started for so many works to come.
    pub fn make_ready(self: &Arc<Self>, count: usize) {
        let mut state = locked(&self.state);
        state.dismissed = false;
        let lacking = (state.work.len() + count.min(READY_MAX)).saturating_sub(state.idle);
        drop(state);
        for _ in 0..lacking {
            let crew = self.clone();
            if !spawn("run", move || crew.serve()) {
                return;
            }
        }
    }

    /// Carries out `work` at once. False: there is no thread to be had, which is logged.
    pub fn carry_out(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> bool {
        let mut state = locked(&self.state);
        state.dismissed = false;
        if state.idle > state.work.len() {
            state.work.push_back(Box::new(work));
            self.called.notify_one();
            return true;
        }
        drop(state);
        let crew = self.clone();
        spawn("run", move || {
            work();
            crew.serve();
        })
    }

    /// Those that have no work end.
    pub fn dismiss(&self) {
        locked(&self.state).dismissed = true;
        self.called.notify_all();
    }

    /// The life of a thread.
    fn serve(&self) {
        while let Some(work) = self.next() {
            work();
        }
    }

    /// Waits for work. `None`: there will be none.
    fn next(&self) -> Option<Work> {
        let mut state = locked(&self.state);
        state.idle += 1;
        let lacks_work = |state: &mut State| state.work.is_empty() && !state.dismissed;
        let mut state = self.called.wait_while(state, lacks_work).unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state.work.pop_front()
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
            crew.make_ready(ready);
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
