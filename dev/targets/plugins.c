/* Opens, closes and uses libraries as it is told, one line of standard input each, and answers each with a line:
 *     open N FILE -> opened LINK_MAP BIAS     open the file as number N
 *     close N     -> closed
 *     use N TURNS -> used                     below 9 frames of library N, spend so many turns in it
 * The libraries are copies of vectors/announce/calls.*.so. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST 64

typedef long callback(void *argument);

struct work {
	unsigned long (*spin)(unsigned long);
	unsigned long turns;
};

__attribute__((noinline)) static long spins(void *argument)
{
	struct work *work = argument;
	long some = work->spin(work->turns) & 0xff;

	__asm__ volatile("" ::: "memory");
	return some;
}

static void *find(void *library, const char *name)
{
	void *found = library ? dlsym(library, name) : NULL;

	if (found)
		return found;
	fprintf(stderr, "plugins: %s\n", dlerror());
	exit(1);
}

int main(void)
{
	static void *libraries[MOST];
	char word[16], file[4096];
	unsigned n;

	while (scanf("%15s %u", word, &n) == 2 && n < MOST) {
		struct link_map *map;
		struct work work;
		long (*through)(callback *, void *, unsigned);

		switch (word[0]) {
		case 'o':
			if (scanf("%4095s", file) != 1)
				return 2;
			libraries[n] = dlopen(file, RTLD_NOW);
			if (!libraries[n] || dlinfo(libraries[n], RTLD_DI_LINKMAP, &map)) {
				fprintf(stderr, "plugins: %s\n", dlerror());
				return 1;
			}
			printf("opened %lu %lu\n", (unsigned long)map, (unsigned long)map->l_addr);
			break;
		case 'c':
			if (dlclose(libraries[n]))
				return 1;
			puts("closed");
			break;
		case 'u':
			if (scanf("%lu", &work.turns) != 1)
				return 2;
			work.spin = (unsigned long (*)(unsigned long))find(libraries[n], "calls_spin");
			through = (long (*)(callback *, void *, unsigned))find(libraries[n], "calls_through");
			through(spins, &work, 9);
			puts("used");
			break;
		}
		fflush(stdout);
	}
	return 0;
}
