//! Reads a long list of tasks in pieces, which may be read by two threads while the walk over the text still looks for more.
//!
//! Most of a start is this reading. Where anything is wrong with a piece, or with where the text was cut, the whole is read
//! once more: that alone tells what is wrong and where.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::problem::Problem;
use super::scan::{self, Piece, Scan};
use super::tree::{self, Growth, MAX_NODES, Node, Value};

/// In bytes. The parser keeps all that it finds in its text until it is done with it, so it is fast with short ones.
pub const PIECE_MIN: usize = 8 << 10;

/// A longer text, in bytes, is worth a thread, which leaves a heap of its own behind.
pub const ALONE_MAX: usize = 32 << 10;

/// What both threads share.
struct Work<'t> {
    text: &'t str,
    pieces: Mutex<Receiver<Piece>>,
    /// How many are in all that has been read.
    nodes: AtomicU32,
    /// Something is wrong, so that what else could be read will not count.
    is_in_vain: AtomicBool,
}

/// A piece that has been read.
struct Part<'t> {
    range: Range<usize>,
    root: Node<'t>,
}

/// Reads the one document of `text`, in pieces of `piece_min` bytes or more, with a second thread if it is longer than
/// `alone_max`.
///
/// # Errors
/// What the walk over it refuses, what the parser reports, and growth by aliases beyond all measure.
pub fn read(text: &str, piece_min: usize, alone_max: usize) -> Result<Node<'_>, Problem> {
    let (found, pieces) = mpsc::channel();
    let pieces = Mutex::new(pieces);
    let work = Work { text, pieces, nodes: AtomicU32::new(0), is_in_vain: AtomicBool::new(false) };
    thread::scope(|scope| {
        // Before the walk, since a processor at rest takes as long to wake as the walk over a few hundred tasks. Should
        // there be no thread, this one reads all.
        let helper = (text.len() > alone_max)
            .then(|| thread::Builder::new().spawn_scoped(scope, || work.read_each()).ok())
            .flatten();
        let scan = walk(text, piece_min, found).inspect_err(|_| work.give_up())?;
        let mut parts = work.read_each();
        parts.extend(helper.and_then(|helper| helper.join().ok()).unwrap_or_default());
        match join(&scan.cuts, text.len(), parts) {
            Some(root) => Ok(root),
            None => tree::read(text, &mut Growth::new(0..MAX_NODES), scan.unusual_scalars),
        }
    })
}

/// Walks over the text, and hands on each piece as soon as its end is known. Whether the text may really be cut there is
/// known at the end.
fn walk(text: &str, piece_min: usize, found: Sender<Piece>) -> Result<Scan, Problem> {
    let mut head_end = None;
    let scan = scan::scan(text, piece_min, &mut |piece| {
        head_end = head_end.or(Some(piece.range.end));
        let _ = found.send(piece);
    })?;
    let hand_on = |range| drop(found.send(Piece { range, unusual_scalars: scan.unusual_scalars }));
    if let [first, .., last] | [first @ last] = scan.cuts[..] {
        if head_end != Some(first) {
            hand_on(0..first);
        }
        hand_on(last..text.len());
    }
    Ok(scan)
}

impl<'t> Work<'t> {
    /// Reads pieces until no more will come.
    fn read_each(&self) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        loop {
            let piece = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(piece) = piece else { return parts };
            if !self.is_in_vain.load(Ordering::Relaxed) {
                match self.read(piece) {
                    Some(part) => parts.push(part),
                    None => self.give_up(),
                }
            }
        }
    }

    /// `None` if it cannot be read, or there is too much with what was before.
    fn read(&self, Piece { range, unusual_scalars }: Piece) -> Option<Part<'t>> {
        // Without aliases, there are fewer nodes than bytes.
        let first = range.start as u32;
        let mut growth = Growth::new(first..range.end as u32);
        let root = tree::read(&self.text[range.clone()], &mut growth, unusual_scalars).ok()?;
        let nodes = growth.nodes_since(first);
        let before = self.nodes.fetch_add(nodes, Ordering::Relaxed);
        (before.saturating_add(nodes) <= MAX_NODES).then_some(Part { range, root })
    }

    fn give_up(&self) {
        self.is_in_vain.store(true, Ordering::Relaxed);
    }
}

/// Puts the items of all other pieces behind those of the list with which the first ends. `None` if the text is one piece,
/// or a part is missing or wrong.
fn join<'t>(cuts: &[usize], end: usize, mut parts: Vec<Part<'t>>) -> Option<Node<'t>> {
    // Of a list that turned out not to be the last value of the map, parts may be there that count no more.
    parts.retain(|part| {
        let starts = part.range.start == 0 || cuts.binary_search(&part.range.start).is_ok();
        starts && (part.range.end == end || cuts.binary_search(&part.range.end).is_ok())
    });
    parts.sort_unstable_by_key(|part| part.range.start);
    if cuts.is_empty() || parts.len() != cuts.len() + 1 {
        return None;
    }
    let mut parts = parts.into_iter();
    let mut root = parts.next()?.root;
    let Value::Map(entries) = &mut root.value else { return None };
    let (_, Node { value: Value::List(items), .. }) = entries.last_mut()? else { return None };
    for part in parts {
        let Value::List(mut more) = part.root.value else { return None };
        items.append(&mut more);
    }
    Some(root)
}
