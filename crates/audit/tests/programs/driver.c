/*
 * Opens and closes libraries, and says so: "open LINK_MAP BIAS", "close LINK_MAP".
 *   driver random SEED COUNT FILE...   so many times one of the files, whichever; leaves some open
 *   driver namespaces FILE...          each in the base namespace and in a new one; closes all
 *   driver each FILE...                calls through each, and says what came of it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 64

static void say(const char *what, void *library)
{
	struct link_map *map;
	if (dlinfo(library, RTLD_DI_LINKMAP, &map))
		exit(3);
	if (*what == 'o')
		printf("open %#lx %#lx\n", (unsigned long)map, (unsigned long)map->l_addr);
	else
		printf("close %#lx\n", (unsigned long)map);
}

static void *need(void *library)
{
	if (library)
		return library;
	fprintf(stderr, "%s\n", dlerror());
	exit(4);
}

static void at_random(unsigned long state, unsigned count, char **files, unsigned n)
{
	void *open[MOST] = { 0 };
	unsigned times[MOST] = { 0 };
	while (count-- > 0) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		unsigned i = (unsigned)(state >> 33) % n, more = (unsigned)(state >> 60) % 2;
		if (times[i] == 0 || (more && times[i] < 3)) {
			open[i] = need(dlopen(files[i], RTLD_NOW));
			/* Opened once more it is only counted. */
			if (times[i]++ == 0)
				say("open", open[i]);
		} else {
			if (--times[i] == 0)
				say("close", open[i]);
			if (dlclose(open[i]))
				exit(5);
		}
	}
}

static void in_namespaces(char **files, unsigned n)
{
	void *open[2 * MOST];
	for (unsigned i = 0; i < n; i++) {
		open[2 * i] = need(dlopen(files[i], RTLD_NOW));
		say("open", open[2 * i]);
		open[2 * i + 1] = need(dlmopen(LM_ID_NEWLM, files[i], RTLD_NOW));
		say("open", open[2 * i + 1]);
	}
	for (unsigned i = 0; i < 2 * n; i++) {
		say("close", open[i]);
		if (dlclose(open[i]))
			exit(5);
	}
}

static long ends(void *argument)
{
	return *(long *)argument;
}

static void one_by_one(char **files, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		void *library = dlopen(files[i], RTLD_NOW);
		if (!library) {
			printf("%s\n", dlerror());
			continue;
		}
		long (*through)(long (*)(void *), void *, unsigned);
		void *symbol = need(dlsym(library, "calls_through"));
		long number = 1000;
		memcpy(&through, &symbol, sizeof through);
		printf("%ld\n", through(ends, &number, i % 20));
		if (dlclose(library))
			exit(5);
	}
}

int main(int argc, char **argv)
{
	if (argc > 4 && argc - 4 <= MOST && !strcmp(argv[1], "random"))
		at_random(strtoul(argv[2], NULL, 0), (unsigned)strtoul(argv[3], NULL, 0), argv + 4, (unsigned)argc - 4);
	else if (argc > 2 && argc - 2 <= MOST && !strcmp(argv[1], "namespaces"))
		in_namespaces(argv + 2, (unsigned)argc - 2);
	else if (argc > 2 && !strcmp(argv[1], "each"))
		one_by_one(argv + 2, (unsigned)argc - 2);
	else
		return 2;
	return 0;
}
