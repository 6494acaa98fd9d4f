//! Schedules made of what they are made of, and good ones damaged: taken and refused as a slow reading of crontab(5)
//! takes and refuses them, with the slots that a walk over the days finds.

use chrono::{DateTime, Datelike, NaiveDate, Utc};

use super::calendar::{DAY, HOUR};
use super::{Calendars, Crontab, Schedule};
use crate::clock::Zone;
use crate::testing::{Random, fuzz};

const SEEDS: &[&str] = &[
    "30 2 * * *",
    "*/5 1-3,7/2 ? jan-dec fri-sun",
    "0 0 29 2 7",
    "0 12 31 1,3,5 *",
    "15,45 */6 1-7 * mon",
    "@daily",
    "@every 1h30m",
    "@reboot",
];

const PIECES: &[&str] = &[
    "0",
    "1",
    "2",
    "7",
    "10",
    "12",
    "23",
    "29",
    "31",
    "59",
    "60",
    "99999999999999999999",
    "*",
    "*/2",
    "/",
    "/0",
    "-",
    ",",
    "?",
    " ",
    "  ",
    "\t",
    "@",
    "sun",
    "SUN",
    "Mon",
    "sat",
    "jan",
    "dec",
    "L",
    "W",
    "#",
    "+",
    ".",
    "=",
    "TZ=",
    "é",
    "v",
    "\u{661}",
    "\0",
    "hunter2",
];

/// Items of which whole fields are made: those that fit any, and those that fit one.
const ITEMS: &[&str] = &["*", "*", "*", "*/2", "*/7", "*/40", "1", "2", "5", "1-5", "2/3", "5-2"];
const ITEMS_OF_FIELDS: [&[&str]; 5] = [
    &["0", "30", "59", "0-7/3", "10-20/5", "50/4", "60"],
    &["0", "12", "23", "0-0", "20-23", "9-17/2", "24"],
    &["?", "12", "29", "30", "31", "28-31", "10/10", "0", "L"],
    &["12", "feb", "apr-JUN", "Nov-12", "4/5", "13"],
    &["?", "0", "7", "sun", "fri-sun", "sun-tue", "Mon", "sat-7", "5-SUN", "0-7/3", "8", "1#2"],
];

const NICKNAMES: &[&str] =
    &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly", "@start", "@reboot"];

/// How messages begin: with the field, or with what was expected of the whole.
const BEGINNINGS: &[&str] = &[
    "minute",
    "hour",
    "day of month",
    "month",
    "day of week",
    "@every",
    "unknown nickname, expected one of @",
    "expected a nickname",
    "expected five fields",
    "a schedule cannot choose its time zone",
];

/// How far the walk goes to find a slot, in days.
const WALK_DAYS: i64 = 400;

fn random_schedule(random: &mut Random) -> String {
    if random.once_in(3) {
        let seed = random.pick(SEEDS);
        return random.mutated(seed, PIECES);
    }
    let mut fields = Vec::new();
    for of_field in ITEMS_OF_FIELDS {
        let mut item = || if random.once_in(2) { random.pick(ITEMS) } else { random.pick(of_field) };
        let (first, second) = (item(), item());
        fields.push(if random.once_in(4) { format!("{first},{second}") } else { first.to_owned() });
    }
    let text = fields.join(" ");
    if random.once_in(4) { random.mutated(&text, PIECES) } else { text }
}

/// Which numbers each field names, by the rules of crontab(5).
struct Reference {
    minutes: Vec<bool>,
    hours: Vec<bool>,
    days: Vec<bool>,
    months: Vec<bool>,
    weekdays: Vec<bool>,
    either_day: bool,
}

impl Reference {
    fn read(text: &str) -> Option<Reference> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = words[..] else { return None };
        let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        let weekdays = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let is_star = |field: &str| field.starts_with('*') || field.starts_with('?');
        let mut reference = Reference {
            minutes: numbers(minute, 0, 59, &[], false)?,
            hours: numbers(hour, 0, 23, &[], false)?,
            days: numbers(day, 1, 31, &[], true)?,
            months: numbers(month, 1, 12, &months, false)?,
            weekdays: numbers(weekday, 0, 7, &weekdays, true)?,
            either_day: !is_star(day) && !is_star(weekday),
        };
        reference.weekdays[0] |= reference.weekdays[7];
        // 2028 has all dates that there are.
        let first = NaiveDate::from_ymd_opt(2028, 1, 1)?;
        let comes = |date: NaiveDate| reference.months[date.month() as usize] && reference.days[date.day() as usize];
        (reference.either_day || first.iter_days().take(366).any(comes)).then_some(reference)
    }

    fn has_date(&self, date: NaiveDate) -> bool {
        let day = self.days[date.day() as usize];
        let weekday = self.weekdays[date.weekday().num_days_from_sunday() as usize];
        self.months[date.month() as usize] && if self.either_day { day || weekday } else { day && weekday }
    }

    fn has_time(&self, second_of_day: i64) -> bool {
        self.minutes[(second_of_day / 60 % 60) as usize] && self.hours[(second_of_day / HOUR) as usize]
    }

    fn shows(&self, local: i64) -> bool {
        DateTime::from_timestamp(local, 0).is_some_and(|time| self.has_date(time.date_naive()))
            && self.has_time(local.rem_euclid(DAY))
            && local % 60 == 0
    }

    /// The first slot after `after` in UTC, if it comes within the walk.
    fn next(&self, after: i64) -> Option<i64> {
        let today = after.div_euclid(DAY);
        (today..today + WALK_DAYS).find_map(|day| {
            let date = DateTime::from_timestamp(day * DAY, 0)?.date_naive();
            let from = if day == today { (after - day * DAY) / 60 + 1 } else { 0 };
            let minutes = if self.has_date(date) { from..DAY / 60 } else { 0..0 };
            minutes.map(|minute| minute * 60).find(|&second| self.has_time(second)).map(|second| day * DAY + second)
        })
    }
}

/// The numbers that a field names, as a table; `None` if it is not understood.
fn numbers(field: &str, min: usize, max: usize, names: &[&str], question_mark: bool) -> Option<Vec<bool>> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = |text: &str| {
        let name = names.iter().position(|name| name.eq_ignore_ascii_case(text)).map(|place| place + min);
        name.or_else(|| if is_number(text) { text.parse().ok() } else { None })
            .filter(|value| (min..=max).contains(value))
    };
    let mut table = vec![false; max + 1];
    for item in field.split(',') {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || (question_mark && range == "?") => (min, max),
            Some((first, last)) if last.eq_ignore_ascii_case("sun") && max == 7 && value(first)? > 0 => {
                (value(first)?, 7)
            }
            Some((first, last)) => (value(first)?, value(last)?),
            None if step.is_some() => (value(range)?, max),
            None => (value(range)?, value(range)?),
        };
        let step = step.map_or(Some(1), |step| is_number(step).then(|| step.parse().unwrap_or(usize::MAX)))?;
        if first > last || step == 0 {
            return None;
        }
        (first..=last).filter(|number| (number - first) % step == 0).for_each(|number| table[number] = true);
    }
    Some(table)
}

#[test]
fn schedules_are_taken_and_refused_as_the_slow_way_does_with_the_slots_that_a_walk_finds() {
    fuzz(10, |random| {
        let text = random_schedule(random);
        let schedule = Schedule::parse(&text);
        let reference = Reference::read(&text);
        match &schedule {
            Ok(schedule) => assert_eq!(Schedule::parse(&schedule.to_string()).as_ref(), Ok(schedule), "{text:?}"),
            Err(problem) => {
                assert!(BEGINNINGS.iter().any(|beginning| problem.starts_with(beginning)), "{text:?}: {problem}");
                assert!(!problem.contains("hunter2") && !problem.ends_with('.'), "{text:?}: {problem}");
            }
        }
        match (&schedule, &reference) {
            (Ok(Schedule::Crontab(crontab)), Some(reference)) => {
                walk_in_utc(crontab, reference, random, &text);
                walk_over_a_change(crontab, reference, random, &text);
                true
            }
            (Ok(_), None) => {
                let word = text.split_ascii_whitespace().next().unwrap_or_default();
                assert!(NICKNAMES.contains(&word) || word == "@every", "{text:?} is taken");
                false
            }
            (Err(problem), Some(_)) => panic!("{text:?} is refused: {problem}"),
            (Ok(schedule), Some(_)) => panic!("{text:?} is taken as {schedule}"),
            (Err(_), None) => false,
        }
    });
}

/// A time in this century.
fn random_time(random: &mut Random) -> i64 {
    946_684_800 + random.below(95 * 365) as i64 * DAY + random.below(DAY as usize) as i64
}

fn walk_in_utc(crontab: &Crontab, reference: &Reference, random: &mut Random, text: &str) {
    let start = random_time(random);
    let mut after = start;
    for _ in 0..3 {
        let found = Calendars::default().next_by(crontab, after, |_| 0);
        let expected = reference.next(after);
        assert!(expected.is_none() || found == expected, "{text:?} after {after}: {found:?}, expected {expected:?}");
        let Some(slot) = found else { break };
        assert!(slot > after && reference.shows(slot), "{text:?} after {after}: {slot}");
        after = slot;
    }
    // This one looks at years.
    if random.once_in(500) {
        let from = DateTime::<Utc>::from_timestamp(start, 0).expect("in this century");
        let (mut calendars, schedule) = (Calendars::default(), Schedule::Crontab(crontab.clone()));
        let longest = calendars.longest_gap(&schedule, from, Zone::Utc).map(|gap| gap.as_secs() as i64);
        let first = Calendars::default().next_by(crontab, start, |_| 0);
        let next_after = |slot: i64| Calendars::default().next_by(crontab, slot, |_| 0);
        let gap = first.and_then(|first| Some(next_after(first)? - first));
        let has_two_dates = first.is_some_and(|first| next_after(first.div_euclid(DAY) * DAY + DAY - 1).is_some());
        let expected = gap.filter(|_| has_two_dates);
        assert!(longest >= expected, "{text:?} from {start}: {longest:?} is the longest gap, but one is {gap:?}");
    }
}

/// Each slot comes after the one before it and shows one of the job's times, or it is the first instant after a gap.
fn walk_over_a_change(crontab: &Crontab, reference: &Reference, random: &mut Random, text: &str) {
    let change = random_time(random) / 900 * 900;
    let before = 1_800 * (random.below(48) as i64 - 24);
    let later = before + 900 * (random.below(25) as i64 - 12);
    let offset = |instant: i64| if instant < change { before } else { later };
    let mut after = change - random.below(2 * DAY as usize) as i64;
    for _ in 0..2 {
        let Some(slot) = Calendars::default().next_by(crontab, after, offset) else { break };
        assert!(slot > after, "{text:?}: {slot} is not after {after}");
        let shows = reference.shows(slot + offset(slot));
        let ends_a_gap = slot == change && later > before && !crontab.by_clock;
        assert!(shows || ends_a_gap, "{text:?} after {after}: {slot}, with {before} to {later} at {change}");
        after = slot;
    }
}
