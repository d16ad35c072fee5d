/* Stacks of every awkward kind, each known from its innermost function: see calls.h.
 *
 * usage: torture MILLISECONDS [PHASE...]     runs the phases (all, if none is named) in turn, so long each
 *        torture calls                       prints who calls whom: "callee caller how" per line
 * Build: gcc -O2 -fomit-frame-pointer -Wl,-z,lazy; plugin.so lies beside the program. */
#define _GNU_SOURCE
#include "calls.h"
#include <alloca.h>
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

/* Divides work and the rate of signals: for those who run it one instruction at a time. */
#ifndef SHORTER
#define SHORTER 1
#endif

/* Work that calls nothing: all of it is the caller's own time. */
#define SPIN(n) \
	do { \
		for (uint64_t spin_ = 0; spin_ < (n) / SHORTER; spin_++) \
			sink = sink * 31 + spin_; \
	} while (0)
#define SHORT 20000
#define LONG 5000000

/* The compiler puts whatever leads here out of the way. */
NOTE(rarely, ANYBODY, "");
__attribute__((cold)) KEEP void rarely(void)
{
	sink += 2;
}

/* ---- recursion: 400 functions, eight kinds of frames in turn -------------------------------- */

#define CALL(next) \
	do { \
		next(); \
		NO_TAIL_CALL; \
	} while (0)

/* A plain frame of a size of its own. */
#define KIND_0(n, next) \
	volatile char room[8 + n * 7 % 240]; \
	room[0] = 1; \
	CALL(next); \
	sink += room[0];
/* No frame at all but the return address. */
#define KIND_1(n, next) CALL(next);
/* A frame pointer by need: alloca. */
#define KIND_2(n, next) \
	volatile char *room = alloca(16 + (sink & 15) + n); \
	room[0] = 1; \
	CALL(next); \
	sink += room[0];
/* A realigned frame. */
#define KIND_3(n, next) \
	volatile char room[64] __attribute__((aligned(64))); \
	room[0] = n & 1; \
	CALL(next); \
	sink += room[0];
/* A realigned frame with alloca: gcc needs its DRAP register and a saved copy of it. */
#define KIND_4(n, next) \
	volatile char room[32] __attribute__((aligned(32))); \
	volatile char *more = alloca(8 + (sink & 31)); \
	room[0] = more[0] = 1; \
	CALL(next); \
	sink += room[0] + more[0];
/* All callee-saved registers in use, rbp for data. */
#define KIND_5(n, next) \
	uint64_t a = sink, b = a * 3, c = b ^ n, d = c * 5, e = d + a, f = e * 7; \
	__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f)); \
	CALL(next); \
	sink += a ^ b ^ c ^ d ^ e ^ f;
/* Larger than a window of any size that a walker may read at once. */
#define KIND_6(n, next) \
	volatile char room[3000 + n * 16]; \
	room[0] = room[sizeof(room) - 1] = 1; \
	CALL(next); \
	sink += room[0];
/* A call from a branch that is thought to be rare: a part of the function elsewhere. */
#define KIND_7(n, next) \
	if (sink != 1) { \
		rarely(); \
		CALL(next); \
		sink++; \
	}

/* r_leaf is called by r_000, that by r_001, and so on to r_399 and r_top. */
#define RECURSION(p, kind, callee, name, caller) \
	FUNCTION(p##name, p##caller) \
	{ \
		KIND_##kind((1##name - 1000), p##callee) \
	}
#define TEN_OF(p, before, t, after) \
	RECURSION(p, 0, before, t##0, t##1) RECURSION(p, 1, t##0, t##1, t##2) RECURSION(p, 2, t##1, t##2, t##3) \
	RECURSION(p, 3, t##2, t##3, t##4) RECURSION(p, 4, t##3, t##4, t##5) RECURSION(p, 5, t##4, t##5, t##6) \
	RECURSION(p, 6, t##5, t##6, t##7) RECURSION(p, 7, t##6, t##7, t##8) RECURSION(p, 3, t##7, t##8, t##9) \
	RECURSION(p, 4, t##8, t##9, after)
#define TEN(before, t, after) TEN_OF(r_, before, t, after)

FUNCTION(r_leaf, r_000)
{
	SPIN(SHORT);
}
TEN(leaf, 00, 010)
TEN(009, 01, 020)
TEN(019, 02, 030)
TEN(029, 03, 040)
TEN(039, 04, 050)
TEN(049, 05, 060)
TEN(059, 06, 070)
TEN(069, 07, 080)
TEN(079, 08, 090)
TEN(089, 09, 100)
TEN(099, 10, 110)
TEN(109, 11, 120)
TEN(119, 12, 130)
TEN(129, 13, 140)
TEN(139, 14, 150)
TEN(149, 15, 160)
TEN(159, 16, 170)
TEN(169, 17, 180)
TEN(179, 18, 190)
TEN(189, 19, 200)
TEN(199, 20, 210)
TEN(209, 21, 220)
TEN(219, 22, 230)
TEN(229, 23, 240)
TEN(239, 24, 250)
TEN(249, 25, 260)
TEN(259, 26, 270)
TEN(269, 27, 280)
TEN(279, 28, 290)
TEN(289, 29, 300)
TEN(299, 30, 310)
TEN(309, 31, 320)
TEN(319, 32, 330)
TEN(329, 33, 340)
TEN(339, 34, 350)
TEN(349, 35, 360)
TEN(359, 36, 370)
TEN(369, 37, 380)
TEN(379, 38, 390)
TEN(389, 39, top)
FUNCTION(r_top, phase_recursion)
{
	CALL(r_399);
}

FUNCTION(phase_recursion, main)
{
	CALL(r_top);
}

/* The same, ten deep: fits any copy of a stack. */
FUNCTION(m_leaf, m_000)
{
	SPIN(SHORT);
}
TEN_OF(m_, leaf, 00, top)
FUNCTION(m_top, phase_mixed)
{
	CALL(m_009);
}

FUNCTION(phase_mixed, main)
{
	CALL(m_top);
}

/* ---- frames larger than any copy ------------------------------------------------------------ */

FUNCTION(large_leaf, large_2)
{
	SPIN(SHORT);
}

FUNCTION(large_2, large_1)
{
	volatile char room[200000];
	room[0] = room[sizeof(room) - 1] = 1;
	CALL(large_leaf);
	sink += room[0];
}

FUNCTION(large_1, phase_large)
{
	volatile char room[200000];
	volatile char *more = alloca(100000 + (sink & 15));
	room[0] = more[0] = 1;
	CALL(large_2);
	sink += room[0] + more[0];
}

FUNCTION(phase_large, main)
{
	CALL(large_1);
}

/* ---- library calls: through the PLT, back through qsort, the vdso, system calls ----------------- */

CALLS_LIBRARY(library_memory, phase_library)
{
	static char from[1 << 16], to[1 << 16];
	for (int i = 0; i < 40 / SHORTER + 1; i++)
		memmove(to + (i & 7), from, sizeof(from) - 8);
	NO_TAIL_CALL;
}

CALLS_LIBRARY(library_clock, phase_library)
{
	struct timespec now;
	for (int i = 0; i < 3000 / SHORTER + 1; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		sink += now.tv_nsec;
	}
}

CALLS_LIBRARY(library_system, phase_library)
{
	for (int i = 0; i < 1000 / SHORTER + 1; i++)
		sink += syscall(SYS_getppid);
}

CALLS_LIBRARY(library_format, phase_library)
{
	char line[64];
	for (int i = 0; i < 300 / SHORTER + 1; i++)
		sink += snprintf(line, sizeof(line), "%d %s %.3f", i, "words", i / 7.0);
}

KEEP int compare(const void *a, const void *b);
NOTE(compare, "library_sort", "via");
NOTE(compared, "compare", "");

KEEP void compared(void)
{
	SPIN(SHORT);
}

KEEP int compare(const void *a, const void *b)
{
	volatile char wide[64] __attribute__((aligned(64)));
	wide[0] = 1;
	CALL(compared);
	return *(const char *)a - *(const char *)b + wide[0] - 1;
}

CALLS_LIBRARY(library_sort, phase_library)
{
	char two[2] = "ba";
	qsort(two, 2, 1, compare);
	sink += two[0];
}

FUNCTION(phase_library, main)
{
	CALL(library_memory);
	CALL(library_clock);
	CALL(library_system);
	CALL(library_format);
	CALL(library_sort);
}

/* ---- functions that never return: their return address belongs to the next function ---------- */

static jmp_buf back;

__attribute__((noreturn)) KEEP void never(void);
__attribute__((noreturn)) KEEP void never_1(void);
__attribute__((noreturn)) KEEP void never_2(void);
NOTE(never_2, "never_1", "calls");
NOTE(never_1, "never", "");
NOTE(never, "phase_never", "");

KEEP void never_2(void)
{
	SPIN(SHORT);
	longjmp(back, 1);
}

KEEP void never_1(void)
{
	volatile char room[40];
	room[0] = 1;
	sink += room[0];
	never_2();
}

KEEP void never(void)
{
	never_1();
}

CALLS_LIBRARY(phase_never, main)
{
	if (!setjmp(back))
		never();
}

/* ---- signals: handlers on the thread's stack and on their own, in each other ------------------ */

FUNCTION(handled_2, handled)
{
	SPIN(SHORT);
}

FUNCTION(handled, on_signal)
{
	volatile char wide[32] __attribute__((aligned(32)));
	wide[0] = 1;
	CALL(handled_2);
	sink += wide[0];
}

NOTE(on_signal, SIGNAL, "");
KEEP void on_signal(int signal)
{
	sink += signal;
	CALL(handled);
}

FUNCTION(elsewhere_2, elsewhere)
{
	SPIN(2 * SHORT);
}

FUNCTION(elsewhere, on_other_stack)
{
	CALL(elsewhere_2);
}

NOTE(on_other_stack, SIGNAL, "");
KEEP void on_other_stack(int signal, siginfo_t *info, void *context)
{
	sink += signal + (info != context);
	CALL(elsewhere);
}

static timer_t timer(int signal, long nanoseconds)
{
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal};
	struct timespec period = {nanoseconds / 1000000000, nanoseconds % 1000000000};
	struct itimerspec every = {period, period};

	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &every, 0);
	return timer;
}

/* Signals come while every other phase runs, too: at any instruction of it. */
static void signals_on(void)
{
	struct sigaction plain = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &plain, 0);
	timer(SIGUSR1, 1700000L * SHORTER);
}

static void other_stack_on(void)
{
	struct sigaction other = {.sa_sigaction = on_other_stack, .sa_flags = SA_RESTART | SA_ONSTACK | SA_SIGINFO};
	stack_t stack = {.ss_sp = malloc(1 << 17), .ss_size = 1 << 17};

	sigaltstack(&stack, 0);
	sigaction(SIGUSR2, &other, 0);
	timer(SIGUSR2, 2300000L * SHORTER);
}

FUNCTION(signal_leaf, phase_signal)
{
	SPIN(SHORT);
}

FUNCTION(phase_signal, main)
{
	CALL(signal_leaf);
}

FUNCTION(other_leaf, phase_otherstack)
{
	SPIN(SHORT);
}

FUNCTION(phase_otherstack, main)
{
	CALL(other_leaf);
}

/* ---- a shared object: opened lazily bound, called through its PLT, calling back, closed --------- */

static char plugin_path[4096];
static const struct call *plugin_calls, *plugin_calls_end;

FUNCTION(from_plugin, plugin_calls_back)
{
	SPIN(SHORT);
}

static void *plugin_open(void)
{
	void *plugin = dlopen(plugin_path, RTLD_LAZY | RTLD_LOCAL);

	if (!plugin) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return plugin;
}

CALLS_LIBRARY(phase_dlopen, main)
{
	void *plugin = plugin_open();
	void (*enter)(void (*)(void)) = (void (*)(void (*)(void)))dlsym(plugin, "plugin_enter");

	for (int i = 0; i < 20; i++)
		enter(from_plugin);
	dlclose(plugin);
	NO_TAIL_CALL;
}

/* ---- threads -------------------------------------------------------------------------------- */

FUNCTION(thread_3, thread_2)
{
	SPIN(LONG);
}

FUNCTION(thread_2, thread_1)
{
	volatile char *room = alloca(100 + (sink & 15));
	room[0] = 1;
	CALL(thread_3);
	sink += room[0];
}

FUNCTION(thread_1, thread_main)
{
	volatile char wide[64] __attribute__((aligned(64)));
	wide[0] = 1;
	CALL(thread_2);
	sink += wide[0];
}

NOTE(thread_main, START, "calls");
KEEP void *thread_main(void *argument)
{
	CALL(thread_1);
	return argument;
}

CALLS_LIBRARY(phase_threads, main)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], 0, thread_main, 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], 0);
}

/* --------------------------------------------------------------------------------------------- */

static const struct phase {
	const char *name;
	void (*run)(void);
} phases[] = {
	{"recursion", phase_recursion}, {"mixed", phase_mixed},   {"large", phase_large},
	{"library", phase_library},     {"never", phase_never},   {"signal", phase_signal},
	{"otherstack", phase_otherstack}, {"dlopen", phase_dlopen}, {"threads", phase_threads},
};
#define PHASES (sizeof(phases) / sizeof(phases[0]))

static uint64_t now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static int print_calls(void)
{
	void *plugin = plugin_open();
	const struct call *(*calls)(const struct call **) = (const struct call *(*)(const struct call **))dlsym(plugin, "plugin_calls");

	plugin_calls = calls(&plugin_calls_end);
	for (const struct call *call = __start_calls; call < __stop_calls; call++)
		printf("%s %s %s\n", call->callee, call->caller, call->how);
	for (const struct call *call = plugin_calls; call < plugin_calls_end; call++)
		printf("%s %s %s\n", call->callee, call->caller, call->how);
	return 0;
}

NOTE(main, START, "calls");
int main(int argc, char **argv)
{
	uint64_t nanoseconds = argc > 1 ? strtoull(argv[1], 0, 10) * 1000000 : 0;
	ssize_t length = readlink("/proc/self/exe", plugin_path, sizeof(plugin_path) - 16);
	int wanted[PHASES];

	if (length < 0)
		return 1;
	plugin_path[length] = 0;
	strcpy(strrchr(plugin_path, '/'), "/plugin.so");
	if (argc > 1 && !strcmp(argv[1], "calls"))
		return print_calls();
	for (unsigned p = 0; p < PHASES; p++) {
		wanted[p] = argc <= 2;
		for (int i = 2; i < argc; i++)
			wanted[p] |= !strcmp(argv[i], phases[p].name);
		if (wanted[p] && phases[p].run == phase_signal)
			signals_on();
		if (wanted[p] && phases[p].run == phase_otherstack)
			other_stack_on();
	}
	for (unsigned p = 0; p < PHASES; p++) {
		if (!wanted[p])
			continue;
		for (uint64_t end = now() + nanoseconds; now() < end;) {
			phases[p].run();
			NO_TAIL_CALL;
		}
	}
	return 0;
}
