/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The announced sections of an address space, as a walk reads them: without a lock, at any moment, also in an
 * interrupt of the very thread that is changing them. sorted.h changes them.
 *
 *     spaces   address space   -> count, and where each page begins
 *     pages    (space, number) -> up to 45 sections; all pages together are one sorted array
 *     uses     section number  -> what it was good for
 *
 * A writer makes the space's sequence odd, changes, and makes it even. A reader that finds it odd, or another
 * one afterwards, reads again. What it read meanwhile may be anything, also another space's: entries of maps
 * are used again at once when they are deleted, but their memory stays theirs while a program runs. */
#ifndef FRAMEWALK_SPACES_H
#define FRAMEWALK_SPACES_H

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fw_registry);
} registry SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct fw_space);
} spaces SEC(".maps");

/* 64 MB at most, for the whole machine. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct fw_page_key);
	__type(value, struct fw_page);
} pages SEC(".maps");

/* Made by the walks, and nobody unmakes it: what was not used for long is forgotten first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct fw_use);
} uses SEC(".maps");

/* How often a walk reads again before it calls the registry busy. A writer cannot be preempted, but it can be
 * the thread that this interrupt interrupted. */
#define FW_SPACE_TRIES 4

static __always_inline struct fw_registry *fw_the_registry(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&registry, &zero);
}

/* A number that no other address space will ever have (arch/x86/include/asm/mmu.h). */
static __always_inline u64 fw_space_id(struct mm_struct *mm)
{
	return mm->context.ctx_id;
}

static __always_inline struct fw_page *fw_page_of(u64 space, u32 number)
{
	struct fw_page_key key = {.space = space, .page = number};

	return bpf_map_lookup_elem(&pages, &key);
}

/* Reads the section that holds `pc` into `found`, whose text is then its own; or an empty one with the gap that
 * holds `pc` as its text. False where what it read was changing. */
__noinline int fw_space_read(struct fw_space *space, u64 id, u64 pc, struct fw_section *found)
{
	u32 sequence, count, page = 0, left, at = 0;
	struct fw_page *body;

	if (!space || !found)
		return false;
	sequence = READ_ONCE(space->sequence);
	barrier();
	count = space->count;
	left = (count + FW_PAGE_SECTIONS - 1) / FW_PAGE_SECTIONS;
	if (sequence & 1 || space->id != id)
		return false;
	found->start = 0;
	found->end = FW_USER_END;
	found->number = 0;
	if (!left)
		goto read;
	/* The last page that begins at or before pc. */
	while (left > 1 && can_loop) {
		u32 half = left / 2, middle = page + half;

		if (middle >= FW_PAGES)
			return false;
		left -= half;
		if (space->first[middle] <= pc)
			page = middle;
		else
			left = half;
	}
	body = fw_page_of(id, page);
	if (!body)
		return false;
	left = count - page * FW_PAGE_SECTIONS;
	if (left > FW_PAGE_SECTIONS) {
		left = FW_PAGE_SECTIONS;
		/* The next page's first section bounds the gap behind this one's last. */
		if (page + 1 < FW_PAGES)
			found->end = space->first[page + 1];
	}
	/* Through memory, so that the verifier does not know it: it would follow each way to halve it. */
	WRITE_ONCE(found->rows, left);
	left = READ_ONCE(found->rows);
	/* The last section that starts at or before pc. */
	while (left > 1 && can_loop) {
		u32 half = left / 2, middle = at + half;

		if (middle >= FW_PAGE_SECTIONS)
			return false;
		left -= half;
		if (body->sections[middle].start <= pc) {
			at = middle;
		} else {
			found->end = body->sections[middle].start;
			left = half;
		}
	}
	if (at >= FW_PAGE_SECTIONS)
		return false;
	if (body->sections[at].start > pc) {
		found->end = body->sections[at].start;
	} else if (pc >= body->sections[at].end) {
		found->start = body->sections[at].end;
	} else {
		*found = body->sections[at];
	}
read:
	barrier();
	return READ_ONCE(space->sequence) == sequence && space->id == id;
}

#endif
