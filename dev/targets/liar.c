/* A process that lies about its own code, while it and others are sampled.
 *
 * usage: liar MODE MILLISECONDS
 *     rewrite   code and sections in memory; a thread writes random bytes over the sections all the time
 *     churn     the same, and the thread registers and unregisters them, over and over
 *     replace   the same, and the thread maps other memory over them and back
 *     libc      claims the text of the C library, with a rule that leads nowhere
 *     stale     claims text, then maps other code there; the section's memory goes too
 *     loop      rows that describe a stack that never ends: the CFA is where it was, and a return address in it
 * Uses CPU time in the code that it lied about, and prints how many calls were answered by an error other than
 * EINVAL (nobody answers). */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REGISTER 0x53464701ul
#define UNREGISTER 0x53464702ul
#define FUNCTIONS 16
#define STRIDE 256

/* SFrame V3: header, one index entry, attribute, rows with one byte of start, info and one word. */
struct __attribute__((packed)) section {
	uint16_t magic;
	uint8_t version, flags, abi;
	int8_t fixed_fp, fixed_ra;
	uint8_t auxiliary;
	uint32_t functions, rows, rows_len, index, rows_at;
	int64_t start;
	uint32_t size, first_row;
	uint16_t row_count;
	uint8_t info, info2, block;
	struct __attribute__((packed)) {
		uint8_t start, info;
		int8_t cfa;
	} row[3];
};

/* sub $8,%rsp; mov (%rdi),%rax; add $8,%rdi; call *%rax; add $8,%rsp; ret */
static const uint8_t call_next[] = { 0x48, 0x83, 0xec, 8, 0x48, 0x8b, 7, 0x48, 0x83, 0xc7, 8, 0xff, 0xd0,
				     0x48, 0x83, 0xc4, 8, 0xc3 };
/* 1: dec %rsi; jnz 1b; ret */
static const uint8_t spin[] = { 0x48, 0xff, 0xce, 0x75, 0xfb, 0xc3 };

static uint8_t *code, *sections;
static uint64_t chain[FUNCTIONS + 1];
static volatile int done;
static long odd;

static void call(unsigned long option, unsigned long key, const void *address, unsigned long length)
{
	if (syscall(SYS_prctl, option, key, address, length, 0) < 0 && errno != EINVAL)
		odd++;
}

static void describe(struct section *section, const void *function, uint32_t size, int rows)
{
	static const struct section blank = {
		.magic = 0xdee2, .version = 3, .flags = 1 | 4, .abi = 3, .fixed_ra = -8, .functions = 1,
		.rows_at = 16,
		/* starts of 1 byte; SP is the base; words of 1 byte */
		.row = { { 0, 1 | 1 << 1, 8 }, { 4, 1 | 1 << 1, 16 }, { 17, 1 | 1 << 1, 8 } },
	};

	*section = blank;
	section->rows = section->row_count = rows;
	section->rows_len = 5 + rows * 3;
	section->start = (int64_t)function - (int64_t)&section->start;
	section->size = size;
}

static struct section *section_of(int n)
{
	return (struct section *)(sections + n * STRIDE);
}

static void *map(void *at, int protection)
{
	void *memory = mmap(at, FUNCTIONS * STRIDE, protection,
			    MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);

	if (memory == MAP_FAILED)
		exit(2);
	return memory;
}

static void make_code(void)
{
	for (int n = 0; n < FUNCTIONS; n++) {
		int last = n == FUNCTIONS - 1;

		memcpy(code + n * STRIDE, last ? spin : call_next, last ? sizeof(spin) : sizeof(call_next));
		chain[n] = (uint64_t)(code + n * STRIDE);
	}
}

static void make_sections(void)
{
	for (int n = 0; n < FUNCTIONS; n++) {
		int last = n == FUNCTIONS - 1;

		describe(section_of(n), code + n * STRIDE, last ? sizeof(spin) : sizeof(call_next), last ? 1 : 3);
	}
}

static void register_all(void)
{
	for (int n = 0; n < FUNCTIONS; n++)
		call(REGISTER, n, section_of(n), sizeof(struct section));
}

static uint64_t random_number(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void *disturb(void *mode)
{
	while (!done) {
		if (!strcmp(mode, "rewrite")) {
			for (int i = 0; i < 64; i++) {
				uint64_t number = random_number();

				sections[number % (FUNCTIONS * STRIDE)] = number >> 32;
			}
			make_sections();
		} else if (!strcmp(mode, "churn")) {
			for (int n = 0; n < FUNCTIONS; n++)
				call(UNREGISTER, n, 0, 0);
			register_all();
		} else {
			map(sections, PROT_NONE);
			map(sections, PROT_READ | PROT_WRITE);
			make_sections();
		}
	}
	return 0;
}

static unsigned long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000ul + now.tv_nsec / 1000000;
}

__attribute__((noinline)) static void use_code(unsigned long until)
{
	void (*first)(uint64_t *, uint64_t) = (void (*)(uint64_t *, uint64_t))chain[0];

	while (milliseconds() < until)
		first(chain + 1, 200000);
}

static int find_libc(struct dl_phdr_info *info, size_t size, void *text)
{
	(void)size;
	if (!strstr(info->dlpi_name, "libc.so"))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X))
			continue;
		((uint64_t *)text)[0] = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
		((uint64_t *)text)[1] = info->dlpi_phdr[i].p_memsz;
		return 1;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	return *(const unsigned char *)a - *(const unsigned char *)b;
}

/* In the C library, and below it. */
static void use_libc(unsigned long until)
{
	static unsigned char bytes[4096];

	while (milliseconds() < until) {
		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = random_number();
		qsort(bytes, sizeof(bytes), 1, compare);
	}
}

int main(int argc, char **argv)
{
	unsigned long until = argc > 2 ? strtoul(argv[2], 0, 10) : 1000;
	const char *mode = argc > 1 ? argv[1] : "";
	uint64_t text[2] = { 0, 0 };
	pthread_t thread;

	code = map(0, PROT_READ | PROT_WRITE | PROT_EXEC);
	sections = map(0, PROT_READ | PROT_WRITE);
	make_code();
	make_sections();
	if (!strcmp(mode, "libc")) {
		dl_iterate_phdr(find_libc, text);
		describe(section_of(0), (void *)text[0], text[1], 1);
		section_of(0)->row[0].cfa = 16;
		call(REGISTER, 0, section_of(0), sizeof(struct section));
		use_libc(until);
	} else if (!strcmp(mode, "loop")) {
		for (int n = 0; n < FUNCTIONS; n++)
			for (int row = 0; row < 3; row++)
				section_of(n)->row[row].cfa = 0;
		register_all();
		use_code(until);
	} else if (!strcmp(mode, "stale")) {
		register_all();
		map(code, PROT_READ | PROT_WRITE | PROT_EXEC);
		make_code();
		munmap(sections, FUNCTIONS * STRIDE);
		use_code(until);
	} else {
		register_all();
		pthread_create(&thread, 0, disturb, (void *)mode);
		use_code(until);
		done = 1;
		pthread_join(thread, 0);
	}
	printf("%ld\n", odd);
	return 0;
}
