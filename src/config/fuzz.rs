//! Text that may be YAML: the walk before the parser sees what the parser will see, one reading gives what two give,
//! and no message repeats what is written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::scan::scan;
use super::{Config, Node, Value, tree, usual};
use crate::testing::{Random, fuzz};

/// Fragments of which structure, and what hides structure, is made.
const FRAGMENTS: [&str; 58] = [
    "[", "[", "[", "]", "]", "{", "{", "}", "}", ",", ", ", ": ", ": ", ":", "a: ", "b", "- ", "- ", "- - ", "-", "? ",
    "?", "\n", "\n", "\n ", "\n  ", "\n  ", "\n    ", "\n- ", "\na: ", "\n: ", "'", "'", "\"", "\"", "don't", "a 'b",
    "a #", "#", "# [", " #b [", "\\", "\\\"", "|\n", "|\n  ", ">-\n ", "|2\n", "&a ", "*a", "\t", "é", "\u{85}",
    "\u{2028}", "\r\n", "14", "0x10", "~", "---\n",
];

/// Scalars that read as something else than text, or look as if they did.
const SCALARS: &[&str] = &[
    "0",
    "7",
    "-7",
    "+7",
    "0x1f",
    "0b1",
    "00",
    "1.0",
    "1e2",
    "true",
    "True",
    "null",
    "Null",
    "~",
    "a",
    "-.inf",
    "'1'",
    "\"~\"",
    "nan",
    "inf",
    "1_000",
    "-a",
    "--",
    "0.",
    "1:2",
    "&a 1.0",
    "*a",
    "''",
    "12345678901234567890",
];

/// A text that must never come back in a message.
const CANARY: &str = "hunter2";

fn random_text(random: &mut Random) -> String {
    let mut scalar = || random.pick(SCALARS);
    match (scalar(), scalar(), scalar()) {
        (a, b, c) if random.once_in(8) => format!("- {a}\n- {{a: {b}, {c}: b}}"),
        (a, b, _) if random.once_in(8) => format!("{}\n- [{a}, {b}]", random.soup(&FRAGMENTS, 5)),
        _ if random.once_in(8) => {
            format!("{CANARY}: {} {CANARY} {} *{CANARY}", random.soup(&FRAGMENTS, 6), random.soup(&FRAGMENTS, 6))
        }
        // A list whose items may be anything.
        _ if random.once_in(4) => {
            let indent = random.pick(&["", " ", "  "]);
            let items = (0..4).map(|_| format!("{indent}- {}\n", random.soup(&FRAGMENTS, 3)));
            format!("a:\n{}", items.collect::<String>())
        }
        _ if random.once_in(8) => {
            let text = random.soup(&FRAGMENTS, 20);
            random.mutated(&text, &FRAGMENTS)
        }
        _ => random.soup(&FRAGMENTS, 17),
    }
}

#[test]
fn any_text_is_seen_as_the_parser_sees_it_or_refused_without_repeating_it() {
    fuzz(20, |random| {
        let text = random_text(random);
        let scanned = scan(&text);
        if let (Some(depth), false) = (true_depth(&text), text.contains('*')) {
            match &scanned {
                Ok(scan) => assert_eq!(scan.depth, depth, "{text:?}"),
                Err(refusal) => assert!(is_refused_early(&refusal.what), "{text:?}: {refusal:?}"),
            }
        }
        if let Ok(scan) = scanned {
            let whole = tree::read(&text, scan.unusual_scalars);
            if let Ok(full) = tree::read(&text, true) {
                assert!(whole.as_ref().is_ok_and(|whole| is_same(&full, whole)), "{text:?}");
            }
        }
        assert_usual_is_same(&text);
        match Config::parse(&text) {
            Ok(config) => {
                let problems = config.problems().located(config.root());
                assert!(
                    !format!("{problems:?}").contains(CANARY) || text.starts_with(CANARY),
                    "{text:?}: {problems:?}"
                );
                true
            }
            Err(problem) => {
                assert!(!format!("{problem:?}").contains(CANARY), "{text:?}: {problem:?}");
                assert!(!problem.what.is_empty() && !problem.what.ends_with('.'), "{text:?}: {problem:?}");
                false
            }
        }
    });
}

#[test]
fn what_is_read_without_the_parser_is_what_the_parser_reads() {
    fuzz(4, |random| {
        let mut text = random.pick(&["", "", "", "---\n", "# a\n---\n"]).to_string();
        write_block(random, 0, 0, &mut text);
        if random.once_in(2) {
            text = random.mutated(&text, &FRAGMENTS);
        }
        assert_usual_is_same(&text)
    });
}

/// Tells whether the text is in the usual style.
fn assert_usual_is_same(text: &str) -> bool {
    let Some(usual) = usual::read(text) else { return false };
    assert!(scan(text).is_ok(), "{text:?} is refused");
    let by_parser = tree::read(text, true).expect(text);
    assert!(is_same(&usual, &by_parser), "{text:?}: {usual:?}, {by_parser:?}");
    true
}

/// What ends a line.
const LINE_ENDS: [&str; 8] = ["\n", "\n", "\n", "\n", " \n", " # c: [d\n", "\n\n", "\n# e\n"];

/// Writes a map or a list as people write them.
fn write_block(random: &mut Random, indent: usize, depth: usize, text: &mut String) {
    let begin = |number, text: &mut String| text.push_str(&" ".repeat(if number == 0 { 0 } else { indent }));
    let is_list = random.once_in(3);
    for number in 0..1 + random.below(3) {
        begin(number, text);
        if is_list {
            text.push_str("- ");
        } else {
            text.push_str(random.pick(&["a", "b c", "'d'", "\"e\\t\"", "14", "~", "f#", "g "]));
            text.push(':');
        }
        let below = indent + 1 + random.below(3);
        match random.below(if depth < 3 { 6 } else { 4 }) {
            0 if !is_list => text.push_str(random.pick(&LINE_ENDS)),
            1 => write_literal(random, below, text),
            2 => {
                text.push(' ');
                write_flow(random, 0, text);
                text.push_str(random.pick(&LINE_ENDS));
            }
            4 if is_list => write_block(random, indent + 2, depth + 1, text),
            4 | 5 => {
                let below = if is_list || random.once_in(4) { below } else { indent };
                text.push_str(random.pick(&LINE_ENDS));
                text.push_str(&" ".repeat(below));
                write_block(random, below, depth + 1, text);
            }
            _ => {
                text.push(' ');
                text.push_str(random.pick(SCALARS));
                text.push_str(random.pick(&LINE_ENDS));
            }
        }
    }
}

fn write_literal(random: &mut Random, indent: usize, text: &mut String) {
    text.push_str(random.pick(&[" |\n", " >\n", " |-\n", " >+\n", " | # f\n", " |2\n"]));
    for _ in 0..random.below(4) {
        let more = random.pick(&["", "", " ", "# "]);
        text.push_str(&format!("{}{more}{}\n", " ".repeat(indent), random.pick(SCALARS)));
        text.push_str(random.pick(&["", "", "\n", "  \n"]));
    }
}

fn write_flow(random: &mut Random, depth: usize, text: &mut String) {
    let between = random.pick(&["", "", " ", "\n ", "\n", " # g\n  "]);
    match random.below(if depth < 3 { 4 } else { 2 }) {
        0 | 1 => text.push_str(random.pick(SCALARS)),
        2 => {
            text.push_str(&format!("[{between}"));
            for _ in 0..random.below(4) {
                write_flow(random, depth + 1, text);
                text.push_str(&format!("{between},{between}"));
            }
            text.push(']');
        }
        _ => {
            text.push_str(&format!("{{{between}"));
            for _ in 0..random.below(3) {
                text.push_str(random.pick(&["a: ", "'b': ", "\"c\":", "1: ", "d :\n "]));
                write_flow(random, depth + 1, text);
                text.push_str(&format!("{between},{between}"));
            }
            text.push('}');
        }
    }
}

/// What the parser would take.
fn is_refused_early(what: &str) -> bool {
    ["tab", "control character", "tag"].iter().any(|known| what.contains(known))
}

fn is_same(a: &Node<'_>, b: &Node<'_>) -> bool {
    if a.at != b.at {
        return false;
    }
    match (&a.value, &b.value) {
        (Value::Scalar(kind, text), Value::Scalar(other_kind, other)) => kind == other_kind && text == other,
        (Value::List(items), Value::List(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(item, other)| is_same(item, other))
        }
        (Value::Map(entries), Value::Map(others)) => {
            let pairs = entries.iter().zip(others);
            entries.len() == others.len()
                && pairs.into_iter().all(|(entry, other)| entry.0 == other.0 && is_same(&entry.1, &other.1))
        }
        _ => false,
    }
}

/// How deep the parser finds lists and maps inside each other.
struct Depth(usize);

impl<'de> Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        parser.deserialize_any(DepthVisitor)
    }
}

struct DepthVisitor;

impl<'de> Visitor<'de> for DepthVisitor {
    type Value = Depth;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Depth, E> {
        Ok(Depth(0))
    }
    fn visit_none<E>(self) -> Result<Depth, E> {
        Ok(Depth(0))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Depth, E> {
        Ok(Depth(0))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Depth, E> {
        Ok(Depth(0))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Depth, E> {
        Ok(Depth(0))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Depth, E> {
        Ok(Depth(0))
    }
    fn visit_str<E>(self, _: &str) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Depth, A::Error> {
        let mut deepest = 0;
        while let Some(Depth(depth)) = list.next_element()? {
            deepest = deepest.max(depth);
        }
        Ok(Depth(deepest + 1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Depth, A::Error> {
        let mut deepest = 0;
        while let Some((Depth(key), Depth(value))) = map.next_entry()? {
            deepest = deepest.max(key).max(value);
        }
        Ok(Depth(deepest + 1))
    }
}

pub fn true_depth(text: &str) -> Option<usize> {
    Depth::deserialize(serde_yaml::Deserializer::from_str(text)).ok().map(|depth| depth.0)
}
