//! When which task wants to be looked at again, on one clock: at most one alarm a task, the earliest first.
//!
//! There is one of these for the wall clock, which may jump, and one for the boot clock, which
//! may not; neither ever has to be translated into the other.

use std::collections::BTreeSet;

use crate::plan::TaskId;

#[derive(Debug)]
pub struct Alarms<T> {
    by_time: BTreeSet<(T, TaskId)>,
    of_task: Vec<Option<T>>,
}

impl<T: Ord + Copy> Alarms<T> {
    pub fn new(tasks: usize) -> Self {
        Alarms { by_time: BTreeSet::new(), of_task: vec![None; tasks] }
    }

    /// Sets the alarm of `task`, or removes it.
    pub fn set(&mut self, task: TaskId, time: Option<T>) {
        let old = &mut self.of_task[task.index()];
        if *old == time {
            return;
        }
        if let Some(old) = *old {
            self.by_time.remove(&(old, task));
        }
        *old = time;
        if let Some(time) = time {
            self.by_time.insert((time, task));
        }
    }

    /// The earliest alarm.
    pub fn first(&self) -> Option<T> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// Takes out the earliest alarm if its time has come.
    pub fn pop(&mut self, now: T) -> Option<TaskId> {
        let (time, task) = *self.by_time.first()?;
        if time > now {
            return None;
        }
        self.set(task, None);
        Some(task)
    }
}
