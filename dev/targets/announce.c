/* Makes the calls of docs/abi.md as they are, without any library, and checks every answer itself.
 *
 * usage: announce PART...
 * Prints `ok WHAT` or `FAILED WHAT: answer, expected ...` for each answer, and the number of both at the
 * end; the status is 0 if none failed. Parts:
 *   errors    every error, in the order of the checks
 *   threads   threads share what is registered
 *   fork      a copy; the same for children that run at once
 *   vfork     the same address space, until the child's exec
 *   exec      nothing is left
 *   signals   calls that signals interrupt
 *   filters   the program's own seccomp filters (where a seccomp filter hands the calls over)
 *   outlast   waits for SIGTERM; nobody answers then (likewise) */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define REGISTER 0x53464701ul
#define UNREGISTER 0x53464702ul
#define REPLACE 0x100ul
#define USER_END (1ul << 47)
#define PAGE 4096ul
#define ID LONG_MIN /* any number above 0 */
#define LONG_MIN (-__LONG_MAX__ - 1)

static char *self;
static int good, failed;

/* The answer: a number above 0, or minus the error. */
static long call(unsigned long option, unsigned long key, unsigned long a, unsigned long b, unsigned long c)
{
	long answer = syscall(SYS_prctl, option, key, a, b, c);

	return answer < 0 ? -errno : answer;
}

static void expect(const char *what, long answer, long expected)
{
	if (expected == ID ? answer > 0 && answer <= 0x7fffffff : answer == expected) {
		printf("ok %s\n", what);
		good++;
	} else {
		printf("FAILED %s: %ld, expected %ld\n", what, answer, expected);
		failed++;
	}
	fflush(stdout);
}

struct header {
	uint16_t magic;
	uint8_t version, flags, abi;
	int8_t fixed_fp, fixed_ra;
	uint8_t auxiliary;
	uint32_t functions, rows, row_bytes, index, row_area;
};

struct v2 {
	int32_t start;
	uint32_t size, rows, row_count;
	uint8_t info, block;
	uint16_t zero;
};

struct v3 {
	int64_t start;
	uint32_t size, rows;
};

enum { SORTED = 1, PCREL = 4, ROWS = 8 };

static size_t entry(int version)
{
	return version == 2 ? sizeof(struct v2) : sizeof(struct v3);
}

/* A section at `at` with `functions` of 16 bytes, one every 32, from `text` on; its length. */
static size_t section(void *at, int version, int flags, unsigned long text, unsigned functions)
{
	struct header *header = at;
	size_t index = functions * entry(version);

	*header = (struct header){ 0xdee2, version, flags, 3, 0, -8, 0, functions, 0, ROWS, 0, index };
	for (unsigned i = 0; i < functions; i++) {
		void *field = (char *)(header + 1) + i * entry(version);
		unsigned long base = flags & PCREL ? (unsigned long)field : (unsigned long)at;

		if (version == 2)
			*(struct v2 *)field = (struct v2){ .start = text + 32 * i - base, .size = 16 };
		else
			*(struct v3 *)field = (struct v3){ .start = text + 32 * i - base, .size = 16 };
	}
	memset((char *)(header + 1) + index, 0, ROWS);
	return sizeof(*header) + index + ROWS;
}

/* Room for sections, with a page behind it that cannot be read. */
static char *room;
enum { ROOM = 16 * PAGE };

static long add(unsigned long key, unsigned long text)
{
	return call(REGISTER, key, (long)room, section(room, 3, SORTED | PCREL, text, 2), 0);
}

static long drop(unsigned long key)
{
	return call(UNREGISTER, key, 0, 0, 0);
}

/* Texts near the room, where nothing is mapped: whoever walks this program's stacks never asks for them. */
#define TEXT(n) ((unsigned long)room + (1 << 20) + (n) * 4096ul)

/* Changes a sound section in one place and registers it. */
#define BROKEN(what, expected, change)                                                    \
	do {                                                                              \
		size_t length = section(room, version, SORTED | PCREL, TEXT(0), 2);       \
		struct header *h = (void *)room;                                          \
		struct v2 *v2 = (void *)(h + 1);                                          \
		struct v3 *v3 = (void *)(h + 1);                                          \
		(void)v2, (void)v3;                                                       \
		change;                                                                   \
		snprintf(name, sizeof(name), "V%d %s", version, what);                    \
		expect(name, call(REGISTER, 1, (long)room, length, 0), expected);         \
	} while (0)

static void errors(void)
{
	size_t length = section(room, 3, SORTED | PCREL, TEXT(0), 2);
	unsigned long at = (unsigned long)room, key;
	char name[100], *edge;
	long answer, first;

	/* 1 */
	expect("kind 2", call(REGISTER, 1, at, length, 2), -EINVAL);
	expect("an area that is a section", call(REGISTER, 1, at, length, 1), -EBADMSG);
	expect("kind 0xff", call(REGISTER, 1, at, length, 0xff), -EINVAL);
	expect("flag 0x200", call(REGISTER, 1, at, length, 0x200), -EINVAL);
	expect("flag 2^63", call(REGISTER, 1, at, length, 1ul << 63), -EINVAL);
	expect("unregister, third", call(UNREGISTER, 1, 1, 0, 0), -EINVAL);
	expect("unregister, fourth", call(UNREGISTER, 1, 0, 1, 0), -EINVAL);
	expect("unregister, fifth", call(UNREGISTER, 1, 0, 0, REPLACE), -EINVAL);
	/* 2 */
	expect("address 0", call(REGISTER, 1, 0, length, 0), -EINVAL);
	expect("length 0", call(REGISTER, 1, at, 0, 0), -EINVAL);
	expect("wraps", call(REGISTER, 1, -16ul, 32, 0), -EINVAL);
	expect("kernel address", call(REGISTER, 1, 0xffffffff81000000, length, 0), -EINVAL);
	expect("end of user addresses", call(REGISTER, 1, USER_END - 27, 28, 0), -EINVAL);
	expect("length 2^32", call(REGISTER, 1, at, 1ul << 32, 0), -EINVAL);
	expect("length 2^64 - 1", call(REGISTER, 1, at, -1ul, 0), -EINVAL);
	/* 3, 4 */
	expect("27 bytes", call(REGISTER, 1, at, 27, 0), -EBADMSG);
	expect("unmapped", call(REGISTER, 1, 0x1000, length, 0), -EFAULT);
	expect("last page", call(REGISTER, 1, USER_END - 28, 28, 0), -EFAULT);
	expect("PROT_NONE", call(REGISTER, 1, at + ROOM, length, 0), -EFAULT);
	expect("header into PROT_NONE", call(REGISTER, 1, at + ROOM - 27, length, 0), -EFAULT);
	for (int version = 2; version <= 3; version++) {
		/* 5, 6, 7 */
		BROKEN("other byte order", -EBADMSG, h->magic = 0xe2de);
		BROKEN("no magic, version 9", -EBADMSG, (h->magic = 0, h->version = 9));
		BROKEN("version 0", -EPROTONOSUPPORT, h->version = 0);
		BROKEN("version 1", -EPROTONOSUPPORT, h->version = 1);
		BROKEN("version 4", -EPROTONOSUPPORT, h->version = 4);
		BROKEN("AArch64", -EPROTONOSUPPORT, h->abi = 2);
		BROKEN("s390x, not sorted", -EPROTONOSUPPORT, (h->abi = 4, h->flags = 0));
		BROKEN("unknown flag", -EBADMSG, h->flags |= 8);
		BROKEN("not sorted", -EBADMSG, h->flags &= ~SORTED);
		BROKEN("fixed FP", -EBADMSG, h->fixed_fp = -16);
		BROKEN("fixed RA 0", -EBADMSG, h->fixed_ra = 0);
		BROKEN("fixed RA -16", -EBADMSG, h->fixed_ra = -16);
		/* 8 */
		BROKEN("no functions", -EBADMSG, h->functions = 0);
		BROKEN("2^32 - 1 functions", -EBADMSG, h->functions = -1);
		BROKEN("one function too many", -EBADMSG, h->functions++);
		BROKEN("index behind the end", -EBADMSG, h->index = -1);
		BROKEN("index in the rows", -EBADMSG, h->index++);
		BROKEN("rows in the index", -EBADMSG, h->row_area--);
		BROKEN("rows behind the end", -EBADMSG, h->row_area = -1);
		BROKEN("rows too long", -EBADMSG, h->row_bytes++);
		BROKEN("2^32 - 1 bytes of rows", -EBADMSG, h->row_bytes = -1);
		BROKEN("auxiliary header", -EBADMSG, h->auxiliary = 255);
		BROKEN("cut by its length", -EBADMSG, length--);
		/* 10 */
		BROKEN("functions out of order", -EBADMSG, if (version == 2) v2[0].start += 4096; else v3[0].start += 4096);
		BROKEN("empty text", -EBADMSG,
		       if (version == 2) v2[1] = (struct v2){ .start = v2[0].start - (int)sizeof(*v2) };
		       else v3[1] = (struct v3){ .start = v3[0].start - (long)sizeof(*v3) });
		if (version == 3) {
			BROKEN("text below 0", -EBADMSG, v3[0].start = -0x7fffffffffffffff);
			BROKEN("text at 0", -EBADMSG, v3[0].start = -(long)v3);
			BROKEN("last start below 0", -EBADMSG, (v3[1].start = -(long)(v3 + 1) - 16, v3[1].size = -1));
			BROKEN("text to the kernel", -EBADMSG, v3[1].start = USER_END - (long)(v3 + 1) - 15);
			BROKEN("text of the kernel", -EBADMSG, v3[1].start = 0x7fffffffffffffff);
		}
		/* 9: the index reaches the page that cannot be read, or crosses into it. */
		size_t whole = section(room, version, SORTED, TEXT(0), 2);

		for (size_t part = 0; part < 2; part++) {
			edge = room + ROOM - sizeof(struct header) - part * entry(version);
			for (size_t less = 0; less < 2; less++) {
				size_t there = room + ROOM - (edge + less);

				memcpy(edge + less, room, there);
				snprintf(name, sizeof(name), "V%d entry %zu in PROT_NONE, but %zu", version, part, less);
				if (there < sizeof(struct header))
					continue;
				expect(name, call(REGISTER, 1, (long)(edge + less), whole, 0), -EFAULT);
			}
			edge -= 3;
			memcpy(edge, room, room + ROOM - edge);
			expect("entry cut by PROT_NONE", call(REGISTER, 1, (long)edge, whole, 0), -EFAULT);
		}
		/* In order. */
		BROKEN("sound", ID, );
		expect("removed", drop(1), 1);
		BROKEN("sound, relative to the section", ID, section(room, version, SORTED, TEXT(0), 2));
		expect("removed", drop(1), 1);
	}
	/* 11 to 13 */
	section(room, 3, SORTED | PCREL, TEXT(0), 2);
	expect("replace nothing", call(REGISTER, 1, at, length, REPLACE), -ENOENT);
	first = add(1, TEXT(0));
	expect("first", first, ID);
	expect("same text", add(2, TEXT(0)), -EEXIST);
	expect("same text, same key", add(1, TEXT(0)), -EEXIST);
	expect("overlap of a byte", add(2, TEXT(0) + 47), -EEXIST);
	expect("right behind", add(1, TEXT(0) + 48), ID);
	expect("replace without the key", call(REGISTER, 2, at, length, REPLACE), -ENOENT);
	section(room, 3, SORTED | PCREL, TEXT(0) + 24, 2);
	answer = call(REGISTER, 1, at, length, REPLACE);
	expect("replace two that are in the way", answer, ID);
	expect("another id", answer != first, 1);
	expect("upper half of the option", call(REGISTER | 7ul << 32, 1, at, length, REPLACE), ID);
	expect("unregister counts", drop(1), 1);
	expect("unregister again", drop(1), -ENOENT);
	expect("unregister what nobody knows", drop(-1ul), -ENOENT);
	for (key = 0; key < 4096; key++)
		if (add(key % 2, TEXT(key)) <= 0)
			break;
	expect("4096 sections", key, 4096);
	expect("one more", add(1, TEXT(4096)), -ENOSPC);
	expect("overlap comes first", add(1, TEXT(7)), -EEXIST);
	section(room, 3, SORTED | PCREL, TEXT(0), 2);
	expect("replace 2048", call(REGISTER, 0, at, length, REPLACE), ID);
	expect("room again", add(5, TEXT(4096)), ID);
	expect("2048 of one key", drop(1), 2048);
	expect("one of the other", drop(0), 1);
	expect("and the last", drop(5), 1);
}

enum { THREADS = 8, ROUNDS = 200 };

static void *turns(void *argument)
{
	unsigned long key = (unsigned long)argument;
	char *mine = room + key * 512;
	long good_turns = 0;

	for (int i = 0; i < ROUNDS; i++) {
		size_t length = section(mine, 2 + i % 2, SORTED | PCREL, TEXT(key), 3);

		good_turns += call(REGISTER, key, (long)mine, length, 0) > 0 && drop(key) == 1;
	}
	expect("turns of a thread", good_turns, ROUNDS);
	expect("left by a thread", call(REGISTER, key, (long)mine, section(mine, 3, SORTED, TEXT(key), 1), 0), ID);
	return NULL;
}

static void threads(void)
{
	pthread_t thread[THREADS];

	for (long i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, turns, (void *)(i + 1));
	for (long i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	for (long i = 0; i < THREADS; i++)
		expect("another thread's", drop(i + 1), 1);
}

/* Waits for a child and takes its checks over. */
static void join(const char *what, pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	expect(what, status, 0);
}

static void forks(void)
{
	pid_t pid;
	long right = 0;

	expect("before", add(1, TEXT(0)), ID);
	expect("before", add(1, TEXT(1)), ID);
	expect("before", add(2, TEXT(2)), ID);
	if (!(pid = fork())) {
		good = failed = 0;
		expect("child's copy", drop(1), 2);
		expect("child's copy is gone", drop(1), -ENOENT);
		expect("child's own", add(3, TEXT(0)), ID);
		/* Grandchildren whose first call may come before anybody has heard of them. */
		for (int i = 0; i < ROUNDS; i++) {
			int status = -1;

			if (!(pid = fork()))
				_exit(!(drop(3) == 1 && drop(3) == -ENOENT));
			waitpid(pid, &status, 0);
			right += status == 0;
		}
		expect("grandchildren that call at once", right, ROUNDS);
		expect("child's own is still there", drop(3), 1);
		_exit(failed);
	}
	join("child", pid);
	expect("parent has none of it", drop(3), -ENOENT);
	/* Children whose first call may come before anybody has heard of them. */
	for (int i = 0; i < ROUNDS; i++) {
		int status = -1;

		if (!(pid = fork()))
			_exit(!(drop(1) == 2 && add(1, TEXT(3 + i)) > 0));
		waitpid(pid, &status, 0);
		right += status == 0;
	}
	expect("children that call at once", right, ROUNDS);
	expect("parent's", drop(1), 2);
	expect("parent's", drop(2), 1);
}

static long in_child[3];

static int clone_child(void *unused)
{
	(void)unused;
	in_child[0] = drop(1);
	in_child[1] = syscall(SYS_prctl, REGISTER, 8, room, section(room, 3, SORTED, TEXT(8), 1), 0);
	_exit(0);
}

static void vforks(void)
{
	char *arguments[] = { self, "execed", NULL };
	extern char **environ;
	static char stack[64 << 10] __attribute__((aligned(16)));
	pid_t pid;

	/* Nothing is registered yet: what the child says is its parent's. */
	if (!(pid = vfork())) {
		in_child[0] = call(REGISTER, 1, (long)room, section(room, 3, SORTED, TEXT(0), 1), 0);
		_exit(0);
	}
	join("vfork and exit", pid);
	expect("vfork's child", in_child[0], ID);
	expect("what it left", drop(1), 1);
	expect("before", add(1, TEXT(0)), ID);
	if (!(pid = vfork())) {
		in_child[0] = drop(1);
		in_child[1] = drop(1);
		in_child[2] = call(REGISTER, 9, (long)room, section(room, 3, SORTED, TEXT(9), 1), 0);
		execv(self, arguments);
		_exit(9);
	}
	join("vfork and exec", pid);
	expect("vfork's child shares", in_child[0], 1);
	expect("vfork's child, again", in_child[1], -ENOENT);
	expect("vfork's child adds", in_child[2], ID);
	expect("what it took away", drop(1), -ENOENT);
	expect("what it added", drop(9), 1);
	expect("before", add(1, TEXT(0)), ID);
	pid = clone(clone_child, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
	join("clone", pid);
	expect("clone with CLONE_VM shares", in_child[0], 1);
	expect("clone with CLONE_VM adds", in_child[1], ID);
	expect("what it added", drop(8), 1);
	expect("before", add(1, TEXT(0)), ID);
	if (!(pid = syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0)))
		_exit(drop(1) != 1);
	join("clone with CLONE_VFORK alone has a copy", pid);
	/* glibc: clone3(CLONE_VM | CLONE_VFORK). */
	expect("posix_spawn", posix_spawn(&pid, self, NULL, NULL, arguments, environ), 0);
	join("posix_spawn", pid);
	expect("after posix_spawn", drop(1), 1);
}

static void execs(void)
{
	char *arguments[] = { self, "execed", NULL };
	pid_t pid;

	expect("before", add(1, TEXT(0)), ID);
	expect("before", add(2, TEXT(1)), ID);
	fflush(stdout);
	if (!(pid = fork())) {
		execv(self, arguments);
		_exit(9);
	}
	join("exec", pid);
	expect("parent's", drop(1), 1);
	expect("parent's", drop(2), 1);
}

static void execed(void)
{
	expect("nothing is left", drop(1), -ENOENT);
	expect("nothing is left", drop(2), -ENOENT);
	expect("after exec", add(1, TEXT(0)), ID);
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted++;
}

static void signals(void)
{
	struct itimerval timer = { { 0, 500 }, { 0, 500 } };
	long right = 0, turn = 0;

	/* Not sa_restart: an answer must come all the same. */
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	for (; turn < 2000 || interrupted < 20; turn++)
		right += add(1, TEXT(0)) > 0 && drop(1) == 1;
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	expect("calls among signals", right, turn);
}

/* The program's own filter: `action` for prctl with this option. */
static void filter(unsigned long option, unsigned action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, option, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	expect("own filter", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void filters(void)
{
	filter(UNREGISTER, SECCOMP_RET_ERRNO | EPERM);
	expect("not filtered", add(1, TEXT(0)), ID);
	expect("the strictest wins", drop(1), -EPERM);
	filter(PR_GET_DUMPABLE, SECCOMP_RET_TRACE | 1);
	expect("a tracer that the program has not", call(PR_GET_DUMPABLE, 0, 0, 0, 0), -ENOSYS);
	filter(REGISTER, SECCOMP_RET_TRACE | 1);
	expect("nor for these calls", add(2, TEXT(1)), -ENOSYS);
}

static void outlast(void)
{
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	expect("while somebody answers", add(1, TEXT(0)), ID);
	while (!interrupted)
		;
	expect("nobody answers any more", drop(1), -ENOSYS);
	expect("nobody answers any more", add(2, TEXT(1)), -ENOSYS);
}

int main(int count, char **arguments)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} parts[] = {
		{ "errors", errors },	{ "threads", threads }, { "fork", forks },
		{ "vfork", vforks },	{ "exec", execs },	{ "execed", execed },
		{ "signals", signals }, { "filters", filters }, { "outlast", outlast },
	};
	int known = 0;

	self = "/proc/self/exe";
	room = mmap((void *)0x500000000, ROOM + PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (room == MAP_FAILED || mprotect(room + ROOM, PAGE, PROT_NONE))
		return 2;
	for (int i = 1; i < count; i++)
		for (size_t part = 0; part < sizeof(parts) / sizeof(parts[0]); part++)
			if (!strcmp(arguments[i], parts[part].name)) {
				parts[part].run();
				known++;
			}
	printf("%s: %d ok, %d failed\n", count > 1 ? arguments[1] : "", good, failed);
	return failed || known == 0 || known != count - 1;
}
