/* Looks at the clock at the bottom of a stack of known depth, for measuring what a sample costs: a gap
 * in the time that it sees is an interrupt, all that was done in it included.
 *
 * usage: depth FRAMES MILLISECONDS CPU
 * FRAMES counts from the function that looks to main. Waits for a line (or the end) of its input, warms
 * up, looks so long, and prints the nanoseconds of each gap.
 * Build: gcc -O2 -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))
#define WARM_UP 300 /* milliseconds */
#define GAP 300     /* nanoseconds; no interrupt is shorter, and no look at the clock so long */
#define MOST_GAPS 100000

static uint32_t gaps[MOST_GAPS];
static unsigned number_of_gaps;

static uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static inline uint64_t ticks(void)
{
	return __builtin_ia32_rdtsc();
}

/* Notes the gaps, in ticks. */
KEEP void look(uint64_t end, uint64_t gap)
{
	uint64_t before = ticks(), now;

	number_of_gaps = 0;
	while (before < end) {
		now = ticks();
		if (now - before > gap && number_of_gaps < MOST_GAPS)
			gaps[number_of_gaps++] = now - before;
		before = now;
	}
}

KEEP void descend(int frames, uint64_t end, uint64_t gap)
{
	if (frames == 0)
		look(end, gap);
	else
		descend(frames - 1, end, gap);
	__asm__ volatile("" ::: "memory");
}

int main(int argc, char **argv)
{
	uint64_t begin, begin_ticks, milliseconds;
	double ticks_per_nanosecond;
	cpu_set_t cpus;
	char byte;

	if (argc != 4)
		return 2;
	milliseconds = strtoull(argv[2], 0, 10);
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[3]), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	while (read(0, &byte, 1) == 1 && byte != '\n')
		;
	begin = nanoseconds();
	begin_ticks = ticks();
	while (nanoseconds() - begin < 10000000)
		;
	ticks_per_nanosecond = (double)(ticks() - begin_ticks) / (nanoseconds() - begin);
	/* main, descend (one more than its argument), look */
	for (int warm = 1; warm >= 0; warm--) {
		uint64_t end = ticks() + (warm ? WARM_UP : milliseconds) * 1000000 * ticks_per_nanosecond;

		descend(atoi(argv[1]) - 3, end, GAP * ticks_per_nanosecond);
	}
	for (unsigned i = 0; i < number_of_gaps; i++)
		printf("%.0f\n", gaps[i] / ticks_per_nanosecond);
	return 0;
}
