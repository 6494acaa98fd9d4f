//! Where a text may be cut in two that the parser can read each by itself: before an item of the list that is the last
//! value of the map at the top.

/// What the walk over a text has learned so far of where to cut it.
#[derive(Default)]
pub struct Cut {
    /// Where the items begin of the list that is the value at hand of the map at the top.
    item_column: Option<usize>,
    line: Option<usize>,
    is_one_piece: bool,
}

impl Cut {
    /// Another entry of the map at the top begins.
    pub fn begin_entry(&mut self) {
        self.item_column = None;
        self.line = None;
    }

    /// An item at `column` of the list that is the entry's value begins `line`, given by its first byte.
    pub fn begin_item(&mut self, column: usize, line: usize, middle: usize) {
        if self.item_column.is_some() && self.line.is_none() && line > middle {
            self.line = Some(line);
        }
        // What is out of line is an error, which a half would not show.
        self.is_one_piece |= *self.item_column.get_or_insert(column) != column;
    }

    /// Something binds the text together: anchors, aliases, directives, marks of documents.
    pub fn forbid(&mut self) {
        self.is_one_piece = true;
    }

    /// The first byte of the second half.
    pub fn place(&self) -> Option<usize> {
        self.line.filter(|_| !self.is_one_piece)
    }
}
