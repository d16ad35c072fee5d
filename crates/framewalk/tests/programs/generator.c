/* Generates code, and describes it in a frame area (docs/abi.md) that it writes by hand. Its argument says where the area
 * lies: `file`, in a file in memory that is called sframe-area; `memory`, in memory with that name.
 *
 * A thread calls `outer` again and again, which calls `inner`, which spins: neither keeps a frame pointer, and nobody
 * else describes them. Reads commands, one a line, and answers each with a line:
 *
 *   register      registers the area      answer
 *   unregister    takes it back           answer
 *   erase         writes nonsense over the area's first bytes, and over none of the entries    0
 *   nonsense      maps memory called like an area that holds zeros                             0
 *   fork          a child goes on alone, with a thread of its own                              its pid
 *
 * An answer is a number above 0, or minus the error. It ends with its input; so does the child, with its parent. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEY 0x5eedul
#define TEXT_LEN 4096
#define AREA_LEN 8192
#define CAPACITY 4
/* Header, entries, one granule of 4 kB, rounded up to 8. */
#define INDEX_AT (256 + 32 * CAPACITY)
#define HEAP_AT (INDEX_AT + 8)

/* sub $24, %rsp; call inner; add $24, %rsp; ret */
static const unsigned char outer[] = { 0x48, 0x83, 0xec, 24, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 24, 0xc3 };
/* sub $40, %rsp; again: dec %rdi; jnz again; add $40, %rsp; ret */
static const unsigned char inner[] = { 0x48, 0x83, 0xec, 40, 0x48, 0xff, 0xcf, 0x75, 0xfb, 0x48, 0x83, 0xc4, 40, 0xc3 };
#define OUTER 0x100
#define INNER 0x200

static unsigned char *text, *area;

static void put(unsigned at, uint64_t value, unsigned bytes)
{
	memcpy(area + at, &value, bytes);
}

/* An entry: FIXED, named, the rule holds behind the first instruction. */
static void publish(unsigned slot, unsigned start, unsigned size, unsigned cfa, const char *name, unsigned name_at)
{
	unsigned at = 256 + 32 * slot;

	put(at, start, 4);
	put(at + 4, size, 4);
	put(at + 12, 2 | 8 << 8 | 4 << 16, 4);
	put(at + 16, cfa, 4);
	put(at + 20, 0xfff8, 4); /* the return address is at CFA - 8 */
	put(at + 24, slot, 4);   /* the one before */
	put(at + 28, name_at, 4);
	area[HEAP_AT + name_at] = strlen(name);
	memcpy(area + HEAP_AT + name_at + 1, name, strlen(name));
	put(at + 8, 2, 4); /* live */
	put(INDEX_AT, slot + 1, 4);
}

static void describe(void)
{
	memcpy(area, "SFAREA\0\1", 8);
	put(8, 0x01020304, 4);
	put(12, 256, 2);
	put(14, 32, 2);
	put(16, 62, 2);
	put(18, 12, 2);
	put(20, CAPACITY, 4);
	put(24, (uintptr_t)text, 8);
	put(32, TEXT_LEN, 8);
	put(40, AREA_LEN, 8);
	put(48, KEY, 8);
	publish(0, OUTER, sizeof outer, 32, "outer in memory", 0);
	publish(1, INNER, sizeof inner, 48, "inner in memory", 32);
	put(192, 2, 4);
	put(196, 64, 4);
}

static void *map(const char *where)
{
	int protection = PROT_READ | PROT_WRITE, file;
	void *memory;

	if (!strcmp(where, "file")) {
		file = memfd_create("sframe-area", MFD_CLOEXEC);
		if (file < 0 || ftruncate(file, AREA_LEN))
			exit(1);
		return mmap(NULL, AREA_LEN, protection, MAP_PRIVATE, file, 0);
	}
	memory = mmap(NULL, AREA_LEN, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, AREA_LEN, "sframe-area")) {
		puts("unnamed");
		exit(0);
	}
	return memory;
}

static void *spin(void *unused)
{
	void (*function)(unsigned long) = (void (*)(unsigned long))(uintptr_t)(text + OUTER);

	for (;;)
		function(1000000);
	return unused;
}

static long call(unsigned long option, unsigned long address, unsigned long length, unsigned long kind)
{
	long answer = syscall(SYS_prctl, option, KEY, address, length, kind);
	return answer < 0 ? -errno : answer;
}

int main(int argc, char **argv)
{
	int32_t distance = INNER - OUTER - 9;
	const char *where = argc > 1 ? argv[1] : "file";
	pthread_t thread;
	char line[100];

	setvbuf(stdout, NULL, _IOLBF, 0);
	area = map(where);
	text = mmap(NULL, TEXT_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED || text == MAP_FAILED)
		return 1;
	memcpy(text + OUTER, outer, sizeof outer);
	memcpy(text + OUTER + 5, &distance, 4);
	memcpy(text + INNER, inner, sizeof inner);
	describe();
	if (mprotect(text, TEXT_LEN, PROT_READ | PROT_EXEC) || pthread_create(&thread, NULL, spin, NULL))
		return 1;
	puts("ready");
	while (fgets(line, sizeof line, stdin)) {
		if (!strcmp(line, "register\n")) {
			printf("%ld\n", call(0x53464701, (uintptr_t)area, AREA_LEN, 1));
		} else if (!strcmp(line, "unregister\n")) {
			printf("%ld\n", call(0x53464702, 0, 0, 0));
		} else if (!strcmp(line, "erase\n")) {
			memset(area, 0xa5, 8);
			puts("0");
		} else if (!strcmp(line, "nonsense\n")) {
			puts(map(where) == MAP_FAILED ? "1" : "0");
		} else if (!strcmp(line, "fork\n")) {
			pid_t child = fork();
			if (!child) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				spin(NULL);
			}
			printf("%d\n", child);
		} else {
			return 1;
		}
	}
	return 0;
}
