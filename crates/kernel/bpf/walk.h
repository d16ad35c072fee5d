/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The walk: any tracing program may include this, share the maps by pinning (objects, arena, wants,
 * counts), and call fw_begin() and fw_run() in place of bpf_get_stack(BPF_F_USER_STACK).
 *
 * `sleepable` is a constant: true only where bpf_copy_from_user is allowed (task work). */
#ifndef FRAMEWALK_WALK_H
#define FRAMEWALK_WALK_H

#include "kernel_types.h"
#ifdef __bpf__
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#else
#include "host.h"
#endif
#include "reasons.h"
#include "shared.h"
#include "arena.h"
#include "state.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fw_counts);
} counts SEC(".maps");

/* Adds to a counter of this CPU. Task work can be preempted, by other task work too: a count that was lost between
 * its load and its store would look like a sample that was. */
#define FW_COUNT(field, n) \
	do { \
		u32 _zero = 0; \
		struct fw_counts *_counts = bpf_map_lookup_elem(&counts, &_zero); \
		if (_counts) \
			__sync_fetch_and_add(&_counts->field, (n)); \
	} while (0)

#include "user.h"
#include "maps.h"
#include "lookup.h"
#include "step.h"
#include "ranges.h"
#include "spaces.h"
#include "area.h"
#include "described.h"
#include "announced.h"
#include "guess.h"

/* Searches the object's table for the rule at a file offset. */
static __always_inline int fw_find_in_object(struct fw_walk *w, const struct fw_object *object, u64 offset)
{
	u64 key = fw_cache_key(object->id, offset);
	int found;

	if (fw_cached(w, key))
		return fw_rule_is_hole(&w->rule) ? FW_LOOKUP_HOLE : FW_LOOKUP_FOUND;
	FW_COUNT(searches, 1);
	w->table.at = object->section;
	w->table.base = 0;
	w->table.index = object->fdes;
	w->table.functions = object->num_fdes;
	w->table.rows_at = object->fres;
	w->table.rows_len = object->fres_len;
	w->table.user = 0;
	w->table.version = SFRAME_V3;
	w->table.pcrel = 1;
	fw_search_begin(w, offset);
	found = fw_search(w);
	if (found == FW_LOOKUP_HOLE)
		fw_make_hole(&w->rule);
	if (found == FW_LOOKUP_FOUND || found == FW_LOOKUP_HOLE)
		fw_cache(w, key);
	return found;
}

/* How to go on from the frame that was noted: by w->rule, or by guess. FW_MISS: a piece of a section is needed first.
 * What the process announced goes before what its files say. */
static __always_inline int fw_how(struct fw_walk *w)
{
	const struct fw_range *range = &w->ranges[w->last & (FW_RANGES - 1)];
	u64 pc = w->pc - w->is_return;

	if (w->announced) {
		int how = fw_find_announced(w, pc);

		/* It is finished outside, which notes the frame itself. */
		if (how == FW_STOP(FW_STOP_MAPS_BUSY)) {
			w->num_user--;
			w->num_words--;
		}
		if (how != FW_GO)
			return how;
	}
	if (range->kind == FW_RANGE_ANONYMOUS || range->object.state == FW_OBJECT_BARE)
		return FW_BY_GUESS;
	if (range->object.state != FW_OBJECT_READY)
		return FW_STOP(FW_STOP_FOREIGN_CODE);
	w->rule_origin = range->object.origin;
	switch (fw_find_in_object(w, &range->object, pc - range->bias)) {
	case FW_LOOKUP_FOUND:
		return FW_BY_RULE;
	case FW_LOOKUP_HOLE:
		return FW_BY_GUESS;
	case FW_LOOKUP_NONE:
		return FW_STOP(FW_STOP_NO_ROW);
	}
	return FW_STOP(FW_STOP_BAD_ROW);
}

/* Notes the frame that the walk stands on, and finds out how to go on from there. */
__noinline int fw_look(struct fw_walk *w)
{
	const struct fw_range *range;
	u64 pc, find, word;
	u32 at;
	int stop;

	FW_USE_ARENA();
	if (!w)
		return FW_STOP(FW_STOP_LIMIT);
	pc = w->pc;
	find = pc - w->is_return;
	at = w->num_words;
	if (w->num_user >= w->limit || at >= FW_WORDS)
		return FW_STOP(FW_STOP_LIMIT);
	stop = fw_locate(w, find);
	range = &w->ranges[w->last & (FW_RANGES - 1)];
	/* These are finished outside, which notes the frame itself. */
	if (stop == FW_STOP(FW_STOP_MAPS_BUSY))
		return stop;
	if (!stop && range->kind == FW_RANGE_OBJECT && range->object.state == FW_OBJECT_WANTED)
		return FW_STOP(FW_STOP_TABLE_PENDING);
	/* A caller outside of all code is no frame. */
	if (stop && w->origin != FW_ORIGIN_REGISTERS)
		return stop;

	word = (u64)w->origin << FW_FRAME_ORIGIN_SHIFT;
	if (w->is_return)
		word |= FW_FRAME_RETURN;
	if (!stop && range->kind == FW_RANGE_OBJECT)
		word |= FW_FRAME_OBJECT | (u64)range->object.id << FW_FRAME_ID_SHIFT | ((pc - range->bias) & FW_FRAME_OFFSET_MASK);
	else
		word |= pc & FW_FRAME_ADDRESS_MASK;
	w->frames[at] = word;
	w->num_words++;
	w->num_user++;
	if (stop)
		return stop;
	w->searching = 0;
	w->unreadable = 0;
	w->area.len = 0;
	w->pieces = 0;
	return fw_how(w);
}

/* Goes on finding out, by the piece that was fetched. */
__noinline int fw_look_on(struct fw_walk *w)
{
	FW_USE_ARENA();
	return w ? fw_how(w) : FW_STOP(FW_STOP_LIMIT);
}

/* Goes on as fw_look() said, by the words that were fetched. */
__noinline int fw_step(struct fw_walk *w, int how)
{
	if (!w)
		return FW_STOP(FW_STOP_LIMIT);
	if (how != FW_BY_RULE)
		return fw_step_guess(w);
	if (w->rule.body && fw_settle(w) == FW_MISS)
		return FW_MISS;
	return fw_step_rule(w);
}

/* One frame. Finding and stepping are functions that the verifier follows once and for all; only what
 * reads the stack has to be verified for its context, because only some may sleep. */
static __always_inline int fw_frame(struct fw_walk *w, bool sleepable)
{
	int how = fw_look(w), next;

	while (how == FW_MISS && can_loop) {
		if (w->area.len ? !fw_fetch_area(w, sleepable) : !fw_fetch_piece(w, sleepable)) {
			if (w->may_defer)
				return FW_STOP(FW_STOP_SECTION_UNREADABLE);
			w->unreadable = 1;
		}
		how = fw_look_on(w);
	}
	if (how != FW_BY_RULE && how != FW_BY_GUESS)
		return how;
	w->num_kept = 0;
	for (u32 fetched = 0; fetched <= FW_KEPT; fetched++) {
		next = fw_step(w, how);
		if (next != FW_MISS)
			return next;
		/* What is not there may just be absent now. */
		if (!fw_fetch(w, sleepable) && w->may_defer)
			break;
	}
	return FW_STOP(FW_STOP_READ_FAULT);
}

/* The same for contexts that cannot sleep, followed once and for all too. */
__noinline int fw_frame_now(struct fw_walk *w)
{
	return w ? fw_frame(w, false) : FW_STOP(FW_STOP_LIMIT);
}

/* Stands the walk on the current thread's own frame. */
static __always_inline void fw_begin(struct fw_walk *w, u32 limit)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	fw_keep_ranges(w, task->mm);
	fw_keep_sections(w, task->mm);
	w->num_user = 0;
	w->num_words = w->num_kernel;
	w->window_len = 0;
	w->stack_start = w->stack_end = 0;
	w->num_switches = 0;
	w->area.seen = 0;
	w->limit = limit;
	w->origin = FW_ORIGIN_REGISTERS;
	w->is_return = 0;
	w->top = 1;
	w->pc = regs->ip;
	w->sp = regs->sp;
	w->fp = regs->bp;
}

/* Between two programs the registers are still the old one's and the mappings the new one's
 * (fs/exec.c, begin_new_exec). System call numbers: arch/x86/entry/syscalls/syscall_64.tbl. */
static __always_inline bool fw_in_exec(void)
{
	u64 call = ((struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf()))->orig_ax;

	return call == 59 || call == 322;
}

#define FW_USER64_CS 0x33 /* arch/x86/include/asm/segment.h, __USER_CS */

/* Walks to the end and answers why it is the end. Frames are in w->frames from num_kernel on. */
static __always_inline u32 fw_run(struct fw_walk *w, bool sleepable)
{
	struct task_struct *task = bpf_get_current_task_btf();
	int stop = FW_GO;

	FW_USE_ARENA();
	if (!task->mm)
		return FW_STOP_EXITED;
	if ((((struct pt_regs *)bpf_task_pt_regs(task))->cs & 0xffff) != FW_USER64_CS)
		return FW_STOP_FOREIGN_CODE;
	while (!stop && can_loop)
		stop = sleepable ? fw_frame(w, true) : fw_frame_now(w);
	if (w->announced)
		fw_note_uses(w);
	if (stop == FW_STOP(FW_STOP_NOT_CODE) && w->top && fw_in_exec()) {
		w->num_user = 0;
		w->num_words = w->num_kernel;
		return FW_STOP_EXEC;
	}
	return stop ? stop - 1 : FW_STOP_LIMIT;
}

#endif
