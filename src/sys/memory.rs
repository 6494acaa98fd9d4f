//! What a daemon that waits keeps in memory: the C library's heap, and the pages of the program itself.
//!
//! Only the C library's and the kernel's own means; what they do changes no value that anybody can see.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod gnu {
    use std::ffi::c_void;

    /// One heap for all threads (mallopt(3)): each thread's own would keep pages that nobody uses.
    pub fn share_one_heap() {
        // SAFETY: mallopt takes integers.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }

    /// Gives back what only the last events needed: free pages of the heap (malloc_trim(3)), and the pages of the
    /// program that it ran through. Those of what it runs from here on are read again, from the kernel's cache.
    pub fn give_back_memory() {
        let mut segments = Segments::default();
        // SAFETY: the callback is called before this returns, with the exclusive pointer that is handed over here.
        unsafe { libc::dl_iterate_phdr(Some(note_segments), (&raw mut segments).cast()) };
        // SAFETY: malloc_trim takes an integer, and touches free memory alone.
        unsafe { libc::malloc_trim(0) };
        for (start, len) in segments {
            // SAFETY: a segment that was mapped from the file without leave to write holds what the file holds, so
            // each byte reads the same again (madvise(2)). Relocated pages belong to segments with it, and are not
            // among these.
            unsafe { libc::madvise(start as *mut c_void, len, libc::MADV_DONTNEED) };
        }
    }

    /// The first bytes and the lengths of segments that nobody can write to, as many as a program has.
    type Segments = [(usize, usize); 4];

    /// The program comes first in the list (dl_iterate_phdr(3)), and 1 ends it.
    unsafe extern "C" fn note_segments(info: *mut libc::dl_phdr_info, _: usize, segments: *mut c_void) -> libc::c_int {
        // SAFETY: the C library hands over a valid entry, whose headers live as long as the program, and the pointer
        // that it was given.
        let (base, headers, segments) = unsafe {
            let info = &*info;
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
            (info.dlpi_addr as usize, headers, &mut *segments.cast::<Segments>())
        };
        // SAFETY: sysconf takes an integer.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
        for (segment, header) in segments.iter_mut().zip(loaded) {
            let first = base + header.p_vaddr as usize;
            let start = first / page * page;
            *segment = (start, first + header.p_memsz as usize - start);
        }
        1
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use gnu::{give_back_memory, share_one_heap};

/// Other C libraries have no such thing to be asked for.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_one_heap() {}

/// As `share_one_heap`.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back_memory() {}
