//! Walks over the text once, before the YAML parser sees it, and refuses what must not reach it.
//!
//! The parser's time grows with the square of the nesting, so a small file could keep it busy for
//! minutes. This walk takes the text apart as libyaml's scanner does (`scanner.c`: indents, simple
//! keys, plain, quoted and block scalars), so that no quote, comment or apostrophe can hide a
//! bracket from it; it stops quietly where that scanner would stop with an error of its own.

mod characters;

use super::problem::{Problem, place};
use super::scalar::is_unusual;

/// The most lists and maps that may stand inside each other.
pub const MAX_DEPTH: usize = 64;

/// libyaml's limit for a key that is not introduced by `?`, in bytes.
pub const MAX_SIMPLE_KEY: usize = 1024;

/// What the walk has learned about an acceptable text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// How many lists and maps stand inside each other, without what aliases add.
    pub depth: usize,
    /// Whether some plain scalar reads as a number, a boolean or null but is not written the one
    /// way in which that value would be printed: `0x10`, `1.50`, `True`, `~`.
    pub unusual_scalars: bool,
}

/// Walks over `text`, in time that grows with its length alone.
///
/// # Errors
/// Nesting deeper than [`MAX_DEPTH`], control characters, tags and `%TAG`.
pub fn scan(text: &str) -> Result<Scan, Problem> {
    let mut scanner = Scanner::new(text);
    while scanner.token() == Step::Next {}
    match scanner {
        Scanner { refusal: Some(refusal), .. } => Err(refusal),
        Scanner { depth_max: depth, unusual_scalars, .. } => Ok(Scan { depth, unusual_scalars }),
    }
}

/// Whether the walk goes on: it ends with the text, at a refusal, or where the parser would fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Next,
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Map,
}

/// A block collection that is open.
#[derive(Debug)]
struct Block {
    column: usize,
    kind: Kind,
    /// A list that stands at the column of the map that holds it.
    holds_list_at_its_column: bool,
}

/// A flow collection that is open.
#[derive(Debug)]
struct Flow {
    kind: Kind,
    /// `[key: value]`, a map of one entry without braces.
    holds_pair: bool,
    /// The height of the item at hand, and of the highest.
    item: usize,
    highest: usize,
}

/// Where a key may have begun that only its `:` will reveal.
#[derive(Debug, Clone, Copy)]
struct SimpleKey {
    line: usize,
    index: usize,
    column: usize,
    required: bool,
}

struct Scanner<'t> {
    text: &'t str,
    bytes: &'t [u8],
    index: usize,
    line: usize,
    column: usize,
    blocks: Vec<Block>,
    flows: Vec<Flow>,
    /// Of the block context; those inside flow collections do not matter to the depth.
    key: Option<SimpleKey>,
    key_allowed: bool,
    /// The height of the flow collection that closed last in the block context.
    closed: usize,
    depth_max: usize,
    unusual_scalars: bool,
    refusal: Option<Problem>,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t str) -> Self {
        Scanner {
            text,
            bytes: text.as_bytes(),
            index: 0,
            line: 0,
            column: 0,
            blocks: Vec::new(),
            flows: Vec::new(),
            key: None,
            key_allowed: true,
            closed: 0,
            depth_max: 0,
            unusual_scalars: false,
            refusal: None,
        }
    }

    /// Takes one token.
    fn token(&mut self) -> Step {
        self.skip_to_token();
        if self.drop_stale_key() == Step::Stop {
            return Step::Stop;
        }
        self.close_blocks(self.column as isize);
        let blank_follows = self.is_blank_or_end(1);
        let in_flow = !self.flows.is_empty();
        match self.peek(0) {
            None => Step::Stop,
            Some(b'%') if self.column == 0 => self.directive(),
            Some(b'-' | b'.') if self.at_document_marker() => self.document_marker(),
            Some(b'[') => self.open_flow(Kind::List),
            Some(b'{') => self.open_flow(Kind::Map),
            Some(b']' | b'}') => self.close_flow(),
            Some(b',') => self.flow_entry(),
            Some(b'-') if blank_follows => self.block_entry(),
            Some(b'?') if in_flow || blank_follows => self.explicit_key(),
            Some(b':') if in_flow || blank_follows => self.value(),
            Some(b'*' | b'&') => self.anchor(),
            Some(b'\t') => self.refuse("a tab, expected spaces", None),
            Some(b'!') => self.refuse("a tag (`!`) is not supported", None),
            Some(b'|' | b'>') if !in_flow => self.block_scalar(),
            Some(quote @ (b'\'' | b'"')) => self.quoted(quote),
            Some(b'-') => self.plain(),
            Some(b'?' | b':') if !in_flow => self.plain(),
            Some(b'?' | b':' | b'#' | b'|' | b'>' | b'%' | b'@' | b'`' | b' ' | b'\r' | b'\n') => Step::Stop,
            Some(_) => self.plain(),
        }
    }

    fn refuse(&mut self, what: &str, hint: Option<&str>) -> Step {
        if self.refusal.is_none() {
            let place = place(self.line + 1, self.column + 1);
            self.refusal = Some(Problem::new(place, what, hint));
        }
        Step::Stop
    }

    fn skip_to_token(&mut self) {
        loop {
            if self.column == 0 && self.bytes[self.index..].starts_with(b"\xEF\xBB\xBF") {
                self.skip();
            }
            let tabs = !self.flows.is_empty() || !self.key_allowed;
            let spaces = self.bytes[self.index..].iter().take_while(|&&byte| byte == b' ').count();
            self.index += spaces;
            self.column += spaces;
            while self.peek(0) == Some(b' ') || tabs && self.peek(0) == Some(b'\t') {
                self.skip();
            }
            if self.peek(0) == Some(b'#') {
                self.skip_line();
            }
            if self.break_length(0) == 0 {
                return;
            }
            self.skip_break();
            if self.flows.is_empty() {
                self.key_allowed = true;
            }
        }
    }

    fn at_document_marker(&self) -> bool {
        let rest = &self.bytes[self.index..];
        self.column == 0 && (rest.starts_with(b"---") || rest.starts_with(b"...")) && self.is_blank_or_end(3)
    }

    // Simple keys.

    fn drop_stale_key(&mut self) -> Step {
        match self.key {
            Some(key) if key.line < self.line || key.index + MAX_SIMPLE_KEY < self.index => self.drop_key(),
            _ => Step::Next,
        }
    }

    /// Gives up the key that may have begun; where one had to be there, the parser fails.
    fn drop_key(&mut self) -> Step {
        match self.key.take() {
            Some(SimpleKey { required: true, .. }) => Step::Stop,
            _ => Step::Next,
        }
    }

    fn save_key(&mut self) -> Step {
        if !self.key_allowed || !self.flows.is_empty() {
            return Step::Next;
        }
        if self.drop_key() == Step::Stop {
            return Step::Stop;
        }
        self.closed = 0;
        self.key = Some(SimpleKey {
            line: self.line,
            index: self.index,
            column: self.column,
            required: self.blocks.last().is_some_and(|block| block.column == self.column),
        });
        Step::Next
    }

    /// As `drop_key`, for the tokens that end a key of the level that they stand in.
    fn drop_key_here(&mut self) -> Step {
        if self.flows.is_empty() { self.drop_key() } else { Step::Next }
    }

    // Depth.

    fn block_depth(&self) -> usize {
        let lists = self.blocks.iter().filter(|block| block.holds_list_at_its_column);
        self.blocks.len() + lists.count()
    }

    fn flow_depth(&self) -> usize {
        self.flows.len() + self.flows.iter().filter(|flow| flow.holds_pair).count()
    }

    /// Notes that something of this height stands at the place at hand.
    fn note(&mut self, height: usize) -> Step {
        let depth = self.block_depth() + self.flow_depth() + height;
        self.depth_max = self.depth_max.max(depth);
        if depth > MAX_DEPTH {
            return self.refuse("nested deeper than 64 lists and maps", None);
        }
        Step::Next
    }

    // Block collections.

    fn open_block(&mut self, column: usize, kind: Kind) -> Step {
        if !self.flows.is_empty() {
            return Step::Next;
        }
        match self.blocks.last_mut() {
            Some(block) if block.column >= column => {
                if block.kind == Kind::Map {
                    block.holds_list_at_its_column = kind == Kind::List;
                }
            }
            _ => self.blocks.push(Block { column, kind, holds_list_at_its_column: false }),
        }
        self.note(0)
    }

    fn close_blocks(&mut self, column: isize) {
        if self.flows.is_empty() {
            while self.blocks.last().is_some_and(|block| block.column as isize > column) {
                self.blocks.pop();
            }
        }
    }

    fn block_entry(&mut self) -> Step {
        if self.flows.is_empty() && !self.key_allowed
            || self.open_block(self.column, Kind::List) == Step::Stop
            || self.drop_key_here() == Step::Stop
        {
            return Step::Stop;
        }
        self.key_allowed = true;
        self.skip();
        Step::Next
    }

    fn explicit_key(&mut self) -> Step {
        if self.flows.is_empty() && !self.key_allowed
            || self.open_block(self.column, Kind::Map) == Step::Stop
            || self.drop_key_here() == Step::Stop
        {
            return Step::Stop;
        }
        self.key_allowed = self.flows.is_empty();
        self.begin_pair();
        self.skip();
        self.note(0)
    }

    /// The `:` between a key and its value.
    fn value(&mut self) -> Step {
        if !self.flows.is_empty() {
            self.key_allowed = false;
            let key_height = self.begin_pair();
            self.skip();
            return self.note(key_height);
        }
        let simple_key = self.key.take();
        if simple_key.is_none() && !self.key_allowed {
            return Step::Stop;
        }
        let column = simple_key.map_or(self.column, |key| key.column);
        self.key_allowed = simple_key.is_none();
        self.skip();
        // A flow collection that turns out to be the key stands inside the map that it opens.
        let key_height = std::mem::take(&mut self.closed);
        if self.open_block(column, Kind::Map) == Step::Stop {
            return Step::Stop;
        }
        self.note(key_height)
    }

    // Flow collections.

    /// Makes a map of the item at hand in a flow list, and tells how high its key is.
    fn begin_pair(&mut self) -> usize {
        match self.flows.last_mut() {
            Some(flow) if flow.kind == Kind::List => {
                flow.holds_pair = true;
                flow.highest = flow.highest.max(flow.item + 1);
                flow.item
            }
            _ => 0,
        }
    }

    fn open_flow(&mut self, kind: Kind) -> Step {
        if self.save_key() == Step::Stop {
            return Step::Stop;
        }
        self.flows.push(Flow { kind, holds_pair: false, item: 0, highest: 0 });
        self.key_allowed = true;
        self.skip();
        self.note(0)
    }

    fn close_flow(&mut self) -> Step {
        if self.drop_key_here() == Step::Stop {
            return Step::Stop;
        }
        if let Some(closed) = self.flows.pop() {
            let height = closed.highest + 1;
            match self.flows.last_mut() {
                Some(outer) => {
                    outer.item = outer.item.max(height);
                    let pair = usize::from(outer.holds_pair);
                    outer.highest = outer.highest.max(outer.item + pair);
                }
                None => self.closed = height,
            }
        }
        self.key_allowed = false;
        self.skip();
        Step::Next
    }

    fn flow_entry(&mut self) -> Step {
        if self.drop_key_here() == Step::Stop {
            return Step::Stop;
        }
        if let Some(flow) = self.flows.last_mut() {
            flow.holds_pair = false;
            flow.item = 0;
        }
        self.key_allowed = true;
        self.skip();
        Step::Next
    }

    // Everything else.

    fn directive(&mut self) -> Step {
        self.close_blocks(-1);
        if self.drop_key_here() == Step::Stop {
            return Step::Stop;
        }
        if self.bytes[self.index..].starts_with(b"%TAG") {
            return self.refuse("a %TAG line is not supported", None);
        }
        self.key_allowed = false;
        self.skip_line();
        Step::Next
    }

    fn document_marker(&mut self) -> Step {
        self.close_blocks(-1);
        if self.drop_key_here() == Step::Stop {
            return Step::Stop;
        }
        self.key_allowed = false;
        for _ in 0..3 {
            self.skip();
        }
        Step::Next
    }

    /// `&name` and `*name`.
    fn anchor(&mut self) -> Step {
        if self.save_key() == Step::Stop {
            return Step::Stop;
        }
        self.key_allowed = false;
        self.skip();
        let from = self.index;
        while self.peek(0).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
            self.skip();
        }
        let ended = self.is_blank_or_end(0) || self.peek(0).is_some_and(|byte| b"?:,]}%@`".contains(&byte));
        if self.index > from && ended { Step::Next } else { Step::Stop }
    }

    fn quoted(&mut self, quote: u8) -> Step {
        if self.save_key() == Step::Stop {
            return Step::Stop;
        }
        self.key_allowed = false;
        self.skip();
        loop {
            if self.at_document_marker() {
                return Step::Stop;
            }
            self.skip_ordinary();
            match self.peek(0) {
                None => return Step::Stop,
                Some(b'\\') if quote == b'"' => {
                    self.skip();
                    self.skip_any();
                }
                Some(byte) if byte == quote => {
                    self.skip();
                    if quote == b'"' || self.peek(0) != Some(b'\'') {
                        return Step::Next;
                    }
                    self.skip();
                }
                Some(_) => self.skip_any(),
            }
        }
    }

    fn plain(&mut self) -> Step {
        if self.save_key() == Step::Stop {
            return Step::Stop;
        }
        self.key_allowed = false;
        let start = self.index;
        let mut end = self.index;
        let indent = self.blocks.last().map_or(0, |block| block.column + 1);
        let mut after_break = false;
        while !self.at_document_marker() && self.peek(0) != Some(b'#') {
            let word = self.index;
            if self.plain_word() == Step::Stop {
                return Step::Stop;
            }
            if self.index > word {
                end = self.index;
                after_break = false;
            }
            if !self.is_blank() && self.break_length(0) == 0 {
                break;
            }
            while self.is_blank() || self.break_length(0) > 0 {
                if after_break && self.column < indent && self.peek(0) == Some(b'\t') {
                    return Step::Stop;
                }
                after_break |= !self.is_blank();
                self.skip_any();
            }
            if self.flows.is_empty() && self.column < indent {
                break;
            }
        }
        self.key_allowed |= after_break;
        self.unusual_scalars |= is_unusual(&self.text[start..end]);
        Step::Next
    }

    /// Takes the characters of a plain scalar up to a blank or to what ends it.
    fn plain_word(&mut self) -> Step {
        let in_flow = !self.flows.is_empty();
        loop {
            self.skip_ordinary();
            if self.is_blank_or_end(0) {
                break;
            }
            match self.peek(0) {
                Some(b':') if in_flow && self.peek(1).is_some_and(|next| b",?[]{}".contains(&next)) => {
                    return Step::Stop;
                }
                Some(b':') if self.is_blank_or_end(1) => break,
                Some(b',' | b'[' | b']' | b'{' | b'}') if in_flow => break,
                _ => self.skip(),
            }
        }
        Step::Next
    }

    /// `|` and `>`.
    fn block_scalar(&mut self) -> Step {
        if self.drop_key_here() == Step::Stop {
            return Step::Stop;
        }
        self.key_allowed = true;
        self.skip();
        let outer = self.blocks.last().map(|block| block.column);
        let mut indent = match self.block_scalar_header() {
            0 => 0,
            increment => outer.unwrap_or(0) + increment,
        };
        while self.is_blank() {
            self.skip();
        }
        if self.peek(0) == Some(b'#') {
            self.skip_line();
        }
        if !self.is_break_or_end() {
            return Step::Stop;
        }
        self.skip_break();
        let indent_min = outer.map_or(1, |column| column + 1);
        if self.block_scalar_breaks(&mut indent, indent_min) == Step::Stop {
            return Step::Stop;
        }
        while self.column == indent && self.index < self.bytes.len() {
            self.skip_line();
            self.skip_break();
            if self.block_scalar_breaks(&mut indent, indent_min) == Step::Stop {
                return Step::Stop;
            }
        }
        Step::Next
    }

    /// The digit and the sign behind `|` or `>`, in either order; gives the digit, else 0.
    fn block_scalar_header(&mut self) -> usize {
        let mut increment = 0;
        let mut signed = false;
        while let Some(byte) = self.peek(0) {
            match byte {
                b'+' | b'-' if !signed => signed = true,
                b'1'..=b'9' if increment == 0 => increment = usize::from(byte - b'0'),
                _ => break,
            }
            self.skip();
        }
        increment
    }

    fn block_scalar_breaks(&mut self, indent: &mut usize, indent_min: usize) -> Step {
        let mut widest = 0;
        loop {
            while (*indent == 0 || self.column < *indent) && self.peek(0) == Some(b' ') {
                self.skip();
            }
            widest = widest.max(self.column);
            if (*indent == 0 || self.column < *indent) && self.peek(0) == Some(b'\t') {
                return Step::Stop;
            }
            if self.break_length(0) == 0 {
                break;
            }
            self.skip_break();
        }
        if *indent == 0 {
            *indent = widest.max(indent_min);
        }
        Step::Next
    }
}
