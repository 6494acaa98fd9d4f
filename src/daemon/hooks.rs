//! Hooks run beside the scheduler, those of one task one after the other, some of different tasks at once.
//!
//! However many runs end together, and however slow their hooks are, only a few threads and
//! processes serve them, so that hooks never take from runs what these need.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::guarded;
use crate::log;
use crate::plan::TaskId;
use crate::runner::{self, Happening, Hook, Setting, StopSwitch};

/// As many as wait for a slow network at once without being a load.
const AT_ONCE: usize = 16;

/// The hooks that are under way or have to wait.
pub struct Hooks {
    setting: Arc<Setting>,
    /// Tells all of them to end now.
    pub switch: Arc<StopSwitch>,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    calls: VecDeque<Call>,
    /// Whose hooks are running.
    busy: BTreeSet<TaskId>,
    threads: usize,
}

/// Hooks to be called for one event, in this order.
struct Call {
    hooks: Vec<Hook>,
    happening: Happening,
}

impl Hooks {
    pub fn new(setting: Arc<Setting>) -> Hooks {
        Hooks { setting, switch: Arc::default(), line: Arc::default() }
    }

    /// Calls those of `hooks` that the task has, after all that it has called before.
    pub fn call(&mut self, mut hooks: Vec<Hook>, happening: Happening) {
        let own = &self.setting.plan.task(happening.task).policy.hooks;
        hooks.retain(|hook| hook.of(own).is_some());
        if hooks.is_empty() {
            return;
        }
        let mut waiting = self.line.waiting();
        waiting.calls.push_back(Call { hooks, happening });
        if waiting.threads >= AT_ONCE {
            return;
        }
        let (setting, switch, line) = (self.setting.clone(), self.switch.clone(), self.line.clone());
        match thread::Builder::new().name("hook".to_owned()).spawn(move || line.serve(&setting, &switch)) {
            Ok(_) => waiting.threads += 1,
            Err(error) => log::error("cannot start a thread", &[("error", &error)]),
        }
    }

    /// Whether all hooks have been called.
    pub fn are_done(&self) -> bool {
        self.line.waiting().threads == 0
    }
}

impl Line {
    /// Makes calls until there is none left to make.
    fn serve(&self, setting: &Setting, switch: &StopSwitch) {
        while let Some(Call { hooks, happening }) = self.next() {
            for hook in hooks {
                guarded("hook", || runner::call_hook(setting, hook, &happening, switch));
            }
            self.waiting().busy.remove(&happening.task);
        }
    }

    /// The first call whose task has no other under way; without one the thread is no longer needed: whoever makes
    /// that other looks for the next himself.
    fn next(&self) -> Option<Call> {
        let mut waiting = self.waiting();
        let first = waiting.calls.iter().position(|call| !waiting.busy.contains(&call.happening.task));
        let call = first.and_then(|index| waiting.calls.remove(index));
        match &call {
            Some(call) => drop(waiting.busy.insert(call.happening.task)),
            None => waiting.threads -= 1,
        }
        call
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
