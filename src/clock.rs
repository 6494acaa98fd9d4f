//! Time: the clocks as they read now, the zone in which schedules are meant, and durations and times as text.
//!
//! Everything else takes the time as an argument; only the rim of the program calls `now`. Of chrono's
//! conversions just one is used, from UTC to local: the other direction is wrong near a change of offset.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, Local, Offset, SecondsFormat, Utc};

/// The longest duration that a text may stand for: far beyond any use, far below any overflow.
const DURATION_MAX_SECONDS: u64 = 100 * 365 * 86_400;

/// The units of a duration, from the largest, with their lengths in seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// All clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, which people and corrections of the clock may move either way.
    pub wall: DateTime<Utc>,
    /// Time since the machine's boot, counting suspends.
    pub boot: Duration,
    /// Time since the machine's boot, not counting suspends.
    pub awake: Duration,
}

/// Reads all clocks.
pub fn now() -> Now {
    Now { wall: Utc::now(), boot: crate::sys::boot_clock(), awake: crate::sys::awake_clock() }
}

/// All clocks as the system counts them, in nanoseconds: for who only compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Since 1970, until 2262.
    pub wall: i64,
    pub boot: i64,
    pub awake: i64,
}

impl Ticks {
    /// Reads all clocks.
    pub fn read() -> Ticks {
        let wall = i64::try_from(crate::sys::wall_clock().as_nanos()).unwrap_or(i64::MAX);
        Ticks { wall, boot: nanos(crate::sys::boot_clock()), awake: nanos(crate::sys::awake_clock()) }
    }
}

impl From<Now> for Ticks {
    fn from(now: Now) -> Ticks {
        let wall = now.wall.timestamp_nanos_opt().unwrap_or(i64::MAX).max(0);
        Ticks { wall, boot: nanos(now.boot), awake: nanos(now.awake) }
    }
}

/// So far from the largest number that a few can be added; over 70 years.
pub const NANOS_MAX: i64 = i64::MAX / 4;

/// A duration as a number, or the most that can be counted.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).map_or(NANOS_MAX, |nanos| nanos.min(NANOS_MAX))
}

/// The zone in which schedules are meant and times are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zone {
    /// The machine's, or the one that `TZ` names.
    #[default]
    Local,
    Utc,
}

impl Zone {
    /// The offset from UTC that is in force at `instant`.
    pub fn offset_at(self, instant: DateTime<Utc>) -> FixedOffset {
        match self {
            Zone::Local => instant.with_timezone(&Local).offset().fix(),
            Zone::Utc => Utc.fix(),
        }
    }
}

/// Reads a duration such as `90s`, `5m`, `1h30m` or `2d`: units from the largest to the smallest, none twice.
///
/// # Errors
/// Says what was expected, never what was written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err("the duration is empty, expected one such as 90s, 5m or 1h30m".to_string());
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let Some(unit) = after.chars().next() else {
            return Err("the duration lacks a unit, expected one such as 90s, 5m or 1h30m".to_string());
        };
        if number.is_empty() || !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err("not a duration, expected whole numbers with the units d, h, m, s, such as 1h30m".to_string());
        }
        let Some((_, seconds)) = units.find(|(name, _)| *name == unit) else {
            return Err("the units of a duration go from d over h and m to s, each at most once".to_string());
        };
        // A number too large for u64 is too long as well.
        let part = number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*seconds);
        total = total.saturating_add(part);
        rest = &after[1..];
    }
    if total > DURATION_MAX_SECONDS {
        return Err("the duration is too long, expected at most 100 years (36500d)".to_string());
    }
    Ok(Duration::from_secs(total))
}

/// Writes a duration as `parse_duration` reads it; one under a minute with what it has beyond whole
/// seconds, as `0.312s`.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    if rest < 60 {
        let thousandths = format!("{:03}", duration.subsec_millis());
        let decimals = thousandths.trim_end_matches('0');
        return if decimals.is_empty() { format!("{rest}s") } else { format!("{rest}.{decimals}s") };
    }
    let mut text = String::new();
    for (name, seconds) in UNITS {
        if rest >= seconds {
            text.push_str(&format!("{}{name}", rest / seconds));
            rest %= seconds;
        }
    }
    text
}

/// Reads an RFC 3339 time of any offset.
///
/// # Errors
/// Says what was expected, never what was written.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| "not an RFC 3339 time, expected one such as 2026-03-29T02:30:00+01:00".to_string())
}

/// Writes a time as RFC 3339 in `zone`, to the second, with a numeric offset.
pub fn format_time(time: DateTime<Utc>, zone: Zone) -> String {
    time.with_timezone(&zone.offset_at(time)).to_rfc3339_opts(SecondsFormat::Secs, false)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        parse_duration(text).ok().map(|duration| duration.as_secs())
    }

    #[test]
    fn the_clocks_read_the_same_as_ticks() {
        let now = now();
        let (before, ticks, after) = (Ticks::from(now), Ticks::read(), Ticks::from(super::now()));
        for (before, read, after) in [
            (before.wall, ticks.wall, after.wall),
            (before.boot, ticks.boot, after.boot),
            (before.awake, ticks.awake, after.awake),
        ] {
            assert!(before <= read && read <= after, "{before} {read} {after}");
        }
    }

    #[test]
    fn the_wall_clock_goes_on_in_ticks_for_two_centuries() {
        for (text, seconds) in [("2026-11-27T00:00:00Z", 1_795_737_600), ("2199-12-31T23:59:59Z", 7_258_118_399)] {
            let now = Now { wall: parse_time(text).expect("RFC 3339"), boot: Duration::ZERO, awake: Duration::ZERO };
            assert_eq!(Ticks::from(now).wall, seconds * 1_000_000_000);
        }
    }

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(seconds("0s"), Some(0));
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("5m"), Some(300));
        assert_eq!(seconds("1h30m"), Some(5_400));
        assert_eq!(seconds("2d"), Some(172_800));
        assert_eq!(seconds("1d2h3m4s"), Some(93_784));
        assert_eq!(seconds("1d4s"), Some(86_404));
        assert_eq!(seconds("007m"), Some(420));
        assert_eq!(seconds("36500d"), Some(DURATION_MAX_SECONDS));
    }

    #[test]
    fn a_bare_number_is_told_to_take_a_unit() {
        for text in ["90", "0", "1h30"] {
            let problem = parse_duration(text).expect_err("no unit");
            assert!(problem.contains("unit") && problem.contains("90s"), "{problem}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_without_repeating_it() {
        let wrong = [
            "",
            " ",
            "s",
            "m5",
            "-5m",
            "+5m",
            "5 m",
            " 5m",
            "5m ",
            "5M",
            "1.5h",
            "5ms",
            "5min",
            "1w",
            "1y",
            "1m1h",
            "1m1m",
            "1s1d",
            "5µ",
            "٣m",
            "5m\n",
            "36501d",
            "99999999999999999999s",
            "18446744073709551615d",
            "36500d1s",
            "hunter2s",
        ];
        for text in wrong {
            let problem = parse_duration(text).expect_err(text);
            assert!(text.trim().len() < 5 || !problem.contains(text), "{problem}");
            assert!(!problem.ends_with('.') && problem.starts_with(char::is_lowercase), "{problem}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_duration(Duration::from_millis(300)), "0.3s");
        assert_eq!(format_duration(Duration::from_millis(45)), "0.045s");
        assert_eq!(format_duration(Duration::from_micros(900)), "0s");
        assert_eq!(format_duration(Duration::from_millis(1_900)), "1.9s");
        assert_eq!(format_duration(Duration::from_millis(61_900)), "1m1s");
        assert_eq!(format_duration(Duration::from_secs(5_400)), "1h30m");
        assert_eq!(format_duration(Duration::from_secs(172_800)), "2d");
        assert_eq!(format_duration(Duration::from_secs(93_784)), "1d2h3m4s");
        assert!(!format_duration(Duration::MAX).is_empty());
    }

    #[test]
    fn times_are_read_with_any_offset_and_written_in_utc() {
        let time = parse_time("2026-03-29T02:30:00+02:00").expect("RFC 3339");
        assert_eq!(format_time(time, Zone::Utc), "2026-03-29T00:30:00+00:00");
        assert_eq!(parse_time("2026-03-29T00:30:00Z"), Ok(time));
        assert_eq!(parse_time("2026-03-29T00:30:00.000Z"), Ok(time));
    }

    #[test]
    fn a_time_that_is_not_rfc_3339_is_refused_without_repeating_it() {
        for text in ["", "now", "2031-05-06", "2031-05-06T02:30:00", "2026-02-30T00:00:00Z", "1774751400"] {
            let problem = parse_time(text).expect_err(text);
            assert!(problem.contains("RFC 3339") && (text.is_empty() || !problem.contains(text)), "{problem}");
        }
    }
}
