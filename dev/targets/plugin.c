/* The shared object of torture.c: calls through its own PLT, and back into the program. */
#include "calls.h"

static volatile unsigned sink;

/* As in torture.c. */
#ifndef SHORTER
#define SHORTER 1
#endif

NOTE(plugin_enter, "phase_dlopen", "calls");
NOTE(plugin_1, "plugin_enter", "calls");
NOTE(plugin_2, "plugin_1", "");
NOTE(plugin_calls_back, "plugin_enter", "");

KEEP void plugin_2(void)
{
	for (unsigned i = 0; i < 20000 / SHORTER; i++)
		sink = sink * 31 + i;
}

KEEP void plugin_1(void)
{
	volatile char wide[64] __attribute__((aligned(64)));
	wide[0] = 1;
	plugin_2();
	sink += wide[0];
}

KEEP void plugin_calls_back(void (*from_plugin)(void))
{
	from_plugin();
	NO_TAIL_CALL;
}

KEEP void plugin_enter(void (*from_plugin)(void))
{
	plugin_1();
	plugin_calls_back(from_plugin);
	NO_TAIL_CALL;
}

KEEP const struct call *plugin_calls(const struct call **end)
{
	*end = __stop_calls;
	return __start_calls;
}
