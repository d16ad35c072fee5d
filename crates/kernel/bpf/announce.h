/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Registering and unregistering (docs/abi.md), one implementation for all hooks. Every word of a call and every
 * byte of a section is an allegation. The same semantics in Rust, and the oracle for these, is the
 * registry of crates/walk.
 *
 * Reads of user memory come first, without the lock, for they may sleep. Then the space is locked, looked
 * through once, and changed or not. While it is locked nothing can preempt, so that nobody waits long. */
#ifndef FRAMEWALK_ANNOUNCE_H
#define FRAMEWALK_ANNOUNCE_H

#include "sframe.h"
#include "spaces.h"

/* Which address space a process has, for those that have registered or were forked by one that has. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, u64);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1024 * 1024);
} heard SEC(".maps");

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

/* ---- what a section says of itself ---------------------------------------------------------- */

static __always_inline long fw_read_header(struct fw_section *section, u32 size, bool sleepable)
{
	struct sframe_header header;
	u64 base, index_end, rows_at;
	bool v2;

	if (size < sizeof(header))
		return -FW_EBADMSG;
	if (fw_read_user(&header, sizeof(header), section->address, sleepable))
		return -FW_EFAULT;
	if (header.magic != SFRAME_MAGIC)
		return -FW_EBADMSG;
	v2 = header.version == SFRAME_V2;
	if ((!v2 && header.version != SFRAME_V3) || header.abi != SFRAME_ABI_AMD64)
		return -FW_EPROTONOSUPPORT;
	if (header.flags & ~(v2 ? SFRAME_FLAGS_V2 : SFRAME_FLAGS_V3) || !(header.flags & SFRAME_SORTED))
		return -FW_EBADMSG;
	if (header.fixed_fp || header.fixed_ra != -8 || !header.functions)
		return -FW_EBADMSG;
	/* In 64 bits none of these sums overflows. */
	base = sizeof(header) + header.auxiliary;
	index_end = base + header.index + (u64)header.functions * (v2 ? SFRAME_ENTRY_V2 : SFRAME_ENTRY_V3);
	rows_at = base + header.rows_at;
	if (index_end > rows_at || rows_at + header.rows_len > size)
		return -FW_EBADMSG;
	section->length = size;
	section->version = header.version;
	section->pcrel = !!(header.flags & SFRAME_PCREL);
	section->functions = header.functions;
	section->rows = header.rows;
	section->index = base + header.index;
	section->rows_at = rows_at;
	section->rows_len = header.rows_len;
	return 0;
}

/* Start and size of the function with this number, and whether the start left 64 bits. */
static __always_inline long fw_read_function(const struct fw_section *section, u32 number, u64 *start, u32 *size,
					     bool *wraps, bool sleepable)
{
	bool v2 = section->version == SFRAME_V2;
	u64 base = section->address, at = base + section->index + (u64)number * (v2 ? SFRAME_ENTRY_V2 : SFRAME_ENTRY_V3);
	/* Start of 4 bytes (V2) or 8, size; what follows is only for walks. */
	struct {
		u32 low;
		u32 high;
		u32 size;
		u32 rest[2];
	} entry;
	s64 offset;

	if (fw_read_user(&entry, v2 ? SFRAME_ENTRY_V2 : SFRAME_ENTRY_V3, at, sleepable))
		return -FW_EFAULT;
	offset = v2 ? (s64)(s32)entry.low : (s64)((u64)entry.high << 32 | entry.low);
	*size = v2 ? entry.high : entry.size;
	if (section->pcrel)
		base = at;
	*start = base + offset;
	if ((offset < 0) != (*start < base))
		*wraps = true;
	return 0;
}

static __always_inline long fw_read_section(struct fw_section *section, u64 size, bool sleepable)
{
	bool wraps = false;
	u32 last_size;
	u64 last;
	long error;

	error = fw_read_header(section, size, sleepable);
	if (!error)
		error = fw_read_function(section, 0, &section->start, &last_size, &wraps, sleepable);
	last = section->start;
	/* Each is read once; what cannot be read is said before what is nonsense. */
	if (!error && section->functions > 1)
		error = fw_read_function(section, section->functions - 1, &last, &last_size, &wraps, sleepable);
	if (error)
		return error;
	section->end = last + last_size;
	if (wraps || section->end < last || !section->start || section->start >= section->end ||
	    section->end > FW_USER_END)
		return -FW_EBADMSG;
	return 0;
}

/* Whether the section can be written where it is mapped: the mapping of its first byte counts. */
static __always_inline bool fw_is_writable(u64 address)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;
	bool writable = false;
	u64 entry;

	bpf_rcu_read_lock();
	entry = mm ? fw_maple_find(fw_kernel_word((u64)&mm->mm_mt.ma_root), address) : 0;
	if (entry) {
		struct vm_area_struct *vma = FW_TYPED(vm_area_struct, entry);

		writable = vma->vm_mm == mm && vma->vm_flags & FW_VM_WRITE;
	}
	bpf_rcu_read_unlock();
	return writable;
}

/* ---- the sorted array ------------------------------------------------------------------------ */

/* Where the section with this number stands: `page` is its page's and is looked up when that changes. */
#define FW_SLOT(page, body, id, slot) \
	({ \
		struct fw_section *_at = NULL; \
		u32 _page = (slot) / FW_PAGE_SECTIONS, _in = (slot) - _page * FW_PAGE_SECTIONS; \
		if (!body || _page != page) { \
			page = _page; \
			body = fw_page_of(id, page); \
		} \
		/* The number that is checked shall be the one that is used. */ \
		barrier_var(_in); \
		if (body && _in < FW_PAGE_SECTIONS) \
			_at = &body->sections[_in]; \
		_at; \
	})

#define FW_FOR_EACH_SLOT(space) for ((space)->slot = 0; (space)->slot < (space)->count && can_loop; (space)->slot++)

/* Looks for the text of `section`, and for sections of its key, which stay only if `keep`. */
static __always_inline bool fw_look_through(struct fw_space *space, const struct fw_section *section, bool keep)
{
	struct fw_page *body = NULL;
	u64 id = space->id;
	u32 page = 0;

	space->before = space->matches = space->overlap = 0;
	FW_FOR_EACH_SLOT(space) {
		struct fw_section *at = FW_SLOT(page, body, id, space->slot);

		if (!at)
			return false;
		if (at->key == section->key) {
			space->matches++;
			if (!keep)
				continue;
		}
		if (at->start < section->end && section->start < at->end)
			space->overlap = 1;
		if (at->start < section->start)
			space->before++;
	}
	return true;
}

/* Puts a section where it belongs. */
static __always_inline void fw_place(struct fw_space *space, struct fw_section *at, const struct fw_section *section,
				     u32 page, u32 slot)
{
	*at = *section;
	if (slot == page * FW_PAGE_SECTIONS && page < FW_PAGES)
		space->first[page] = section->start;
}

/* Takes out the sections of the key. */
static __always_inline void fw_take_out(struct fw_space *space, u64 key)
{
	struct fw_page *from_body = NULL, *to_body = NULL;
	u32 from_page = 0, to_page = 0;
	u64 id = space->id;

	space->to = 0;
	FW_FOR_EACH_SLOT(space) {
		struct fw_section *from = FW_SLOT(from_page, from_body, id, space->slot), *at;

		if (!from)
			break;
		if (from->key == key)
			continue;
		at = FW_SLOT(to_page, to_body, id, space->to);
		if (!at)
			break;
		fw_place(space, at, from, to_page, space->to);
		space->to++;
	}
	space->count = space->to;
}

/* Puts the section behind `space->before` others. Its page exists. */
static __always_inline void fw_put_in(struct fw_space *space, const struct fw_section *section)
{
	struct fw_page *from_body = NULL, *to_body = NULL;
	u32 from_page = 0, to_page = 0;
	u64 id = space->id;

	for (space->to = space->count; can_loop; space->to--) {
		struct fw_section *at = FW_SLOT(to_page, to_body, id, space->to), *from;

		if (!at)
			break;
		if (space->to <= space->before) {
			fw_place(space, at, section, to_page, space->to);
			break;
		}
		from = FW_SLOT(from_page, from_body, id, space->to - 1);
		if (!from)
			break;
		fw_place(space, at, from, to_page, space->to);
	}
	space->count++;
}

/* The id of a space that is gone, as long as somebody can still see it. */
#define FW_DROPPED (~0ull)

/* ---- spaces ----------------------------------------------------------------------------------- */

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

/* A new space belongs to everybody who has the address space: children of vfork(2) and clone(2) that were made
 * before it are not known yet, nor are their parents. That is asked of all threads of the machine, but only where more
 * threads have the address space than this process. Whoever comes later is told of by fw_forked(). */
static __always_inline void fw_join_sharers(u64 id, struct fw_space *space)
{
	struct task_struct *current = bpf_get_current_task_btf(), *task;
	struct mm_struct *mm = current->mm;
	struct bpf_iter_task it;

	if (!mm || mm->mm_users.counter <= current->signal->live.counter)
		return;
	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, NULL, FW_ALL_THREADS);
	while ((task = bpf_iter_task_next(&it))) {
		if (task->mm != mm || task->flags & FW_KERNEL_THREAD)
			continue;
		fw_join(task->tgid, id, space);
		/* It may have left meanwhile, when nobody knew that it had come. */
		if (!task->signal->live.counter || (task->mm && task->mm != mm))
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

/* ---- the two calls ------------------------------------------------------------------------------ */

__noinline long fw_insert(struct fw_section *section, u64 id, bool replace)
{
	struct fw_registry *all = fw_the_registry();
	struct fw_space *space;
	u32 count;
	long answer;

	if (!section || !all)
		return -FW_ENOSPC;
	space = bpf_map_lookup_elem(&spaces, &id);
	if (!space) {
		space = fw_make_space(id);
		if (space)
			fw_join_sharers(id, space);
	}
	if (!space || !fw_join(bpf_get_current_pid_tgid() >> 32, id, space) || !fw_lock(space, id)) {
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
	} else if (!(replace || fw_room(space))) {
		answer = -FW_ENOSPC;
		__sync_fetch_and_add(&all->full, 1);
	} else {
		section->number = fw_next_number(all);
		fw_change(space);
		if (replace)
			fw_take_out(space, section->key);
		fw_put_in(space, section);
		fw_changed(space);
		__sync_fetch_and_add(&all->sections, (u64)space->count - count);
		answer = fw_id(section->number);
	}
	fw_unlock(space);
	return answer;
}

static __always_inline long fw_register(const struct fw_call *call, u64 id, struct fw_section *section, bool sleepable)
{
	long error;

	if (call->how & ~FW_REPLACE)
		return -FW_EINVAL;
	if (!call->address || !call->length || call->length >> 32 || call->address > FW_USER_END ||
	    call->length > FW_USER_END - call->address)
		return -FW_EINVAL;
	section->key = call->key;
	section->address = call->address;
	error = fw_read_section(section, call->length, sleepable);
	if (error)
		return error;
	section->writable = fw_is_writable(section->address);
	return fw_insert(section, id, call->how & FW_REPLACE);
}

__noinline long fw_unregister(u64 id, u64 key)
{
	struct fw_registry *all = fw_the_registry();
	struct fw_space *space = bpf_map_lookup_elem(&spaces, &id);
	/* A text that nothing overlaps. */
	struct fw_section section = {.key = key};
	u32 removed = 0;

	if (!space || !all || !fw_lock(space, id))
		return -FW_ENOENT;
	if (fw_look_through(space, &section, true) && space->matches) {
		removed = space->matches;
		fw_change(space);
		fw_take_out(space, key);
		fw_changed(space);
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
		return fw_register(call, id, section, sleepable);
	if (call->address || call->length || call->how)
		return -FW_EINVAL;
	return fw_unregister(id, call->key);
}

/* ---- life --------------------------------------------------------------------------------------- */

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
