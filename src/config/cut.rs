//! Where a text may be cut into pieces that the parser can read each by itself: before items of the list that is the
//! last value of the map at the top.

use std::ops::Range;

/// What the walk over a text has learned so far of where to cut it.
#[derive(Default)]
pub struct Cuts {
    /// No piece is shorter, in bytes.
    piece_min: usize,
    /// Where the items begin of the list that is the value at hand of the map at the top.
    item_column: Option<usize>,
    lines: Vec<usize>,
    /// Up to where pieces were given, for whichever list: no part of the text is in two of them.
    given_to: usize,
    is_one_piece: bool,
}

impl Cuts {
    pub fn new(piece_min: usize) -> Cuts {
        Cuts { piece_min, ..Cuts::default() }
    }

    /// Another entry of the map at the top begins.
    pub fn begin_entry(&mut self) {
        self.item_column = None;
        self.lines.clear();
    }

    /// An item at `column` of the list that is the entry's value begins `line`, given by its first byte. Gives the piece
    /// that ends there, unless it turns out that the text must not be cut; the first one for the first long list alone.
    pub fn begin_item(&mut self, column: usize, line: usize) -> Option<Range<usize>> {
        let is_first = self.item_column.is_none();
        // What is out of line is an error, which a piece would not show.
        self.is_one_piece |= *self.item_column.get_or_insert(column) != column;
        let from = *self.lines.last().unwrap_or(&0);
        if is_first || self.is_one_piece || line - from < self.piece_min {
            return None;
        }
        self.lines.push(line);
        if from < self.given_to {
            return None;
        }
        self.given_to = line;
        Some(from..line)
    }

    /// Something binds the text together: anchors, aliases, directives, marks of documents.
    pub fn forbid(&mut self) {
        self.is_one_piece = true;
    }

    /// The first bytes of all pieces but the first.
    pub fn places(self) -> Vec<usize> {
        if self.is_one_piece { Vec::new() } else { self.lines }
    }
}
