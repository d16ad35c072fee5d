/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The walk: any tracing program may include this, share the maps by pinning (objects, arena, wants,
 * counts), and call fw_begin() and fw_run() in place of bpf_get_stack(BPF_F_USER_STACK).
 *
 * `sleepable` is a constant: true only where bpf_copy_from_user is allowed (task work). */
#ifndef FRAMEWALK_WALK_H
#define FRAMEWALK_WALK_H

#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "reasons.h"
#include "shared.h"
#include "arena.h"
#include "state.h"

/* Requests for objects that nobody registered yet; the loader reads them. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} wants SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fw_counts);
} counts SEC(".maps");

/* Adds to a counter of this CPU. Not atomic against task work that is preempted here: a count may be
 * off by one then, and none of them decides anything. */
#define FW_COUNT(field, n) \
	do { \
		u32 _zero = 0; \
		struct fw_counts *_counts = bpf_map_lookup_elem(&counts, &_zero); \
		if (_counts) \
			_counts->field += (n); \
	} while (0)

/* The loader counts it up with every object that it registers. */
volatile u32 tables_version = 0;

#include "user.h"
#include "maps.h"
#include "lookup.h"
#include "step.h"
#include "spaces.h"
#include "announced.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct fw_key);
	__type(value, struct fw_object);
} objects SEC(".maps");

/* The vdso has no file: its key has a device that none has. */
#define FW_VDSO_DEVICE 0xffffffffu

static __always_inline void fw_inode_key(struct inode *inode, struct fw_key *key)
{
	key->inode = inode->i_ino;
	key->size = inode->i_size;
	key->device = inode->i_sb->s_dev;
	if (bpf_core_field_exists(inode->i_mtime_sec)) {
		key->mtime_sec = inode->i_mtime_sec;
		key->mtime_nsec = inode->i_mtime_nsec;
	} else {
		struct inode___old *old = (struct inode___old *)inode;

		key->mtime_sec = old->__i_mtime.tv_sec;
		key->mtime_nsec = old->__i_mtime.tv_nsec;
	}
}

static __always_inline void fw_want_object(struct fw_walk *w, struct fw_key *key, u64 start, u64 end)
{
	struct fw_object wanted = {.state = FW_OBJECT_WANTED};
	long error = bpf_map_update_elem(&objects, key, &wanted, BPF_NOEXIST);

	if (error) {
		/* -EEXIST: another CPU asked at the same moment. */
		if (error != -17)
			FW_COUNT(full_objects, 1);
		return;
	}
	w->want.kind = FW_RECORD_WANT;
	w->want.pid = w->pid;
	w->want.key = *key;
	w->want.start = start;
	w->want.end = end;
	if (bpf_ringbuf_output(&wants, &w->want, sizeof(w->want), BPF_RB_FORCE_WAKEUP)) {
		/* Nobody heard it: let the next walk ask again. */
		bpf_map_delete_elem(&objects, key);
		FW_COUNT(full_ring, 1);
	}
}

/* What the VMA says, once. 0, or a stop. */
static __always_inline int fw_map_once(struct mm_struct *mm, u64 pc, struct fw_range *range, struct fw_key *key)
{
	u64 entry = fw_maple_find(fw_kernel_word((u64)&mm->mm_mt.ma_root), pc), start, end, pgoff;
	struct vm_area_struct *vma;
	struct file *file;

	if (!entry)
		return FW_STOP(FW_STOP_NOT_CODE);
	vma = FW_TYPED(vm_area_struct, entry);
	start = vma->vm_start;
	end = vma->vm_end;
	pgoff = vma->vm_pgoff;
	file = vma->vm_file;
	if (pc < start || pc >= end || vma->vm_mm != mm)
		return FW_STOP(FW_STOP_MAPS_BUSY);
	if (!(vma->vm_flags & FW_VM_EXEC))
		return FW_STOP(FW_STOP_NOT_CODE);
	range->start = start;
	range->end = end;
	range->bias = start - (pgoff << 12);
	range->kind = FW_RANGE_OBJECT;
	if (file) {
		fw_inode_key(file->f_inode, key);
	} else if (start == (u64)mm->context.vdso) {
		range->bias = start;
		key->device = FW_VDSO_DEVICE;
	} else {
		range->bias = 0;
		range->kind = FW_RANGE_ANONYMOUS;
	}
	/* The same twice, or it was changing under us. */
	if (vma->vm_start != start || vma->vm_end != end || vma->vm_pgoff != pgoff || vma->vm_file != file || vma->vm_mm != mm)
		return FW_STOP(FW_STOP_MAPS_BUSY);
	return FW_GO;
}

/* Learns the mapping of `pc` into the next slot of the walk's ranges. */
static __always_inline int fw_map(struct fw_walk *w, u64 pc)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;
	struct fw_range *range = &w->ranges[w->num_ranges & (FW_RANGES - 1)];
	struct fw_object *object;
	struct fw_key key = {};
	int stop;

	if (!mm)
		return FW_STOP(FW_STOP_EXITED);
	FW_COUNT(maps, 1);
	/* Task work runs outside of it; elsewhere it costs nothing. */
	bpf_rcu_read_lock();
	stop = fw_map_once(mm, pc, range, &key);
	if (stop)
		stop = fw_map_once(mm, pc, range, &key);
	bpf_rcu_read_unlock();
	if (stop) {
		/* What is half written holds no address. */
		range->start = range->end = 0;
		return stop;
	}
	if (range->kind == FW_RANGE_OBJECT) {
		object = bpf_map_lookup_elem(&objects, &key);
		if (object) {
			range->object = *object;
		} else {
			fw_want_object(w, &key, range->start, range->end);
			range->object.state = FW_OBJECT_WANTED;
		}
	}
	w->last = w->num_ranges;
	w->num_ranges++;
	return FW_GO;
}

static __always_inline bool fw_in(const struct fw_range *range, u64 pc)
{
	return pc - range->start < range->end - range->start;
}

/* Makes w->last the range of `pc`. */
__noinline int fw_locate(struct fw_walk *w, u64 pc)
{
	if (!w || pc >= FW_USER_END)
		return FW_STOP(FW_STOP_NOT_CODE);
	if (w->num_ranges && fw_in(&w->ranges[w->last & (FW_RANGES - 1)], pc))
		return FW_GO;
	for (u32 i = 0; i < FW_RANGES; i++) {
		if (i < w->num_ranges && fw_in(&w->ranges[i], pc)) {
			w->last = i;
			return FW_GO;
		}
	}
	return fw_map(w, pc);
}

/* Where nobody describes the code: the frame pointer, if what it says checks out. A guess, and marked. */
static __always_inline int fw_step_guess(struct fw_walk *w)
{
	u64 at = w->fp, fp, ra;
	int stop;

	if (at & 7 || at < w->sp || at - w->sp > FW_MAX_FRAME_SIZE)
		return FW_STOP(FW_STOP_FRAME_POINTER);
	stop = fw_word_at(w, at, &fp);
	if (!stop)
		stop = fw_word_at(w, at + 8, &ra);
	if (stop)
		return stop == FW_MISS ? stop : FW_STOP(FW_STOP_FRAME_POINTER);
	if (!ra)
		return FW_STOP(FW_STOP_ZERO_RETURN);
	if ((fp && fp <= at) || fw_locate(w, ra - 1))
		return FW_STOP(FW_STOP_FRAME_POINTER);
	w->pc = ra;
	w->sp = at + 16;
	w->fp = fp;
	w->is_return = 1;
	w->top = 0;
	w->origin = FW_ORIGIN_FRAME_POINTER;
	return FW_GO;
}

/* Searches the object's table for the rule at a file offset. */
static __always_inline int fw_find_in_object(struct fw_walk *w, const struct fw_object *object, u64 offset)
{
	u64 key = fw_cache_key(object->id, offset);
	int found;

	if (fw_cached(w, key))
		return FW_LOOKUP_FOUND;
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
	if (found == FW_LOOKUP_FOUND)
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
		if (how == FW_STOP(FW_STOP_MAPS_BUSY))
			w->num_user--;
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
	at = w->num_kernel + w->num_user;
	if (w->num_user >= w->limit || at >= FW_FRAMES)
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
	w->num_user++;
	if (stop)
		return stop;
	w->searching = 0;
	w->unreadable = 0;
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
	return how == FW_BY_RULE ? fw_step_rule(w) : fw_step_guess(w);
}

/* One frame. Finding and stepping are functions that the verifier follows once and for all; only what
 * reads the stack has to be verified for its context, because only some may sleep. */
static __always_inline int fw_frame(struct fw_walk *w, bool sleepable)
{
	int how = fw_look(w), next;

	while (how == FW_MISS && can_loop) {
		if (!fw_fetch_piece(w, sleepable)) {
			if (w->may_defer)
				return FW_STOP(FW_STOP_SECTION_UNREADABLE);
			w->unreadable = 1;
		}
		how = fw_look_on(w);
	}
	if (how != FW_BY_RULE && how != FW_BY_GUESS)
		return how;
	w->num_kept = 0;
	for (u32 fetched = 0; fetched < FW_KEPT; fetched++) {
		next = fw_step(w, how);
		if (next != FW_MISS)
			return next;
		if (!fw_fetch(w, sleepable))
			break;
	}
	return how == FW_BY_RULE ? FW_STOP(FW_STOP_READ_FAULT) : FW_STOP(FW_STOP_FRAME_POINTER);
}

/* The same for contexts that cannot sleep, followed once and for all too. */
__noinline int fw_frame_now(struct fw_walk *w)
{
	return w ? fw_frame(w, false) : FW_STOP(FW_STOP_LIMIT);
}

/* Forgets the ranges of earlier walks unless they still hold. */
static __always_inline void fw_keep_ranges(struct fw_walk *w, struct mm_struct *mm)
{
	u32 version = mm ? fw_maps_version(mm) : 0;
	u64 id = mm ? mm->context.ctx_id : 0;

	if (version && w->ranges_mm == id && w->ranges_version == version && w->ranges_tables == tables_version)
		return;
	w->ranges_mm = id;
	w->ranges_version = version;
	w->ranges_tables = tables_version;
	w->num_ranges = 0;
	w->last = 0;
}

/* Stands the walk on the current thread's own frame. */
static __always_inline void fw_begin(struct fw_walk *w, u32 limit)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	fw_keep_ranges(w, task->mm);
	fw_keep_sections(w, task->mm);
	w->num_user = 0;
	w->window_len = 0;
	w->num_switches = 0;
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
		return FW_STOP_EXEC;
	}
	return stop ? stop - 1 : FW_STOP_LIMIT;
}

#endif
