//! Hooks run beside the scheduler, those of one task one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::guarded;
use crate::log;
use crate::plan::TaskId;
use crate::runner::{self, Happening, Hook, Setting, StopSwitch};

/// The hooks that are under way.
pub struct HookThreads {
    setting: Arc<Setting>,
    /// Tells all of them to end now.
    pub switch: Arc<StopSwitch>,
    /// The last thread of each task; it waits for the one before it.
    last: BTreeMap<TaskId, JoinHandle<()>>,
}

impl HookThreads {
    pub fn new(setting: Arc<Setting>) -> HookThreads {
        HookThreads { setting, switch: Arc::default(), last: BTreeMap::new() }
    }

    /// Calls those of `hooks` that the task has, after all that it has called before.
    pub fn call(&mut self, mut hooks: Vec<Hook>, happening: Happening) {
        let own = &self.setting.plan.task(happening.task).policy.hooks;
        hooks.retain(|hook| hook.of(own).is_some());
        if hooks.is_empty() {
            return;
        }
        let task = happening.task;
        let before = self.last.remove(&task);
        let (setting, switch) = (self.setting.clone(), self.switch.clone());
        let work = move || {
            if let Some(before) = before {
                let _ = before.join();
            }
            for hook in hooks {
                guarded("hook", || runner::call_hook(&setting, hook, &happening, &switch));
            }
        };
        match thread::Builder::new().name("hook".to_owned()).spawn(work) {
            Ok(thread) => drop(self.last.insert(task, thread)),
            Err(error) => log::error("cannot start a thread", &[("error", &error)]),
        }
    }

    /// Whether any hook is still running.
    pub fn are_done(&self) -> bool {
        self.last.values().all(JoinHandle::is_finished)
    }
}
