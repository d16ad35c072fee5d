/* Functions that say who calls them, so that the whole stack is known from its innermost function.
 *
 * FUNCTION(name, caller) { ... } defines void name(void) and notes the call; `caller` is the one
 * function that calls it. Instead of a caller: START (the C library starts it, main or thread) and
 * SIGNAL (a signal handler: it interrupts anything), ANYBODY. `how` is one of: "via" (the library
 * that `caller` calls calls it back), "calls" (library functions may stand above it), "". */
#ifndef CALLS_H
#define CALLS_H

struct call {
	const char *callee;
	const char *caller;
	const char *how;
};

#define START "-start-"
#define SIGNAL "-signal-"
#define ANYBODY "-anybody-"

#define KEEP __attribute__((noinline, noclone, used))
#define NOTE(name, caller, how) \
	static const struct call note_##name __attribute__((section("calls"), used, aligned(8))) = {#name, caller, how}

#define DEFINE(name, caller, how) \
	NOTE(name, caller, how); \
	KEEP void name(void); \
	KEEP void name(void)
#define FUNCTION(name, caller) DEFINE(name, #caller, "")
#define CALLS_LIBRARY(name, caller) DEFINE(name, #caller, "calls")

/* After a call: keeps it from becoming a jump. */
#define NO_TAIL_CALL __asm__ volatile("" ::: "memory")

extern const struct call __start_calls[], __stop_calls[];

#endif
