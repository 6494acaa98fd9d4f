//! The file as a tree of what is written, before any of it has a meaning.
//!
//! serde_yaml resolves a plain scalar either to its value or to its text. Both are needed: `14` is
//! a number under `retry` and an argument under `command`. So the shape is read first, and where
//! a scalar was written in an unusual way, a second reading along that shape fetches the texts.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::problem::{Problem, Problems, place};
use super::scan::MAX_DEPTH;

/// The most values of a file, with those that aliases repeat. 10,000 tasks of usual size have
/// half as many.
pub const MAX_NODES: u32 = 1_000_000;

/// The most bytes of text, with those that aliases repeat: four times the largest file.
const MAX_TEXT: usize = 16 << 20;

/// The most entries of a map that are compared one by one.
const SMALL_MAP: usize = 16;

/// A value and where it stands: its number in the order of the file.
#[derive(Debug)]
pub struct Node<'t> {
    pub at: u32,
    pub value: Value<'t>,
}

#[derive(Debug)]
pub enum Value<'t> {
    /// With its text as written; quotes and escapes are resolved.
    Scalar(Kind, Cow<'t, str>),
    List(Vec<Node<'t>>),
    /// In order of the file; the first of several entries of one key counts, the others are problems.
    Map(Vec<(Cow<'t, str>, Node<'t>)>),
}

/// As what a scalar reads in YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Null,
    Boolean,
    Number,
    Text,
}

/// Reads the one document of `text`; `raw_texts` tells whether the second reading is needed.
///
/// # Errors
/// What the parser reports, and growth by aliases beyond all measure.
pub fn read(text: &str, raw_texts: bool) -> Result<Node<'_>, Problem> {
    let parser = serde_yaml::Deserializer::from_str(text);
    let mut growth = Growth::default();
    let mut root = NodeSeed(&mut growth).deserialize(parser).map_err(|error| syntax_problem(&error, growth.refusal))?;
    if raw_texts {
        let parser = serde_yaml::Deserializer::from_str(text);
        TextSeed(&mut root).deserialize(parser).map_err(|error| syntax_problem(&error, None))?;
    }
    Ok(root)
}

/// Notes what is wrong in any map and any text: keys given twice, merge keys, NUL.
pub fn check(node: &Node<'_>, problems: &mut Problems) {
    match &node.value {
        // The text of the file itself has none, it must have been an escape.
        Value::Scalar(_, Cow::Owned(text)) if text.contains('\0') => problems.add(node.at, "holds a NUL character"),
        Value::Scalar(..) => {}
        Value::List(items) => items.iter().for_each(|item| check(item, problems)),
        Value::Map(entries) => {
            let mut seen = HashSet::new();
            for (index, (key, item)) in entries.iter().enumerate() {
                // Most maps are small, and not worth a table.
                let twice = match entries.len() {
                    ..=SMALL_MAP => entries[..index].iter().any(|(other, _)| other == key),
                    _ => !seen.insert(key),
                };
                if key == "<<" {
                    let hint = "put what tasks share under `profiles` and name it there with `profile`";
                    problems.add_hint(item.at, "merge keys (`<<`) are not supported", Some(hint.to_string()));
                } else if matches!(key, Cow::Owned(key) if key.contains('\0')) {
                    problems.add(item.at, "the key holds a NUL character");
                } else if twice {
                    problems.add(item.at, "the key stands here twice");
                }
                check(item, problems);
            }
        }
    }
}

/// How far the tree has grown, since aliases let a small file stand for a huge one.
#[derive(Default)]
struct Growth {
    nodes: u32,
    text: usize,
    depth: usize,
    refusal: Option<&'static str>,
}

impl Growth {
    /// The number of the next node.
    fn node<E: serde::de::Error>(&mut self) -> Result<u32, E> {
        let number = self.nodes;
        self.nodes += 1;
        match number {
            ..MAX_NODES => Ok(number),
            _ => Err(self.refuse("the file and its aliases come to more than 1,000,000 values")),
        }
    }

    fn text<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        self.text += text.len();
        match self.text {
            ..MAX_TEXT => Ok(()),
            _ => Err(self.refuse("the file and its aliases come to more than 16 MiB of text")),
        }
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        match self.depth {
            ..=MAX_DEPTH => Ok(()),
            _ => Err(self.refuse("nested deeper than 64 lists and maps")),
        }
    }

    /// The error's own text would lead through the parser, which adds keys of the file to it.
    fn refuse<E: serde::de::Error>(&mut self, why: &'static str) -> E {
        self.refusal = Some(why);
        E::custom(why)
    }
}

struct NodeSeed<'g>(&'g mut Growth);

impl<'t> DeserializeSeed<'t> for NodeSeed<'_> {
    type Value = Node<'t>;

    fn deserialize<D: Deserializer<'t>>(self, parser: D) -> Result<Node<'t>, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'t> NodeSeed<'_> {
    fn scalar<E: serde::de::Error>(self, kind: Kind, text: Cow<'t, str>) -> Result<Node<'t>, E> {
        let at = self.0.node()?;
        self.0.text(&text)?;
        Ok(Node { at, value: Value::Scalar(kind, text) })
    }
}

impl<'t> Visitor<'t> for NodeSeed<'_> {
    type Value = Node<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node<'t>, E> {
        self.scalar(Kind::Null, Cow::Borrowed(""))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node<'t>, E> {
        self.visit_unit()
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node<'t>, E> {
        self.scalar(Kind::Boolean, Cow::Borrowed(if value { "true" } else { "false" }))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node<'t>, E> {
        self.scalar(Kind::Number, Cow::Owned(value.to_string()))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node<'t>, E> {
        self.scalar(Kind::Number, Cow::Owned(value.to_string()))
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Node<'t>, E> {
        self.scalar(Kind::Number, Cow::Borrowed(""))
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Node<'t>, E> {
        self.scalar(Kind::Number, Cow::Borrowed(""))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Node<'t>, E> {
        self.scalar(Kind::Number, Cow::Borrowed(""))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'t str) -> Result<Node<'t>, E> {
        self.scalar(Kind::Text, Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node<'t>, E> {
        self.scalar(Kind::Text, Cow::Owned(text.to_string()))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut list: A) -> Result<Node<'t>, A::Error> {
        let at = self.0.node()?;
        self.0.enter()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(NodeSeed(self.0))? {
            items.push(item);
        }
        self.0.depth -= 1;
        Ok(Node { at, value: Value::List(items) })
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Node<'t>, A::Error> {
        let at = self.0.node()?;
        self.0.enter()?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(KeySeed(self.0))? {
            entries.push((key, map.next_value_seed(NodeSeed(self.0))?));
        }
        self.0.depth -= 1;
        Ok(Node { at, value: Value::Map(entries) })
    }

    fn visit_enum<A: EnumAccess<'t>>(self, _: A) -> Result<Node<'t>, A::Error> {
        Err(self.0.refuse("tags (`!`) are not supported"))
    }
}

/// A key is text as written, whatever it reads as.
struct KeySeed<'g>(&'g mut Growth);

impl<'t> DeserializeSeed<'t> for KeySeed<'_> {
    type Value = Cow<'t, str>;

    fn deserialize<D: Deserializer<'t>>(self, parser: D) -> Result<Cow<'t, str>, D::Error> {
        let growth = self.0;
        // The parser fails by itself on a key that is a list or a map.
        growth.refusal = Some("a key that is a list or a map; expected text");
        let key = parser.deserialize_str(TextVisitor)?;
        growth.refusal = None;
        growth.text(&key)?;
        Ok(key)
    }
}

struct TextVisitor;

impl<'t> Visitor<'t> for TextVisitor {
    type Value = Cow<'t, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'t str) -> Result<Cow<'t, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cow<'t, str>, E> {
        Ok(Cow::Owned(text.to_string()))
    }
}

/// Walks along a tree and puts the text as written into every scalar that is not text by itself.
struct TextSeed<'n, 't>(&'n mut Node<'t>);

impl<'t> DeserializeSeed<'t> for TextSeed<'_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, parser: D) -> Result<(), D::Error> {
        match &mut self.0.value {
            Value::Scalar(Kind::Text, _) => IgnoredAny::deserialize(parser).map(|_| ()),
            Value::Scalar(_, text) => parser.deserialize_str(TextVisitor).map(|raw| *text = raw),
            Value::List(_) => parser.deserialize_seq(self),
            Value::Map(_) => parser.deserialize_map(self),
        }
    }
}

impl<'t> Visitor<'t> for TextSeed<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the same tree again")
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut list: A) -> Result<(), A::Error> {
        if let Value::List(items) = &mut self.0.value {
            for item in items {
                list.next_element_seed(TextSeed(item))?.ok_or_else(|| A::Error::custom("a shorter list"))?;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<(), A::Error> {
        if let Value::Map(entries) = &mut self.0.value {
            for (_, item) in entries {
                map.next_key::<IgnoredAny>()?.ok_or_else(|| A::Error::custom("a shorter map"))?;
                map.next_value_seed(TextSeed(item))?;
            }
        }
        Ok(())
    }
}

/// The parser's own words, where they are known to hold nothing of the file.
fn syntax_problem(error: &serde_yaml::Error, refusal: Option<&'static str>) -> Problem {
    let said = error.to_string();
    let what = match refusal {
        Some(refusal) => refusal,
        None => known_words(&said).unwrap_or("not valid YAML"),
    };
    let begun = context(&said).map(|(doing, place)| format!("{what} ({doing} that begins at {place})"));
    let what = match refusal {
        None => begun.unwrap_or(what.to_string()),
        Some(_) => what.to_string(),
    };
    let place = error.location().map(|at| place(at.line(), at.column())).unwrap_or_default();
    Problem::new(place, what, None)
}

/// What libyaml and serde_yaml complain of, and the same in the voice of this program.
const KNOWN_WORDS: [(&str, &str); 28] = [
    ("block sequence entries are not allowed in this context", "a list item (`- `) cannot begin here"),
    ("could not find expected ':'", "a line without `:`, expected `key: value`"),
    ("did not find expected ',' or ']'", "expected `,` or `]`"),
    ("did not find expected ',' or '}'", "expected `,` or `}`"),
    ("did not find expected '-' indicator", "expected a list item (`- `)"),
    ("did not find expected <document start>", "expected the end of the file"),
    (
        "did not find expected alphabetic or numeric character",
        "expected a name after `&` or `*`; a schedule such as \"*/5 * * * *\" stands in quotes",
    ),
    ("did not find expected comment or line break", "expected a comment or the end of the line"),
    ("did not find expected hexadecimal number", "expected hexadecimal digits in the escape"),
    ("did not find expected key", "expected a key"),
    ("did not find expected node content", "expected a value"),
    ("found a tab character that violates indentation", "a tab, expected spaces"),
    ("found a tab character where an indentation space is expected", "a tab, expected spaces"),
    ("found an indentation indicator equal to 0", "an indentation of 0"),
    (
        "found character that cannot start any token",
        "a character that nothing can begin with, expected quotes around it",
    ),
    ("found duplicate %YAML directive", "a second %YAML line"),
    ("found incompatible YAML document", "a version of YAML that is not supported"),
    ("found invalid Unicode character escape code", "an escape that stands for no character"),
    ("found unexpected ':'", "a `:` that belongs in quotes"),
    ("found unexpected document indicator", "`---` or `...` inside quotes"),
    ("found unexpected end of stream", "the file ends inside quotes"),
    ("found unknown directive name", "a line that begins with `%`"),
    ("found unknown escape character", "an unknown escape in double quotes"),
    ("mapping keys are not allowed in this context", "a key (`? `) cannot begin here"),
    ("mapping values are not allowed in this context", "a `: ` that belongs in quotes or on a line of its own"),
    ("repetition limit exceeded", "aliases (`*`) that repeat each other too often"),
    ("unknown anchor", "an alias (`*`) without its anchor (`&`) before it"),
    (
        "deserializing from YAML containing more than one document is not supported",
        "more than one document (`---`), expected one",
    ),
];

fn known_words(said: &str) -> Option<&'static str> {
    let words = said.split(" at line ").next()?.split(" at position ").next()?;
    let words = words.split(", while ").next()?;
    KNOWN_WORDS.iter().find(|(theirs, _)| *theirs == words).map(|(_, ours)| *ours)
}

/// What the parser was in the middle of, and where that began.
fn context(said: &str) -> Option<(&'static str, String)> {
    const CONTEXTS: [(&str, &str); 5] = [
        ("while parsing a flow sequence", "the `[`"),
        ("while parsing a flow mapping", "the `{`"),
        ("while parsing a block mapping", "the map"),
        ("while parsing a block collection", "the list"),
        ("while scanning a quoted scalar", "the text"),
    ];
    let (_, doing) = said.split_once(", while ")?;
    let (doing, mark) = doing.split_once(" at line ")?;
    let (line, column) = mark.split_once(" column ")?;
    let (_, ours) = CONTEXTS.iter().find(|(theirs, _)| theirs.strip_prefix("while ") == Some(doing))?;
    Some((ours, place(line.parse().ok()?, column.parse().ok()?)))
}
