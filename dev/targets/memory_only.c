/* Runs code that exists only in memory and is described only by an SFrame section in memory: no file, no
 * .eh_frame.
 *
 * usage: memory_only BLOB MILLISECONDS DEPTH announce|silent|vanish
 * BLOB is struct blob, then the text, then the section; both are put where it says and the text is made
 * executable. `announce` registers the section first (docs/abi.md) and prints the answer: an id, or minus
 * the errno; `vanish` unmaps it again after that. Then main -> run -> the text's entry (memory_text.c), DEPTH
 * calls deep, until so much CPU time is used. Status 0 unless something could not be set up. */
#define _GNU_SOURCE
#include <errno.h>
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
#define KEY 0xfeedul
#define TURNS 200000ul

struct blob {
	char magic[8];
	uint64_t text, text_bytes, entry, section, section_bytes;
};

typedef unsigned long code(unsigned long depth, unsigned long turns);

static long call(unsigned long option, unsigned long a, unsigned long b)
{
	long answer = syscall(SYS_prctl, option, KEY, a, b, 0);

	return answer < 0 ? -errno : answer;
}

/* Reads bytes to a fixed address and protects them. */
static void put(FILE *file, uint64_t address, uint64_t bytes, int protection)
{
	size_t whole = (bytes + 4095) / 4096 * 4096;
	void *at = mmap((void *)address, whole, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (at != (void *)address || fread(at, 1, bytes, file) != bytes || mprotect(at, whole, protection)) {
		perror("memory_only: blob");
		exit(2);
	}
}

/* Of CPU time. */
static unsigned long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000ul + now.tv_nsec / 1000000;
}

__attribute__((noinline, noclone)) static unsigned long run(code *entry, unsigned long depth, unsigned long end)
{
	unsigned long sum = 0;

	while (milliseconds() < end)
		sum += entry(depth, TURNS);
	return sum;
}

int main(int count, char **arguments)
{
	static volatile unsigned long sink;
	struct blob blob;
	unsigned long end;
	FILE *file = count == 5 ? fopen(arguments[1], "rb") : NULL;
	int vanish = file && !strcmp(arguments[4], "vanish");
	int announce = file && (vanish || !strcmp(arguments[4], "announce"));

	if (!file || fread(&blob, sizeof(blob), 1, file) != 1 || memcmp(blob.magic, "FWBLOB\0\1", 8)) {
		fprintf(stderr, "usage: memory_only BLOB MILLISECONDS DEPTH announce|silent|vanish\n");
		return 2;
	}
	put(file, blob.text, blob.text_bytes, PROT_READ | PROT_EXEC);
	put(file, blob.section, blob.section_bytes, PROT_READ);
	fclose(file);
	if (announce) {
		printf("registered: %ld\n", call(REGISTER, blob.section, blob.section_bytes));
		fflush(stdout);
	}
	if (vanish && munmap((void *)blob.section, blob.section_bytes))
		return 2;
	end = milliseconds() + strtoul(arguments[2], NULL, 10);
	sink += run((code *)blob.entry, strtoul(arguments[3], NULL, 10), end);
	if (announce)
		printf("unregistered: %ld\n", call(UNREGISTER, 0, 0));
	return 0;
}
