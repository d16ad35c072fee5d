/* Fixed work at the bottom of a stack of known depth, for measuring what a sample costs.
 *
 * usage: depth FRAMES ITERATIONS CPU
 * FRAMES counts from the function that works to main. Waits for a line (or the end) of its input, warms
 * up, works, and prints the nanoseconds that the work took on its processor: time in which others had the
 * processor does not count, time of interrupts does.
 * Build: gcc -O2 -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))
#define WARM_UP 300000000ull

static volatile uint64_t sink;
static uint64_t iterations;

static uint64_t now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* Nanoseconds that this thread was ready to run and did not (second number of schedstat). */
static uint64_t waited(void)
{
	char text[128] = "";
	int file = open("/proc/thread-self/schedstat", O_RDONLY);
	unsigned long long ran = 0, waited = 0;

	if (file < 0)
		return 0;
	if (read(file, text, sizeof(text) - 1) > 0)
		sscanf(text, "%llu %llu", &ran, &waited);
	close(file);
	return waited;
}

KEEP void work(void)
{
	uint64_t begin = now(), wait;

	while (now() - begin < WARM_UP)
		for (int i = 0; i < 10000; i++)
			sink += i;
	wait = waited();
	begin = now();
	for (uint64_t i = 0; i < iterations; i++)
		sink += i;
	begin = now() - begin;
	printf("%llu\n", (unsigned long long)(begin - (waited() - wait)));
}

KEEP void descend(int frames)
{
	if (frames == 0)
		work();
	else
		descend(frames - 1);
	__asm__ volatile("" ::: "memory");
}

int main(int argc, char **argv)
{
	cpu_set_t cpus;
	char byte;

	if (argc != 4)
		return 2;
	iterations = strtoull(argv[2], 0, 10);
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[3]), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	while (read(0, &byte, 1) == 1 && byte != '\n')
		;
	/* main, descend (one more than its argument), work */
	descend(atoi(argv[1]) - 3);
	return 0;
}
