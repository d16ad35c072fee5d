/* caller LIBRARY [ITERATIONS [DEPTH]]: opens a copy of calls.so, calls back through it into calls_spin, closes it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define KEEP __attribute__((noinline, noclone))

typedef long callback(void *argument);

struct work {
	unsigned long (*spin)(unsigned long);
	unsigned long iterations;
};

KEEP static long spins(void *argument)
{
	struct work *work = argument;
	return (long)(work->spin(work->iterations) & 0xff);
}

KEEP static int calls(const char *name, unsigned long iterations, unsigned depth)
{
	void *library = dlopen(name, RTLD_NOW);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	struct work work = { (unsigned long (*)(unsigned long))dlsym(library, "calls_spin"), iterations };
	long (*through)(callback *, void *, unsigned) =
		(long (*)(callback *, void *, unsigned))dlsym(library, "calls_through");
	if (!work.spin || !through) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	printf("%ld\n", through(spins, &work, depth));
	return dlclose(library) ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: %s LIBRARY [ITERATIONS [DEPTH]]\n", argv[0]);
		return 2;
	}
	unsigned long iterations = argc > 2 ? strtoul(argv[2], NULL, 0) : 1000;
	unsigned depth = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 10;
	return calls(argv[1], iterations, depth);
}
