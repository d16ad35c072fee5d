/* Announces sections (docs/abi.md) as it is told. Reads commands, one a line, and answers each with a line:
 *
 *   load PATH       opens a library, registers its .sframe    key address length answer
 *   copy            registers a writable copy of that         the same
 *   unregister KEY  takes back                                answer
 *   scribble KEY    a thread rewrites the section in a loop   0
 *   once KEY        changes one byte of it                    0
 *   exec            becomes this program again                (nothing; then as at the start: ready)
 *
 * Numbers are hexadecimal; an answer is a number above 0, or minus the error. It ends with its input. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
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
		unsigned long key = 0;

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
