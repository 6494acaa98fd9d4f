//! Schedules: crontab text to a checked `Schedule`, and the next slot after a time.
//!
//! The five fields are read here (`field`), by the rules of Debian's cron, because the cron crate reads another
//! dialect; the crate is the calendar in which slots are searched (`calendar`).

mod calendar;
mod field;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::clock::{Zone, format_duration, parse_duration};
use field::{DAY_OF_MONTH, DAY_OF_WEEK, HOUR_OF_DAY, MINUTE, MONTH, Set, WEEKDAY_OF_CRATE};

pub use calendar::Calendars;

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
        self.weekdays.each_one_more()
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

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests;
