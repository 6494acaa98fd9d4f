/* A thief: looks into processes and talks to sockets, and prints what it got, a line each. It knows
 * nothing that the tests beside it do not tell it, and never waits longer than a minute. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

enum { PATIENCE = 60, CHUNK = 1 << 20 };

static char needle[4096];
static size_t needle_len;
static char chunk[CHUNK];

static void fail(const char *what)
{
	perror(what);
	exit(9);
}

static void read_needle(const char *path)
{
	int fd = open(path, O_RDONLY);
	ssize_t len = fd < 0 ? -1 : read(fd, needle, sizeof needle);
	if (len <= 0)
		fail(path);
	close(fd);
	needle_len = (size_t)len;
}

/* ---- Root's scan: any PIECE bytes in a row of some texts ---------------------------------------- */

enum { PIECE = 16, SLOTS = 1 << 20 };

static unsigned char beginnings[1 << 21];
static struct {
	const unsigned char *piece;
	const char *name;
} pieces[SLOTS];

static unsigned beginning(const unsigned char *bytes)
{
	return (unsigned)bytes[0] << 16 | (unsigned)bytes[1] << 8 | bytes[2];
}

static unsigned slot_of(const unsigned char *piece)
{
	unsigned long word;
	memcpy(&word, piece, sizeof word);
	return (unsigned)(word * 0x9E3779B97F4A7C15ul >> 44);
}

static const char *name_of(const unsigned char *bytes)
{
	for (unsigned slot = slot_of(bytes); pieces[slot].piece; slot = (slot + 1) % SLOTS)
		if (!memcmp(pieces[slot].piece, bytes, PIECE))
			return pieces[slot].name;
	return NULL;
}

/* The texts: for each a line `NAME LENGTH`, then so many bytes. */
static void read_texts(const char *path)
{
	FILE *file = fopen(path, "r");
	char name[64];
	size_t len, count = 0;
	while (file && fscanf(file, "%63s %zu", name, &len) == 2 && fgetc(file) == '\n') {
		unsigned char *text = malloc(len);
		if (!text || len < PIECE || fread(text, 1, len, file) != len || (count += len) > SLOTS / 2)
			fail(path);
		for (size_t at = 0; at + PIECE <= len; at++) {
			unsigned slot = slot_of(text + at), first = beginning(text + at);
			while (pieces[slot].piece)
				slot = (slot + 1) % SLOTS;
			pieces[slot].piece = text + at;
			pieces[slot].name = strdup(name);
			beginnings[first / 8] |= (unsigned char)(1 << first % 8);
		}
	}
	if (!count)
		fail(path);
}

/* Says `WHERE NAME PLACE` for each text that a piece of is found of, once for each place. */
static void find(const unsigned char *bytes, size_t len, const char *where, const char *place)
{
	for (size_t at = 0; at + PIECE <= len; at++) {
		unsigned first = beginning(bytes + at);
		const char *name = beginnings[first / 8] & 1 << first % 8 ? name_of(bytes + at) : NULL;
		if (name) {
			printf("%s %s %s\n", where, name, place);
			at += PIECE;
		}
	}
}

/* In parts that overlap. What cannot be read is left out: secret memory, say. */
static size_t find_in(int fd, unsigned long from, unsigned long to, const char *where, const char *place)
{
	size_t all = 0;
	while (from < to) {
		size_t wanted = to - from < CHUNK ? to - from : CHUNK;
		ssize_t len = pread(fd, chunk, wanted, (off_t)from);
		if (len <= 0)
			break;
		all += (size_t)len;
		find((unsigned char *)chunk, (size_t)len, where, place);
		if ((size_t)len == to - from)
			break;
		from += (size_t)len > 2 * PIECE ? (size_t)len - PIECE : (size_t)len;
	}
	return all;
}

/* proc_pid_smaps(5): a line for each mapping, then its values, the last of which are its flags. */
static void scan_process(pid_t pid)
{
	char path[64], line[512], place[512] = "", mode[5] = "";
	unsigned long from = 0, to = 0, start, end;
	size_t all = 0;
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int mem = open(path, O_RDONLY);
	snprintf(path, sizeof path, "/proc/%d/smaps", pid);
	FILE *smaps = fopen(path, "r");
	if (mem < 0 || !smaps)
		fail(path);
	while (fgets(line, sizeof line, smaps)) {
		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) == 3) {
			from = start;
			to = end;
			strcpy(place, line);
		} else if (!strncmp(line, "VmFlags:", 8) && mode[0] == 'r') {
			all += find_in(mem, from, to, strstr(line, " lo") ? "locked" : "outside", place);
		}
	}
	printf("bytes %zu\n", all);
}

static void scan_file(const char *path)
{
	int fd = open(path, O_RDONLY);
	off_t len = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (len < 0)
		fail(path);
	printf("bytes %zu\n", find_in(fd, 0, (unsigned long)len, "outside", path));
}

static ssize_t slurp(pid_t pid, const char *name, int flags)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
	if (fd < 0)
		return -1;
	ssize_t len = read(fd, chunk, sizeof chunk);
	close(fd);
	return len;
}

static int has_needle(ssize_t len)
{
	return len > 0 && memmem(chunk, (size_t)len, needle, needle_len) != NULL;
}

/* ---- Looking into processes ------------------------------------------------------------------ */

static int memory_has_needle(pid_t pid)
{
	char path[64], line[512];
	unsigned long from, to;
	int found = 0;
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int mem = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "re");
	while (mem >= 0 && maps && !found && fgets(line, sizeof line, maps)) {
		char mode[5];
		if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) != 3 || mode[1] != 'w')
			continue;
		/* Overlapping, so that nothing hides at a border. */
		for (; from < to && !found; from += CHUNK - sizeof needle) {
			size_t len = to - from < CHUNK ? to - from : CHUNK;
			found = has_needle(pread(mem, chunk, len, (off_t)from));
		}
	}
	if (maps)
		fclose(maps);
	if (mem >= 0)
		close(mem);
	return found;
}

/* Whatever the kernel gives away about PID: nothing, if it gives away nothing. */
static void look(pid_t pid)
{
	static const char *const names[] = { "mem", "environ", "maps", "smaps", "pagemap", "auxv",
					     "io",  "fd",      "fdinfo", "exe", "cwd",	   "root" };
	char path[64];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "/proc/%d/%s", pid, names[i]);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			printf("%s\n", names[i]);
		close(fd);
	}
	struct iovec ours = { chunk, 8 }, theirs = { (void *)0x10000, 8 };
	if (process_vm_readv(pid, &ours, 1, &theirs, 1, 0) >= 0 || errno != EPERM)
		printf("process_vm_readv\n");
	int handle = (int)syscall(SYS_pidfd_open, pid, 0);
	for (int fd = 0; handle >= 0 && fd < 64; fd++)
		if (syscall(SYS_pidfd_getfd, handle, fd, 0) >= 0 || (errno != EPERM && errno != EBADF))
			printf("pidfd_getfd %d\n", fd);
	if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
		printf("ptrace\n");
		ptrace(PTRACE_DETACH, pid, 0, 0);
	}
}

struct haul {
	unsigned long processes, launchers, looks;
	unsigned long environ, memory, input, pipe, file, arguments;
};

/* One of the descriptors FIRST to LAST of PID, opened anew and read: what was read there is gone for PID. */
static int descriptors_have_needle(pid_t pid, int first, int last)
{
	char name[16];
	int found = 0;
	for (int fd = first; fd <= last && !found; fd++) {
		snprintf(name, sizeof name, "fd/%d", fd);
		found = has_needle(slurp(pid, name, O_NONBLOCK));
	}
	return found;
}

static int steal(pid_t pid, int with_memory, struct haul *haul)
{
	int environ = has_needle(slurp(pid, "environ", 0));
	int input = descriptors_have_needle(pid, 0, 0);
	int pipe = descriptors_have_needle(pid, 3, 12);
	int file = descriptors_have_needle(pid, 30, 31);
	int arguments = has_needle(slurp(pid, "cmdline", 0));
	int memory = with_memory && memory_has_needle(pid);
	haul->looks++;
	haul->environ += (unsigned long)environ;
	haul->input += (unsigned long)input;
	haul->pipe += (unsigned long)pipe;
	haul->file += (unsigned long)file;
	haul->arguments += (unsigned long)arguments;
	haul->memory += (unsigned long)memory;
	return environ || input || pipe || file || arguments || memory;
}

static int is_launcher(pid_t pid)
{
	ssize_t len = slurp(pid, "cmdline", 0);
	return len > 0 && memmem(chunk, (size_t)len, "__launch", 8) != NULL;
}

static pid_t parent_of(pid_t pid)
{
	int parent = -1;
	ssize_t len = slurp(pid, "stat", 0);
	if (len > 0 && len < CHUNK) {
		chunk[len] = 0;
		char *behind_name = strrchr(chunk, ')');
		if (behind_name)
			sscanf(behind_name, ") %*c %d", &parent);
	}
	return parent;
}

/* A new child of the daemon: as fast as it goes, and if THOROUGH also at leisure while it is stopped, its memory too. */
static void visit(pid_t pid, pid_t daemon, int thorough, struct haul *haul)
{
	unsigned long freeze_at = haul->processes++ * 7 % 23;
	int was_launcher = 0;
	unsigned long as_tool = 0;
	for (unsigned long round = 0; round < 1000000 && (!thorough || as_tool < 400) && parent_of(pid) == daemon; round++) {
		int now_launcher = is_launcher(pid);
		was_launcher |= now_launcher;
		as_tool += was_launcher && !now_launcher;
		if (steal(pid, thorough, haul)) {
			printf("stolen\n");
			fflush(stdout);
			break;
		}
		if (thorough && now_launcher && round == freeze_at) {
			kill(pid, SIGSTOP);
			for (int again = 0; again < 20; again++)
				steal(pid, 1, haul);
			kill(pid, SIGCONT);
		}
	}
	haul->launchers += (unsigned long)was_launcher;
}

static pid_t last_pid(void)
{
	int last = 0;
	FILE *loadavg = fopen("/proc/loadavg", "re");
	if (loadavg) {
		if (fscanf(loadavg, "%*s %*s %*s %*s %d", &last) != 1)
			last = 0;
		fclose(loadavg);
	}
	return last;
}

/* Watches the children of DAEMON until the file STOP exists. */
static void watch(pid_t daemon, const char *stop, int thorough)
{
	struct haul haul = { 0 };
	pid_t seen = last_pid();
	printf("watching\n");
	fflush(stdout);
	while (access(stop, F_OK) != 0) {
		pid_t last = last_pid();
		if (last < seen)
			seen = 0;
		for (; seen < last; seen++)
			if (parent_of(seen + 1) == daemon)
				visit(seen + 1, daemon, thorough, &haul);
	}
	printf("processes %lu launchers %lu looks %lu\n", haul.processes, haul.launchers, haul.looks);
	printf("environ %lu memory %lu input %lu pipe %lu file %lu arguments %lu\n", haul.environ, haul.memory,
	       haul.input, haul.pipe, haul.file, haul.arguments);
}

/* ---- Talking to the daemon --------------------------------------------------------------------- */

static int dial(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (strlen(path) >= sizeof address.sun_path || fd < 0)
		fail(path);
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
		close(fd);
		return -1;
	}
	struct timeval patience = { PATIENCE, 0 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	return fd;
}

static ssize_t ask(int fd, const char *token)
{
	char request[128];
	int len = snprintf(request, sizeof request, "backupnizza 1 %s\n", token);
	return send(fd, request, (size_t)len, MSG_NOSIGNAL);
}

/* How many bytes come until the daemon hangs up; a reset is no byte. */
static ssize_t answer(int fd)
{
	ssize_t all = 0, len;
	while ((len = read(fd, chunk, sizeof chunk)) > 0)
		all += len;
	close(fd);
	return all;
}

static void say_answer(const char *what, int fd)
{
	printf("%s %zd\n", what, fd < 0 ? (ssize_t)-1 : answer(fd));
	fflush(stdout);
}

static void redeem(const char *what, const char *path, const char *token)
{
	int fd = dial(path);
	if (fd >= 0)
		ask(fd, token);
	say_answer(what, fd);
}

/* COUNT tokens by chance, four at a time. */
static void guess(const char *path, unsigned long count)
{
	unsigned long got = 0;
	for (unsigned long worker = 0; worker < 4; worker++) {
		if (fork())
			continue;
		unsigned long random = worker * 88172645463325252ul + 1, hits = 0;
		for (unsigned long i = 0; i < count / 4; i++) {
			char token[80] = "";
			for (int part = 0; part < 4; part++) {
				random ^= random << 13;
				random ^= random >> 7;
				random ^= random << 17;
				sprintf(token + 16 * part, "%016lx", random);
			}
			int fd = dial(path);
			if (fd < 0)
				fail("connect");
			ask(fd, token);
			hits += answer(fd) != 0;
		}
		exit(hits > 0);
	}
	for (int status; wait(&status) > 0;)
		got += status != 0;
	printf("guessed %lu got %lu\n", count, got);
}

/* All that a peer may do wrong, one after the other; TOKEN has uses left for each. */
static void misbehave(const char *path, const char *token)
{
	char request[128];
	int len = snprintf(request, sizeof request, "backupnizza 1 %s\n", token);

	say_answer("silent", dial(path));

	int slow = dial(path);
	for (int i = 0; i < len; i++) {
		if (send(slow, request + i, 1, MSG_NOSIGNAL) != 1)
			break;
		nanosleep(&(struct timespec){ 0, 50000000 }, NULL);
	}
	say_answer("slow", slow);

	int huge = dial(path);
	memset(chunk, 'x', sizeof chunk);
	send(huge, chunk, sizeof chunk, MSG_NOSIGNAL);
	say_answer("huge", huge);

	int half = dial(path);
	send(half, request, (size_t)len / 2, MSG_NOSIGNAL);
	shutdown(half, SHUT_WR);
	say_answer("half", half);

	int reset = dial(path);
	send(reset, request, (size_t)len / 2, MSG_NOSIGNAL);
	close(reset);

	int unread = dial(path);
	send(unread, request, (size_t)len, MSG_NOSIGNAL);
	close(unread);

	int closed = dial(path);
	send(closed, request, (size_t)len, MSG_NOSIGNAL);
	shutdown(closed, SHUT_WR);
	say_answer("complete", closed);
}

/* Asks, dies, and leaves the connection to a child that writes down what comes. */
static void leave(const char *path, const char *token, const char *result)
{
	int fd = dial(path);
	if (fd < 0 || ask(fd, token) < 0)
		fail("connect");
	if (fork())
		exit(0);
	/* So that nobody waits for this one through a pipe. */
	FILE *file = fopen(result, "w");
	fclose(stdout);
	fclose(stderr);
	if (file)
		fprintf(file, "got %zd\n", answer(fd));
}

/* ---- Numbers of processes ---------------------------------------------------------------------- */

static void next_pid(pid_t pid)
{
	FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "w");
	if (!last || fprintf(last, "%d", pid - 1) < 0 || fclose(last) != 0)
		fail("ns_last_pid");
}

/* A child that has this pid; 0 in the child. */
static pid_t fork_as(pid_t pid)
{
	for (int tries = 0; tries < 100000; tries++) {
		next_pid(pid);
		pid_t child = fork();
		if (child == 0 && getpid() == pid)
			return 0;
		if (child == 0)
			_exit(0);
		if (child == pid)
			return child;
		waitpid(child, NULL, 0);
	}
	fail("fork_as");
	return -1;
}

/* Lives as PID until its parent ends. */
static void become(pid_t pid, const char *done)
{
	if (fork_as(pid) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(open(done, O_CREAT | O_WRONLY, 0600));
		for (;;)
			pause();
	}
	while (access("go", F_OK) != 0)
		nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	kill(pid, SIGKILL);
}

/* Redeems from a session of the same number, in a pid namespace of its own. */
static void namesake(pid_t session, const char *path, const char *token)
{
	if (unshare(CLONE_NEWPID) != 0)
		fail("unshare");
	pid_t first = fork();
	if (first == 0 && fork_as(session) == 0) {
		setsid();
		printf("session %d\n", getsid(0));
		redeem("namesake", path, token);
		exit(0);
	}
	while (wait(NULL) > 0)
		;
}

/* ---- The kernel that lacks something ----------------------------------------------------------- */

static void without_secret_memory(char **command)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_secret, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		fail("seccomp");
	execvp(command[0], command);
	fail(command[0]);
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "";
	if (!strcmp(what, "scan") && count == 4) {
		read_texts(words[3]);
		scan_process(atoi(words[2]));
	} else if (!strcmp(what, "scan-file") && count == 4) {
		read_texts(words[3]);
		scan_file(words[2]);
	} else if (!strcmp(what, "look") && count == 3) {
		look(atoi(words[2]));
	} else if (!strcmp(what, "watch") && count == 6) {
		read_needle(words[3]);
		watch(atoi(words[2]), words[4], !strcmp(words[5], "thorough"));
	} else if (!strcmp(what, "redeem") && count == 4) {
		redeem("redeem", words[2], words[3]);
	} else if (!strcmp(what, "join") && count == 5) {
		printf("join %s\n", setpgid(0, atoi(words[2])) == 0 ? "done" : "refused");
		redeem("redeem", words[3], words[4]);
	} else if (!strcmp(what, "guess") && count == 4) {
		guess(words[2], strtoul(words[3], NULL, 10));
	} else if (!strcmp(what, "misbehave") && count == 4) {
		misbehave(words[2], words[3]);
	} else if (!strcmp(what, "leave") && count == 5) {
		leave(words[2], words[3], words[4]);
	} else if (!strcmp(what, "become") && count == 4) {
		become(atoi(words[2]), words[3]);
	} else if (!strcmp(what, "namesake") && count == 5) {
		namesake(atoi(words[2]), words[3], words[4]);
	} else if (!strcmp(what, "without-secret-memory") && count > 2) {
		without_secret_memory(words + 2);
	} else {
		fprintf(stderr, "thief: what?\n");
		return 9;
	}
	return 0;
}
