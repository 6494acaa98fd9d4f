//! What crontab(5) says, the slots that follow from it, and the days on which clocks are set.

use super::calendar::{DAY, HOUR};
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
        ("minute", "a 1,,2 1, ,1 1- -1 1-2-3 1/2/3 ** 1.5 +1 \u{661} mon ? *-5 */ /5 */-5 */+5 0x1 ~ H 1..5 0\u{a0}"),
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
    assert_eq!(slots("15 * * * *", "2026-03-29T00:00:00Z", 3, spring()), ["03-29T00:15", "03-29T01:15", "03-29T02:15"]);
    assert_eq!(
        slots("*/30 2 * * *", "2026-10-24T12:00:00Z", 5, autumn()),
        ["10-25T00:00", "10-25T00:30", "10-25T01:00", "10-25T01:30", "10-26T01:00"]
    );
    assert_eq!(slots("@hourly", "2026-10-24T23:30:00Z", 3, autumn()), ["10-25T00:00", "10-25T01:00", "10-25T02:00"]);
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
    assert_eq!(slots("45 * * * *", "2026-04-04T14:00:00Z", 3, back()), ["04-04T14:45", "04-04T15:15", "04-04T16:15"]);
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
