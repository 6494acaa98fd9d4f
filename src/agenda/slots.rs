//! The slots of one task: which comes next, which have come, and whether the latest was noticed on time.
//!
//! Crontab slots are points of the wall clock, those of `@every` points of the boot clock.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::{NANOS_MAX, Now, Zone, nanos};
use crate::ledger::{FUTURE_MAX, TaskState};
use crate::schedule::{Calendars, Schedule};

/// A point of the boot clock, in nanoseconds; before the boot it is negative.
pub type Boot = i64;

pub const SECOND: Boot = 1_000_000_000;

/// How far ahead of its start a run is recorded, so that the sync does not delay it.
pub const AHEAD: Boot = SECOND;

/// A slot that is noticed at most this late is on time; every other one was missed.
const ON_TIME: Boot = 120 * SECOND;

/// From `from` to `to`, in nanoseconds, or the most that can be counted (over 70 years).
pub fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Boot {
    let delta = to - from;
    let most = NANOS_MAX;
    delta.num_nanoseconds().unwrap_or(if delta > TimeDelta::zero() { most } else { -most }).clamp(-most, most)
}

/// `time` moved by `nanos`.
pub fn shift(time: DateTime<Utc>, nanos: Boot) -> DateTime<Utc> {
    time.checked_add_signed(TimeDelta::nanoseconds(nanos)).unwrap_or(time)
}

/// The start of a task after its slot: up to `jitter` later, always the same for a task on a machine.
pub fn offset(jitter: Duration, machine_id: &str, task: &str) -> Boot {
    if jitter.is_zero() {
        return 0;
    }
    let milliseconds = (u128::from(fingerprint([machine_id, task])) * jitter.as_millis()) >> 64;
    Boot::try_from(milliseconds).unwrap_or(0).saturating_mul(1_000_000)
}

/// A hash of `texts` that is the same in every version: FNV-1a, mixed so that its high bits are good too.
pub fn fingerprint<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for text in texts {
        for byte in text.as_ref().bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Slots that have come: the latest of them stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noticed {
    pub slot: DateTime<Utc>,
    pub on_time: bool,
    /// Slot plus jitter if that is still ahead, else now.
    pub start_at: Boot,
}

#[derive(Debug)]
pub struct Slots {
    /// From a slot to its start, by `jitter`.
    pub offset: Boot,
    /// No slot up to this one starts again.
    last: DateTime<Utc>,
    /// The last slot before the clock was corrected.
    before_correction: Option<DateTime<Utc>>,
    /// The next crontab slot.
    next: Option<DateTime<Utc>>,
    grid: Option<Grid>,
}

/// The grid of `@every`.
#[derive(Debug)]
struct Grid {
    every: Boot,
    /// The slot of the last run, if it had started without waiting.
    anchor: Boot,
    /// No point up to this one is noticed again.
    handled: Boot,
}

impl Grid {
    /// The first point not yet handled. Half a period of tolerance, as `handled` may have come by way of the wall
    /// clock.
    fn next(&self) -> Boot {
        let behind = (self.handled - self.anchor + self.every / 2).max(0);
        self.anchor + (behind / self.every + 1) * self.every
    }

    /// The last point up to `horizon`, if it is not yet handled.
    fn latest(&self, horizon: Boot) -> Option<Boot> {
        let point = self.anchor + (horizon - self.anchor).div_euclid(self.every) * self.every;
        (point >= self.next()).then_some(point)
    }
}

impl Slots {
    /// Slots that count from `now`.
    pub fn from_now(schedules: &[Schedule], zone: Zone, offset: Boot, now: Now, calendars: &mut Calendars) -> Self {
        let mut slots = Slots { offset, last: now.wall, before_correction: None, next: None, grid: None };
        slots.grid = every_of(schedules).map(|every| Grid { every, anchor: nanos(now.boot), handled: nanos(now.boot) });
        slots.find_next(schedules, zone, calendars);
        slots
    }

    /// Slots that go on from what the ledger says. `@every` goes on by the recorded wall time, which is not
    /// believed where it is in the future, save for what was noticed ahead.
    pub fn from_state(
        schedules: &[Schedule],
        zone: Zone,
        offset: Boot,
        state: &TaskState,
        now: Now,
        calendars: &mut Calendars,
    ) -> Self {
        let boot_of = |wall: DateTime<Utc>| nanos(now.boot) - between(wall, now.wall).max(-AHEAD);
        let mut slots =
            Slots { offset, last: state.last_slot, before_correction: state.before_correction, next: None, grid: None };
        slots.grid = every_of(schedules).map(|every| {
            let anchor = match state.last_start {
                Some(start) if start > state.from => boot_of(start) - offset,
                _ => boot_of(state.from),
            };
            Grid { every, anchor, handled: boot_of(state.last_slot).max(anchor) }
        });
        slots.find_next(schedules, zone, calendars);
        slots
    }

    /// The next start of a crontab slot, and of a slot of `@every`.
    pub fn next_starts(&self) -> (Option<DateTime<Utc>>, Option<Boot>) {
        let crontab = self.next.map(|slot| shift(slot, self.offset));
        (crontab, self.grid.as_ref().map(|grid| grid.next() + self.offset))
    }

    /// Takes the slots whose start has come or comes within `ahead`; they count as handled from now on.
    pub fn notice(&mut self, schedules: &[Schedule], zone: Zone, now: Now, ahead: Boot) -> Option<Noticed> {
        let crontab = self.notice_crontab(schedules, zone, now, ahead).map(|slot| (between(now.wall, slot), slot));
        let grid = self.notice_grid(now, ahead).map(|point| (point, shift(now.wall, point)));
        let (point, slot) = crontab.max(grid)?;
        let start = point + self.offset;
        Some(Noticed { slot, on_time: start >= -ON_TIME, start_at: nanos(now.boot) + start.max(0) })
    }

    /// The latest crontab slot that has come.
    fn notice_crontab(&mut self, schedules: &[Schedule], zone: Zone, now: Now, ahead: Boot) -> Option<DateTime<Utc>> {
        let horizon = shift(now.wall, ahead - self.offset);
        let first = self.next.filter(|next| *next <= horizon)?;
        let mut calendars = Calendars::default();
        let (latest, next) = latest_slot(first, horizon, |after| next_slot(schedules, zone, after, &mut calendars));
        self.last = latest;
        self.next = next;
        self.before_correction = self.before_correction.filter(|mark| *mark > latest);
        Some(latest)
    }

    /// The latest point of the grid that has come, relative to now.
    fn notice_grid(&mut self, now: Now, ahead: Boot) -> Option<Boot> {
        let horizon = nanos(now.boot) + ahead - self.offset;
        let grid = self.grid.as_mut()?;
        let latest = grid.latest(horizon)?;
        grid.handled = latest;
        Some(latest - nanos(now.boot))
    }

    /// A run started: the grid of `@every` begins anew, so that starts are a period apart.
    pub fn started(&mut self, at: Boot) {
        if let Some(grid) = &mut self.grid {
            grid.anchor = at - self.offset;
            grid.handled = grid.anchor;
        }
    }

    /// Goes on from now if the last slot is so far in the future that the clock must have been corrected.
    pub fn correct(&mut self, schedules: &[Schedule], zone: Zone, now: Now) -> bool {
        if self.last <= now.wall + FUTURE_MAX {
            return false;
        }
        self.before_correction = self.before_correction.max(Some(self.last));
        self.last = now.wall;
        self.find_next(schedules, zone, &mut Calendars::default());
        true
    }

    /// After a jump forward: if it leads past the last slot before a correction, that correction was the error (a
    /// machine without a battery for its clock), and what was handled then is handled.
    pub fn return_from_correction(&mut self, schedules: &[Schedule], zone: Zone, now: Now) {
        if let Some(mark) = self.before_correction.filter(|mark| *mark <= now.wall) {
            self.before_correction = None;
            self.last = self.last.max(mark);
            self.find_next(schedules, zone, &mut Calendars::default());
        }
    }

    fn find_next(&mut self, schedules: &[Schedule], zone: Zone, calendars: &mut Calendars) {
        self.next = next_slot(schedules, zone, self.last, calendars);
    }
}

fn next_slot(
    schedules: &[Schedule],
    zone: Zone,
    after: DateTime<Utc>,
    calendars: &mut Calendars,
) -> Option<DateTime<Utc>> {
    let next = |schedule: &Schedule| match schedule {
        Schedule::Crontab(crontab) => calendars.next_after(crontab, after, zone),
        Schedule::Every(_) | Schedule::Start | Schedule::Reboot => None,
    };
    schedules.iter().filter_map(next).min()
}

/// The shortest `@every`: each run begins the grid anew, so a longer one never comes.
fn every_of(schedules: &[Schedule]) -> Option<Boot> {
    let every = schedules.iter().filter_map(|schedule| match schedule {
        Schedule::Every(every) => Some(nanos(*every).max(SECOND)),
        _ => None,
    });
    every.min()
}

/// The last slot up to `until`, from the slot `first` on, and the one that follows it. By bisection: there may be
/// years of slots between the two.
fn latest_slot(
    first: DateTime<Utc>,
    until: DateTime<Utc>,
    mut next: impl FnMut(DateTime<Utc>) -> Option<DateTime<Utc>>,
) -> (DateTime<Utc>, Option<DateTime<Utc>>) {
    let comes = |slot: &DateTime<Utc>| *slot <= until;
    // No slot lies between `end` and `until`.
    let (mut latest, mut end) = (first, until);
    loop {
        let following = next(latest);
        let Some(slot) = following.filter(comes) else {
            return (latest, following);
        };
        let middle = slot + (end - slot) / 2;
        match next(middle).filter(comes) {
            Some(later) => latest = later,
            None => (latest, end) = (slot, middle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn now(wall: &str, boot_seconds: u64) -> Now {
        let boot = Duration::from_secs(boot_seconds);
        Now { wall: at(wall), boot, awake: boot }
    }

    fn parse(text: &str) -> Schedule {
        Schedule::parse(text).expect("a schedule")
    }

    #[test]
    fn the_latest_slot_is_found_over_years() {
        for text in ["* * * * *", "30 2 * * *", "*/7 3 1 * *", "0 0 29 2 *"] {
            let schedules = [parse(text), parse("@start")];
            let mut calendars = Calendars::default();
            let mut next = |after| next_slot(&schedules, Zone::Utc, after, &mut calendars);
            let (begin, until) = (at("2019-12-31T23:00:00Z"), at("2026-05-06T07:08:09Z"));
            let (latest, following) = latest_slot(next(begin).expect("a slot"), until, &mut next);
            assert!(latest <= until && following > Some(until), "{text}: {latest}");
            assert_eq!(following, next(latest), "{text}");
        }
    }

    #[test]
    fn jitter_is_the_same_each_time_and_differs_between_tasks_and_machines() {
        let hour = Duration::from_secs(3_600);
        let mut seen = std::collections::BTreeSet::new();
        for task in 0..100 {
            let of = offset(hour, "machine", &format!("task{task}"));
            assert_eq!(of, offset(hour, "machine", &format!("task{task}")));
            assert!((0..nanos(hour)).contains(&of));
            seen.insert(of / (360 * SECOND));
        }
        assert_eq!(seen.len(), 10, "a hundred tasks spread over the hour");
        assert_ne!(offset(hour, "machine", "task"), offset(hour, "other", "task"));
        assert_eq!(offset(Duration::ZERO, "machine", "task"), 0);
    }

    #[test]
    fn every_keeps_its_grid_and_skips_what_is_handled() {
        let schedules = [parse("@every 10m")];
        let begin = now("2026-01-01T00:00:00Z", 1_000);
        let mut slots = Slots::from_now(&schedules, Zone::Utc, 0, begin, &mut Calendars::default());
        assert_eq!(slots.next_starts().1, Some(1_600 * SECOND));
        assert_eq!(slots.notice(&schedules, Zone::Utc, now("2026-01-01T00:09:58Z", 1_598), AHEAD), None);
        let noticed = slots.notice(&schedules, Zone::Utc, now("2026-01-01T00:35:00Z", 3_100), AHEAD).expect("a slot");
        assert_eq!((noticed.slot, noticed.on_time), (at("2026-01-01T00:30:00Z"), false));
        assert_eq!(slots.next_starts().1, Some(3_400 * SECOND));
        slots.started(3_150 * SECOND);
        assert_eq!(slots.next_starts().1, Some(3_750 * SECOND));
    }

    #[test]
    fn every_does_not_come_again_because_the_wall_clock_was_adjusted_a_little() {
        let schedules = [parse("@every 10m")];
        let mut slots =
            Slots::from_now(&schedules, Zone::Utc, 0, now("2026-01-01T00:00:00Z", 1_000), &mut Calendars::default());
        if let Some(grid) = &mut slots.grid {
            grid.handled = grid.anchor + 599 * SECOND;
        }
        assert_eq!(slots.next_starts().1, Some(2_200 * SECOND));
    }
}
