/* The smallest program that tells when it came to life: its first instructions read the wall clock
   (clock_gettime(2)), then it appends the 16 bytes of the time to the file that it is given.
   Compiled without a C library: nothing comes before `first`. */

struct time {
    long seconds, nanoseconds;
};

#if defined(__x86_64__)

static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

enum { CLOCK_GETTIME = 228, OPEN = 2, WRITE = 1, EXIT = 60 };
#define OPEN_FILE(path, flags) call(OPEN, (long)(path), (flags), 0600)
__asm__(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call first\n");

#elif defined(__aarch64__)

static long call(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = 0600;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}

enum { CLOCK_GETTIME = 113, OPENAT = 56, WRITE = 64, EXIT = 93 };
#define OPEN_FILE(path, flags) call(OPENAT, -100, (long)(path), (flags))
__asm__(".globl _start\n_start:\n mov x0, sp\n bl first\n");

#endif

enum { CLOCK_REALTIME = 0, WRITE_ONLY = 1, CREATE = 0100, APPEND = 02000 };

/* `stack` is as the kernel leaves it: the number of arguments, then the arguments. */
void first(long *stack) {
    struct time now;
    call(CLOCK_GETTIME, CLOCK_REALTIME, (long)&now, 0);
    if (stack[0] > 1) {
        long file = OPEN_FILE((const char *)stack[2], WRITE_ONLY | CREATE | APPEND);
        call(WRITE, file, (long)&now, sizeof now);
    }
    call(EXIT, 0, 0, 0);
}
