/* Announces sections (docs/abi.md) as it is told. Reads commands, one a line, and answers each with a line:
 *
 *   load PATH       opens a library, registers its .sframe    key address length answer
 *   copy            registers a writable copy of that         the same
 *   unregister KEY  takes back                                answer
 *   scribble KEY    a thread rewrites the section in a loop   0
 *   once KEY        changes one byte of it                    0
 *   again KEY N     N times: takes it back, changes it, registers it again: the last answer
 *   flood N SIZE    registers N writable sections of SIZE bytes and one function each: how many were refused
 *   together        a vfork(2) child, with the same memory until it execs, registers a copy and then execs: the same as copy
 *   exec            becomes this program again                (nothing; then as at the start: ready)
 *
 * Numbers are hexadecimal; an answer is a number above 0, or minus the error. It ends with its input. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REGISTER 0x53464701ul
#define UNREGISTER 0x53464702ul
#define GNU_SFRAME 0x6474e554
#define MAX 64

static struct section {
	unsigned long key;
	volatile unsigned char *bytes;
	size_t length;
} sections[MAX];
static unsigned count;

static long call(unsigned long option, unsigned long key, unsigned long address, unsigned long length)
{
	long answer = syscall(SYS_prctl, option, key, address, length, 0);
	return answer < 0 ? -errno : answer;
}

static void add(unsigned long key, void *bytes, size_t length)
{
	struct section *section = &sections[count++ % MAX];
	*section = (struct section) { key, bytes, length };
	printf("%lx %lx %zx %ld\n", key, (unsigned long)bytes, length,
	       call(REGISTER, key, (unsigned long)bytes, length));
}

static struct section *find(unsigned long key)
{
	for (unsigned i = 0; i < MAX; i++)
		if (sections[i].length && sections[i].key == key)
			return &sections[i];
	fprintf(stderr, "no section has the key %lx\n", key);
	exit(1);
}

static int look(struct dl_phdr_info *info, size_t size, void *base)
{
	(void)size;
	if (info->dlpi_addr != *(ElfW(Addr) *)base)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == GNU_SFRAME) {
			const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
			add(info->dlpi_addr, (void *)(info->dlpi_addr + segment->p_vaddr), segment->p_memsz);
			return 1;
		}
	return 0;
}

static void load(const char *path)
{
	struct link_map *map;
	void *library = dlopen(path, RTLD_NOW);

	if (!library || dlinfo(library, RTLD_DI_LINKMAP, &map)) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	if (!dl_iterate_phdr(look, &map->l_addr)) {
		fprintf(stderr, "%s has no .sframe\n", path);
		exit(1);
	}
}

/* Its functions are where the copy is: the text is another, and nobody's. */
static void copy(void)
{
	struct section *section = &sections[0];
	size_t room = section->length + (1 << 20);
	unsigned char *bytes = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!section->length || bytes == MAP_FAILED)
		exit(1);
	bytes += room - section->length;
	memcpy(bytes, (void *)section->bytes, section->length);
	add((unsigned long)bytes, bytes, section->length);
}

/* Takes back what has the key, changes it, and registers it under the same key at the same address. */
static long again(struct section *section, unsigned long times)
{
	long answer = 0;

	while (times--) {
		call(UNREGISTER, section->key, 0, 0);
		section->bytes[section->length - 1]++;
		answer = call(REGISTER, section->key, (unsigned long)section->bytes, section->length);
	}
	return answer;
}

/* Sections of one function without rows, side by side, whose text is where they are themselves. What follows the
 * index belongs to nothing. */
static unsigned long flood(unsigned long number, unsigned long size)
{
	struct __attribute__((packed)) tiny {
		uint16_t magic;
		uint8_t version, flags, abi;
		int8_t fixed_fp, fixed_ra;
		uint8_t auxiliary;
		uint32_t functions, rows, rows_len, index, rows_at;
		int64_t start;
		uint32_t size, data;
	};
	const struct tiny tiny = { .magic = 0xdee2, .version = 3, .flags = 5, .abi = 3, .fixed_ra = -8,
				   .functions = 1, .rows_at = 16, .size = sizeof(tiny),
				   /* Relative to its own field. */
				   .start = -(int64_t)offsetof(struct tiny, start) };
	unsigned long refused = 0;
	char *all;

	if (size < sizeof(tiny))
		exit(1);
	all = mmap(NULL, number * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		exit(1);
	memset(all, 0xa5, number * size);
	for (char *at = all; at < all + number * size; at += size) {
		memcpy(at, &tiny, sizeof(tiny));
		long answer = call(REGISTER, (unsigned long)at, (unsigned long)at, size);
		refused += answer < 0 && answer != -EINVAL;
	}
	return refused;
}

static void *scribble(void *argument)
{
	struct section *section = argument;

	for (unsigned value = 1;; value++)
		section->bytes[section->length - 1] = value;
	return NULL;
}

int main(int argc, char **argv)
{
	char line[4096];
	pthread_t thread;

	(void)argc;
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof line, stdin)) {
		unsigned long key = 0, number = 0, size = 0;

		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "load ", 5)) {
			load(line + 5);
		} else if (!strcmp(line, "copy")) {
			copy();
		} else if (sscanf(line, "unregister %lx", &key) == 1) {
			printf("%ld\n", call(UNREGISTER, key, 0, 0));
		} else if (sscanf(line, "scribble %lx", &key) == 1) {
			printf("%d\n", pthread_create(&thread, NULL, scribble, find(key)));
		} else if (sscanf(line, "once %lx", &key) == 1) {
			struct section *section = find(key);
			section->bytes[section->length - 1] ^= 0xff;
			puts("0");
		} else if (sscanf(line, "again %lx %lu", &key, &number) == 2) {
			printf("%ld\n", again(find(key), number));
		} else if (sscanf(line, "flood %lu %lu", &number, &size) == 2) {
			printf("%lu\n", flood(number, size));
		} else if (!strcmp(line, "together")) {
			if (!vfork()) {
				copy();
				fflush(stdout);
				execlp("true", "true", NULL);
				_exit(1);
			}
		} else if (!strcmp(line, "exec")) {
			execv("/proc/self/exe", argv);
			exit(1);
		} else {
			fprintf(stderr, "%s: no such command\n", line);
			return 1;
		}
	}
	return 0;
}
