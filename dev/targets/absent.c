/* A thread whose stack lies in a file mapping, most of which is dropped from the page tables again and
 * again: a walk that cannot fault pages in finds them absent, nothing is lost for one that can.
 *   main thread: waits. Stack of the other: begin -> deep x 200 -> spin. Argument: milliseconds. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { STACK = 1 << 20, DEPTH = 200 };
static char *stack;
static volatile unsigned long sink;
static struct timespec end;

static int over(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec > end.tv_nsec);
}

__attribute__((noinline)) void spin(void)
{
	/* Everything above the page after the next: those two hold the innermost frames. */
	char *here = (char *)(((unsigned long)__builtin_frame_address(0) & ~4095ul) + 8192);

	while (!over()) {
		if (madvise(here, stack + STACK - here, MADV_DONTNEED))
			abort();
		for (int i = 0; i < 3000000; i++)
			sink += i;
	}
}

__attribute__((noinline)) void deep(int depth)
{
	volatile char room[256];

	room[0] = depth;
	if (depth)
		deep(depth - 1);
	else
		spin();
	sink += room[0];
}

static void *begin(void *unused)
{
	deep(DEPTH - 1);
	return unused;
}

int main(int count, char **arguments)
{
	long milliseconds = count > 1 ? atol(arguments[1]) : 1000;
	FILE *file = tmpfile();
	pthread_attr_t attributes;
	pthread_t thread;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += milliseconds / 1000;
	end.tv_nsec += milliseconds % 1000 * 1000000;
	if (end.tv_nsec >= 1000000000) {
		end.tv_sec++;
		end.tv_nsec -= 1000000000;
	}
	if (!file || ftruncate(fileno(file), STACK))
		return 1;
	stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
	if (stack == MAP_FAILED)
		return 1;
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, STACK);
	if (pthread_create(&thread, &attributes, begin, NULL))
		return 1;
	pthread_join(thread, NULL);
	return 0;
}
