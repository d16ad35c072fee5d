// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Asks the reader of frame areas about one pc of the calling process: for tests, which ask the one outside of the
 * kernel too, and for measuring. Nothing is registered and nothing walked. */
#include "walk.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A walk's state. One caller at a time: tests see to that. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fw_walk);
} scratch SEC(".maps");

/* The question, and the answer. */
struct fw_question {
	struct fw_section area;
	u64 pc;
	u32 times; /* asked in a row; the last answer counts */
	enum fw_lookup answer;
	u64 nanoseconds; /* of all */
	u32 slot;        /* plus 1 */
	u32 generation;
	u32 how;
	u32 name_len;
	struct fw_rule rule;
	u8 name[FW_AREA_MAX_NAME + 1];
};

struct fw_question question_layout;

/* How far one lookup goes, at most: its stages, and the pieces of its rows. */
#define FW_MOST_STAGES 1024

static __always_inline u32 ask(struct fw_walk *w, u64 pc)
{
	u32 found = FW_LOOKUP_MISS;

	w->searching = 0;
	w->pieces = 0;
	w->piece_len = 0;
	w->area.len = 0;
	w->area.seen = 0;
	for (u32 i = FW_MOST_STAGES + fw_nought; i && found == FW_LOOKUP_MISS && can_loop; i--) {
		found = fw_area_look(w, pc);
		if (found == FW_LOOKUP_MISS && !(w->area.len ? fw_fetch_area(w, true) : fw_fetch_piece(w, true)))
			break;
	}
	return found;
}

SEC("syscall")
int look(struct fw_question *question)
{
	u32 zero = 0, times = question->times + fw_nought;
	struct fw_walk *w = bpf_map_lookup_elem(&scratch, &zero);
	u64 begin = bpf_ktime_get_ns();

	if (!w)
		return 1;
	w->sections[0].section = question->area;
	w->section = 0;
	for (; times && can_loop; times--)
		question->answer = ask(w, question->pc);
	question->nanoseconds = bpf_ktime_get_ns() - begin;
	question->slot = w->area.slot;
	question->generation = w->area.generation;
	question->how = w->area.slot ? w->area.hit.how : w->sections[0].section.how;
	question->rule = w->rule;
	question->name_len = w->area.unnamed ? w->name.len : 0;
	__builtin_memcpy(question->name, w->name.bytes, sizeof(question->name));
	return 0;
}

/* A walk from a frame that is made up, by sections that nobody registered. */
struct fw_from {
	u64 pc;
	u64 sp;
	u64 fp;
	u32 limit;
	u32 origin;
	u32 is_return;
	u32 num_sections;
	struct fw_section sections[FW_SECTIONS];
	u32 stop; /* the answer; the frames are in the walk's state */
	u32 pad;
};

struct fw_from from_layout;

SEC("syscall")
int walk_from(struct fw_from *from)
{
	u32 zero = 0;
	struct fw_walk *w = bpf_map_lookup_elem(&scratch, &zero);

	if (!w)
		return 1;
	w->num_kernel = 0;
	w->may_defer = 0;
	fw_begin(w, from->limit);
	w->pc = from->pc;
	w->sp = from->sp;
	w->fp = from->fp;
	w->origin = from->origin;
	w->is_return = !!from->is_return;
	/* The registers of this call are nobody's business. */
	w->top = 0;
	w->announced = from->num_sections > 0;
	w->num_sections = from->num_sections;
	w->gap_start = w->gap_end = 0;
	for (u32 i = 0; i < FW_SECTIONS; i++)
		w->sections[i].section = from->sections[i];
	from->stop = fw_run(w, true);
	return 0;
}
