/*
 * Announces generated code: a function in memory, and an SFrame section in memory that describes it.
 *
 *   cargo rustc -p framewalk-announce --profile audit --features capi --crate-type staticlib
 *   gcc -I crates/announce/include crates/announce/examples/register.c target/audit/libframewalk_announce.a
 */
#define _DEFAULT_SOURCE
#include <framewalk.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* push %rbx; mov $42, %eax; pop %rbx; ret */
static const unsigned char code[] = { 0x53, 0xb8, 42, 0, 0, 0, 0x5b, 0xc3 };

/* An SFrame V3 section for one function of AMD64, as the format lays it out. */
struct section {
	/* header */
	uint16_t magic;
	uint8_t version, flags, abi;
	int8_t fixed_fp, fixed_ra;
	uint8_t auxiliary;
	uint32_t functions, rows, row_bytes, index_at, rows_at;
	/* index: one function */
	int32_t start[2];
	uint32_t size, function_rows;
	/* its attribute and rows */
	uint16_t row_count;
	uint8_t info, info2, block;
	struct {
		uint8_t start, info, cfa;
	} row[3];
} __attribute__((packed));

static unsigned char *text;
static struct section *section;
static int64_t registered;

static void describe(struct section *s)
{
	memset(s, 0, sizeof *s);
	s->magic = 0xdee2;
	s->version = 3;
	s->flags = 0x5; /* sorted; starts are relative to their own field */
	s->abi = 3;
	s->fixed_ra = -8;
	s->functions = 1;
	s->rows = 3;
	s->row_bytes = sizeof *s - offsetof(struct section, row_count);
	s->rows_at = offsetof(struct section, row_count) - offsetof(struct section, start);
	int64_t start = (int64_t)((intptr_t)text - (intptr_t)s->start);
	memcpy(s->start, &start, sizeof start);
	s->size = sizeof code;
	s->row_count = 3;
	/* one word of one byte: the CFA is SP + 8, after the push SP + 16 */
	s->row[0].start = 0, s->row[0].info = 0x3, s->row[0].cfa = 8;
	s->row[1].start = 1, s->row[1].info = 0x3, s->row[1].cfa = 16;
	s->row[2].start = 7, s->row[2].info = 0x3, s->row[2].cfa = 8;
}

/* Before main, and before most of libc is there: it can be called then, too. */
__attribute__((constructor)) static void generate(void)
{
	unsigned char *memory = (unsigned char *)mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == (unsigned char *)MAP_FAILED)
		return;
	text = memory;
	section = (struct section *)(memory + 4096);
	memcpy(text, code, sizeof code);
	describe(section);
	mprotect(text, 4096, PROT_READ | PROT_EXEC);
	registered = framewalk_register((uintptr_t)text, section, sizeof *section, 0);
}

static void say(const char *what, int64_t answer)
{
	if (answer > 0)
		printf("%s: accepted, %lld\n", what, (long long)answer);
	else if (answer == 0)
		printf("%s: nobody answered\n", what);
	else
		printf("%s: refused, %s\n", what, strerror((int)-answer));
}

int main(void)
{
	int (*function)(void);

	if (!text)
		return 1;
	say("register", registered);
	memcpy(&function, &text, sizeof function);
	printf("the code returns %d\n", function());
	say("replace", framewalk_register((uintptr_t)text, section, sizeof *section, FRAMEWALK_REPLACE));
	say("unregister", framewalk_unregister((uintptr_t)text));
	/* Refused without a call: no such flag. */
	say("mistake", framewalk_register((uintptr_t)text, section, sizeof *section, 1));
	return munmap(text, 8192) ? 1 : 0;
}
