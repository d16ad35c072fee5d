/* One of each way in which stacks begin, end, and change. usage: stacks PHASE */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static jmp_buf back;
static sigjmp_buf out;
static volatile int sink;

__attribute__((noinline)) static void deep(int n)
{
	if (n == 0)
		longjmp(back, 1);
	deep(n - 1);
	sink++;
}

static void jumps(void)
{
	for (int i = 0; i < 10; i++)
		if (!setjmp(back))
			deep(i);
}

static void handle(int number)
{
	sink += number;
	if (number == SIGUSR2)
		siglongjmp(out, 1);
}

static void signals(int flags)
{
	struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
	stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	for (int i = 0; i < 5; i++) {
		raise(SIGUSR1);
		if (!sigsetjmp(out, 1))
			raise(SIGUSR2);
	}
}

static ucontext_t first, second;

static void coroutine(void)
{
	for (int i = 0; i < 5; i++) {
		sink++;
		swapcontext(&second, &first);
	}
}

static void contexts(void)
{
	getcontext(&second);
	second.uc_stack.ss_sp = malloc(1 << 16);
	second.uc_stack.ss_size = 1 << 16;
	second.uc_link = &first;
	makecontext(&second, coroutine, 0);
	for (int i = 0; i < 6; i++)
		swapcontext(&first, &second);
}

static void children(void)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
	if ((pid = fork()) == 0)
		exit(0);
	waitpid(pid, NULL, 0);
}

static void *thread(void *argument)
{
	for (int i = 0; i < 20; i++)
		sink++;
	return argument;
}

static void threads(void)
{
	pthread_t ids[3];
	for (int i = 0; i < 3; i++)
		pthread_create(&ids[i], NULL, thread, NULL);
	for (int i = 0; i < 3; i++)
		pthread_join(ids[i], NULL);
}

static void strings(void)
{
	static char a[10000], b[10000];
	struct timespec now;
	for (volatile size_t n = 0; n < 9000; n += n < 300 ? 1 : 1111) {
		memset(a, 'x', n);
		memcpy(b, a, n);
		memmove(b + 1, b, n);
		sink += strlen(a) + (memcmp(a, b, n) != 0) + (memchr(a, 'y', n) != NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
}

int main(int count, char **words)
{
	const char *phase = count > 1 ? words[1] : "";
	if (!strcmp(phase, "jumps"))
		jumps();
	else if (!strcmp(phase, "signals"))
		signals(0);
	else if (!strcmp(phase, "alternate"))
		signals(SA_ONSTACK);
	else if (!strcmp(phase, "contexts"))
		contexts();
	else if (!strcmp(phase, "children"))
		children();
	else if (!strcmp(phase, "threads"))
		threads();
	else if (!strcmp(phase, "strings"))
		strings();
	else
		return 2;
	return 0;
}
