/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Registering and unregistering (docs/abi.md), one implementation for all hooks. Every word of a call and every
 * byte of a section is an allegation. The same semantics in Rust, and the oracle for these, is the
 * registry of crates/walk.
 *
 * Reads of user memory come first, without the lock, for they may sleep. Then the space is locked, looked
 * through once, and changed or not. While it is locked nothing can preempt, so that nobody waits long. */
#ifndef FRAMEWALK_ANNOUNCE_H
#define FRAMEWALK_ANNOUNCE_H

#include "claim.h"
#include "area_claim.h"
#include "life.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1024 * 1024);
} heard SEC(".maps");

struct fw_call {
	u32 option;
	u64 key;
	u64 address;
	u64 length;
	u64 how;
};

#define FW_COUNT_CALL(field) \
	do { \
		struct fw_registry *_all = fw_the_registry(); \
		if (_all) \
			__sync_fetch_and_add(&_all->field, 1); \
	} while (0)

/* Quotas of areas; `space` was looked through. */
static __always_inline bool fw_area_fits(const struct fw_space *space, const struct fw_section *section)
{
	return !section->area || (space->areas < FW_MAX_AREAS && space->area_bytes + section->length <= FW_AREA_MAX_AREA);
}

__noinline long fw_insert(struct fw_section *section, const struct fw_who *who, bool replace)
{
	struct fw_registry *all = fw_the_registry();
	struct fw_space *space;
	u32 count;
	long answer;
	u64 id;

	if (!section || !who || !all)
		return -FW_ENOSPC;
	id = who->space;
	space = bpf_map_lookup_elem(&spaces, &id);
	if (!space) {
		space = fw_make_space(id);
		if (space && who->shares)
			fw_join_sharers(id, space);
	}
	if (!space || !fw_join(who->pid, id, space) || !fw_lock(space, id)) {
		__sync_fetch_and_add(&all->full, 1);
		/* If nobody could join. */
		fw_drop(id);
		return -FW_ENOSPC;
	}
	count = space->count;
	if (!fw_look_through(space, section, !replace)) {
		answer = -FW_ENOSPC;
	} else if (replace && !space->matches) {
		answer = -FW_ENOENT;
	} else if (space->overlap) {
		answer = -FW_EEXIST;
	} else if (space->twin) {
		section->number = fw_next_number(all);
		fw_change(space);
		fw_take_over(space, section);
		fw_changed(space);
		answer = fw_id(section->number);
	} else if (!fw_area_fits(space, section) || !(replace || fw_room(space))) {
		answer = -FW_ENOSPC;
		__sync_fetch_and_add(&all->full, 1);
	} else {
		section->number = fw_next_number(all);
		fw_change(space);
		if (replace)
			fw_take_out(space, section->key, 0);
		fw_put_in(space, section);
		fw_changed(space);
		__sync_fetch_and_add(&all->sections, (u64)space->count - count);
		answer = fw_id(section->number);
	}
	fw_unlock(space);
	return answer;
}

static __always_inline bool fw_is_range(u64 address, u64 length)
{
	return address && length && !(length >> 32) && address <= FW_USER_END && length <= FW_USER_END - address;
}

static __always_inline long fw_register(const struct fw_call *call, struct fw_section *section, bool sleepable)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fw_who who = fw_who(task);
	u64 kind = call->how & ~FW_REPLACE;
	long error;

	if (kind != FW_KIND_SECTION && kind != FW_KIND_AREA)
		return -FW_EINVAL;
	if (!fw_is_range(call->address, call->length))
		return -FW_EINVAL;
	section->key = call->key;
	section->address = call->address;
	error = kind == FW_KIND_AREA ? fw_read_area(section, call->length, sleepable) :
				       fw_read_section(section, call->length, sleepable);
	if (error)
		return error;
	section->writable = fw_is_writable(task, section->address);
	return fw_insert(section, &who, call->how & FW_REPLACE);
}

/* With a number only that section of the key. */
__noinline long fw_unregister(u64 id, u64 key, u64 number)
{
	struct fw_registry *all = fw_the_registry();
	struct fw_space *space = bpf_map_lookup_elem(&spaces, &id);
	/* A text that nothing overlaps. */
	struct fw_section section = {.key = key};
	u32 removed = 0;

	if (!space || !all || !fw_lock(space, id))
		return -FW_ENOENT;
	if (fw_look_through(space, &section, true) && space->matches) {
		removed = space->count;
		fw_change(space);
		fw_take_out(space, key, number);
		fw_changed(space);
		removed -= space->count;
		__sync_fetch_and_add(&all->sections, -(u64)removed);
	}
	fw_unlock(space);
	return removed ? (long)removed : -FW_ENOENT;
}

/* Tells the listener. */
static __always_inline void fw_tell(const struct fw_call *call, u64 number, long answer, bool answered)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;
	struct fw_heard *record = bpf_ringbuf_reserve(&heard, sizeof(*record), 0);
	struct fw_registry *all = fw_the_registry();
	u64 ids = bpf_get_current_pid_tgid();

	if (all) {
		__sync_fetch_and_add(&all->heard, 1);
		if (answer < 0)
			__sync_fetch_and_add(&all->refused, 1);
		if (!record)
			__sync_fetch_and_add(&all->unheard, 1);
	}
	if (!record)
		return;
	record->kind = FW_RECORD_HEARD;
	record->pid = ids >> 32;
	record->tid = ids;
	record->option = call->option;
	record->key = call->key;
	record->address = call->address;
	record->length = call->length;
	record->how = call->how;
	record->answer = answer;
	record->space = mm ? fw_space_id(mm) : 0;
	record->number = number;
	record->answered = answered;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

static __always_inline bool fw_is_call(u64 option)
{
	return option == FW_REGISTER || option == FW_UNREGISTER;
}

/* Does what a call asks for: an id or a count above 0, or an errno below. */
static __always_inline long fw_do(const struct fw_call *call, struct fw_section *section, bool sleepable)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;
	u64 id = mm ? fw_space_id(mm) : 0;

	if (!id)
		return -FW_EINVAL;
	if (call->option == FW_REGISTER)
		return fw_register(call, section, sleepable);
	if (call->address || call->length || call->how)
		return -FW_EINVAL;
	return fw_unregister(id, call->key, 0);
}

#endif
