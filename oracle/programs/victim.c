/* Stands still some calls deep, so that a test can change what a walk of it reads. usage: victim [DEPTH] */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EDGE (4 * 4096)

void stand(void *info);
extern char framed_body[], stand_still[];

/* A function that keeps a frame pointer, one that does not, and where the test finds the program. */
asm(".text\n"
    ".globl framed, framed_body, stand, stand_still\n"
    ".type framed, @function\n"
    "framed:\n\t.cfi_startproc\n"
    "\tpush %rbp\n\t.cfi_def_cfa_offset 16\n\t.cfi_offset 6, -16\n"
    "\tmov %rsp, %rbp\n\t.cfi_def_cfa_register 6\n"
    "\tcall stand\n"
    "framed_body:\n"
    "\tnop\n\tleave\n\t.cfi_def_cfa 7, 8\n\tret\n\t.cfi_endproc\n"
    ".size framed, .-framed\n"
    ".type stand, @function\n"
    "stand:\n\t.cfi_startproc\n"
    "\tint3\n"
    "stand_still:\n"
    "\tnop\n\tnop\n\tjmp stand_still\n\t.cfi_endproc\n"
    ".size stand, .-stand\n");

void framed(void *info);

/* What the test wants to know. */
struct {
	unsigned long framed_body, stand_still, edge, edge_end, handler_return;
} info;

static void handler(int number)
{
	/* Where handlers return to: the C library's trampoline. */
	info.handler_return = (unsigned long)__builtin_return_address(0);
	(void)number;
}

static int deep(int n);
/* A call that no compiler makes a loop of. */
static int (*volatile again)(int n) = deep;

static int deep(int n)
{
	volatile char frame[64];

	frame[n & 63] = n;
	if (n == 0)
		framed(&info);
	else
		again(n - 1);
	return frame[n & 63];
}

int main(int argc, char **argv)
{
	/* What follows cannot be read. */
	char *edge = mmap(NULL, EDGE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(edge, 0, EDGE);
	mprotect(edge + EDGE, 4096, PROT_NONE);
	signal(SIGUSR1, handler);
	raise(SIGUSR1);
	info.framed_body = (unsigned long)framed_body;
	info.stand_still = (unsigned long)stand_still;
	info.edge = (unsigned long)edge;
	info.edge_end = (unsigned long)edge + EDGE;
	return deep(argc > 1 ? atoi(argv[1]) : 12);
}
