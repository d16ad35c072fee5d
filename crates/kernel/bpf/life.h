/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Address spaces and the processes that have them: made, shared, copied, left and dropped; and the lock under which
 * one is changed. */
#ifndef FRAMEWALK_LIFE_H
#define FRAMEWALK_LIFE_H

#include "sorted.h"

/* Which address space a process has, for those that have registered or were forked by one that has. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, u64);
} processes SEC(".maps");

extern void bpf_preempt_disable(void) __ksym;
extern void bpf_preempt_enable(void) __ksym;

/* Opaque words of the kernel's iterator (include/uapi/linux/bpf.h: struct bpf_iter_task is three). */
struct bpf_iter_task {
	u64 __opaque[3];
} __attribute__((aligned(8)));

#define FW_ALL_THREADS 1 /* kernel/bpf/task_iter.c: BPF_TASK_ITER_ALL_THREADS */
#define FW_KERNEL_THREAD 0x00200000 /* include/linux/sched.h: PF_KTHREAD */

extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, u32 flags) __ksym;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym;

/* The id of a space that is gone, as long as somebody can still see it. */
#define FW_DROPPED (~0ull)

/* A loop's budget belongs to the call (8 million turns, since 6.15 a quarter of a second). */
static __noinline bool fw_spin(struct fw_space *space)
{
	while (can_loop) {
		if (!__sync_val_compare_and_swap(&space->lock, 0, 1))
			return true;
	}
	return false;
}

/* Nobody holds the lock for longer than one change takes, on another CPU. But that CPU may be one that a hypervisor
 * runs at times, and finds locked most of the times: so there is a long patience. */
#define FW_LOCK_TRIES 16

static __always_inline bool fw_lock(struct fw_space *space, u64 id)
{
	bool locked = false;

	bpf_preempt_disable();
	for (u32 i = 0; i < FW_LOCK_TRIES && !locked; i++)
		locked = fw_spin(space);
	/* It may have been dropped meanwhile, and its memory may be another's. */
	if (locked && space->id == id)
		return true;
	if (locked)
		__sync_val_compare_and_swap(&space->lock, 1, 0);
	bpf_preempt_enable();
	return false;
}

static __always_inline void fw_unlock(struct fw_space *space)
{
	__sync_val_compare_and_swap(&space->lock, 1, 0);
	bpf_preempt_enable();
}

/* Changes between these two are seen by no walk. */
static __always_inline void fw_change(struct fw_space *space)
{
	WRITE_ONCE(space->sequence, space->sequence + 1);
	barrier();
}

static __always_inline void fw_changed(struct fw_space *space)
{
	barrier();
	WRITE_ONCE(space->sequence, space->sequence + 1);
}

static char empty_space[sizeof(struct fw_space)];
static char empty_page[sizeof(struct fw_page)];

/* The space of an address space, made if there is none. */
static __always_inline struct fw_space *fw_make_space(u64 id)
{
	struct fw_registry *all = fw_the_registry();
	struct fw_space *space = bpf_map_lookup_elem(&spaces, &id);

	if (space || !all)
		return space;
	if (!bpf_map_update_elem(&spaces, &id, empty_space, BPF_NOEXIST))
		__sync_fetch_and_add(&all->spaces, 1);
	space = bpf_map_lookup_elem(&spaces, &id);
	if (space) {
		/* The number of an address space that comes back begins elsewhere: walks may remember the old one. */
		__sync_val_compare_and_swap(&space->sequence, 0, (u32)bpf_get_prandom_u32() & ~1u);
		__sync_val_compare_and_swap(&space->id, 0, id);
	}
	return space;
}

/* Everything that the space holds goes. Locked, and nobody else has it. */
static __always_inline void fw_empty(struct fw_space *space, u64 id, struct fw_registry *all)
{
	/* Pages that a larger registry had are still there. */
	for (u32 i = 0; i < FW_PAGES && can_loop; i++) {
		struct fw_page_key key = {.space = id, .page = i};

		if (bpf_map_delete_elem(&pages, &key))
			break;
	}
	__sync_fetch_and_add(&all->sections, -(u64)space->count);
}

/* Nobody has the space any more. */
__noinline int fw_drop(u64 id)
{
	struct fw_space *space = bpf_map_lookup_elem(&spaces, &id);
	struct fw_registry *all = fw_the_registry();

	if (!space || !all || !fw_lock(space, id))
		return 0;
	if ((s32)space->processes > 0) {
		fw_unlock(space);
		return 0;
	}
	fw_change(space);
	fw_empty(space, id, all);
	space->count = 0;
	space->id = FW_DROPPED;
	fw_changed(space);
	fw_unlock(space);
	if (!bpf_map_delete_elem(&spaces, &id))
		__sync_fetch_and_sub(&all->spaces, 1);
	return 0;
}

/* The process leaves its address space: by exec, or by its end. */
static __always_inline void fw_leave(u32 pid)
{
	u64 *known = bpf_map_lookup_elem(&processes, &pid), id;
	struct fw_space *space;

	if (!known)
		return;
	id = *known;
	if (bpf_map_delete_elem(&processes, &pid))
		return;
	space = bpf_map_lookup_elem(&spaces, &id);
	if (space && (s32)__sync_fetch_and_sub(&space->processes, 1) <= 1)
		fw_drop(id);
}

/* One process more shares the space. */
static __always_inline bool fw_join(u32 pid, u64 id, struct fw_space *space)
{
	u64 *known = bpf_map_lookup_elem(&processes, &pid);

	if (known && *known == id)
		return true;
	/* Its exec was missed, or the end of another process with this pid. */
	if (known)
		fw_leave(pid);
	if (!bpf_map_update_elem(&processes, &pid, &id, BPF_NOEXIST)) {
		__sync_fetch_and_add(&space->processes, 1);
		return true;
	}
	/* Another thread of it may have been faster. */
	known = bpf_map_lookup_elem(&processes, &pid);
	return known && *known == id;
}

/* Who has joined may have left meanwhile, when nobody knew that it had come. */
static __always_inline bool fw_has_left(struct task_struct *task, u64 id)
{
	return !task->signal->live.counter || (task->mm && fw_space_id(task->mm) != id);
}

/* A process and its address space. */
struct fw_who {
	u64 space; /* 0: none */
	u32 pid;
	u32 shares; /* other processes may have the address space, too */
};

static __always_inline struct fw_who fw_who(struct task_struct *task)
{
	struct mm_struct *mm = task->mm;
	struct fw_who who = {.pid = task->tgid};

	if (mm) {
		who.space = fw_space_id(mm);
		who.shares = mm->mm_users.counter > task->signal->live.counter;
	}
	return who;
}

/* A new space belongs to everybody who has the address space: children of vfork(2) and clone(2) that were made
 * before it are not known yet, nor are their parents. That is asked of all threads of the machine, but only where more
 * threads have the address space than this process. Whoever comes later is told of by fw_forked(). */
static __always_inline void fw_join_sharers(u64 id, struct fw_space *space)
{
	struct task_struct *task;
	struct bpf_iter_task it;

	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, NULL, FW_ALL_THREADS);
	while ((task = bpf_iter_task_next(&it))) {
		if (!task->mm || fw_space_id(task->mm) != id || task->flags & FW_KERNEL_THREAD)
			continue;
		fw_join(task->tgid, id, space);
		if (fw_has_left(task, id))
			fw_leave(task->tgid);
	}
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
}

/* Takes the page that the next section needs, if it needs one. */
static __always_inline bool fw_room(struct fw_space *space)
{
	u32 page = space->count / FW_PAGE_SECTIONS;
	struct fw_page_key key = {.space = space->id, .page = page};

	if (space->count >= FW_MAX_SECTIONS)
		return false;
	if (space->count != page * FW_PAGE_SECTIONS)
		return true;
	return bpf_map_lookup_elem(&pages, &key) || !bpf_map_update_elem(&pages, &key, empty_page, BPF_NOEXIST);
}

static __always_inline u64 fw_next_number(struct fw_registry *all)
{
	return FW_FIRST_NUMBER + __sync_fetch_and_add(&all->numbers, 1);
}

/* What a caller is told: above 0, an int. */
static __always_inline long fw_id(u64 number)
{
	long id = (number - FW_FIRST_NUMBER + 1) & 0x7fffffff;

	return id ? id : 1;
}

/* Copies pages; the copies get numbers of their own, for the child may change its memory. False where there is no
 * room for all. */
static __always_inline bool fw_copy(struct fw_space *from, struct fw_space *to, u64 id, struct fw_registry *all)
{
	struct fw_page *body = NULL;
	u32 page = 0;

	FW_FOR_EACH_SLOT(from) {
		struct fw_section *at;

		if (from->slot % FW_PAGE_SECTIONS == 0) {
			u32 number = from->slot / FW_PAGE_SECTIONS;
			struct fw_page_key key = {.space = id, .page = number};
			struct fw_page *source = fw_page_of(from->id, number);

			barrier_var(number);
			if (!source || number >= FW_PAGES || bpf_map_update_elem(&pages, &key, source, BPF_ANY))
				break;
			to->first[number] = from->first[number];
		}
		at = FW_SLOT(page, body, id, from->slot);
		if (!at)
			break;
		at->number = fw_next_number(all);
		to->count++;
	}
	__sync_fetch_and_add(&all->sections, to->count);
	return to->count == from->count;
}

/* A new process: it shares the address space, or has a copy of it. It has not run yet, and is known when all is
 * there. */
static __always_inline void fw_forked(struct task_struct *parent, struct task_struct *child)
{
	struct fw_registry *all = fw_the_registry();
	u64 parent_id, child_id, *known;
	struct fw_space *from, *to;
	u32 pid = child->tgid;
	bool joined = false;

	if (!all || !all->spaces || pid == parent->tgid || !parent->mm || !child->mm)
		return;
	parent_id = fw_space_id(parent->mm);
	child_id = fw_space_id(child->mm);
	known = bpf_map_lookup_elem(&processes, &pid);
	if (known && *known == child_id)
		return;
	/* The end of another process with this pid was missed. */
	if (known)
		fw_leave(pid);
	from = bpf_map_lookup_elem(&spaces, &parent_id);
	if (!from)
		return;
	if (parent_id == child_id) {
		joined = fw_join(pid, child_id, from);
	} else if (from->count) {
		to = fw_make_space(child_id);
		if (to && fw_lock(from, parent_id)) {
			joined = fw_copy(from, to, child_id, all);
			fw_unlock(from);
		}
		joined = joined && fw_join(pid, child_id, to);
		if (!joined)
			fw_drop(child_id);
	} else {
		return;
	}
	if (!joined)
		__sync_fetch_and_add(&all->full, 1);
}

#endif
