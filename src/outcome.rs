//! How runs end: the outcomes, which of several counts, and what the end of a command means.
//!
//! Run ids live here too, because everything that speaks of an outcome speaks of its run.

use std::fmt;

use crate::plan::ExitCodes;
use crate::sys::ExitKind;

/// The number of a run: 1, 2, 3, … for the life of the state directory, never given twice. 0 is `once`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Success,
    Warning,
    Failure,
    /// Stopped because it had run longer than its `timeout`.
    Timeout,
    /// Stopped by `stop TASK` or by the daemon's shutdown.
    Stopped,
    /// The daemon died while it ran.
    Crashed,
    /// It never started.
    Skipped(SkipReason),
}

/// Why a due run never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// The task's last run had not ended.
    Overlap,
    /// Its `only_if` did not let it start.
    Condition,
    /// A secret that it needs was not there.
    Secrets,
    /// Other runs held a lock that it needs, or all turns.
    Lock,
    /// The daemon was not running or the machine slept when its slot came.
    Missed,
}

impl Outcome {
    /// All outcomes, as `parse` knows them.
    const ALL: [Outcome; 11] = [
        Outcome::Success,
        Outcome::Warning,
        Outcome::Failure,
        Outcome::Timeout,
        Outcome::Stopped,
        Outcome::Crashed,
        Outcome::Skipped(SkipReason::Overlap),
        Outcome::Skipped(SkipReason::Condition),
        Outcome::Skipped(SkipReason::Secrets),
        Outcome::Skipped(SkipReason::Lock),
        Outcome::Skipped(SkipReason::Missed),
    ];

    /// The outcome in one word; `reason` has the rest.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Warning => "warning",
            Outcome::Failure => "failure",
            Outcome::Timeout => "timeout",
            Outcome::Stopped => "stopped",
            Outcome::Crashed => "crashed",
            Outcome::Skipped(_) => "skipped",
        }
    }

    /// Why it was skipped, if it was.
    pub fn reason(self) -> Option<SkipReason> {
        match self {
            Outcome::Skipped(reason) => Some(reason),
            _ => None,
        }
    }

    /// The outcome of these words, as `name` and `SkipReason::name` give them.
    pub fn parse(name: &str, reason: Option<&str>) -> Option<Outcome> {
        Outcome::ALL
            .into_iter()
            .find(|outcome| outcome.name() == name && outcome.reason().map(SkipReason::name) == reason)
    }

    /// The one that counts where a run's steps ended differently.
    pub fn worse(self, other: Outcome) -> Outcome {
        if other.badness() > self.badness() { other } else { self }
    }

    /// Whether the `failure` hook speaks of it and a client answers with a failure.
    pub fn is_failure(self) -> bool {
        matches!(self, Outcome::Failure | Outcome::Timeout | Outcome::Crashed)
    }

    /// The exit status of a command that waited for it.
    pub fn exit_status(self) -> u8 {
        match self {
            Outcome::Success => 0,
            Outcome::Warning => 3,
            _ => 1,
        }
    }

    /// What ended a run early stands above what its commands said of themselves.
    fn badness(self) -> u8 {
        match self {
            Outcome::Success => 0,
            Outcome::Skipped(_) => 1,
            Outcome::Warning => 2,
            Outcome::Failure => 3,
            Outcome::Timeout => 4,
            Outcome::Stopped => 5,
            Outcome::Crashed => 6,
        }
    }
}

impl SkipReason {
    pub fn name(self) -> &'static str {
        match self {
            SkipReason::Overlap => "overlap",
            SkipReason::Condition => "condition",
            SkipReason::Secrets => "secrets",
            SkipReason::Lock => "lock",
            SkipReason::Missed => "missed",
        }
    }
}

/// `success`, or `skipped (overlap)`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Skipped(reason) => write!(f, "skipped ({})", reason.name()),
            outcome => f.write_str(outcome.name()),
        }
    }
}

/// What the end of a command means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// A failure that a retry cannot mend.
    pub fatal: bool,
}

/// What `end` means by `codes`: what is not named there is a failure, and so is every signal.
pub fn judge(end: ExitKind, codes: &ExitCodes) -> Verdict {
    let (outcome, fatal) = match end {
        ExitKind::Code(code) if codes.success.contains(code) => (Outcome::Success, false),
        ExitKind::Code(code) if codes.warning.contains(code) => (Outcome::Warning, false),
        ExitKind::Code(code) => (Outcome::Failure, codes.fatal.contains(code)),
        ExitKind::Signal(_) => (Outcome::Failure, false),
    };
    Verdict { outcome, fatal }
}

/// The status by which a shell would tell of `end`: 128 + n for a signal.
pub fn exit_code(end: ExitKind) -> i32 {
    match end {
        ExitKind::Code(code) => i32::from(code),
        ExitKind::Signal(signal) => 128 + signal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::CodeSet;

    fn restic() -> ExitCodes {
        ExitCodes { success: CodeSet(vec![(0, 0)]), warning: CodeSet(vec![(3, 3)]), fatal: CodeSet(vec![(10, 12)]) }
    }

    #[test]
    fn exit_codes_decide_the_outcome() {
        let of = |code| {
            let verdict = judge(ExitKind::Code(code), &restic());
            (verdict.outcome, verdict.fatal)
        };
        assert_eq!(of(0), (Outcome::Success, false));
        assert_eq!(of(3), (Outcome::Warning, false));
        assert_eq!(of(1), (Outcome::Failure, false));
        assert_eq!(of(10), (Outcome::Failure, true));
        assert_eq!(of(255), (Outcome::Failure, false));
    }

    #[test]
    fn a_signal_is_a_failure_that_may_be_retried() {
        let verdict = judge(ExitKind::Signal(9), &restic());
        assert_eq!(verdict, Verdict { outcome: Outcome::Failure, fatal: false });
        assert_eq!(exit_code(ExitKind::Signal(9)), 137);
        assert_eq!(exit_code(ExitKind::Code(3)), 3);
    }

    #[test]
    fn the_worst_of_several_counts() {
        let worst = |outcomes: &[Outcome]| outcomes.iter().copied().fold(Outcome::Success, Outcome::worse);
        assert_eq!(worst(&[]), Outcome::Success);
        assert_eq!(worst(&[Outcome::Warning, Outcome::Success]), Outcome::Warning);
        assert_eq!(worst(&[Outcome::Failure, Outcome::Warning]), Outcome::Failure);
        assert_eq!(worst(&[Outcome::Failure, Outcome::Timeout]), Outcome::Timeout);
        assert_eq!(worst(&[Outcome::Timeout, Outcome::Stopped, Outcome::Failure]), Outcome::Stopped);
    }

    #[test]
    fn every_outcome_is_read_back_from_its_words() {
        for outcome in Outcome::ALL {
            let reason = outcome.reason().map(SkipReason::name);
            assert_eq!(Outcome::parse(outcome.name(), reason), Some(outcome));
        }
        assert_eq!(Outcome::parse("skipped", None), None);
        assert_eq!(Outcome::parse("success", Some("lock")), None);
        assert_eq!(Outcome::Skipped(SkipReason::Lock).to_string(), "skipped (lock)");
    }
}
