/* Generated code, with frame pointers or with something else in their register. The first argument is the function that
 * gen_middle calls, the second how many seconds it runs; perf's map names the functions. Built with -O2
 * -fomit-frame-pointer. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What is copied to where nobody describes it. No CFI: here nobody describes it either. Calls inside it are relative.
 * rdi is the function that gen_middle calls. */
__asm__(".text\n"
	".balign 4096\n"
	"generated:\n"
	"gen_outer:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	call gen_middle\n"
	"	pop %rbp\n"
	"	ret\n"
	"gen_middle:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	sub $32, %rsp\n"
	"	call *%rdi\n"
	"	leave\n"
	"	ret\n"
	/* All states of a function that keeps a frame pointer. */
	"gen_frames:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"1:	call gen_leaf\n"
	"	call gen_bang\n"
	"	jmp 1b\n"
	"gen_leaf:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	pop %rbp\n"
	"	ret\n"
	"	int3\n"
	/* What HotSpot has before the prologue. */
	"gen_bang:\n"
	"	mov %eax, -0x4000(%rsp)\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	sub $16, %rsp\n"
	"	leave\n"
	"	ret\n"
	"	int3\n"
	/* The register counts. What follows a loop is other code. */
	"gen_counter:\n"
	"	xor %ebp, %ebp\n"
	"1:	inc %rbp\n"
	"	jmp 1b\n"
	"	int3\n"
	/* No frame pointer of its own: the register is the caller's. */
	"gen_older:\n"
	"	sub $24, %rsp\n"
	"1:	pause\n"
	"	jmp 1b\n"
	"	int3\n"
	/* The register points at a word that points at itself, below a good return address. */
	"gen_itself:\n"
	"	mov 8(%rbp), %rax\n"
	"	push %rax\n"
	"	push %rax\n"
	"	mov %rsp, (%rsp)\n"
	"	mov %rsp, %rbp\n"
	"1:	pause\n"
	"	jmp 1b\n"
	"	int3\n"
	/* The register points at a good frame pointer, below the address of a function. */
	"gen_pointer:\n"
	"	lea gen_leaf(%rip), %rax\n"
	"	push %rax\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"1:	pause\n"
	"	jmp 1b\n"
	"	int3\n"
	/* The register points above the stack, aligned, at nothing. */
	"gen_unmapped:\n"
	"	sub $24, %rsp\n"
	"	lea 0x2000018(%rsp), %rbp\n"
	"1:	pause\n"
	"	jmp 1b\n"
	"	int3\n"
	/* A new thread whose register still is what its parent's was. */
	"gen_thread:\n"
	"	sub $24, %rsp\n"
	"	mov %rdi, %rbp\n"
	"1:	pause\n"
	"	jmp 1b\n"
	"	int3\n"
	/* Keeps what it is given, for gen_thread: rsi is called with the frame pointer. */
	"gen_parent:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	mov %rbp, %rdi\n"
	"	call *%rsi\n"
	"	pop %rbp\n"
	"	ret\n"
	"generated_end:\n");

#define FUNCTIONS(X) \
	X(gen_outer) X(gen_middle) X(gen_frames) X(gen_leaf) X(gen_bang) X(gen_counter) X(gen_older) X(gen_itself) \
	X(gen_pointer) X(gen_unmapped) X(gen_thread) X(gen_parent)
#define DECLARE(name) extern char name[];
FUNCTIONS(DECLARE)
extern char generated[], generated_end[];

static char *code;

static void *at(char *start)
{
	return code + (start - generated);
}

static void finish(int signal)
{
	(void)signal;
	_exit(0);
}

static char *gen(const char *name)
{
#define FIND(function) \
	if (!strcmp(name, #function)) \
		return at(function);
	FUNCTIONS(FIND)
	exit(2);
}

static void *thread(void *parent_frame)
{
	((void (*)(void *))gen("gen_thread"))(parent_frame);
	return NULL;
}

static void start_thread_below(void *frame)
{
	pthread_t started;

	pthread_create(&started, NULL, thread, frame);
	pthread_join(started, NULL);
}

/* Named, and described: what the generated code is called by. */
__attribute__((noinline, noclone)) void run_generated(const char *function)
{
	void (*outer)(void *, void *) = (void (*)(void *, void *))gen("gen_outer");

	outer(gen(function), start_thread_below);
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	size_t size = generated_end - generated;
	char path[64];
	FILE *map;

	if (argc < 3)
		return 2;
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED || size > 4096)
		return 1;
	memcpy(code, generated, size);
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	if (!map)
		return 1;
	/* Each ends where the next begins, in the order of the list. */
	{
#define START(name) name,
#define NAME(name) #name,
		char *starts[] = {FUNCTIONS(START) generated_end};
		const char *names[] = {FUNCTIONS(NAME) NULL};

		for (int i = 0; names[i]; i++) {
			char *end = generated_end;

			for (int j = 0; names[j]; j++)
				if (starts[j] > starts[i] && starts[j] < end)
					end = starts[j];
			fprintf(map, "%lx %lx %s\n", (unsigned long)at(starts[i]), (unsigned long)(end - starts[i]), names[i]);
		}
	}
	fclose(map);
	signal(SIGALRM, finish);
	alarm(atoi(argv[2]));
	run_generated(argv[1]);
	return 0;
}
