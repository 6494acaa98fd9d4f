//! Reads the style in which nearly all configurations are written, without copying their words.
//!
//! The YAML parser would be most of a start with many tasks. All that is seldom stays its business, and so does all
//! that is wrong: this reader knows no errors, it gives up, and the parser reads the whole.

use std::borrow::Cow;

use super::scalar::{is_unusual, ordinary_length};
use super::scan::{MAX_DEPTH, MAX_SIMPLE_KEY};
use super::tree::{self, Kind, MAX_NODES, Node, Value};

/// Reads `text`: maps, lists and texts of one line, quoted or plain, flow collections over any number of lines, and
/// block scalars, of which the parser gives the value. `None` if there is anything else in it, or anything wrong.
pub fn read(text: &str) -> Option<Node<'_>> {
    let is_printable = text.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~' | 0x80..));
    if !is_printable || !text.is_ascii() && text.chars().any(is_special) {
        return None;
    }
    let mut reader = Reader { text, bytes: text.as_bytes(), index: 0, line: 0, nodes: 0 };
    reader.skip_blank();
    if reader.column() == 0 && text[reader.index..].starts_with("---\n") {
        reader.skip_line();
        reader.skip_blank();
    }
    let root = reader.node(0, 0)?;
    reader.peek().is_none().then_some(root)
}

/// What YAML takes for a line break or refuses, and the mark of a byte order.
fn is_special(character: char) -> bool {
    matches!(character, '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    Block,
    Flow,
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    index: usize,
    /// Where the line at hand begins.
    line: usize,
    /// How many there are so far.
    nodes: u32,
}

impl<'t> Reader<'t> {
    // Blocks. What follows a value is in a line of its own; there the reader stands when it is done with one.

    /// Reads what may stand in a line of its own or behind `- `. It ends before the first line that is indented by less
    /// than `indent`.
    fn node(&mut self, indent: usize, depth: usize) -> Option<Node<'t>> {
        match self.peek()? {
            b'-' if self.blank_follows(1) => self.list(depth),
            b'[' | b'{' | b'|' | b'>' => self.value_here(indent, depth),
            _ => {
                let (column, start) = (self.column(), self.index);
                let at = self.number()?;
                let (kind, text) = self.scalar(Context::Block)?;
                if self.take_colon(start, Context::Block)? {
                    return self.map(at, column, text, depth);
                }
                self.end_value(indent)?;
                Some(Node { at, value: Value::Scalar(kind, text) })
            }
        }
    }

    fn list(&mut self, depth: usize) -> Option<Node<'t>> {
        let column = self.column();
        let at = self.collection(depth)?;
        let mut items = Vec::new();
        while self.peek() == Some(b'-') && self.blank_follows(1) && self.column() == column {
            self.index += 1;
            let is_below = self.skip_blank();
            if is_below && self.column() <= column {
                return None;
            }
            items.push(self.node(column + 1, depth + 1)?);
        }
        Some(Node { at, value: Value::List(items) })
    }

    /// Reads a map from behind the `:` of its first key.
    fn map(&mut self, at: u32, column: usize, first: Cow<'t, str>, depth: usize) -> Option<Node<'t>> {
        if depth == MAX_DEPTH {
            return None;
        }
        let mut entries = Vec::with_capacity(4);
        entries.push((first, self.value(column, depth + 1)?));
        while self.peek().is_some() && self.column() == column {
            let start = self.index;
            let (_, key) = self.scalar(Context::Block)?;
            if !self.take_colon(start, Context::Block)? {
                return None;
            }
            entries.push((key, self.value(column, depth + 1)?));
        }
        Some(Node { at, value: Value::Map(entries) })
    }

    /// Reads the value of a key that stands at `column`.
    fn value(&mut self, column: usize, depth: usize) -> Option<Node<'t>> {
        let is_below = self.skip_blank();
        match self.peek() {
            Some(_) if !is_below => self.value_here(column + 1, depth),
            Some(_) if self.column() > column => self.node(column + 1, depth),
            Some(b'-') if self.column() == column && self.blank_follows(1) => self.list(depth),
            _ => Some(Node { at: self.number()?, value: Value::Scalar(Kind::Null, Cow::Borrowed("")) }),
        }
    }

    /// Reads a value that no map and no list in block style can be.
    fn value_here(&mut self, indent: usize, depth: usize) -> Option<Node<'t>> {
        let value = match self.peek()? {
            b'|' | b'>' => return self.block_scalar(indent),
            _ => self.flow_value(Context::Block, depth)?,
        };
        self.end_value(indent)?;
        Some(value)
    }

    /// Steps to the line behind a value, which must not be indented so that it would belong to it.
    fn end_value(&mut self, indent: usize) -> Option<()> {
        let is_below = self.skip_blank();
        (self.peek().is_none() || is_below && self.column() < indent).then_some(())
    }

    /// Finds the lines of a text that begins with `|` or `>`, for the parser to read.
    fn block_scalar(&mut self, indent: usize) -> Option<Node<'t>> {
        let (at, start) = (self.number()?, self.index);
        let states_indent = self.skip_line().iter().take_while(|&&byte| byte != b' ').any(u8::is_ascii_digit);
        // One that nothing holds would take in all that follows, also what must not reach the parser.
        if indent == 0 || states_indent {
            return None;
        }
        loop {
            self.skip_spaces();
            match self.peek() {
                Some(byte) if byte == b'\n' || self.column() >= indent => self.skip_line(),
                _ => break,
            };
        }
        // Blanks at the end of the file are part of it.
        let end = if self.peek().is_none() { self.index } else { self.line };
        let (kind, text) = scalar_by_parser(&self.text[start..end], false)?;
        self.skip_blank();
        let ends = self.peek().is_none() || self.column() < indent;
        ends.then_some(Node { at, value: Value::Scalar(kind, text) })
    }

    // Flow collections.

    fn flow_value(&mut self, context: Context, depth: usize) -> Option<Node<'t>> {
        match self.peek()? {
            b'[' => self.flow_list(depth),
            b'{' => self.flow_map(depth),
            _ => {
                let at = self.number()?;
                let (kind, text) = self.scalar(context)?;
                Some(Node { at, value: Value::Scalar(kind, text) })
            }
        }
    }

    fn flow_list(&mut self, depth: usize) -> Option<Node<'t>> {
        let at = self.collection(depth)?;
        let mut items = Vec::new();
        self.index += 1;
        while !self.ends_flow(b']') {
            items.push(self.flow_value(Context::Flow, depth + 1)?);
            self.end_flow_entry(b']')?;
        }
        Some(Node { at, value: Value::List(items) })
    }

    fn flow_map(&mut self, depth: usize) -> Option<Node<'t>> {
        let at = self.collection(depth)?;
        let mut entries = Vec::new();
        self.index += 1;
        while !self.ends_flow(b'}') {
            let start = self.index;
            let (_, key) = self.scalar(Context::Flow)?;
            if !self.take_colon(start, Context::Flow)? {
                return None;
            }
            self.skip_blank();
            entries.push((key, self.flow_value(Context::Flow, depth + 1)?));
            self.end_flow_entry(b'}')?;
        }
        Some(Node { at, value: Value::Map(entries) })
    }

    /// Takes the bracket that ends a flow collection, if it stands here.
    fn ends_flow(&mut self, bracket: u8) -> bool {
        self.skip_blank();
        let ends = self.peek() == Some(bracket);
        self.index += usize::from(ends);
        ends
    }

    /// Takes the comma behind an entry; without one, the collection must end.
    fn end_flow_entry(&mut self, bracket: u8) -> Option<()> {
        self.skip_blank();
        match self.peek()? {
            b',' => self.index += 1,
            other if other == bracket => {}
            _ => return None,
        }
        Some(())
    }

    // Texts.

    fn scalar(&mut self, context: Context) -> Option<(Kind, Cow<'t, str>)> {
        match self.peek()? {
            quote @ (b'\'' | b'"') => self.quoted(quote),
            b'-' if self.blank_follows(1) => None,
            b'?' | b':' | b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>' | b'%' | b'@'
            | b'`' => None,
            _ => self.plain(context),
        }
    }

    fn plain(&mut self, context: Context) -> Option<(Kind, Cow<'t, str>)> {
        let start = self.index;
        let in_flow = context == Context::Flow;
        loop {
            self.skip_ordinary();
            let Some(byte) = self.peek() else { break };
            match byte {
                b'\n' => break,
                b'#' if self.bytes[self.index - 1] == b' ' => break,
                b':' if self.blank_follows(1) => break,
                b':' if in_flow && self.bytes.get(self.index + 1).is_some_and(|next| b",?[]{}".contains(next)) => {
                    return None;
                }
                b',' | b'[' | b']' | b'{' | b'}' if in_flow => break,
                _ => self.index += 1,
            }
        }
        let text = self.text[start..self.index].trim_end_matches(' ');
        let may_mark_document = start == self.line && (text.starts_with("---") || text.starts_with("..."));
        match is_unusual(text) {
            _ if may_mark_document => None,
            true => scalar_by_parser(text, true),
            false => Some((usual_kind(text), Cow::Borrowed(text))),
        }
    }

    fn quoted(&mut self, quote: u8) -> Option<(Kind, Cow<'t, str>)> {
        let start = self.index;
        let mut is_literal = true;
        self.index += 1;
        loop {
            self.skip_ordinary();
            match self.peek()? {
                b'\n' => return None,
                b'\\' if quote == b'"' => {
                    is_literal = false;
                    self.index += 1;
                    if self.peek()? == b'\n' {
                        return None;
                    }
                }
                byte if byte == quote => {
                    if quote == b'"' || self.bytes.get(self.index + 1) != Some(&quote) {
                        break;
                    }
                    is_literal = false;
                    self.index += 1;
                }
                _ => {}
            }
            self.index += 1;
        }
        self.index += 1;
        let text = &self.text[start..self.index];
        match is_literal {
            true => Some((Kind::Text, Cow::Borrowed(&text[1..text.len() - 1]))),
            false => scalar_by_parser(text, false),
        }
    }

    /// Takes the `:` behind a key that began at `start`, if there is one. `None` if the key is too long for the parser.
    fn take_colon(&mut self, start: usize, context: Context) -> Option<bool> {
        self.skip_spaces();
        // A plain key has ended only where a blank follows; behind a quoted one, flow style needs none.
        let needs_blank = context == Context::Block;
        if self.peek() != Some(b':') || needs_blank && !self.blank_follows(1) {
            return Some(false);
        }
        let fits = self.index - start <= MAX_SIMPLE_KEY;
        self.index += 1;
        fits.then_some(true)
    }

    // Places.

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.index).copied()
    }

    fn column(&self) -> usize {
        self.index - self.line
    }

    fn blank_follows(&self, ahead: usize) -> bool {
        matches!(self.bytes.get(self.index + ahead), None | Some(b' ' | b'\n'))
    }

    /// Steps to the next line, and gives the rest of this one.
    fn skip_line(&mut self) -> &'t [u8] {
        let rest = &self.bytes[self.index..];
        let length = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
        self.index += length;
        self.line = self.index;
        &rest[..length]
    }

    /// Steps over what most of a file is made of.
    fn skip_ordinary(&mut self) {
        self.index += ordinary_length(&self.bytes[self.index..]);
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.index += 1;
        }
    }

    /// Steps over blanks, comments and line breaks; tells whether there was one of these.
    fn skip_blank(&mut self) -> bool {
        let line = self.line;
        loop {
            self.skip_spaces();
            match self.peek() {
                Some(b'\n') => {
                    self.index += 1;
                    self.line = self.index;
                }
                Some(b'#') if self.index == self.line || self.bytes[self.index - 1] == b' ' => {
                    let rest = &self.bytes[self.index..];
                    self.index += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                }
                _ => return self.line != line,
            }
        }
    }

    fn number(&mut self) -> Option<u32> {
        let number = self.nodes;
        self.nodes += 1;
        (number < MAX_NODES).then_some(number)
    }

    /// The number of a list or map that `depth` others hold.
    fn collection(&mut self, depth: usize) -> Option<u32> {
        if depth < MAX_DEPTH { self.number() } else { None }
    }
}

/// As what a plain text reads that is not unusual.
fn usual_kind(text: &str) -> Kind {
    match text.as_bytes() {
        b"true" | b"false" => Kind::Boolean,
        [b'0'..=b'9', rest @ ..] | [b'-', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => Kind::Number,
        _ => Kind::Text,
    }
}

/// Has the parser read a single scalar; `raw_text` as in `tree::read`.
fn scalar_by_parser(text: &str, raw_text: bool) -> Option<(Kind, Cow<'_, str>)> {
    match tree::read(text, raw_text).ok()?.value {
        Value::Scalar(kind, text) => Some((kind, text)),
        _ => None,
    }
}
