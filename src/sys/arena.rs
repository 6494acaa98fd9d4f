//! Memory for secrets: a few mapped segments out of which blocks are cut, each wiped when it is dropped.
//!
//! The pages are out of reach of core files, of swap and of children; with `Protection::Secret`
//! the kernel itself has no mapping of them either. Only addresses stand outside of them.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use super::os;

/// A segment is mapped at a time: small enough for a locked-memory limit of 64 KiB, large
/// enough that a dozen passwords and their tokens need no second one.
const SEGMENT: usize = 16 * 1024;

/// Blocks begin and end on such borders, so that no two share a cache line.
const GRAIN: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// `memfd_secret(2)`.
    Secret,
    /// `mlock(2)`, left out of core files and of children.
    Locked,
}

/// Why no protected memory could be had.
#[derive(Debug)]
pub struct MemoryError(pub io::Error);

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no more protected memory: {}", self.0)
    }
}

/// A process's protected memory. It lives as long as the process.
pub struct Arena {
    protection: Protection,
    space: Mutex<Space>,
}

#[derive(Default)]
struct Space {
    /// Free ranges by rising address, never touching one another within a segment.
    free: Vec<Range>,
    mapped: usize,
}

#[derive(Clone, Copy)]
struct Range {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a range is an address into a mapping that lives as long as the process; who may use
// the bytes behind it is decided by `Space` under its mutex.
unsafe impl Send for Range {}

impl Arena {
    /// Maps the first segment under `protection`, so that its absence shows at start.
    pub fn new(protection: Protection) -> Result<Arena, MemoryError> {
        let arena = Arena { protection, space: Mutex::new(Space::default()) };
        arena.space().grow(protection, SEGMENT)?;
        Ok(arena)
    }

    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// A block of `len` zero bytes.
    pub fn block(&'static self, len: usize) -> Result<Block, MemoryError> {
        let size = len.max(1).next_multiple_of(GRAIN);
        let mut space = self.space();
        let start = match space.take(size) {
            Some(start) => start,
            None => {
                space.grow(self.protection, size)?;
                space.take(size).ok_or_else(|| MemoryError(io::ErrorKind::OutOfMemory.into()))?
            }
        };
        Ok(Block { arena: self, start, len, size })
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        // A panic cannot have left the list half changed: no code of others runs under this lock.
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({:?}, {} bytes)", self.protection, self.space().mapped)
    }
}

impl Space {
    fn grow(&mut self, protection: Protection, at_least: usize) -> Result<(), MemoryError> {
        let len = at_least.next_multiple_of(SEGMENT);
        let start = os::map_protected(protection, len).map_err(MemoryError)?;
        self.mapped += len;
        self.give_back(Range { start, len });
        Ok(())
    }

    /// Best fit, so that short values do not break up the room for long ones.
    fn take(&mut self, size: usize) -> Option<NonNull<u8>> {
        let fitting = self.free.iter().enumerate().filter(|(_, range)| range.len >= size);
        let (index, _) = fitting.min_by_key(|(_, range)| range.len)?;
        let range = self.free[index];
        if range.len == size {
            self.free.remove(index);
        } else {
            // SAFETY: `size < range.len`, so the sum stays inside the mapping.
            let start = unsafe { range.start.add(size) };
            self.free[index] = Range { start, len: range.len - size };
        }
        Some(range.start)
    }

    fn give_back(&mut self, range: Range) {
        let index = self.free.partition_point(|free| free.start < range.start);
        self.free.insert(index, range);
        self.merge(index);
        if index > 0 {
            self.merge(index - 1);
        }
    }

    /// Joins the free range at `index` with the next one if they touch.
    fn merge(&mut self, index: usize) {
        if let [first, second, ..] = self.free[index..]
            && first.start.as_ptr() as usize + first.len == second.start.as_ptr() as usize
        {
            self.free[index].len += second.len;
            self.free.remove(index + 1);
        }
    }
}

/// Bytes of an arena, wiped when dropped.
pub struct Block {
    arena: &'static Arena,
    start: NonNull<u8>,
    len: usize,
    /// What it occupies: `len` rounded up to whole grains.
    size: usize,
}

// SAFETY: a block is the only owner of its bytes, as a `Box<[u8]>` is.
unsafe impl Send for Block {}
// SAFETY: shared access to a block only reads its bytes.
unsafe impl Sync for Block {}

impl Block {
    /// Shortens it to `len` bytes, wipes the rest and gives whole grains of it back.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        self[len..].zeroize();
        self.len = len;
        let size = len.max(1).next_multiple_of(GRAIN);
        if size < self.size {
            // SAFETY: `size` is less than what the block occupies, so the sum stays inside it.
            let start = unsafe { self.start.add(size) };
            let rest = Range { start, len: self.size - size };
            self.size = size;
            self.arena.space().give_back(rest);
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` bytes, which only this block refers to, for as long
        // as it lives; mappings are zeroed at first, so the bytes are initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.zeroize_all();
        let range = Range { start: self.start, len: self.size };
        self.arena.space().give_back(range);
    }
}

impl Block {
    fn zeroize_all(&mut self) {
        let len = self.len;
        self[..len].zeroize();
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena() -> &'static Arena {
        Box::leak(Box::new(Arena::new(Protection::Locked).expect("locked memory")))
    }

    #[test]
    fn a_dropped_block_is_wiped_and_its_space_used_again() {
        let arena = arena();
        let mut block = arena.block(100).expect("space");
        block.fill(7);
        let start = block.start;
        drop(block);
        let again = arena.block(100).expect("space");
        assert_eq!(again.start, start);
        assert!(again.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_truncated_block_gives_its_rest_back_wiped() {
        let arena = arena();
        let mut block = arena.block(SEGMENT).expect("space");
        block.fill(7);
        block.truncate(5);
        assert_eq!(&*block, [7; 5]);
        let rest = arena.block(SEGMENT - GRAIN).expect("the rest");
        assert!(rest.iter().all(|&byte| byte == 0));
        assert_eq!(arena.space().mapped, SEGMENT);
    }

    /// Whether a child that was forked finds a 7 in the block. It does nothing else: other threads may hold locks.
    #[cfg(target_os = "linux")]
    fn child_finds_it(block: &Block) -> bool {
        let value = block.start.as_ptr();
        // SAFETY: the child calls only what is safe after a fork of a process with threads (signal-safety(7)). Reading
        // what is not mapped there ends it by a signal.
        unsafe {
            let child = libc::fork();
            assert_ne!(child, -1, "a child");
            if child == 0 {
                libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                libc::_exit(if value.read_volatile() == 7 { 7 } else { 0 });
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_forked_child_finds_nothing() {
        let secret = Arena::new(Protection::Secret).ok().map(|arena| &*Box::leak(Box::new(arena)));
        for arena in [arena()].into_iter().chain(secret) {
            let mut block = arena.block(100).expect("space");
            block.fill(7);
            assert!(!child_finds_it(&block), "{:?}", arena.protection());
        }
    }

    #[test]
    fn blocks_never_overlap_and_all_space_comes_back() {
        let arena = arena();
        let mut blocks: Vec<(u8, Block)> = Vec::new();
        let mut seed = 1u32;
        for round in 0..2000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if seed >> 31 == 0 || blocks.is_empty() {
                let mut block = arena.block((seed >> 8) as usize % 3000).expect("space");
                block.fill(round as u8);
                blocks.push((round as u8, block));
            } else {
                let (mark, block) = blocks.swap_remove((seed >> 8) as usize % blocks.len());
                assert!(block.iter().all(|&byte| byte == mark));
            }
        }
        blocks.clear();
        let free: usize = arena.space().free.iter().map(|range| range.len).sum();
        assert_eq!(free, arena.space().mapped);
    }

    #[test]
    fn a_request_beyond_a_segment_gets_a_segment_of_its_own() {
        let block = arena().block(100_000).expect("space");
        assert_eq!(block.len(), 100_000);
    }
}
