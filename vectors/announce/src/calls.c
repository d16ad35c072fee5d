/* A library that calls back through frames of its own, none of which keeps a frame pointer unless it has to. */

#define KEEP __attribute__((noinline, noclone))
/* Whatever follows the call keeps it from becoming a jump. */
#define NO_TAIL_CALL __asm__ volatile("" ::: "memory")

typedef long callback(void *argument);

static long narrow(callback *function, void *argument, unsigned depth);

/* The CFA is a register: the size of the frame is known only when it runs. */
KEEP static long sized(callback *function, void *argument, unsigned depth)
{
	volatile char *room = __builtin_alloca(16 + depth % 64);
	room[0] = 1;
	long result = depth < 2 ? function(argument) : narrow(function, argument, depth - 1);
	result += room[0];
	NO_TAIL_CALL;
	return result;
}

/* A frame of some size. */
KEEP static long wide(callback *function, void *argument, unsigned depth)
{
	volatile char room[200];
	room[depth % sizeof room] = 1;
	long result = depth < 2 ? function(argument) : sized(function, argument, depth - 1);
	result += room[depth % sizeof room];
	NO_TAIL_CALL;
	return result;
}

/* Saves registers, and little else. */
KEEP static long narrow(callback *function, void *argument, unsigned depth)
{
	long result = depth < 2 ? function(argument) : wide(function, argument, depth - 1);
	NO_TAIL_CALL;
	return result + 1;
}

/* Calls function(argument) from below `depth` frames of the library's own and this one, and adds `depth`. */
KEEP long calls_through(callback *function, void *argument, unsigned depth)
{
	long result = depth == 0 ? function(argument) : narrow(function, argument, depth);
	NO_TAIL_CALL;
	return result;
}

KEEP static unsigned long spin_inner(unsigned long value, unsigned long iterations)
{
	for (unsigned long i = 0; i < iterations; i++) {
		value = value * 6364136223846793005u + 1442695040888963407u;
		__asm__ volatile("" : "+r"(value));
	}
	return value;
}

KEEP static unsigned long spin_outer(unsigned long value, unsigned long iterations)
{
	volatile unsigned long room[8];
	room[0] = spin_inner(value, iterations);
	NO_TAIL_CALL;
	return room[0];
}

/* Uses the CPU, two frames below this one. */
KEEP unsigned long calls_spin(unsigned long iterations)
{
	unsigned long value = 1;
	while (iterations > 0) {
		unsigned long some = iterations < 100000 ? iterations : 100000;
		value = spin_outer(value, some);
		iterations -= some;
	}
	return value;
}
