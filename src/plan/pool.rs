//! What many tasks have alike is kept once: most of a large plan is the same again and again.

use std::borrow::Borrow;
use std::path::Path;
use std::sync::Arc;

use super::{ExitCodes, Policy, Step, Value};

/// Each new value is compared with so many of the latest.
const LATEST_MAX: usize = 8;

/// The parts of tasks and steps that are shared.
#[derive(Default)]
pub(super) struct Pools {
    pub arguments: Pool<[String]>,
    pub environments: Pool<[(String, Value)]>,
    pub directories: Pool<Path>,
    pub exit_codes: Pool<ExitCodes>,
    pub hooks: Pool<Step>,
    pub policies: Pool<Policy>,
}

/// The latest values of a kind.
pub(super) struct Pool<T: ?Sized> {
    latest: Vec<Arc<T>>,
    /// The place of the oldest, once there are `LATEST_MAX`.
    oldest: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Pool { latest: Vec::new(), oldest: 0 }
    }
}

impl<T: ?Sized + PartialEq> Pool<T> {
    /// The value itself, or one of the latest that is the same.
    pub fn share<V: Borrow<T> + Into<Arc<T>>>(&mut self, value: V) -> Arc<T> {
        if let Some(known) = self.latest.iter().find(|known| ***known == *value.borrow()) {
            return known.clone();
        }
        let value: Arc<T> = value.into();
        if self.latest.len() < LATEST_MAX {
            self.latest.push(value.clone());
        } else {
            self.latest[self.oldest] = value.clone();
            self.oldest = (self.oldest + 1) % LATEST_MAX;
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_kept_once_and_what_is_not_never_is() {
        let mut pool: Pool<str> = Pool::default();
        let values: Vec<Arc<str>> = (0..100).map(|number| pool.share(format!("value {}", number / 10))).collect();
        for (number, value) in values.iter().enumerate() {
            assert_eq!(**value, format!("value {}", number / 10));
            assert!(Arc::ptr_eq(value, &values[number / 10 * 10]));
        }
        assert!(!Arc::ptr_eq(&values[0], &pool.share("value 0".to_owned())));
    }
}
