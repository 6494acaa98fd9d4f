//! What the exit statuses of known programs mean, and how the file changes that.

use super::layer::Setting;
use super::scope::Scope;
use super::{CodeSet, ExitCodes};
use crate::config::{Node, Value};

/// The names that `exit_codes` takes, which are base names of programs as well.
const KNOWN: [&str; 5] = ["borg", "rclone", "restic", "rsync", "tar"];

/// `exit_codes` of one layer.
#[derive(Debug, Clone)]
pub(super) enum CodesLayer {
    /// As those of a known program.
    As(&'static str),
    Sets(CodeSets),
}

#[derive(Debug, Clone, Default)]
pub(super) struct CodeSets {
    success: Setting<CodeSet>,
    warning: Setting<CodeSet>,
    fatal: Setting<CodeSet>,
}

/// The exit codes of the program with this name or path.
pub(super) fn of_program(program: &str) -> ExitCodes {
    let (success, warning, fatal): (Ranges, Ranges, Ranges) = match program.rsplit('/').next() {
        // 11, a repository that is locked, is an ordinary failure: the next attempt may succeed.
        Some("restic") => (&[(0, 0)], &[(3, 3)], &[(10, 10), (12, 12)]),
        Some("borg") => (&[(0, 0)], &[(1, 1), (100, 127)], &[]),
        Some("rclone") => (&[(0, 0), (9, 9)], &[], &[(6, 7)]),
        Some("rsync") => (&[(0, 0)], &[(24, 24)], &[]),
        Some("tar") => (&[(0, 0)], &[(1, 1)], &[]),
        _ => (&[(0, 0)], &[], &[]),
    };
    let set = |ranges: Ranges| CodeSet(ranges.to_vec());
    ExitCodes { success: set(success), warning: set(warning), fatal: set(fatal) }
}

/// Inclusive ranges in rising order.
type Ranges = &'static [(u8, u8)];

/// The meaning of a program's statuses with all layers applied, the farthest first.
pub(super) fn merge<'l>(program: &str, layers: impl IntoIterator<Item = &'l Setting<CodesLayer>>) -> ExitCodes {
    let mut base = of_program(program);
    let mut codes = base.clone();
    for layer in layers {
        match layer {
            Setting::Unset => {}
            Setting::Reset => {
                base = of_program(program);
                codes = base.clone();
            }
            Setting::To(CodesLayer::As(known)) => {
                base = of_program(known);
                codes = base.clone();
            }
            Setting::To(CodesLayer::Sets(sets)) => apply(sets, &base, &mut codes),
        }
    }
    codes
}

/// A status that a nearer layer claims for one set leaves the others.
fn apply(sets: &CodeSets, base: &ExitCodes, codes: &mut ExitCodes) {
    let given = [&sets.success, &sets.warning, &sets.fatal];
    let base = [&base.success, &base.warning, &base.fatal];
    let mut merged = [&mut codes.success, &mut codes.warning, &mut codes.fatal];
    for (index, setting) in given.iter().enumerate() {
        match setting {
            Setting::Unset => {}
            Setting::Reset => *merged[index] = base[index].clone(),
            Setting::To(set) => {
                for (other, codes) in merged.iter_mut().enumerate() {
                    if other != index && !matches!(given[other], Setting::To(_)) {
                        remove(codes, set);
                    }
                }
                *merged[index] = set.clone();
            }
        }
    }
}

fn remove(from: &mut CodeSet, codes: &CodeSet) {
    if from.0.iter().any(|&(first, last)| (first..=last).any(|code| codes.contains(code))) {
        *from = collect((0..=255).filter(|&code| from.contains(code) && !codes.contains(code)));
    }
}

/// The set of these codes, which come in rising order.
fn collect(codes: impl Iterator<Item = u8>) -> CodeSet {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    for code in codes {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(code) => *last = code,
            _ => ranges.push((code, code)),
        }
    }
    CodeSet(ranges)
}

/// Reads `exit_codes`: the name of a known program, or lists of statuses.
pub(super) fn read(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<CodesLayer> {
    const WANTED: &str = "a map of lists such as {warning: [3]}, or one of borg, rclone, restic, rsync, tar";
    if let Value::Scalar(..) = node.value {
        let name = node.text(WANTED, &mut scope.problems)?;
        let known = KNOWN.iter().find(|known| **known == name);
        if known.is_none() {
            scope.problems.add_unknown(node.at, &format!("expected {WANTED}"), name, KNOWN);
        }
        return known.map(|known| CodesLayer::As(known));
    }
    let mut section = node.section(WANTED, &mut scope.problems)?;
    let mut taken = [false; 256];
    let mut set = |key, scope: &mut Scope<'_>| match section.take(key) {
        None => Setting::Unset,
        Some(node) if node.is_null() => Setting::Reset,
        Some(node) => code_set(node, &mut taken, scope).map_or(Setting::Unset, Setting::To),
    };
    let sets = CodeSets { success: set("success", scope), warning: set("warning", scope), fatal: set("fatal", scope) };
    section.finish(&mut scope.problems);
    Some(CodesLayer::Sets(sets))
}

fn code_set(node: &Node<'_>, taken: &mut [bool; 256], scope: &mut Scope<'_>) -> Option<CodeSet> {
    let mut present = [false; 256];
    for item in node.list("a list of exit statuses such as [3]", &mut scope.problems)? {
        let Some(code) = item.number(0..=255, &mut scope.problems) else {
            continue;
        };
        if std::mem::replace(&mut taken[code as usize], true) {
            scope.problems.add(item.at, "this exit status stands here twice");
        }
        present[code as usize] = true;
    }
    Some(collect((0..=255).filter(|&code| present[usize::from(code)])))
}
