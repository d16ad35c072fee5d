/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Walking by announced sections: which one holds a pc, and their bytes, read piece by piece from the memory of
 * the process. A section that cannot be read, or is nonsense, is counted and passed over: the code is then
 * walked as if nobody had announced anything. */
#ifndef FRAMEWALK_ANNOUNCED_H
#define FRAMEWALK_ANNOUNCED_H

/* Pieces that one frame may need, at most: a function index of any length takes 23, rows the rest. */
#define FW_PIECES 64

/* Forgets what earlier walks knew of sections unless it still holds. */
static __always_inline void fw_keep_sections(struct fw_walk *w, struct mm_struct *mm)
{
	struct fw_registry *all = fw_the_registry();
	u64 id = mm ? fw_space_id(mm) : 0;
	struct fw_space *space = NULL;
	u32 sequence = 0;

	if (all && all->spaces && id)
		space = bpf_map_lookup_elem(&spaces, &id);
	w->announced = space && (space->count || space->sequence & 1);
	if (space)
		sequence = space->sequence;
	if (w->space == id && w->space_sequence == sequence && !(sequence & 1))
		return;
	w->space = id;
	w->space_sequence = sequence;
	w->num_sections = 0;
	w->gap_start = w->gap_end = 0;
}

/* Notes what the sections were good for. */
__noinline int fw_note_uses(struct fw_walk *w)
{
	if (!w)
		return 0;
	for (u32 i = 0; i < FW_SECTIONS; i++) {
		struct fw_near *near = &w->sections[i];
		struct fw_use *use;

		if (!(near->frames | near->unreadable | near->malformed))
			continue;
		use = bpf_map_lookup_elem(&uses, &near->section.number);
		if (!use) {
			struct fw_use unused = {};

			bpf_map_update_elem(&uses, &near->section.number, &unused, BPF_NOEXIST);
			use = bpf_map_lookup_elem(&uses, &near->section.number);
		}
		if (use) {
			__sync_fetch_and_add(&use->frames, near->frames);
			__sync_fetch_and_add(&use->unreadable, near->unreadable);
			__sync_fetch_and_add(&use->malformed, near->malformed);
		}
		if (near->unreadable)
			FW_COUNT(unreadable, near->unreadable);
		if (near->malformed)
			FW_COUNT(malformed_sections, near->malformed);
		near->frames = near->unreadable = near->malformed = 0;
	}
	return 0;
}

/* Makes w->section the section of `pc`. */
__noinline int fw_section_of(struct fw_walk *w, u64 pc)
{
	struct fw_space *space;
	struct fw_near *near;
	bool read = false;

	if (!w)
		return FW_LOOKUP_NONE;
	if (pc - w->gap_start < w->gap_end - w->gap_start)
		return FW_LOOKUP_NONE;
	for (u32 i = 0; i < FW_SECTIONS; i++) {
		near = &w->sections[i];
		if (i < w->num_sections && pc - near->section.start < near->section.end - near->section.start) {
			w->section = i;
			return FW_LOOKUP_FOUND;
		}
	}
	space = bpf_map_lookup_elem(&spaces, &w->space);
	if (!space)
		return FW_LOOKUP_NONE;
	if (w->num_sections >= FW_SECTIONS) {
		fw_note_uses(w);
		w->num_sections = 0;
	}
	near = &w->sections[w->num_sections & (FW_SECTIONS - 1)];
	for (u32 i = 0; i < FW_SPACE_TRIES && !read; i++)
		read = fw_space_read(space, w->space, pc, &near->section);
	if (!read)
		return FW_LOOKUP_MISS;
	if (!near->section.number || near->section.quarantined) {
		w->gap_start = near->section.start;
		w->gap_end = near->section.end;
		return FW_LOOKUP_NONE;
	}
	near->frames = near->unreadable = near->malformed = 0;
	w->section = w->num_sections++;
	return FW_LOOKUP_FOUND;
}

/* Fetches what is at w->miss of the section that is searched, and what it allows around it. */
static __always_inline bool fw_fetch_piece(struct fw_walk *w, bool sleepable)
{
	const struct fw_section *section = &w->sections[w->section & (FW_SECTIONS - 1)].section;
	u64 start = section->address, end = start + section->length, from = w->miss, rest;
	u32 len;

	w->piece_len = 0;
	if (w->miss < start || w->miss >= end || w->pieces++ >= FW_PIECES)
		return false;
	/* The search of the index goes on on either side. */
	if (w->search.stage == FW_SEARCH_INDEX)
		from = w->miss - start < FW_PIECE / 2 ? start : w->miss - FW_PIECE / 2;
	w->piece_at = from;
	len = end - from < FW_PIECE ? end - from : FW_PIECE;
	if (!fw_read_user(w->piece, len & (2 * FW_PIECE - 1), from, sleepable)) {
		w->piece_len = len;
		return true;
	}
	/* Some of it is not there. */
	rest = 4096 - (w->miss & 4095);
	w->piece_at = w->miss;
	len = end - w->miss < FW_PIECE ? end - w->miss : FW_PIECE;
	len = rest < len ? rest : len;
	if (fw_read_user(w->piece, len & (2 * FW_PIECE - 1), w->miss, sleepable))
		return false;
	w->piece_len = len;
	return true;
}

/* FW_BY_RULE: by w->rule; FW_GO: nothing says anything; FW_MISS: a piece is needed first; or a stop. */
static __always_inline int fw_find_announced(struct fw_walk *w, u64 pc)
{
	struct fw_near *near;
	int found;
	u64 key;

	if (!w->searching) {
		found = fw_section_of(w, pc);
		if (found == FW_LOOKUP_MISS)
			return FW_STOP(FW_STOP_MAPS_BUSY);
		if (found == FW_LOOKUP_NONE)
			return FW_GO;
	}
	near = &w->sections[w->section & (FW_SECTIONS - 1)];
	if (near->section.area)
		return fw_find_in_area(w, near, pc);
	key = fw_cache_key(near->section.number, pc - near->section.start);
	if (!w->searching) {
		if (fw_cached(w, key))
			goto found;
		FW_COUNT(searches, 1);
		w->table.at = near->section.address;
		w->table.base = near->section.address;
		w->table.index = near->section.index;
		w->table.functions = near->section.functions;
		w->table.rows_at = near->section.rows_at;
		w->table.rows_len = near->section.rows_len;
		w->table.user = 1;
		w->table.version = near->section.version;
		w->table.pcrel = near->section.pcrel;
		w->piece_len = 0;
		fw_search_begin(w, pc);
		w->searching = 1;
	}
	found = w->unreadable ? FW_LOOKUP_MISS : fw_search(w);
	if (found == FW_LOOKUP_MISS && !w->unreadable)
		return FW_MISS;
	w->searching = 0;
	if (found == FW_LOOKUP_MISS)
		near->unreadable++;
	if (found == FW_LOOKUP_BAD)
		near->malformed++;
	if (found != FW_LOOKUP_FOUND)
		return FW_GO;
	fw_cache(w, key);
found:
	near->frames++;
	w->rule_origin = FW_ORIGIN_ANNOUNCED;
	return FW_BY_RULE;
}

#endif
