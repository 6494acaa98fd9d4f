//! Text that may be YAML: the walk before the parser sees what the parser will see, one reading gives what two give, and no
//! message repeats what is written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::scan::scan;
use super::tree::{Growth, MAX_NODES};
use super::{Config, Node, Value, pieces, tree};
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
        // A list that can perhaps be cut.
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
        let mut told_to = 0;
        let scanned = scan(&text, 1, &mut |piece| {
            assert!(piece.range.start >= told_to, "{text:?}: {piece:?} was told before");
            told_to = piece.range.end;
        });
        if let (Some(depth), false) = (true_depth(&text), text.contains('*')) {
            match &scanned {
                Ok(scan) => assert_eq!(scan.depth, depth, "{text:?}"),
                Err(refusal) => assert!(is_refused_early(&refusal.what), "{text:?}: {refusal:?}"),
            }
        }
        if let Ok(scan) = scanned {
            let read = |raw_texts| tree::read(&text, &mut Growth::new(0..MAX_NODES), raw_texts);
            let whole = read(scan.unusual_scalars);
            if let Ok(full) = read(true) {
                assert!(whole.as_ref().is_ok_and(|whole| is_same(&full, whole)), "{text:?}");
            }
            let alone_max = if random.once_in(4) { 0 } else { usize::MAX };
            match (pieces::read(&text, 1, alone_max), whole) {
                (Ok(joined), Ok(whole)) => assert!(is_same(&joined, &whole), "{text:?}"),
                (Err(problem), Err(same)) => assert_eq!(problem, same, "{text:?}"),
                (pieces, whole) => panic!("{text:?}: {pieces:?}, {whole:?}"),
            }
        }
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

/// What the parser would take.
fn is_refused_early(what: &str) -> bool {
    ["tab", "control character", "tag"].iter().any(|known| what.contains(known))
}

pub fn is_same(a: &Node<'_>, b: &Node<'_>) -> bool {
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
