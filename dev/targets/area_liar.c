/* A process that lies in frame areas (crates/announce/src/area/layout.rs), while it and others are sampled.
 *
 * usage: area_liar MODE MILLISECONDS [NAME]     NAME is what its thread is called, else the mode
 *     honest    no lie: 16 functions f0 to f15, of which each calls the next, and the last one uses the time
 *     words     each word that may change gets each value that somebody could stumble over, one after the other
 *     flip      a thread flips bits of all words that may change, all the time, and repairs them now and then
 *     chains    chains that lead to themselves, upwards, to nowhere, or on for too long
 *     count     a thread counts the generation up all the time
 *     storm     500 named functions on the stack, all of them new in each moment
 *     rows      rows of which a thread makes something else all the time
 *     names     names of control characters, of all lengths, outside of the heap
 *     unmap     the area is unmapped after it was registered
 *     protect   a thread takes the right to read it away and gives it back
 *     cut       the area lies in a file that a thread makes empty and whole again
 *     shared    another process has the same area, and flips bits in it
 *     killed    other processes publish in the same area, and are killed while they do
 *     self      a change of stacks to where the stack is
 *     thread    a change of stacks to another thread's
 *     text      a change of stacks into the C library's text
 *     nowhere   changes of stacks to where nothing is
 *     pair      two stacks that lead to each other
 *     fall      1,000 stacks, each below the one before
 *     climb     1,000 stacks, each above the one before
 *     libc      claims the text of the C library
 *     main      claims the text of the program
 *     large     an area of 1 GiB with all entries that there may be; the last ones are used
 *     many      as many areas as there may be
 * Prints what it was answered where it was refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REGISTER 0x53464701ul
#define AREA 1ul
#define HEADER 256
#define COVERED (1u << 31)
#define STRIDE 64
#define MOST 500

enum { WRITING = 1, LIVE = 2, DEAD = 3 };
enum { NONE = 0, FIXED = 2, ROWS = 3, SWITCH = 4 };
enum { IN_REGISTER = 4, NAMED = 8 };
enum { STATE = 2, HOW = 3, RULE0 = 4, RULE1 = 5, NEXT = 6, COOKIE = 7 }; /* words of an entry */
enum { GENERATION = 32, TOMBSTONES = 33, CLAIMED = 48, HEAP_USED = 49 }; /* words of the header */

#define RULE(kind, flags, prologue) ((kind) | (flags) << 8 | (uint32_t)(prologue) << 16)
#define HALVES(low, high) ((uint16_t)(low) | (uint32_t)(uint16_t)(high) << 16)

struct header {
	char magic[8];
	uint32_t byte_order;
	uint16_t size, entry_size, machine, shift;
	uint32_t capacity;
	uint64_t start, text_len, length, key;
	uint32_t how, rule[2], reserved[15];
};

/* movabs $S,%rax; push %rax; mov (%rdi),%rax; add $8,%rdi; call *%rax; add $8,%rsp; ret */
static const uint8_t call_next[] = { 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x48, 0x8b, 7, 0x48,
				     0x83, 0xc7, 8, 0xff, 0xd0, 0x48, 0x83, 0xc4, 8, 0xc3 };
enum { WORD_AT = 2, PUSHED = 11, RETURNS_TO = 20 };
/* 1: dec %rsi; jnz 1b; ret */
static const uint8_t spin[] = { 0x48, 0xff, 0xce, 0x75, 0xfb, 0xc3 };

static int functions = 16;
static uint8_t *code;
static uint64_t chain[MOST];
static volatile int done;
static unsigned long until;

/* One area: its memory, and a copy of it as it should be. */
static volatile uint32_t *area;
static uint32_t *copy;
static int file = -1;
static uint32_t capacity = 64, shift = 6, heap_len = 8192;
static uint64_t text_start, text_len, length;

static void fail(const char *what)
{
	perror(what);
	exit(2);
}

static void *map(uint64_t bytes, int protection, int flags, int from)
{
	void *memory = mmap(0, bytes, protection, flags, from, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static uint32_t granules(void)
{
	return (text_len + (1ull << shift) - 1) >> shift;
}

static volatile uint32_t *entry(uint32_t slot)
{
	return area + (HEADER + 32ull * slot) / 4;
}

static volatile uint32_t *index_word(uint64_t offset)
{
	return area + (HEADER + 32ull * capacity) / 4 + (offset >> shift);
}

static volatile uint8_t *heap(void)
{
	return (volatile uint8_t *)area + ((HEADER + 32ull * capacity + 4ull * granules() + 7) & ~7ull);
}

static uint32_t keep(const void *bytes, uint32_t len)
{
	uint32_t at = area[HEAP_USED];

	memcpy((void *)(heap() + at), bytes, len);
	area[HEAP_USED] = at + len;
	return at;
}

static uint32_t name_of(int n)
{
	char name[16];

	name[0] = sprintf(name + 1, "f%d", n);
	return keep(name, 1 + name[0]);
}

/* As every producer does it. */
static void publish(uint32_t slot, uint64_t start, uint32_t size, uint32_t how, uint32_t rule0, uint32_t rule1,
		    uint32_t cookie)
{
	volatile uint32_t *words = entry(slot), *head = index_word(start - text_start);
	uint32_t live = area[GENERATION] << 3, values[8] = { start - text_start, size, live | LIVE, how, rule0, rule1 };

	words[STATE] = live | WRITING;
	values[NEXT] = *head;
	values[COOKIE] = cookie;
	for (int i = 0; i < 8; i++)
		if (i != STATE)
			words[i] = values[i];
	__atomic_store_n(&words[STATE], live | LIVE, __ATOMIC_RELEASE);
	__atomic_store_n(head, slot + 1, __ATOMIC_RELEASE);
	if (area[CLAIMED] < slot + 1)
		area[CLAIMED] = slot + 1;
}

static uint32_t size_of(int n)
{
	return n == functions - 1 ? sizeof(spin) : sizeof(call_next);
}

/* Function n in a slot, by the rule that is right. */
static void publish_right(uint32_t slot, int n)
{
	int last = n == functions - 1;

	publish(slot, chain[n], size_of(n), RULE(FIXED, NAMED, last ? 0 : PUSHED), last ? 8 : 16, HALVES(-8, 0),
		name_of(n));
}

static void publish_all(void)
{
	for (int n = 0; n < functions; n++)
		publish_right(n, n);
}

/* Code that has `word` on its stack. */
static void make_function(int n, uint64_t word)
{
	uint8_t *at = code + n * STRIDE;

	chain[n] = (uint64_t)at;
	if (n == functions - 1) {
		memcpy(at, spin, sizeof(spin));
		return;
	}
	memcpy(at, call_next, sizeof(call_next));
	memcpy(at + WORD_AT, &word, 8);
}

static void make_code(void)
{
	code = map(MOST * STRIDE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	for (int n = 0; n < functions; n++)
		make_function(n, 0);
	text_start = (uint64_t)code;
	text_len = functions * STRIDE;
}

static void fill_header(uint64_t key, uint32_t how, uint32_t rule0)
{
	struct header header = {
		.magic = "SFAREA\0\1", .byte_order = 0x01020304, .size = HEADER, .entry_size = 32, .machine = 62,
		.shift = shift, .capacity = capacity, .start = text_start, .text_len = text_len, .length = length,
		.key = key, .how = how, .rule = { rule0, how ? HALVES(-8, 0) : 0 },
	};

	memcpy((void *)area, &header, sizeof(header));
}

static void map_area(int shared)
{
	length = (uint64_t)((uint8_t *)heap() - (uint8_t *)area) + heap_len;
	length = (length + 4095) & ~4095ull;
	if (shared) {
		file = memfd_create("sframe-area", 0);
		if (file < 0 || ftruncate(file, length))
			fail("memfd");
	}
	area = map(length, PROT_READ | PROT_WRITE,
		   shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, file);
	fill_header(7, 0, 0);
}

/* EINVAL may be a listener's answer. */
static int announce(uint64_t key)
{
	if (syscall(SYS_prctl, REGISTER, key, area, length, AREA) < 0 && errno != EINVAL) {
		printf("refused: %s\n", strerror(errno));
		return errno;
	}
	return 0;
}

static void make_area(int shared)
{
	map_area(shared);
	publish_all();
	copy = map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	memcpy(copy, (void *)area, length);
}

static uint64_t random_number(void)
{
	static __thread uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static unsigned long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000ul + now.tv_nsec / 1000000;
}

__attribute__((noinline)) static void use_code_once(uint64_t rounds)
{
	((void (*)(uint64_t *, uint64_t))chain[0])(chain + 1, rounds);
	__asm__ volatile("");
}

__attribute__((noinline)) static void use_code(void)
{
	while (milliseconds() < until)
		use_code_once(200000);
}

/* ---- words ---- */

static const uint32_t *values(uint32_t old, int *count)
{
	uint32_t live = area[GENERATION] << 3 | LIVE;
	static uint32_t all[40];
	uint32_t some[] = {
		0, 1, 2, 3, 4, 7, 8, 16, 64, 255, 0x7ff8, 0x8000, 0xffff, 0x10000, 0x7ffffff8, 0x7fffffff, 1u << 31,
		1u << 31 | 1, 0xfffffff8, 0xfffffffe, 0xffffffff, capacity - 1, capacity, capacity + 1,
		COVERED | capacity, COVERED | (capacity + 1), live, live + 8, live - 8, live + 16, live - 16, live ^ 1,
		old + 1, old - 1, old ^ COVERED, text_len,
	};

	*count = sizeof(some) / 4;
	memcpy(all, some, sizeof(some));
	return all;
}

static void try_word(volatile uint32_t *word)
{
	uint32_t old = *word;
	int count;
	const uint32_t *all = values(old, &count);

	for (int i = 0; i < count && milliseconds() < until; i++) {
		*word = all[i];
		use_code_once(400000);
	}
	*word = old;
}

static void words(void)
{
	static const int slots[] = { 0, 3, 15 };
	static const int header[] = { GENERATION, TOMBSTONES, CLAIMED, HEAP_USED };

	while (milliseconds() < until) {
		for (int i = 0; i < 4; i++)
			try_word(area + header[i]);
		for (int i = 0; i < 3; i++) {
			for (int word = 0; word < 8; word++)
				try_word(entry(slots[i]) + word);
			try_word(index_word(slots[i] * STRIDE));
		}
	}
}

/* ---- others change it meanwhile ---- */

static void repair(void)
{
	for (uint64_t i = HEADER / 8; i < length / 4; i++)
		area[i] = copy[i];
}

static void flip_some(void)
{
	for (int i = 0; i < 64; i++) {
		uint64_t number = random_number();
		uint64_t first = HEADER / 8, words = (uint32_t)(index_word(text_len) - area) - first;

		area[first + number % words] ^= 1u << (number >> 40) % 32;
	}
}

static void empty_and_fill(void)
{
	if (ftruncate(file, 0) || ftruncate(file, length) || pwrite(file, copy, length, 0) < 0)
		fail("truncate");
}

static void *disturb(void *mode)
{
	while (!done) {
		if (!strcmp(mode, "flip")) {
			flip_some();
			if (random_number() % 4 == 0)
				repair();
		} else if (!strcmp(mode, "count")) {
			area[GENERATION]++;
		} else if (!strcmp(mode, "storm")) {
			uint32_t next = area[GENERATION] + 2;

			area[GENERATION] = next - 1;
			for (int n = 0; n < functions; n++)
				entry(n)[STATE] = next << 3 | LIVE;
			area[GENERATION] = next;
			/* As long as a walk takes. */
			for (int i = 0; i < 1000000 && !done; i++)
				__asm__ volatile("pause");
		} else if (!strcmp(mode, "rows")) {
			uint64_t number = random_number();

			heap()[number % 4096] = number >> 32;
		} else if (!strcmp(mode, "protect")) {
			if (mprotect((void *)area, length, PROT_NONE) ||
			    mprotect((void *)area, length, PROT_READ | PROT_WRITE))
				fail("mprotect");
		} else {
			empty_and_fill();
		}
	}
	return 0;
}

static void use_code_disturbed(const char *mode)
{
	pthread_t thread;

	pthread_create(&thread, 0, disturb, (void *)mode);
	use_code();
	done = 1;
	pthread_join(thread, 0);
}

/* ---- chains ---- */

static void chains(void)
{
	uint32_t *links[] = { 0 };

	(void)links;
	while (milliseconds() < until) {
		/* To itself; to the next higher; to the highest; beyond it; to far away. */
		uint32_t nexts[] = { 4, 5, capacity, capacity + 1, 0xffffffff, COVERED | 4 };

		for (int i = 0; i < 6; i++) {
			entry(3)[NEXT] = nexts[i];
			use_code_once(400000);
		}
		repair();
		/* The index leads beyond; to another's; to its own as if that covered it. */
		uint32_t heads[] = { capacity + 1, 0xffffffff, 0x7fffffff, 6, COVERED | 4, COVERED | 6, COVERED };

		for (int i = 0; i < 7; i++) {
			*index_word(3 * STRIDE) = heads[i];
			use_code_once(400000);
		}
		repair();
		/* All entries in one chain, longer than any that is followed; dead ones, and ones that live elsewhere. */
		for (uint32_t slot = functions; slot < capacity; slot++) {
			for (int i = 0; i < 8; i++)
				entry(slot)[i] = entry(3)[i];
			entry(slot)[STATE] = area[GENERATION] << 3 | (slot & 1 ? LIVE : DEAD);
			entry(slot)[0] += 2 * STRIDE;
			entry(slot)[NEXT] = slot == (uint32_t)functions ? 4 : slot;
		}
		area[CLAIMED] = capacity;
		*index_word(3 * STRIDE) = capacity;
		use_code_once(400000);
		/* Two that claim the same. */
		entry(functions)[0] = entry(3)[0];
		entry(functions)[STATE] = area[GENERATION] << 3 | LIVE;
		*index_word(3 * STRIDE) = functions + 1;
		use_code_once(400000);
		repair();
	}
}

/* ---- rows and names ---- */

static void make_rows(void)
{
	/* starts of 1 byte, words of 1 byte, SP is the base */
	static const uint8_t right[] = { 2, 0, 0, 0, 0, 0, 1 | 1 << 1, 8, PUSHED, 1 | 1 << 1, 16 };

	for (int n = 0; n < functions - 1; n++) {
		uint32_t at = keep(right, sizeof(right)), len = sizeof(right);

		if (n % 4 == 1) {
			/* As many as can be, of all bytes that there are. */
			at = 0;
			len = 4096 - n;
		}
		entry(n)[HOW] = RULE(ROWS, 0, 0);
		entry(n)[RULE0] = at;
		entry(n)[RULE1] = len;
	}
}

static void make_names(void)
{
	uint8_t name[256];

	for (int n = 0; n < functions; n++) {
		name[0] = 255;
		for (int i = 1; i < 256; i++)
			name[i] = n % 4 == 0 ? i : n % 4 == 1 ? ";\n\r\033[0m\0\t"[i % 10] : n % 4 == 2 ? 'x' : 0xf0 | i;
		entry(n)[COOKIE] = keep(name, 256);
	}
	/* Where nothing is, behind the end, and over it. */
	entry(3)[COOKIE] = 0xffffffff;
	entry(4)[COOKIE] = area[HEAP_USED];
	entry(5)[COOKIE] = area[HEAP_USED] - 1;
	heap()[area[HEAP_USED] - 1] = 255;
	entry(6)[COOKIE] = (uint32_t)(length - 1);
	name[0] = 0;
	entry(7)[COOKIE] = keep(name, 1);
}

/* ---- two processes ---- */

static void share(void)
{
	pid_t child = fork();

	if (child < 0)
		fail("fork");
	announce(child ? 7 : 8);
	if (!child)
		until = milliseconds() + until;
	while (milliseconds() < until) {
		use_code_once(200000);
		if (!child)
			flip_some();
	}
	if (!child)
		_exit(0);
	waitpid(child, 0, 0);
}

/* Publishes and takes back until it is killed. */
static void publish_for_ever(void)
{
	for (;;) {
		uint32_t slot = __atomic_fetch_add(&area[CLAIMED], 1, __ATOMIC_RELAXED);

		if (slot >= capacity) {
			area[CLAIMED] = functions;
			continue;
		}
		publish(slot, text_start + slot % functions * STRIDE + 40, 8, RULE(FIXED, 0, 0), 24, HALVES(-8, 0), 0);
		__atomic_store_n(&entry(slot)[STATE], area[GENERATION] << 3 | DEAD, __ATOMIC_RELEASE);
		area[TOMBSTONES]++;
	}
}

static void kill_producers(void)
{
	while (milliseconds() < until) {
		pid_t child = fork();

		if (child < 0)
			fail("fork");
		if (!child) {
			announce(8);
			publish_for_ever();
		}
		for (uint32_t begun = area[TOMBSTONES]; area[TOMBSTONES] - begun < 1000;)
			use_code_once(20000);
		kill(child, SIGKILL);
		waitpid(child, 0, 0);
	}
}

/* ---- changes of stack ---- */

static volatile uint64_t others_stack;

static void *wait_elsewhere(void *arg)
{
	volatile uint64_t frame[64] = { 0 };

	(void)arg;
	for (int i = 0; i < 64; i++)
		frame[i] = chain[0] + RETURNS_TO;
	others_stack = (uint64_t)frame;
	while (!done)
		usleep(1000);
	return (void *)frame[0];
}

/* All functions but the last change stacks: to `to` where that is the same for all. */
static void switch_all(uint64_t to, int ra)
{
	for (int n = 0; n < functions - 1; n++) {
		make_function(n, to);
		entry(n)[HOW] = RULE(SWITCH, NAMED, 0);
		entry(n)[RULE0] = HALVES(0, 0);
		entry(n)[RULE1] = HALVES(ra, 0);
	}
}

/* A list of stacks: each has the address of the next one, and a return address above it. */
static void make_stacks(int count, int direction)
{
	static uint64_t stacks[1002][4];
	int at = direction < 0 ? 1000 : 0;

	/* The stack pointer is at [1], the return address below it. */
	for (int i = 0; i < 1002; i++) {
		int next = i + direction;

		if (count == 2)
			next = i ^ 1;
		next = (next + 1002) % 1002;
		stacks[i][1] = (uint64_t)&stacks[next][1];
		stacks[i][0] = chain[i % (functions - 1)] + RETURNS_TO;
	}
	switch_all((uint64_t)&stacks[at][1], -8);
}

static void switches(const char *mode)
{
	pthread_t thread;

	if (!strcmp(mode, "self")) {
		switch_all(0, 8);
		for (int n = 0; n < functions - 1; n++) {
			entry(n)[HOW] = RULE(SWITCH, NAMED | IN_REGISTER, 0);
			entry(n)[RULE0] = HALVES(7, 0);
		}
	} else if (!strcmp(mode, "thread")) {
		pthread_create(&thread, 0, wait_elsewhere, 0);
		while (!others_stack)
			sched_yield();
		switch_all(others_stack, 8);
		use_code();
		done = 1;
		pthread_join(thread, 0);
		return;
	} else if (!strcmp(mode, "text")) {
		switch_all((uint64_t)&qsort & ~7ull, 8);
	} else if (!strcmp(mode, "nowhere")) {
		static const uint64_t nowhere[] = { 0, 8, 0x1000, 0x7ffffffff000, 0x7ffffffffff8, 1ull << 47, 1ull << 63,
						    0xfffffffffffffff8, 0xffffffff81000000, 3 };

		while (milliseconds() < until) {
			for (int i = 0; i < 10; i++) {
				switch_all(nowhere[i], i % 2 ? -8 : 8);
				area[TOMBSTONES]++;
				use_code_once(400000);
			}
		}
	} else if (!strcmp(mode, "pair")) {
		make_stacks(2, 0);
	} else {
		make_stacks(1000, !strcmp(mode, "fall") ? -1 : 1);
	}
	use_code();
}

/* ---- other people's text ---- */

static int find_text(struct dl_phdr_info *info, size_t size, void *want)
{
	const char *name = want;

	(void)size;
	if (*name ? !strstr(info->dlpi_name, name) : *info->dlpi_name)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X))
			continue;
		text_start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
		text_len = info->dlpi_phdr[i].p_memsz;
		return 1;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	return *(const unsigned char *)a - *(const unsigned char *)b;
}

static void claim_text(const char *whose)
{
	static unsigned char bytes[4096];

	dl_iterate_phdr(find_text, (void *)whose);
	capacity = 0;
	map_area(0);
	fill_header(7, RULE(FIXED, 0, 0), 16);
	announce(7);
	while (milliseconds() < until) {
		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = random_number();
		qsort(bytes, sizeof(bytes), 1, compare);
	}
}

/* ---- sizes ---- */

static void large(void)
{
	capacity = 1 << 24;
	heap_len = 0;
	/* As much text as fits, from the code on: what lies there besides has no entries. */
	text_len = 1ull << 32;
	if (text_start > (1ull << 46))
		text_len = (1ull << 47) - text_start - 4096 < text_len ? (1ull << 47) - text_start - 4096 : text_len;
	heap_len = (1u << 30) - ((uint8_t *)heap() - (uint8_t *)area) - 4096;
	map_area(0);
	for (int n = 0; n < functions; n++)
		publish_right(capacity - functions + n, n);
	announce(7);
	use_code();
}

static void many(void)
{
	uint64_t all = text_start;
	int refused = 0, last = functions - 1;

	for (int n = 0; n < 66; n++) {
		text_start = all + n * STRIDE;
		text_len = STRIDE;
		capacity = 4;
		map_area(0);
		if (n < functions)
			publish(0, chain[n], size_of(n), RULE(FIXED, 0, n == last ? 0 : PUSHED), n == last ? 8 : 16,
				HALVES(-8, 0), 0);
		fill_header(n, 0, 0);
		refused += announce(n) == ENOSPC;
	}
	use_code();
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	until = argc > 2 ? strtoul(argv[2], 0, 10) : 1000;
	prctl(PR_SET_NAME, argc > 3 ? argv[3] : mode, 0, 0, 0);
	if (!strcmp(mode, "libc") || !strcmp(mode, "main")) {
		claim_text(!strcmp(mode, "libc") ? "libc.so" : "");
		return 0;
	}
	if (!strcmp(mode, "storm"))
		functions = MOST - 20;
	if (!strcmp(mode, "storm"))
		capacity = functions, heap_len = 65536;
	if (!strcmp(mode, "chains"))
		capacity = 128;
	make_code();
	if (!strcmp(mode, "large")) {
		large();
		return 0;
	}
	if (!strcmp(mode, "many")) {
		many();
		return 0;
	}
	make_area(!strcmp(mode, "cut") || !strcmp(mode, "shared") || !strcmp(mode, "killed"));
	if (!strcmp(mode, "shared")) {
		share();
		return 0;
	}
	if (!strcmp(mode, "rows"))
		make_rows();
	if (!strcmp(mode, "names"))
		make_names();
	announce(7);
	if (!strcmp(mode, "honest") || !strcmp(mode, "names")) {
		use_code();
	} else if (!strcmp(mode, "words")) {
		words();
	} else if (!strcmp(mode, "chains")) {
		chains();
	} else if (!strcmp(mode, "unmap")) {
		munmap((void *)area, length);
		use_code();
	} else if (!strcmp(mode, "killed")) {
		kill_producers();
	} else if (strstr(" flip count storm rows protect cut ", mode)) {
		use_code_disturbed(mode);
	} else {
		switches(mode);
	}
	return 0;
}
