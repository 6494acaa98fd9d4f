//! Schedules: crontab text to a checked `Schedule`, and the next slot after a time.
//!
//! The five fields are read here, by the rules of Debian's cron, into sets of numbers, because the cron crate
//! reads another dialect. The crate is the calendar: it is asked for dates only, with a schedule made of these
//! sets, on local time handed over as if it were UTC; it never sees a zone, where it would iterate for ever in
//! a repeated hour. Its schedules are trees of numbers, many times the size of a `Crontab`, and take a few
//! microseconds to build: so none is kept beyond a search, many searches at once share them (`Calendars`), none is
//! needed where every date counts, and the time of day is found in the sets.
//!
//! Between local time and UTC only the offset at an instant is ever asked for. The rules of daylight saving
//! follow from two pure functions over such offsets, `Calendar::next_fixed` and `Calendar::next_by_clock`.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::clock::{Zone, format_duration, parse_duration};

/// Seconds of an hour without a change of offset, and of a day.
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// How far around an instant a change of offset can matter, in seconds: the largest ever skipped a whole day.
/// Two changes within twice this time do not exist, the closest in the zone database are a week apart.
const REACH: i64 = 25 * HOUR;

/// Where the crate's calendar ends, 2101-01-01, in seconds since 1970; nothing is searched beyond.
const CALENDAR_END: i64 = 4_133_980_800;

/// How many days are looked at for the longest gap: from one leap year to the next, or where only days of the
/// week count, two weeks.
const GAP_WINDOW_DAYS: i64 = 4 * 366;
const GAP_WINDOW_WEEKDAYS: i64 = 14;

/// When a task runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Crontab(Crontab),
    /// `@every`, at least a second: a grid of elapsed time.
    Every(Duration),
    /// `@start`: once each time the daemon starts.
    Start,
    /// `@reboot`: once each time the machine does.
    Reboot,
}

impl Schedule {
    /// Reads five crontab fields or a nickname such as `@daily`.
    ///
    /// # Errors
    /// Names the field and what is wrong with it; of what was written only a number out of range is repeated.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["@every", duration] => parse_every(duration),
            ["@every", ..] => Err("@every takes one duration, such as @every 90m".to_string()),
            ["@start"] => Ok(Schedule::Start),
            ["@reboot"] => Ok(Schedule::Reboot),
            [nickname] if nickname.starts_with('@') => match nickname_fields(nickname) {
                Some(fields) => Crontab::from_fields(fields, nickname).map(Schedule::Crontab),
                None => Err(format!("unknown nickname, expected one of {NICKNAMES}")),
            },
            [first, ..] if first.starts_with('@') => {
                Err(format!("expected a nickname alone ({NICKNAMES}) or five fields"))
            }
            [first, ..] if names_zone(first) => {
                Err(format!("a schedule cannot choose its time zone, expected {FIVE_FIELDS}"))
            }
            [minute, hour, day, month, weekday] => {
                Crontab::from_fields([minute, hour, day, month, weekday], &words.join(" ")).map(Schedule::Crontab)
            }
            [word] if nickname_fields(&format!("@{word}")).is_some() => {
                Err(format!("expected {FIVE_FIELDS}, or `@{word}`"))
            }
            [_, _, _, _, _, _] => Err(format!("expected {FIVE_FIELDS} and none for seconds, found 6")),
            _ => Err(format!("expected {FIVE_FIELDS}, found {}", words.len())),
        }
    }

    /// The schedule as it was written, with single spaces.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Schedule::Crontab(crontab) => Cow::Borrowed(&crontab.text),
            Schedule::Every(duration) => Cow::Owned(format!("@every {}", format_duration(*duration))),
            Schedule::Start => Cow::Borrowed("@start"),
            Schedule::Reboot => Cow::Borrowed("@reboot"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

const FIVE_FIELDS: &str = "five fields (minute, hour, day of month, month, day of week)";
const NICKNAMES: &str =
    "@yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @every DURATION, @start, @reboot";

/// The fields that a nickname stands for, see crontab(5).
fn nickname_fields(nickname: &str) -> Option<[&'static str; 5]> {
    match nickname {
        "@yearly" | "@annually" => Some(["0", "0", "1", "1", "*"]),
        "@monthly" => Some(["0", "0", "1", "*", "*"]),
        "@weekly" => Some(["0", "0", "*", "*", "0"]),
        "@daily" | "@midnight" => Some(["0", "0", "*", "*", "*"]),
        "@hourly" => Some(["0", "*", "*", "*", "*"]),
        _ => None,
    }
}

/// Whether the first word sets a zone, as `TZ=` and `CRON_TZ=` do in other crons.
fn names_zone(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| name.eq_ignore_ascii_case("TZ") || name.eq_ignore_ascii_case("CRON_TZ"))
}

fn parse_every(text: &str) -> Result<Schedule, String> {
    let duration = parse_duration(text).map_err(|problem| format!("@every: {problem}"))?;
    if duration < Duration::from_secs(1) {
        return Err("@every: the duration is too short, expected at least 1s".to_string());
    }
    Ok(Schedule::Every(duration))
}

/// Five checked crontab fields: not one of the sets is empty, and some date has its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crontab {
    minutes: Set,
    hours: Set,
    dates: Dates,
    /// The minute or hour field begins with `*`: real minutes count, also in skipped and repeated hours.
    by_clock: bool,
    text: Box<str>,
}

impl Crontab {
    fn from_fields(fields: [&str; 5], text: &str) -> Result<Crontab, String> {
        let [minute, hour, day, month, weekday] = fields;
        let starred = |field: &str| field.starts_with(['*', '?']);
        let crontab = Crontab {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR_OF_DAY.parse(hour)?,
            dates: Dates {
                days: DAY_OF_MONTH.parse(day)?,
                months: MONTH.parse(month)?,
                weekdays: DAY_OF_WEEK.parse(weekday)?.with_sunday_as_zero(),
                either_day: !starred(day) && !starred(weekday),
            },
            by_clock: starred(minute) || starred(hour),
            text: text.into(),
        };
        if !crontab.dates.exist() {
            return Err("day of month: such a date never comes in the months given".to_string());
        }
        Ok(crontab)
    }

    /// As `Calendars::next_after`, for one search.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Zone) -> Option<DateTime<Utc>> {
        Calendars::default().next_after(self, after, zone)
    }

    /// The longest gap between two times of one day, and the time from the first to the last, in seconds.
    fn gaps_of_a_day(&self) -> (i64, i64) {
        let (mut longest, mut span) = (0, 0);
        let mut time = self.time_from(0);
        while let Some(this) = time {
            time = self.time_from(this + 60);
            let gap = time.map_or(0, |next| next - this);
            longest = longest.max(gap);
            span += gap;
        }
        (longest, span)
    }

    /// The first slot of a matching date at or after `second` of its day.
    fn time_from(&self, second: i64) -> Option<i64> {
        let minute_of_day = u32::try_from((second + 59) / 60).ok()?;
        let (hour, minute) = (minute_of_day / 60, minute_of_day % 60);
        let (hour, minute) = match self.minutes.first_from(minute) {
            Some(minute) if self.hours.contains(hour) => (hour, minute),
            _ => (self.hours.first_from(hour + 1)?, self.minutes.first_from(0)?),
        };
        Some(i64::from(hour * 60 + minute) * 60)
    }
}

/// Those of the five fields that choose dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Dates {
    days: Set,
    months: Set,
    /// 0 is Sunday, there is no 7.
    weekdays: Set,
    /// Both day fields are restricted: a date that matches either one counts.
    either_day: bool,
}

impl Dates {
    /// Whether any date can match: of days that must match, the first has to exist in one of the months.
    fn exist(self) -> bool {
        let first = self.days.first_from(1);
        self.either_day || self.months.numbers().any(|month| first <= Some(length(month)))
    }

    /// Whether the date within the year is free, so that at most the day of the week counts.
    fn any_day_of_year(self) -> bool {
        DAY_OF_MONTH.is_all(self.days) && MONTH.is_all(self.months)
    }

    fn are_all(self) -> bool {
        self.any_day_of_year() && WEEKDAY_OF_CRATE.is_all(self.weekdays_of_crate())
    }

    fn weekdays_of_crate(self) -> Set {
        Set(self.weekdays.0 << 1)
    }
}

/// The length of a month in days, at its longest.
fn length(month: u32) -> u32 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

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
    fn next_by(&mut self, crontab: &Crontab, after: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
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

    fn of<'c>(&mut self, crontab: &'c Crontab) -> Calendar<'c> {
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
struct Calendar<'c> {
    crontab: &'c Crontab,
    search: Rc<DateSearch>,
}

impl Calendar<'_> {
    fn date_from(&self, date: i64) -> Option<i64> {
        self.search.date_from(date)
    }

    /// The first matching local time at or after `local`.
    fn time_from(&self, local: i64) -> Option<i64> {
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

/// A set of numbers below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Set(u64);

impl Set {
    fn contains(self, number: u32) -> bool {
        self.first_from(number) == Some(number)
    }

    /// The smallest member that is `number` or more.
    fn first_from(self, number: u32) -> Option<u32> {
        let rest = self.0 & u64::MAX.checked_shl(number)?;
        (rest != 0).then(|| rest.trailing_zeros())
    }

    fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |number| self.contains(*number))
    }

    fn with_sunday_as_zero(self) -> Set {
        Set((self.0 | (self.0 >> 7)) & 0x7f)
    }
}

/// One of the five fields: its name in messages and what may stand in it.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of the numbers from `min` on.
    names: &'static [&'static str],
    /// `?` stands for `*`.
    question_mark: bool,
}

const MINUTE: Field = Field { name: "minute", min: 0, max: 59, names: &[], question_mark: false };
const HOUR_OF_DAY: Field = Field { name: "hour", min: 0, max: 23, names: &[], question_mark: false };
const DAY_OF_MONTH: Field = Field { name: "day of month", min: 1, max: 31, names: &[], question_mark: true };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    question_mark: false,
};
const DAY_OF_WEEK: Field = Field {
    name: "day of week",
    min: 0,
    max: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    question_mark: true,
};
/// The crate counts from Sunday as 1.
const WEEKDAY_OF_CRATE: Field = Field { name: "day of week", min: 1, max: 7, names: &[], question_mark: false };

impl Field {
    fn parse(&self, text: &str) -> Result<Set, String> {
        let mut set = 0;
        for item in text.split(',') {
            let (first, last, step) = self.parse_item(item)?;
            for number in (first..=last).step_by(step) {
                set |= 1 << number;
            }
        }
        Ok(Set(set))
    }

    /// One item of a list: its first and last number and its step.
    fn parse_item(&self, item: &str) -> Result<(u32, u32, usize), String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.parse_step(step)?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || (range == "?" && self.question_mark) => (self.min, self.max),
            Some((first, last)) => {
                let first = self.parse_value(first)?;
                (first, self.parse_end(last, first)?)
            }
            None => {
                let value = self.parse_value(range)?;
                (value, if step.is_some() { self.max } else { value })
            }
        };
        if first > last {
            return Err(format!("{}: a range begins after its end", self.name));
        }
        Ok((first, last, step.unwrap_or(1)))
    }

    /// A step may be larger than its range, then only the first number counts.
    fn parse_step(&self, text: &str) -> Result<usize, String> {
        if !is_number(text) {
            return Err(format!("{}: a step must be a whole number, such as /5", self.name));
        }
        match text.parse().unwrap_or(usize::MAX) {
            0 => Err(format!("{}: a step must be 1 or more", self.name)),
            step => Ok(step),
        }
    }

    /// The end of a range: there Sunday by name comes after Saturday, unless the range begins with it.
    fn parse_end(&self, text: &str, first: u32) -> Result<u32, String> {
        match self.parse_value(text)? {
            0 if first > 0 && text.eq_ignore_ascii_case("sun") => Ok(self.max),
            value => Ok(value),
        }
    }

    fn parse_value(&self, text: &str) -> Result<u32, String> {
        if is_number(text) {
            return match text.parse() {
                Ok(value) if (self.min..=self.max).contains(&value) => Ok(value),
                Ok(value) => Err(format!("{} {value} is outside {}-{}", self.name, self.min, self.max)),
                Err(_) => Err(format!("{}: a number is outside {}-{}", self.name, self.min, self.max)),
            };
        }
        (self.min..)
            .zip(self.names)
            .find(|(_, name)| text.eq_ignore_ascii_case(name))
            .map(|(value, _)| value)
            .ok_or_else(|| self.refusal(text))
    }

    fn refusal(&self, text: &str) -> String {
        let names = match self.names {
            [first, .., last] => format!(" or {first}-{last}"),
            _ => String::new(),
        };
        let what = match text {
            "" => "a number is missing",
            _ if self.question_mark && text.contains(['L', 'W', '#']) => "L, W and # are no part of a crontab",
            _ => "not understood",
        };
        format!("{}: {what}, expected *, {}-{}{names}, ranges, lists and steps", self.name, self.min, self.max)
    }

    fn is_all(&self, set: Set) -> bool {
        set.0 == (u64::MAX >> (u64::BITS - 1 - self.max)) & (u64::MAX << self.min)
    }

    /// Writes a set the way the crate reads it.
    fn write(&self, set: Set) -> String {
        if self.is_all(set) {
            return "*".to_string();
        }
        set.numbers().map(|number| number.to_string()).collect::<Vec<_>>().join(",")
    }
}

/// ASCII digits alone: no sign, no blank, no digits of other scripts.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{format_time, parse_time};
    use crate::testing::Random;

    fn crontab(text: &str) -> Crontab {
        match Schedule::parse(text) {
            Ok(Schedule::Crontab(crontab)) => crontab,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn seconds(time: &str) -> i64 {
        parse_time(time).expect("RFC 3339").timestamp()
    }

    /// A zone with the offset `from` until `change`, and `to` from then on.
    fn shift(change: &str, from: i64, to: i64) -> impl Fn(i64) -> i64 {
        let change = seconds(change);
        move |instant| if instant < change { from } else { to }
    }

    /// The first slots after `after`, in UTC, without the date's year and the seconds.
    fn slots(text: &str, after: &str, count: usize, offset: impl Fn(i64) -> i64) -> Vec<String> {
        let crontab = crontab(text);
        let mut after = seconds(after);
        let mut slots = Vec::new();
        while slots.len() < count {
            let Some(slot) = Calendars::default().next_by(&crontab, after, &offset) else {
                break;
            };
            assert!(slot > after, "{text}: not after");
            let time = DateTime::from_timestamp(slot, 0).expect("within the calendar");
            slots.push(format_time(time, Zone::Utc)[5..16].to_string());
            after = slot;
        }
        slots
    }

    fn utc(text: &str, after: &str, count: usize) -> Vec<String> {
        slots(text, after, count, |_| 0)
    }

    fn problem(text: &str) -> String {
        Schedule::parse(text).expect_err(text)
    }

    #[test]
    fn the_next_slot_is_strictly_after() {
        assert_eq!(utc("30 2 * * *", "2026-01-01T02:29:59Z", 1), ["01-01T02:30"]);
        assert_eq!(utc("30 2 * * *", "2026-01-01T02:30:00Z", 1), ["01-02T02:30"]);
        assert_eq!(utc("30 2 * * *", "2026-01-01T02:29:59.999Z", 1), ["01-01T02:30"]);
        assert_eq!(utc("* * * * *", "2026-12-31T23:59:00Z", 2), ["01-01T00:00", "01-01T00:01"]);
        assert_eq!(utc("*/25 * * * *", "2026-01-01T00:00:01Z", 3), ["01-01T00:25", "01-01T00:50", "01-01T01:00"]);
    }

    #[test]
    fn steps_take_any_size_and_start_at_their_number() {
        assert_eq!(crontab("50/4 * * * *").minutes, crontab("50,54,58 * * * *").minutes);
        assert_eq!(crontab("*/100 * * * *").minutes, crontab("0 * * * *").minutes);
        assert_eq!(crontab("7-9/99999999999999999999 * * * *").minutes, crontab("7 * * * *").minutes);
        assert_eq!(crontab("5-5/3 * * * *").minutes, crontab("5 * * * *").minutes);
        assert_eq!(crontab("1-10/4,58/1 * * * *").minutes, crontab("1,5,9,58,59 * * * *").minutes);
    }

    #[test]
    fn names_stand_for_numbers_in_any_case_and_in_ranges() {
        assert_eq!(crontab("0 0 * jAn-MAR,dec *").dates.months, crontab("0 0 * 1,2,3,12 *").dates.months);
        assert_eq!(crontab("0 0 * * Mon-5").dates.weekdays, crontab("0 0 * * 1,2,3,4,5").dates.weekdays);
    }

    #[test]
    fn sunday_is_0_and_7_and_a_range_may_end_in_it() {
        let sunday = crontab("0 0 * * 0").dates.weekdays;
        for text in ["7", "sun", "0,7", "SUN-SUN", "0-0", "7-7", "*/7"] {
            assert_eq!(crontab(&format!("0 0 * * {text}")).dates.weekdays, sunday, "{text}");
        }
        assert_eq!(crontab("0 0 * * fri-Sun").dates.weekdays, crontab("0 0 * * 5,6,0").dates.weekdays);
        assert_eq!(crontab("0 0 * * 5-7").dates.weekdays, crontab("0 0 * * 5,6,0").dates.weekdays);
        assert_eq!(crontab("0 0 * * sun-tue").dates.weekdays, crontab("0 0 * * 0,1,2").dates.weekdays);
        assert_eq!(utc("0 0 * * sat-sun", "2026-01-01T00:00:00Z", 3), ["01-03T00:00", "01-04T00:00", "01-10T00:00"]);
    }

    #[test]
    fn both_day_fields_restricted_mean_either_one() {
        let slots = utc("0 0 13 * 5", "2026-01-01T00:00:00Z", 4);
        assert_eq!(slots, ["01-02T00:00", "01-09T00:00", "01-13T00:00", "01-16T00:00"]);
    }

    #[test]
    fn a_day_field_that_begins_with_a_star_is_not_restricted() {
        assert_eq!(utc("0 0 1-7 * */7", "2026-01-01T00:00:00Z", 2), ["01-04T00:00", "02-01T00:00"]);
        assert_eq!(utc("0 0 */10 * 5", "2026-01-01T00:00:00Z", 2), ["05-01T00:00", "07-31T00:00"]);
        assert_eq!(utc("0 0 ? * 1", "2026-01-01T00:00:00Z", 2), ["01-05T00:00", "01-12T00:00"]);
        assert_eq!(utc("0 0 10 * ?", "2026-01-01T00:00:00Z", 2), ["01-10T00:00", "02-10T00:00"]);
    }

    #[test]
    fn a_leap_day_comes_in_leap_years() {
        assert_eq!(utc("0 0 29 2 *", "2026-01-01T00:00:00Z", 2), ["02-29T00:00", "02-29T00:00"]);
        assert_eq!(
            Calendars::default().next_by(&crontab("0 0 29 2 *"), seconds("2026-01-01T00:00:00Z"), |_| 0),
            Some(seconds("2028-02-29T00:00:00Z"))
        );
    }

    #[test]
    fn the_search_ends_with_the_calendar() {
        for text in ["0 0 1 1 *", "* * * * *", "0 0 29 2 *"] {
            let crontab = crontab(text);
            for after in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
                assert_eq!(crontab.next_after(after, Zone::Utc).is_some(), after == DateTime::<Utc>::MIN_UTC);
            }
            for after in [i64::MIN, i64::MAX] {
                assert_eq!(Calendars::default().next_by(&crontab, after, |_| 0).is_some(), after == i64::MIN);
            }
        }
        assert_eq!(utc("0 0 29 2 */7", "2072-01-01T00:00:00Z", 9).len(), 1);
    }

    #[test]
    fn nicknames_are_their_crontabs() {
        let pairs = [
            ("@yearly", "0 0 1 1 *"),
            ("@annually", "0 0 1 1 *"),
            ("@monthly", "0 0 1 * *"),
            ("@weekly", "0 0 * * 0"),
            ("@daily", "0 0 * * *"),
            ("@midnight", "0 0 * * *"),
            ("@hourly", "0 * * * *"),
        ];
        for (nickname, fields) in pairs {
            let expected = Crontab { text: nickname.into(), ..crontab(fields) };
            assert_eq!(Schedule::parse(nickname), Ok(Schedule::Crontab(expected)));
        }
        assert_eq!(Schedule::parse("@every 1h30m"), Ok(Schedule::Every(Duration::from_secs(5_400))));
        assert_eq!(Schedule::parse(" @start\n"), Ok(Schedule::Start));
        assert_eq!(Schedule::parse("@reboot"), Ok(Schedule::Reboot));
    }

    #[test]
    fn a_schedule_is_shown_as_it_was_written() {
        for (text, shown) in [
            ("  30\t2 *  * Mon-FRI ", "30 2 * * Mon-FRI"),
            ("@daily", "@daily"),
            ("@every  90m", "@every 1h30m"),
            ("@start", "@start"),
            ("@reboot", "@reboot"),
        ] {
            assert_eq!(Schedule::parse(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_field_is_named_with_the_reason() {
        let cases = [
            ("61 * * * *", "minute 61 is outside 0-59"),
            ("* 24 * * *", "hour 24 is outside 0-23"),
            ("* * 0 * *", "day of month 0 is outside 1-31"),
            ("* * * 13 *", "month 13 is outside 1-12"),
            ("* * * * 8", "day of week 8 is outside 0-7"),
            ("99999999999999999999 * * * *", "minute: a number is outside 0-59"),
            ("*/0 * * * *", "minute: a step must be 1 or more"),
            ("5-1 * * * *", "minute: a range begins after its end"),
            ("* * * * sat-0", "day of week: a range begins after its end"),
            ("0 0 31 2 *", "day of month: such a date never comes in the months given"),
            ("0 0 30,31 feb */2", "day of month: such a date never comes in the months given"),
            ("0 0 31 4,6,9,11 *", "day of month: such a date never comes in the months given"),
        ];
        for (text, expected) in cases {
            assert_eq!(problem(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_cron_is_refused_without_repeating_it() {
        let cases = [
            (
                "minute",
                "a 1,,2 1, ,1 1- -1 1-2-3 1/2/3 ** 1.5 +1 \u{661} mon ? *-5 */ /5 */-5 */+5 0x1 ~ H 1..5 0\u{a0}",
            ),
            ("day of month", "L LW 15W 15X W"),
            ("month", "foo ? january 0x"),
            ("day of week", "foo 5L 1#2 #1 sunday mon- -mon mon/x 1-\u{667}"),
        ];
        for (field, items) in cases {
            for item in items.split(' ') {
                let mut fields = ["*"; 5];
                fields[["minute", "hour", "day of month", "month", "day of week"]
                    .iter()
                    .position(|name| *name == field)
                    .expect("a field")] = item;
                let message = problem(&fields.join(" "));
                assert!(message.starts_with(&format!("{field}: ")), "{item}: {message}");
                assert!(item.len() < 4 || !message.contains(item), "{item}: {message}");
            }
        }
    }

    #[test]
    fn anything_but_five_fields_is_refused() {
        for (text, count) in [("", 0), ("* * * *", 4), ("* * * * * *", 6), ("0 0 0 * * * 2026", 7)] {
            let message = problem(text);
            assert!(message.contains("five fields") && message.ends_with(&format!("found {count}")), "{message}");
        }
        for text in ["TZ=UTC 0 0 * * *", "CRON_TZ=UTC 0 0 * * *", "TZ=UTC"] {
            assert!(problem(text).contains("time zone"), "{text}");
        }
    }

    #[test]
    fn a_wrong_nickname_says_what_is_expected() {
        for text in ["@", "@foo", "@DAILY", "@daily x", "@start 5"] {
            assert!(problem(text).contains("@daily"), "{text}");
        }
        for text in ["@every", "@every 5", "@every 0s", "@every -5m", "@every 1h 30m", "@every 40000d"] {
            assert!(problem(text).starts_with("@every"), "{text}");
        }
    }

    /// Berlin, 29 March 2026: 02:00 becomes 03:00.
    fn spring() -> impl Fn(i64) -> i64 {
        shift("2026-03-29T01:00:00Z", HOUR, 2 * HOUR)
    }

    /// Berlin, 25 October 2026: 03:00 becomes 02:00.
    fn autumn() -> impl Fn(i64) -> i64 {
        shift("2026-10-25T01:00:00Z", 2 * HOUR, HOUR)
    }

    #[test]
    fn a_time_in_a_gap_runs_once_right_after_it() {
        let after = "2026-03-28T12:00:00Z";
        assert_eq!(slots("30 2 * * *", after, 2, spring()), ["03-29T01:00", "03-30T00:30"]);
        assert_eq!(slots("0,20,40 2 * * *", after, 2, spring()), ["03-29T01:00", "03-30T00:00"]);
        assert_eq!(slots("30 2,3 * * *", after, 3, spring()), ["03-29T01:00", "03-29T01:30", "03-30T00:30"]);
        assert_eq!(slots("0 2,3 * * *", after, 2, spring()), ["03-29T01:00", "03-30T00:00"]);
        assert_eq!(slots("30 2 29 3 *", "2026-03-29T00:59:59Z", 1, spring()), ["03-29T01:00"]);
    }

    #[test]
    fn a_time_in_a_repeated_hour_runs_in_its_first_pass() {
        assert_eq!(slots("30 2 * * *", "2026-10-24T12:00:00Z", 2, autumn()), ["10-25T00:30", "10-26T01:30"]);
        assert_eq!(slots("30 2 * * *", "2026-10-25T00:30:00Z", 1, autumn()), ["10-26T01:30"]);
        assert_eq!(slots("30 2 * * *", "2026-10-25T01:10:00Z", 1, autumn()), ["10-26T01:30"]);
        assert_eq!(slots("0 3 * * *", "2026-10-25T00:59:59Z", 1, autumn()), ["10-25T02:00"]);
        assert_eq!(
            slots("50 1,2 * * *", "2026-10-24T12:00:00Z", 3, autumn()),
            ["10-24T23:50", "10-25T00:50", "10-26T00:50"]
        );
    }

    #[test]
    fn a_job_that_follows_the_clock_skips_a_gap_and_runs_in_both_passes() {
        assert_eq!(slots("*/30 2 * * *", "2026-03-28T12:00:00Z", 2, spring()), ["03-30T00:00", "03-30T00:30"]);
        assert_eq!(
            slots("15 * * * *", "2026-03-29T00:00:00Z", 3, spring()),
            ["03-29T00:15", "03-29T01:15", "03-29T02:15"]
        );
        assert_eq!(
            slots("*/30 2 * * *", "2026-10-24T12:00:00Z", 5, autumn()),
            ["10-25T00:00", "10-25T00:30", "10-25T01:00", "10-25T01:30", "10-26T01:00"]
        );
        assert_eq!(
            slots("@hourly", "2026-10-24T23:30:00Z", 3, autumn()),
            ["10-25T00:00", "10-25T01:00", "10-25T02:00"]
        );
    }

    #[test]
    fn a_gap_at_midnight_keeps_daily_jobs() {
        let midnight = || shift("2026-09-06T04:00:00Z", -4 * HOUR, -3 * HOUR);
        assert_eq!(slots("@daily", "2026-09-05T12:00:00Z", 2, midnight()), ["09-06T04:00", "09-07T03:00"]);
        assert_eq!(slots("*/20 0 * * *", "2026-09-05T12:00:00Z", 1, midnight()), ["09-07T03:00"]);
    }

    #[test]
    fn a_shift_of_half_an_hour_is_followed() {
        let ahead = || shift("2026-10-03T15:30:00Z", 10 * HOUR + HOUR / 2, 11 * HOUR);
        assert_eq!(slots("15 2 * * *", "2026-10-03T12:00:00Z", 2, ahead()), ["10-03T15:30", "10-04T15:15"]);
        let back = || shift("2026-04-04T15:00:00Z", 11 * HOUR, 10 * HOUR + HOUR / 2);
        assert_eq!(slots("45 1 * * *", "2026-04-04T12:00:00Z", 2, back()), ["04-04T14:45", "04-05T15:15"]);
        assert_eq!(
            slots("45 * * * *", "2026-04-04T14:00:00Z", 3, back()),
            ["04-04T14:45", "04-04T15:15", "04-04T16:15"]
        );
    }

    #[test]
    fn a_skipped_day_runs_its_jobs_once_at_its_end() {
        let apia = || shift("2011-12-30T10:00:00Z", -10 * HOUR, 14 * HOUR);
        assert_eq!(slots("0 0,12 * * *", "2011-12-29T23:00:00Z", 2, apia()), ["12-30T10:00", "12-30T22:00"]);
        assert_eq!(slots("0 9 30 12 *", "2011-12-01T00:00:00Z", 1, apia()), ["12-30T10:00"]);
        assert_eq!(slots("0 */6 30 * *", "2011-12-29T23:00:00Z", 1, apia()), ["01-29T10:00"]);
    }

    #[test]
    fn a_slot_far_ahead_uses_the_offset_of_its_day() {
        assert_eq!(slots("0 12 1 7 *", "2026-01-01T00:00:00Z", 1, spring()), ["07-01T10:00"]);
        assert_eq!(slots("*/30 12 1 7 *", "2026-01-01T00:00:00Z", 1, spring()), ["07-01T10:00"]);
    }

    /// Each job against a walk over all minutes of four days around a change, of many sizes and hours.
    #[test]
    fn random_jobs_agree_with_a_walk_over_all_minutes() {
        let mut random = Random::new(3);
        for _ in 0..40 {
            let change = seconds("2026-05-10T00:00:00Z") + 1_800 * random.below(96) as i64;
            let before = 1_800 * (random.below(48) as i64 - 24);
            let after = before + 900 * (random.below(25) as i64 - 12);
            let offset = |instant: i64| if instant < change { before } else { after };
            let minute = ["0", "*/20", "5,35", "59", "10-50/10"][random.below(5)];
            let hour = ["0", "1,2", "*", "23", "2-5", "*/3"][random.below(6)];
            let text = format!(
                "{minute} {hour} {} * {}",
                ["*", "9-11", "10"][random.below(3)],
                ["*", "0", "1-3"][random.below(3)]
            );
            let crontab = crontab(&text);
            let start = change - 2 * DAY;
            let expected = walk(&crontab, start, change + 2 * DAY, offset);
            let mut found = Vec::new();
            let mut time = start;
            while let Some(slot) =
                Calendars::default().next_by(&crontab, time, offset).filter(|slot| *slot < change + 2 * DAY)
            {
                found.push(slot);
                time = slot;
            }
            assert_eq!(found, expected, "{text}: {before} to {after} at {change}");
        }
    }

    /// The slots from `start` to `end`, by looking at each minute's clock.
    fn walk(crontab: &Crontab, start: i64, end: i64, offset: impl Fn(i64) -> i64) -> Vec<i64> {
        let calendar = Calendars::default().of(crontab);
        let matches = |local: i64| calendar.time_from(local) == Some(local);
        let mut shown = start + offset(start);
        let mut slots = Vec::new();
        for instant in (start + 60..end).step_by(60) {
            let local = instant + offset(instant);
            let fresh = (shown + 60..=local).step_by(60);
            if if crontab.by_clock { matches(local) } else { fresh.into_iter().any(matches) } {
                slots.push(instant);
            }
            shown = shown.max(local);
        }
        slots
    }

    #[test]
    fn the_longest_gap_is_found() {
        let from = parse_time("2026-01-15T10:00:00Z").expect("RFC 3339");
        let mut calendars = Calendars::default();
        let mut hours = |text: &str| {
            let gap = calendars.longest_gap(&Schedule::parse(text).expect(text), from, Zone::Utc);
            gap.map(|gap| gap.as_secs_f64() / 3_600.0)
        };
        assert_eq!(hours("30 2 * * *"), Some(24.0));
        assert_eq!(hours("*/5 * * * *"), Some(1.0 / 12.0));
        assert_eq!(hours("0 2,8 * * *"), Some(18.0));
        assert_eq!(hours("*/30 9-17 * * mon-fri"), Some(63.5));
        assert_eq!(hours("0 0 1,2 * *"), Some(30.0 * 24.0));
        assert_eq!(hours("0 0 29 2 *"), Some(1_461.0 * 24.0));
        assert_eq!(hours("0 0 31 * *"), Some(61.0 * 24.0));
        assert_eq!(hours("@yearly"), Some(366.0 * 24.0));
        assert_eq!(hours("@every 90m"), Some(1.5));
        assert_eq!(hours("@start"), None);
        assert_eq!(hours("@reboot"), None);
    }
}
