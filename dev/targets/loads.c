/* loads: does nothing, but is loaded with its libraries.
 * loads FILE COUNT: opens and closes a library so many times; prints the nanoseconds of one time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 0;
	long count = atol(argv[2]);
	double begin = now();
	for (long i = 0; i < count; i++) {
		void *library = dlopen(argv[1], RTLD_NOW);
		if (!library || dlclose(library)) {
			fprintf(stderr, "%s\n", dlerror());
			return 1;
		}
	}
	printf("%.1f\n", (now() - begin) / (double)count);
	return 0;
}
