//! Durations and times made of what they are made of: read as the slow way reads them, and written back alike.

use std::time::Duration;

use super::{UNITS, Zone, format_duration, format_time, parse_duration, parse_time};
use crate::testing::{Random, fuzz};

const PIECES: &[&str] = &[
    "0",
    "1",
    "9",
    "59",
    "007",
    "36500",
    "d",
    "h",
    "m",
    "s",
    "1h30m",
    "99999999999999999999",
    " ",
    "-",
    "+",
    ".",
    "D",
    "é",
    "\u{663}",
    "\0",
    "\n",
    "hunter2",
];

const TIME_PIECES: &[&str] = &[
    "0",
    "9",
    "13",
    "29",
    "60",
    "-",
    ":",
    "T",
    "t",
    " ",
    "Z",
    "z",
    "+",
    "+14:00",
    "-23:59",
    ".",
    ".999999999",
    "\u{663}",
    "\0",
    "hunter2",
];

/// What `text` stands for in seconds, with numbers that cannot overflow.
fn seconds(text: &str) -> Option<u128> {
    let (mut rest, mut total) = (text, 0);
    for (unit, seconds) in UNITS {
        if let Some((number, after)) = rest.split_once(unit)
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            total += u128::from(number.parse().unwrap_or(u64::MAX)) * u128::from(seconds);
            rest = after;
        }
    }
    (!text.is_empty() && rest.is_empty() && total <= 3_153_600_000).then_some(total)
}

fn is_in_the_voice(problem: &str) -> bool {
    !problem.contains("hunter2") && problem.starts_with(char::is_lowercase) && problem.contains("expected")
}

#[test]
fn durations_are_read_as_the_slow_way_reads_them() {
    fuzz(10, |random| {
        let text = random_duration(random);
        let read = parse_duration(&text);
        assert_eq!(read.as_ref().ok().map(|duration| u128::from(duration.as_secs())), seconds(&text), "{text:?}");
        match read {
            Ok(duration) => assert_eq!(parse_duration(&format_duration(duration)), Ok(duration), "{text:?}"),
            Err(problem) => assert!(is_in_the_voice(&problem) || problem.contains("units"), "{text:?}: {problem}"),
        }
        // Whatever has gone by can be written.
        assert!(!format_duration(Duration::new(random.number(), random.below(1_000_000_000) as u32)).is_empty());
        seconds(&text).is_some()
    });
}

#[test]
fn times_are_written_as_they_are_read() {
    fuzz(10, |random| {
        let text = random_time(random);
        match parse_time(&text) {
            Ok(time) => {
                let written = format_time(time, Zone::Utc);
                let again = parse_time(&written).map(|again| again.timestamp());
                assert_eq!(again, Ok(time.timestamp()), "{text:?} is written {written:?}");
                true
            }
            Err(problem) => {
                assert!(is_in_the_voice(problem.trim_start_matches("not an RFC 3339 time, ")), "{problem}");
                false
            }
        }
    });
}

fn random_duration(random: &mut Random) -> String {
    let mut text = String::new();
    for unit in ["d", "h", "m", "s"] {
        if random.once_in(2) {
            text += &(random.below(40_000).to_string() + unit);
        }
    }
    match random.below(3) {
        0 => text,
        1 => random.mutated(&text, PIECES),
        _ => random.soup(PIECES, 6),
    }
}

fn random_time(random: &mut Random) -> String {
    let mut two = |limit: usize| random.below(limit);
    let time =
        format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", two(10_000), two(14), two(33), two(25), two(61), two(62));
    if random.once_in(3) { random.mutated(&time, TIME_PIECES) } else { time }
}
