/*
 * Describes generated code in a frame area: publishes functions, moves one, and takes them back.
 *
 *   cargo rustc -p framewalk-announce --profile audit --features capi --crate-type staticlib
 *   gcc -I crates/announce/include crates/announce/examples/area.c target/audit/libframewalk_announce.a
 */
#define _DEFAULT_SOURCE
#include <framewalk.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define TEXT 65536

/* sub $24, %rsp; mov $42, %eax; add $24, %rsp; ret */
static const unsigned char fixed[] = { 0x48, 0x83, 0xec, 24, 0xb8, 42, 0, 0, 0, 0x48, 0x83, 0xc4, 24, 0xc3 };

/* push %rbp; mov %rsp, %rbp; mov $43, %eax; pop %rbp; ret */
static const unsigned char framed[] = { 0x55, 0x48, 0x89, 0xe5, 0xb8, 43, 0, 0, 0, 0x5d, 0xc3 };

/* push %rbx; mov $44, %eax; pop %rbx; ret */
static const unsigned char pushing[] = { 0x53, 0xb8, 44, 0, 0, 0, 0x5b, 0xc3 };

/* What SFrame V3 says about it: three rows, each of one word of a byte. The CFA is SP + 8, after the push SP + 16. */
static const unsigned char rows[] = { 3, 0, 0, 0, 0, 0, 0x3, 8, 1, 0x3, 16, 7, 0x3, 8 };

static unsigned char *text;

static int run(const unsigned char *code)
{
	int (*function)(void);

	memcpy(&function, &code, sizeof function);
	return function();
}

int main(void)
{
	text = (unsigned char *)mmap(NULL, TEXT, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (text == (unsigned char *)MAP_FAILED)
		return 1;

	/* Once. Most generated code keeps a frame pointer: nothing needs to be said about it again. */
	struct framewalk_area_options options;
	memset(&options, 0, sizeof options);
	options.text_start = (uintptr_t)text;
	options.text_len = TEXT;
	options.capacity = 1024;
	options.granule_shift = 10;
	options.heap = 4096;
	options.key = (uintptr_t)text;
	options.how = FRAMEWALK_HOW(FRAMEWALK_FRAME_POINTER, 0, 0);
	struct framewalk_area *area = framewalk_area_create(&options);
	if (!area)
		return 1;
	printf("answer %lld\n", (long long)framewalk_area_answer(area));

	memcpy(text, framed, sizeof framed);
	printf("framed returns %d\n", run(text));

	/* A frame of one size: 24 bytes and the return address, from the fifth byte on. */
	struct framewalk_function function;
	memset(&function, 0, sizeof function);
	memcpy(text + 256, fixed, sizeof fixed);
	function.start = (uintptr_t)(text + 256);
	function.size = sizeof fixed;
	function.how = FRAMEWALK_HOW(FRAMEWALK_FIXED, 0, 4);
	function.rule[0] = 32;
	function.rule[1] = FRAMEWALK_HALVES(-8, 0);
	function.name = "fixed";
	function.name_len = 5;
	int64_t slot = framewalk_area_publish(area, &function);
	printf("fixed returns %d, slot %lld\n", run(text + 256), (long long)slot);

	/* Rows. */
	memset(&function, 0, sizeof function);
	memcpy(text + 512, pushing, sizeof pushing);
	function.start = (uintptr_t)(text + 512);
	function.size = sizeof pushing;
	function.how = FRAMEWALK_HOW(FRAMEWALK_ROWS, 0, 0);
	function.cookie = 7;
	function.rows = rows;
	function.rows_len = sizeof rows;
	int64_t other = framewalk_area_publish(area, &function);
	printf("pushing returns %d, slot %lld\n", run(text + 512), (long long)other);

	/* Copied, moved, and only then is the old code overwritten. */
	memcpy(text + 4096, fixed, sizeof fixed);
	int64_t moved = framewalk_area_move(area, slot, (uintptr_t)(text + 4096));
	memset(text + 256, 0xcc, sizeof fixed);
	printf("moved returns %d, slot %lld\n", run(text + 4096), (long long)moved);

	printf("tombstone %d\n", framewalk_area_tombstone(area, other));
	printf("again %d\n", framewalk_area_tombstone(area, other));
	memset(text + 512, 0xcc, sizeof pushing);

	/* A mistake: not in the text. */
	function.start = (uintptr_t)(text + TEXT);
	printf("mistake %lld\n", (long long)framewalk_area_publish(area, &function));

	/* No code is left: all slots may be used again. */
	memset(text, 0xcc, TEXT);
	framewalk_area_reset(area);
	printf("old slot %d\n", framewalk_area_tombstone(area, moved));

	/* A larger area takes over. */
	options.capacity *= 2;
	struct framewalk_area *larger = framewalk_area_map(&options);
	if (!larger)
		return 1;
	printf("replace %lld\n", (long long)framewalk_area_replace(larger, area));
	framewalk_area_destroy(area);
	framewalk_area_destroy(larger);
	return munmap(text, TEXT) ? 1 : 0;
}
