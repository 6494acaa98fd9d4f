//! What a daemon that waits keeps in memory: the C library's heap, and the pages of the program itself.
//!
//! Only the C library's and the kernel's own means; what they do changes no value that anybody can see.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod gnu {
    use std::ffi::c_void;
    use std::ptr;

    /// One heap for all threads (mallopt(3)): each thread's own would keep pages that nobody uses.
    pub fn share_one_heap() {
        // SAFETY: mallopt takes integers.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }

    /// Gives back what only the last events needed: free pages of the heap (malloc_trim(3)), and the pages of the program
    /// that it ran through.
    pub fn give_back_memory() {
        // SAFETY: malloc_trim takes an integer, and touches free memory alone.
        unsafe { libc::malloc_trim(0) };
        // SAFETY: the callback is called before this returns, and takes no data.
        unsafe { libc::dl_iterate_phdr(Some(forget_pages), ptr::null_mut()) };
    }

    /// Lets go of the pages of the program's own segments that nobody can have written to: the kernel reads those that
    /// are needed again from the file, most likely out of its cache (madvise(2)). The program comes first in the list
    /// (dl_iterate_phdr(3)), and 1 ends it.
    unsafe extern "C" fn forget_pages(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> libc::c_int {
        // SAFETY: the C library hands over a valid entry, whose headers live as long as the program.
        let (base, headers) = unsafe {
            let info = &*info;
            (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
        };
        // SAFETY: sysconf takes an integer.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
        for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
        {
            let start = (base + header.p_vaddr) / page * page;
            let end = base + header.p_vaddr + header.p_memsz;
            // SAFETY: a segment that was mapped from the file without leave to write holds what the file holds, so
            // each byte reads the same again. Relocated pages belong to segments with it, and are not among these.
            unsafe { libc::madvise(start as *mut c_void, (end - start) as usize, libc::MADV_DONTNEED) };
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
