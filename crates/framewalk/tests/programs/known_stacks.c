/* A program whose every stack is known: whatever it does, the call chain is a prefix of one chain.
 * It runs until it is killed, or for a minute. Built with -O2 -fomit-frame-pointer. */
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

static volatile uint64_t sink;

KEEP void spin(int n)
{
	for (int i = 0; i < n; i++)
		sink = sink * 31 + i;
}

KEEP int leaf(int n)
{
	for (;;)
		spin(100000 + n);
	return sink;
}

/* Frames of changing sizes. */
KEEP int recurse(int depth)
{
	volatile char room[40];
	room[0] = depth;
	if (depth == 1)
		return leaf(room[0]) + 1;
	return recurse(depth - 1) + room[0];
}

/* A frame pointer by need, and a stack pointer that nobody can tell. */
KEEP int with_alloca(int depth)
{
	volatile char *room = alloca(depth * 24 + sink % 7);
	room[0] = 1;
	return recurse(depth) + room[0];
}

/* A realigned frame (DRAP: CFA = *(rbp - n)). */
KEEP int realigned(int depth)
{
	volatile char wide[64] __attribute__((aligned(64)));
	wide[0] = depth;
	return with_alloca(depth) + wide[0];
}

static int depth;

/* Called by libc: a PLT call, and frames of another object in the middle. */
KEEP int compare(const void *a, const void *b)
{
	return realigned(depth) + *(const char *)a - *(const char *)b;
}

KEEP int through_libc(void)
{
	char two[2] = "ba";
	qsort(two, 2, 1, compare);
	return two[0];
}

KEEP void on_signal(int signal)
{
	for (int i = 0; i < 20; i++)
		spin(100000 + signal);
}

KEEP void *in_thread(void *argument)
{
	return (void *)(uintptr_t)(through_libc() + (argument != 0));
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	depth = argc > 2 ? atoi(argv[2]) : 30;
	alarm(60);
	if (strchr(what, 's')) {
		/* With 'a', handlers in the first thread run on their own stack. */
		stack_t stack = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
		int alternate = strchr(what, 'a') ? SA_ONSTACK : 0;
		sigaltstack(&stack, 0);
		struct sigaction action = { .sa_handler = on_signal, .sa_flags = alternate | SA_RESTART };
		sigaction(SIGUSR1, &action, 0);
		timer_t timer;
		struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
		timer_create(CLOCK_MONOTONIC, &event, &timer);
		struct itimerspec every = { { 0, 5000000 }, { 0, 5000000 } };
		timer_settime(timer, 0, &every, 0);
	}
	if (strchr(what, 'f') && fork() == 0) {
		alarm(60);
		return through_libc();
	}
	puts("ready");
	fflush(stdout);
	if (strchr(what, 't')) {
		pthread_t thread;
		pthread_create(&thread, 0, in_thread, 0);
		pthread_create(&thread, 0, in_thread, 0);
		pthread_join(thread, 0);
	}
	if (strchr(what, 'e')) {
		argv[1] = "";
		execv(argv[0], argv);
	}
	return through_libc();
}
