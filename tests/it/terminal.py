"""Runs a command on a terminal of its own and follows a script of expectations.

usage: terminal.py STEP... -- COMMAND ARG...

    expect TEXT   wait until TEXT is on the terminal, behind what was expected before
    echo on|off   the terminal must echo, or must not
    type TEXT     type it; ^C, ^D, ^Z, ^\\ and ^M stand for keys
    signal NAME   send a signal to the command
    paused        wait until the command is stopped by job control
    ended HOW     wait until it has ended: a status, or the name of a signal

The command is a job of its own, in the foreground (`background` as first step: in the background),
of a session whose leader is another process, as under a shell. What the terminal showed goes to
standard output. Exit status 0 if all went as expected; no step takes longer than a minute.
"""
import fcntl, os, pty, select, signal, sys, termios, time

at = sys.argv.index("--")
steps, command = sys.argv[1:at], sys.argv[at + 1:]
background = steps[:1] == ["background"]
steps = steps[1:] if background else steps
master, slave = pty.openpty()
events, tell = os.pipe()


def lead():
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        if not background:
            os.tcsetpgrp(slave, os.getpgrp())
        # As under an interactive shell, whatever these tests themselves were started by.
        for name in "TTOU", "INT", "QUIT", "HUP", "TSTP":
            signal.signal(getattr(signal, "SIG" + name), signal.SIG_DFL)
        for fd in 0, 1, 2:
            os.dup2(slave, fd)
        os.execvp(command[0], command)
    os.write(tell, b"pid %d\n" % job)
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            os.write(tell, b"paused\n")
            continue
        how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        os.write(tell, f"ended {how}\n".encode())
        # The terminal goes with its session's leader, so that one stays.
        signal.pause()


leader = os.fork()
if leader == 0:
    lead()
shown, seen, heard = b"", 0, b""


def give_up(why):
    os.write(1, shown)
    os.write(2, f"terminal.py: {why}\n".encode())
    os.kill(leader, signal.SIGKILL)
    sys.exit(1)


def until(condition, what):
    global shown, heard
    end = time.monotonic() + 60
    while not condition():
        ready, _, _ = select.select([master, events], [], [], max(0, end - time.monotonic()))
        if not ready:
            give_up(f"waited in vain: {what}")
        if master in ready:
            shown += os.read(master, 65536)
        if events in ready:
            heard += os.read(events, 65536)


def happened(event):
    global heard
    found = event.encode() + b"\n" in heard
    heard = heard.replace(event.encode() + b"\n", b"", 1)
    return found


until(lambda: b"\n" in heard, "a pid")
first, heard = heard.split(b"\n", 1)
job = int(first.split()[1])
while steps:
    verb = steps.pop(0)
    word = "" if verb == "paused" else steps.pop(0)
    if verb == "expect":
        until(lambda: shown.find(word.encode(), seen) >= 0, f"expect {word}")
        seen = shown.find(word.encode(), seen) + len(word)
    elif verb == "echo":
        echo = bool(termios.tcgetattr(slave)[3] & termios.ECHO)
        if echo != (word == "on"):
            give_up(f"the terminal's echo is not {word}")
    elif verb == "type":
        for key, byte in ("^C", "\x03"), ("^D", "\x04"), ("^Z", "\x1a"), ("^\\", "\x1c"), ("^M", "\r"):
            word = word.replace(key, byte)
        os.write(master, word.encode())
    elif verb == "signal":
        os.kill(job, getattr(signal, "SIG" + word))
    elif verb == "paused":
        until(lambda: happened("paused"), "paused")
    elif verb == "ended":
        until(lambda: b"ended" in heard and b"\n" in heard, "ended")
        if not happened(f"ended {word}"):
            give_up(f"expected: ended {word}, got: {heard.decode().strip()}")
    else:
        give_up(f"no such step: {verb}")
while select.select([master], [], [], 0)[0]:
    shown += os.read(master, 65536)
os.write(1, shown)
os.kill(leader, signal.SIGKILL)
