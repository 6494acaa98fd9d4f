//! What has been: the table and the JSON of `history`.
//!
//! `history --json` prints one object a line, the latest last. Times are RFC 3339:
//!
//! - `task`
//! - `run`: its number, null if it never started
//! - `slot`: the slot that it ran for
//! - `cause`: `slot`, `missed`, `start`, `reboot`, `repeat` (of a run that was cut) or `manual`
//! - `outcome`: `success`, `warning`, `failure`, `timeout`, `stopped`, `crashed` or `skipped`
//! - `reason`: of `skipped`: `overlap`, `condition`, `secrets`, `lock` or `missed`; else null
//! - `exit_code`: of the last try's deciding step, 128 + n for a signal; null if there is none
//! - `started`: null if it never started
//! - `ended`
//! - `seconds`: from start to end, null where that is unknown
//! - `attempts`: 1 and the retries

use crate::clock::{self, Zone};
use crate::ledger::Past;
use crate::outcome::{Outcome, SkipReason};

use super::json::Object;
use super::table::{Cell, Look, Output, Table};

/// For people, and for programs that read tabs.
pub fn history_table(all: &[Past], zone: Zone, output: Output) -> String {
    let mut table = Table::new(&["ENDED", "TASK", "RUN", "CAUSE", "OUTCOME", "TOOK"]);
    for past in all {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.push(vec![
            Cell::time(past.ended, zone),
            past.task.clone().into(),
            or_dash(past.run.map(|run| run.to_string())).into(),
            past.cause.name().to_owned().into(),
            Cell::from(outcome_text(past)).look(look(past.outcome)),
            or_dash(past.took.map(clock::format_duration)).into(),
        ]);
    }
    table.render(output)
}

pub fn history_json(all: &[Past], zone: Zone) -> String {
    all.iter().map(|past| json_of_past(past, zone).line()).collect()
}

/// `failure (exit 12)`, `skipped (overlap)`.
pub fn outcome_text(past: &Past) -> String {
    match past.exit_code {
        Some(code) if !matches!(past.outcome, Outcome::Success) => format!("{} (exit {code})", past.outcome),
        _ => past.outcome.to_string(),
    }
}

fn look(outcome: Outcome) -> Look {
    match outcome {
        Outcome::Success => Look::Good,
        outcome if outcome.is_failure() => Look::Bad,
        _ => Look::Doubtful,
    }
}

pub fn json_of_past(past: &Past, zone: Zone) -> Object {
    Object::new()
        .text("task", &past.task)
        .number("run", past.run)
        .time("slot", Some(past.slot), zone)
        .text("cause", past.cause.name())
        .text("outcome", past.outcome.name())
        .maybe_text("reason", past.outcome.reason().map(SkipReason::name))
        .number("exit_code", past.exit_code)
        .time("started", past.started, zone)
        .time("ended", Some(past.ended), zone)
        .number("seconds", past.took.map(|took| took.as_secs_f64()))
        .number("attempts", Some(past.attempts))
}
