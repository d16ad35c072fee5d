/* One of each way in which stacks begin, end, and change. usage: stacks PHASE ROUNDS */
#define _GNU_SOURCE
#include <ctype.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
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
	for (volatile int i = 0; i < 10; i++)
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
	static char room[1 << 16];
	stack_t stack = {.ss_sp = room, .ss_size = sizeof(room)};
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
	static char room[1 << 16];
	getcontext(&second);
	second.uc_stack.ss_sp = room;
	second.uc_stack.ss_size = sizeof(room);
	second.uc_link = &first;
	makecontext(&second, coroutine, 0);
	for (int i = 0; i < 6; i++)
		swapcontext(&first, &second);
}

extern char **environ;

static void children(void)
{
	char *words[] = {"true", NULL};
	pid_t pid = vfork();
	if (pid == 0) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
	if (!posix_spawn(&pid, "/bin/true", NULL, NULL, words, environ))
		waitpid(pid, NULL, 0);
	if ((pid = fork()) == 0)
		_exit(0);
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

static void vdso(void)
{
	struct timespec now;
	struct timeval then;
	unsigned cpu;

	clock_gettime(CLOCK_MONOTONIC, &now);
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	clock_getres(CLOCK_MONOTONIC, &now);
	gettimeofday(&then, NULL);
	getcpu(&cpu, NULL);
	sink += time(NULL) + cpu;
}

__attribute__((noinline)) static void bound(void)
{
	sink++;
}

/* Calls that nothing called before: each is bound, by its name, in the midst of the call. */
static void binding(void)
{
	sink += abs(getpid()) + isatty(0) + (int)strtol("7", NULL, 10) + getppid();
	bound();
	sink += (int)strcspn("abc", "c") + toupper('x') + (int)getuid();
}

static void plain(void)
{
	signals(0);
}

static void alternate(void)
{
	signals(SA_ONSTACK);
}

int main(int count, char **words)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} phases[] = {
		{"jumps", jumps},   {"signals", plain}, {"alternate", alternate}, {"contexts", contexts},
		{"children", children}, {"threads", threads}, {"vdso", vdso}, {"binding", binding},
	};
	for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++)
		if (count > 2 && !strcmp(words[1], phases[i].name)) {
			for (long n = atol(words[2]); n > 0; n--)
				phases[i].run();
			return 0;
		}
	return 2;
}
