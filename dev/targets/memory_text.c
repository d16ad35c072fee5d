/* Code for memory_only.c: linked to a fixed address by itself, calls nothing else.
 *
 * even -> odd -> even -> ... -> burn, `depth` calls deep. RBP is used up on the way, so that a chain of
 * frame pointers leads nowhere. Build: gcc -O2 -fomit-frame-pointer -ffreestanding -nostdlib -static. */
#define KEEP __attribute__((noinline, noclone, used))

KEEP unsigned long burn(unsigned long turns)
{
	unsigned long sum = 0;

	for (unsigned long i = 0; i < turns; i++)
		__asm__ volatile("add %1, %0" : "+r"(sum) : "r"(i));
	return sum;
}

unsigned long even(unsigned long depth, unsigned long turns);

/* A frame of another size, with saved registers. */
KEEP unsigned long odd(unsigned long depth, unsigned long turns)
{
	volatile char room[200];
	unsigned long sum;

	room[depth % sizeof(room)] = depth;
	__asm__ volatile("xor %%ebp, %%ebp" ::: "rbp", "rbx", "r12");
	sum = depth ? even(depth - 1, turns) : burn(turns);
	return sum + room[0];
}

KEEP unsigned long even(unsigned long depth, unsigned long turns)
{
	unsigned long sum;

	__asm__ volatile("mov $1, %%ebp" ::: "rbp");
	sum = depth ? odd(depth - 1, turns) : burn(turns);
	__asm__ volatile("" : "+r"(sum));
	return sum;
}
