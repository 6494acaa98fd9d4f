//! The next slot of a crontab after a time, and the longest time between two.
//!
//! The cron crate is the calendar: it is asked for dates only, with a schedule made of checked sets, on local time
//! handed over as if it were UTC; it never sees a zone, where it would iterate for ever in a repeated hour. Its
//! schedules are trees of numbers, many times the size of a `Crontab`, and take a few microseconds to build: so none
//! is kept beyond a search, many searches at once share them (`Calendars`), none is needed where every date counts,
//! and the time of day is found in the sets.
//!
//! Between local time and UTC only the offset at an instant is ever asked for. The rules of daylight saving
//! follow from two pure functions over such offsets, `Calendar::next_fixed` and `Calendar::next_by_clock`.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::field::{DAY_OF_MONTH, MONTH, WEEKDAY_OF_CRATE};
use super::{Crontab, Dates, Schedule};
use crate::clock::Zone;

/// Seconds of an hour without a change of offset, and of a day.
pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 24 * HOUR;

/// How far around an instant a change of offset can matter, in seconds: the largest ever skipped a whole day.
/// Two changes within twice this time do not exist, the closest in the zone database are a week apart.
const REACH: i64 = 25 * HOUR;

/// Where the crate's calendar ends, 2101-01-01, in seconds since 1970; nothing is searched beyond.
const CALENDAR_END: i64 = 4_133_980_800;

/// How many days are looked at for the longest gap: from one leap year to the next, or where only days of the
/// week count, two weeks.
const GAP_WINDOW_DAYS: i64 = 4 * 366;
const GAP_WINDOW_WEEKDAYS: i64 = 14;

/// Answers for many schedules: those that have the same dates share the work.
#[derive(Default)]
pub struct Calendars {
    searches: HashMap<Dates, Rc<DateSearch>>,
    /// The longest run of days without a date, seen from a day.
    runs: HashMap<(Dates, i64), Option<i64>>,
}

impl Calendars {
    /// The first slot strictly after `after`; `None` where there is none before the calendar ends, in 2101.
    pub fn next_after(&mut self, crontab: &Crontab, after: DateTime<Utc>, zone: Zone) -> Option<DateTime<Utc>> {
        let offset = |instant: i64| {
            DateTime::from_timestamp(instant, 0).map_or(0, |time| i64::from(zone.offset_at(time).local_minus_utc()))
        };
        DateTime::from_timestamp(self.next_by(crontab, after.timestamp(), offset)?, 0)
    }

    /// `next_after` on seconds since 1970, by the offset from UTC at each instant.
    pub fn next_by(&mut self, crontab: &Crontab, after: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
        if after >= CALENDAR_END {
            return None;
        }
        let after = after.max(-DAY);
        let calendar = self.of(crontab);
        if crontab.by_clock { calendar.next_by_clock(after, offset) } else { calendar.next_fixed(after, offset) }
    }

    /// The longest time between two slots that follow each other; `None` where slots do not come by the clock, or on
    /// no two dates before the calendar ends. On the wall clock, of slots in the coming four years (or of the next two
    /// where they are rarer), without daylight saving, whose hour is no matter for what this is used for.
    pub fn longest_gap(&mut self, schedule: &Schedule, from: DateTime<Utc>, zone: Zone) -> Option<Duration> {
        let crontab = match schedule {
            Schedule::Crontab(crontab) => crontab,
            Schedule::Every(duration) => return Some(*duration),
            Schedule::Start | Schedule::Reboot => return None,
        };
        let today = (from.timestamp() + i64::from(zone.offset_at(from).local_minus_utc())).div_euclid(DAY);
        let (within, span) = crontab.gaps_of_a_day();
        let across = self.longest_run(crontab, today)? * DAY - span;
        u64::try_from(within.max(across)).ok().map(Duration::from_secs)
    }

    fn longest_run(&mut self, crontab: &Crontab, from: i64) -> Option<i64> {
        let key = (crontab.dates, from);
        if let Some(known) = self.runs.get(&key) {
            return *known;
        }
        let run = self.of(crontab).longest_run(from);
        self.runs.insert(key, run);
        run
    }

    pub fn of<'c>(&mut self, crontab: &'c Crontab) -> Calendar<'c> {
        let dates = crontab.dates;
        Calendar { crontab, search: self.searches.entry(dates).or_insert_with(|| DateSearch::of(dates).into()).clone() }
    }
}

/// A search for dates, by the crate's schedules of them: none where every date matches, one, or two of which the
/// earlier date counts.
struct DateSearch {
    schedules: Vec<Option<cron::Schedule>>,
    /// The last answer: from the first of these dates on, the second is the next one.
    last: Cell<(i64, i64)>,
}

impl DateSearch {
    fn of(dates: Dates) -> DateSearch {
        let days = || DAY_OF_MONTH.write(dates.days);
        let months = || MONTH.write(dates.months);
        let weekdays = || WEEKDAY_OF_CRATE.write(dates.weekdays_of_crate());
        let schedules = if dates.are_all() {
            Vec::new()
        } else if dates.either_day {
            vec![midnights(&days(), &months(), "*"), midnights("*", &months(), &weekdays())]
        } else {
            vec![midnights(&days(), &months(), &weekdays())]
        };
        DateSearch { schedules, last: Cell::new((0, -1)) }
    }

    /// The first matching date at or after `date`.
    fn date_from(&self, date: i64) -> Option<i64> {
        if self.schedules.is_empty() {
            return Some(date);
        }
        let (asked, found) = self.last.get();
        if (asked..=found).contains(&date) {
            return Some(found);
        }
        let eve = DateTime::from_timestamp(date * DAY - 1, 0)?;
        let found = self.schedules.iter().flatten().filter_map(|schedule| schedule.after(&eve).next()).min()?;
        let found = found.timestamp().div_euclid(DAY);
        self.last.set((date, found));
        Some(found)
    }
}

/// The crate's schedule of the midnights of these dates. It takes all numbers within their bounds; should it
/// ever refuse some, there are no such dates.
fn midnights(days: &str, months: &str, weekdays: &str) -> Option<cron::Schedule> {
    cron::Schedule::from_str(&format!("0 0 0 {days} {months} {weekdays}")).ok()
}

/// A crontab and the search for its dates.
///
/// Local times are seconds since 1970 as if in UTC, dates are days since then.
pub struct Calendar<'c> {
    crontab: &'c Crontab,
    search: Rc<DateSearch>,
}

impl Calendar<'_> {
    pub fn date_from(&self, date: i64) -> Option<i64> {
        self.search.date_from(date)
    }

    /// The first matching local time at or after `local`.
    pub fn time_from(&self, local: i64) -> Option<i64> {
        let today = local.div_euclid(DAY);
        let mut date = self.date_from(today)?;
        if date == today {
            if let Some(time) = self.crontab.time_from(local - today * DAY) {
                return Some(today * DAY + time);
            }
            date = self.date_from(today + 1)?;
        }
        Some(date * DAY + self.crontab.time_from(0)?)
    }

    /// A job at fixed times runs for each of them at the first instant that shows this time or a later one.
    ///
    /// That is the first minute after a gap, the first pass of a repeated hour, and once for all that one gap
    /// swallowed. A time has had its instant if any clock up to now has shown it.
    fn next_fixed(&self, after: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
        let mut shown = after + offset(after);
        if let Some(change) = change_between(after - REACH, after, &offset) {
            shown = shown.max(change - 1 + offset(change - 1));
        }
        Some(first_showing(self.time_from(shown + 1)?, offset))
    }

    /// A job that follows the clock runs at each real minute that shows one of its times.
    ///
    /// Each turn looks at a stretch without a change of offset; what lies far ahead is approached to within
    /// reach at once, since until then no clock can show it.
    fn next_by_clock(&self, after: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
        let mut from = after + 1;
        loop {
            let shift = offset(from);
            let slot = self.time_from(from + shift)? - shift;
            from = match change_between(from, from + REACH, &offset) {
                Some(change) if slot >= change => change,
                None if slot > from + REACH => slot - REACH,
                _ => return Some(slot),
            };
        }
    }

    /// The most days from one matching date to the next, of those in the window.
    fn longest_run(&self, from: i64) -> Option<i64> {
        let window = if self.crontab.dates.any_day_of_year() { GAP_WINDOW_WEEKDAYS } else { GAP_WINDOW_DAYS };
        let mut date = self.date_from(from)?;
        let mut longest = None;
        while let Some(next) = self.date_from(date + 1) {
            longest = longest.max(Some(next - date));
            date = next;
            if date > from + window {
                break;
            }
        }
        longest
    }
}

/// The first instant whose clock shows `local` or a later time.
fn first_showing(local: i64, offset: impl Fn(i64) -> i64) -> i64 {
    let guess = local - offset(local);
    let Some(change) = change_between(guess - REACH, guess + REACH, &offset) else {
        return guess;
    };
    let early = local - offset(change - 1);
    if early < change { early } else { change.max(local - offset(change)) }
}

/// The first instant with another offset than `from`, if `to` has another.
fn change_between(from: i64, to: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
    let before = offset(from);
    if offset(to) == before {
        return None;
    }
    let (mut same, mut other) = (from, to);
    while other - same > 1 {
        let middle = same + (other - same) / 2;
        if offset(middle) == before {
            same = middle;
        } else {
            other = middle;
        }
    }
    Some(other)
}
