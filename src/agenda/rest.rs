//! What a daemon at rest has to know: until when nothing is to be done, and how the clocks read at the last look.
//!
//! Most looks at the clocks bring nothing, so all of it is plain numbers, and the agenda itself is left alone.

use std::time::Duration;

use super::slots::Boot;
use super::{JUMP, SLEEP};
use crate::clock::Ticks;

/// A time without events, and what would end it.
#[derive(Debug)]
pub struct Rest {
    last: Ticks,
    /// When something is to be done, on each of these clocks.
    wall_alarm: Option<Boot>,
    boot_alarm: Option<Boot>,
}

impl Rest {
    pub(super) fn new(last: Ticks, wall_alarm: Option<Boot>, boot_alarm: Option<Boot>) -> Rest {
        Rest { last, wall_alarm, boot_alarm }
    }

    /// A look at the clocks: how long the rest goes on if they are left alone, or `None` if a `Tick` would bring
    /// something now.
    // Inlined, so that it lies beside the wait: each other place in the program is a few pages more in memory.
    #[inline(always)]
    pub fn look(&mut self, now: Ticks) -> Option<Duration> {
        let (slept, jumped) = departure(self.last, now);
        let left = |alarm: Option<Boot>, now: Boot| alarm.map_or(Boot::MAX, |alarm| alarm.saturating_sub(now));
        let left = left(self.wall_alarm, now.wall).min(left(self.boot_alarm, now.boot));
        if left <= 0 || slept >= SLEEP || jumped.unsigned_abs() >= JUMP.unsigned_abs() {
            return None;
        }
        self.last = now;
        Some(Duration::from_nanos(left as u64))
    }

    /// How the clocks read at the last look that found nothing.
    pub(super) fn last(&self) -> Ticks {
        self.last
    }
}

/// How long the machine slept between two looks at the clocks, and how far the wall clock was set.
#[inline(always)]
pub fn departure(last: Ticks, now: Ticks) -> (Boot, Boot) {
    let passed = now.boot - last.boot;
    let slept = passed - (now.awake - last.awake);
    (slept, now.wall.saturating_sub(last.wall).saturating_sub(passed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::slots::SECOND;

    const START: Ticks = Ticks { wall: 1_000 * SECOND, boot: 100 * SECOND, awake: 90 * SECOND };

    /// So many seconds later, during which the machine slept and the wall clock was set.
    fn later(from: Ticks, passed: Boot, slept: Boot, set: Boot) -> Ticks {
        Ticks {
            wall: from.wall + (passed + set) * SECOND,
            boot: from.boot + passed * SECOND,
            awake: from.awake + (passed - slept) * SECOND,
        }
    }

    #[test]
    fn it_goes_on_until_the_earlier_alarm_of_the_two_clocks() {
        let mut rest = Rest::new(START, Some(1_060 * SECOND), Some(170 * SECOND));
        assert_eq!(rest.look(later(START, 20, 0, 0)), Some(Duration::from_secs(40)));
        assert_eq!(rest.look(later(START, 59, 0, 0)), Some(Duration::from_secs(1)));
        assert_eq!(rest.look(later(START, 60, 0, 0)), None);
        let mut rest = Rest::new(START, Some(1_080 * SECOND), Some(170 * SECOND));
        assert_eq!(rest.look(later(START, 30, 0, 0)), Some(Duration::from_secs(40)));
        assert_eq!(rest.look(later(START, 70, 0, 0)), None);
        assert_eq!(Rest::new(START, None, None).look(START), Some(Duration::from_nanos(Boot::MAX as u64)));
    }

    #[test]
    fn a_wall_clock_that_runs_fast_brings_its_alarm_forward() {
        let mut rest = Rest::new(START, Some(1_060 * SECOND), None);
        assert_eq!(rest.look(later(START, 30, 0, 29)), Some(Duration::from_secs(1)));
        assert_eq!(rest.look(later(START, 31, 0, 29)), None);
    }

    #[test]
    fn a_sleep_and_a_clock_that_was_set_end_it() {
        for (slept, set, goes_on) in [(4, 0, true), (5, 0, false), (0, 59, true), (0, 60, false), (0, -60, false)] {
            let mut rest = Rest::new(START, None, None);
            assert_eq!(rest.look(later(START, 30, slept, set)).is_some(), goes_on, "slept {slept}, set by {set}");
        }
    }

    #[test]
    fn small_departures_do_not_add_up() {
        let mut rest = Rest::new(START, None, None);
        let mut now = START;
        for _ in 0..100 {
            now = later(now, 30, 1, 2);
            assert!(rest.look(now).is_some());
        }
        assert_eq!(rest.last(), now);
    }
}
