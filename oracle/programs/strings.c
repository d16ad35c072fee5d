/* What libc has in assembly for memory and strings, with every class of sizes and alignments that it distinguishes.
 * usage: strings ROUNDS */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <wchar.h>

#define ROOM 40000
static char a[ROOM + 256] __attribute__((aligned(4096))), b[ROOM + 256] __attribute__((aligned(4096)));
static wchar_t wide[300];
static volatile size_t sink;

/* Through pointers that the compiler knows nothing of, so that it calls them all. */
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
static void *(*volatile move)(void *, const void *, size_t) = memmove;
static void *(*volatile set)(void *, int, size_t) = memset;
static int (*volatile compare)(const void *, const void *, size_t) = memcmp;

static void memory(size_t n, size_t from, size_t to)
{
	set(a + from, 'x', n);
	copy(b + to, a + from, n);
	sink += compare(b + to, a + from, n);
	move(b + to + 1, b + to, n);
	move(b + to, b + to + 1, n);
	sink += (size_t)mempcpy(b + to, a + from, n);
}

static void search(size_t n, size_t from, size_t to)
{
	set(a + from, 'x', n);
	a[from + n] = 0;
	stpcpy(b + to, a + from);
	sink += strlen(a + from) + strnlen(a + from, n) + (size_t)strchr(a + from, 'y') + (size_t)strrchr(a + from, 'y');
	sink += (size_t)memchr(a + from, 'y', n) + (size_t)memrchr(a + from, 'y', n) + (size_t)rawmemchr(a + from, 0);
	sink += strcmp(a + from, b + to) + strncmp(a + from, b + to, n) + strcasecmp(a + from, b + to);
	sink += (size_t)strchrnul(a + from, 'y') + strncasecmp(a + from, b + to, n);
	strncpy(b + to, a + from, n);
	strcpy(b + to, a + from);
	b[to] = 0;
	strcat(b + to, a + from);
	if (n < 300) {
		sink += strspn(a + from, "xyz") + strcspn(a + from, "yz") + (size_t)strpbrk(a + from, "yz");
		sink += (size_t)strstr(a + from, "xxy");
		wmemset(wide, L'x', n);
		wide[n] = 0;
		sink += wcslen(wide) + (size_t)wmemchr(wide, L'y', n);
	}
}

__attribute__((noinline)) static void medium(void)
{
	for (size_t n = 48; n < 300; n += 13) {
		memory(n, n % 32, n % 7);
		search(n, n % 64, n % 48);
	}
}

/* Where loops go over to other loops, and then to instructions that repeat themselves. */
__attribute__((noinline)) static void large(void)
{
	for (size_t n = 512; n <= 8192; n *= 2) {
		memory(n - 1, 3, 9);
		memory(n + 1, 0, 32);
	}
	search(1000, 5, 0);
	search(5000, 0, 63);
}

/* Past the caches. */
__attribute__((noinline)) static void huge(void)
{
	memory(ROOM - 700, 64, 64);
	memory(ROOM - 100, 0, 17);
}

__attribute__((noinline)) static void done(void)
{
	sink++;
}

int main(int count, char **words)
{
	for (long n = count > 1 ? atol(words[1]) : 0; n > 0; n--) {
		for (size_t size = 0; size < 48; size++)
			memory(size, size % 5, size % 3);
		for (size_t size = 0; size < 48; size += 3)
			search(size, 0, 40);
		medium();
		large();
		huge();
		done();
	}
	return 0;
}
