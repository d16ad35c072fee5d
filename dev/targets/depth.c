/* Fixed work at the bottom of a stack of known depth, for measuring what a sample costs.
 *
 * usage: depth FRAMES UNITS CPU
 * FRAMES counts from the function that works to main. Waits for a line (or the end) of its input, warms
 * up, does UNITS equal pieces of work, and prints the nanoseconds that each took.
 * Build: gcc -O2 -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))
#define WARM_UP 300000000ull /* nanoseconds */
#define ITERATIONS 3000000
#define MOST_UNITS 1000

static volatile uint64_t sink;
static unsigned long units;
static uint64_t took[MOST_UNITS];

static uint64_t now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

KEEP void work(void)
{
	uint64_t begin = now(), end;

	while (now() - begin < WARM_UP)
		for (int i = 0; i < 10000; i++)
			sink += i;
	begin = now();
	for (unsigned long unit = 0; unit < units; unit++) {
		for (int i = 0; i < ITERATIONS; i++)
			sink += i;
		end = now();
		took[unit] = end - begin;
		begin = end;
	}
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
	units = strtoul(argv[2], 0, 10);
	if (units > MOST_UNITS)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[3]), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	while (read(0, &byte, 1) == 1 && byte != '\n')
		;
	/* main, descend (one more than its argument), work */
	descend(atoi(argv[1]) - 3);
	for (unsigned long unit = 0; unit < units; unit++)
		printf("%llu\n", (unsigned long long)took[unit]);
	return 0;
}
