/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From a place in code to the rule that holds there, by an SFrame section. It lies either in the arena, made by the
 * loader (V3, in the space of file offsets), or in the memory of the process that announced it (V2 or V3, in the space
 * of its addresses). The one was checked whole before it was put there, the other is an allegation: every bound is
 * checked for both. */
#ifndef FRAMEWALK_LOOKUP_H
#define FRAMEWALK_LOOKUP_H

#include "cache.h"
#include "sframe.h"

/* ---- the section ------------------------------------------------------------------------------
 * Bytes of a section in user memory come in pieces. What needs one that is not there sets w->miss and is
 * begun again when its caller has fetched it: w->search keeps where it stood. */

/* Whether `len` bytes at `at` (from the section's first byte) can be read. */
static __always_inline bool fw_ready(struct fw_walk *w, u64 at, u32 len)
{
	u64 inside = w->table.at + at - w->piece_at;

	/* Nothing may be wanted of a section's very end: a last row without words. */
	if (!w->table.user || (inside <= w->piece_len && w->piece_len - inside >= len))
		return true;
	w->miss = w->table.at + at;
	return false;
}

/* A number of `size` bytes (1, 2, 4 or 8). One load instruction may not serve both memories, so the compiler
 * is kept from merging the branches: their ends differ. */
static __always_inline u64 fw_get(struct fw_walk *w, u64 at, u32 size)
{
	u64 from = w->table.at + at, number;

	if (w->table.user) {
		u8 *piece = &w->piece[(from - w->piece_at) & (FW_PIECE - 1)];

		number = size == 1 ? *piece : size == 2 ? *(u16 *)piece : size == 4 ? *(u32 *)piece : *(u64 *)piece;
		fw_move_var(number);
	} else {
		number = size == 1 ? fw_load8(from) : size == 2 ? fw_load16(from) : size == 4 ? fw_load32(from) : fw_load64(from);
		barrier_var(number);
	}
	return number;
}

/* A word of a row: 1, 2 or 4 bytes. */
static __always_inline u32 fw_unsigned_word(struct fw_walk *w, u64 at, u32 size)
{
	if (size == 1)
		return fw_get(w, at, 1);
	if (size == 2)
		return fw_get(w, at, 2);
	return fw_get(w, at, 4);
}

static __always_inline s32 fw_word(struct fw_walk *w, u64 at, u32 size)
{
	u32 word = fw_unsigned_word(w, at, size);

	/* Extended in the register: the load itself must not, older kernels refuse that in an arena. */
	barrier_var(word);
	if (size == 1)
		return (s8)word;
	if (size == 2)
		return (s16)word;
	return (s32)word;
}

/* A FLEX entity (specification, section 4.2): a control word and an offset, or padding. Packed, because
 * this is a function that the verifier follows once and for all: offset (32 bits), register (4),
 * kind (2), words used (2), and whether it is malformed. */
#define FW_ENTITY_REG(entity) ((entity) >> 32 & 15)
#define FW_ENTITY_KIND(entity) ((entity) >> 36 & 3)
#define FW_ENTITY_WORDS(entity) ((entity) >> 38 & 3)
#define FW_ENTITY_BAD (1ull << 40)

/* The entity at `at` with `left` words of `size` bytes before the row's end. */
__noinline u64 fw_entity(struct fw_walk *w, u64 at, u32 left, u32 size)
{
	u32 control, reg, kind;

	FW_USE_ARENA();
	if (!w || !left)
		return FW_RULE_SAME;
	control = fw_unsigned_word(w, at, size);
	if (!control)
		return 1ull << 38;
	reg = control >> 3;
	if (left < 2 || control & 4 || reg > 15 || (!(control & 1) && reg))
		return FW_ENTITY_BAD;
	if (control & 1)
		kind = control & 2 ? FW_RULE_AT_REG : FW_RULE_VALUE_REG;
	else
		kind = FW_RULE_AT_CFA;
	return (u32)fw_word(w, at + size, size) | (u64)reg << 32 | (u64)kind << 36 | 2ull << 38;
}

/* Lowers the words of a FLEX row. */
static __always_inline int fw_lower_flex(struct fw_walk *w, u64 at, u32 left, u32 size)
{
	struct fw_rule *rule = &w->rule;
	u64 cfa, ra, fp;

	cfa = fw_entity(w, at, left, size);
	at += FW_ENTITY_WORDS(cfa) * size;
	left -= FW_ENTITY_WORDS(cfa);
	ra = fw_entity(w, at, left, size);
	at += FW_ENTITY_WORDS(ra) * size;
	left -= FW_ENTITY_WORDS(ra);
	fp = fw_entity(w, at, left, size);
	left -= FW_ENTITY_WORDS(fp);
	if ((cfa | ra | fp) & FW_ENTITY_BAD || left)
		return FW_LOOKUP_BAD;
	if (FW_ENTITY_KIND(cfa) != FW_RULE_AT_REG && FW_ENTITY_KIND(cfa) != FW_RULE_VALUE_REG)
		return FW_LOOKUP_BAD;
	rule->cfa_reg = FW_ENTITY_REG(cfa);
	rule->cfa_deref = FW_ENTITY_KIND(cfa) == FW_RULE_AT_REG;
	rule->cfa_off = cfa;
	if (FW_ENTITY_KIND(ra) != FW_RULE_SAME) {
		rule->ra_kind = FW_ENTITY_KIND(ra);
		rule->ra_reg = FW_ENTITY_REG(ra);
		rule->ra_off = ra;
	}
	rule->fp_kind = FW_ENTITY_KIND(fp);
	rule->fp_reg = FW_ENTITY_REG(fp);
	rule->fp_off = fp;
	return FW_LOOKUP_FOUND;
}

static __always_inline bool fw_is_v2(const struct fw_walk *w)
{
	return w->table.user && w->table.version == SFRAME_V2;
}

/* Lowers the row whose words are at `at`. AMD64: RA is at CFA - 8 unless FLEX says otherwise. */
static __always_inline int fw_lower(struct fw_walk *w, u64 at, u32 info, bool flex)
{
	u32 words = info >> 1 & 15, size = info >> 5 & 3;
	struct fw_rule *rule = &w->rule;

	if (size > 2)
		return FW_LOOKUP_BAD;
	size = 1u << size;
	if (!fw_ready(w, at, words * size))
		return FW_LOOKUP_MISS;
	rule->outermost = words == 0;
	if (rule->outermost)
		return FW_LOOKUP_FOUND;
	if (info & SFRAME_ROW_SIGNED_RA)
		return FW_LOOKUP_BAD;
	rule->ra_kind = FW_RULE_AT_CFA;
	rule->ra_off = -8;
	if (flex)
		return fw_lower_flex(w, at, words, size);
	if (words > 2)
		return FW_LOOKUP_BAD;
	rule->cfa_reg = info & SFRAME_ROW_BASE_SP ? FW_REG_SP : FW_REG_FP;
	rule->cfa_off = fw_word(w, at, size);
	rule->fp_kind = words == 2 ? FW_RULE_AT_CFA : FW_RULE_SAME;
	rule->fp_off = words == 2 ? fw_word(w, at + size, size) : 0;
	return FW_LOOKUP_FOUND;
}

/* Where the function with the index entry at `entry` starts: relative to the field or the section. False where that
 * leaves 64 bits. */
static __always_inline bool fw_function_start(struct fw_walk *w, u64 entry, u64 *start)
{
	s64 offset = fw_is_v2(w) ? (s64)(s32)fw_get(w, entry, 4) : (s64)fw_get(w, entry, 8);

	return fw_add(w->table.base + (w->table.pcrel ? entry : 0), offset, start);
}

/* The last function that starts at or before the place: search.first. */
static __always_inline int fw_find_function(struct fw_walk *w, struct fw_search *search, u32 entry_size)
{
	while (search->count > 1 && can_loop) {
		u32 half = search->count / 2;
		u64 entry = w->table.index + (u64)(search->first + half) * entry_size, start;

		if (!fw_ready(w, entry, 8))
			return FW_LOOKUP_MISS;
		search->count -= half;
		if (!fw_function_start(w, entry, &start))
			return FW_LOOKUP_BAD;
		if (start <= search->place)
			search->first += half;
		else
			search->count = half;
	}
	return FW_LOOKUP_FOUND;
}

/* Whether the next function starts far behind `end`. Sections that processes announce say nothing of the code beside
 * their functions. */
static __always_inline bool fw_in_large_hole(struct fw_walk *w, struct fw_search *search, u64 end)
{
	u32 number = search->first + search->passed;
	u64 entry = w->table.index + (u64)number * SFRAME_ENTRY_V3, next;

	if (w->table.user || number + 1 >= w->table.functions)
		return false;
	/* What was passed over has no bytes: it ends where it starts. */
	if (search->passed && !fw_function_start(w, entry, &end))
		return false;
	if (!fw_function_start(w, entry + SFRAME_ENTRY_V3, &next))
		return false;
	return next >= end && next - end >= FW_MIN_HOLE;
}

/* What the index says of the function; V2 has all of it there. */
static __always_inline int fw_read_entry(struct fw_walk *w, struct fw_search *search)
{
	bool v2 = fw_is_v2(w);
	u32 entry_size = v2 ? SFRAME_ENTRY_V2 : SFRAME_ENTRY_V3, size, rows_at;
	u64 entry, start;
	int found;

	found = fw_find_function(w, search, entry_size);
	if (found)
		return found;
	/* Functions without bytes exist, also at the start of another one. */
	while (true) {
		entry = w->table.index + (u64)search->first * entry_size;
		if (!fw_ready(w, entry, entry_size))
			return FW_LOOKUP_MISS;
		size = fw_get(w, entry + (v2 ? 4 : 8), 4);
		if (size || !search->first || search->passed >= SFRAME_MAX_EMPTY || !can_loop)
			break;
		search->first--;
		search->passed++;
	}
	if (!fw_function_start(w, entry, &start))
		return FW_LOOKUP_BAD;
	entry += v2 ? 4 : 8;
	rows_at = fw_get(w, entry + 4, 4);
	if (start > search->place)
		return FW_LOOKUP_NONE;
	if (search->place - start >= size)
		return fw_in_large_hole(w, search, start + size) ? FW_LOOKUP_HOLE : FW_LOOKUP_NONE;
	if (rows_at > w->table.rows_len)
		return FW_LOOKUP_BAD;
	search->offset = search->place - start;
	search->furthest = size;
	search->at = w->table.rows_at + (u64)rows_at;
	search->info2 = 0;
	if (v2) {
		search->rows = fw_get(w, entry + 8, 4);
		search->info = fw_get(w, entry + 12, 1);
		search->block = fw_get(w, entry + 13, 1);
	}
	return FW_LOOKUP_FOUND;
}

/* What V3 has in front of the rows, and what follows from it. */
static __always_inline int fw_read_attribute(struct fw_walk *w, struct fw_search *search)
{
	if (!fw_is_v2(w)) {
		if (search->end - search->at < SFRAME_ATTR_SIZE)
			return FW_LOOKUP_BAD;
		if (!fw_ready(w, search->at, SFRAME_ATTR_SIZE))
			return FW_LOOKUP_MISS;
		search->rows = fw_get(w, search->at, 2);
		search->info = fw_get(w, search->at + 2, 1);
		search->info2 = fw_get(w, search->at + 3, 1);
		search->block = fw_get(w, search->at + 4, 1);
		search->at += SFRAME_ATTR_SIZE;
		w->rule.signal = search->info >> 7;
	}
	if (search->info & SFRAME_INFO_MASK_PC) {
		if (!search->block)
			return FW_LOOKUP_BAD;
		search->offset %= search->block;
		search->furthest = search->block - 1;
	}
	if (search->info & (fw_is_v2(w) ? SFRAME_INFO_NOT_V2 : SFRAME_INFO_NOT_V3))
		return FW_LOOKUP_BAD;
	return (search->info & 15) > 2 || search->info2 > SFRAME_INFO2_FLEX ? FW_LOOKUP_BAD : FW_LOOKUP_FOUND;
}

/* The last row that starts at or before the place: its words are at search.hit. Every row up to the one behind it
 * has to be sound. */
static __always_inline int fw_find_row(struct fw_walk *w, struct fw_search *search)
{
	u32 address_size = 1u << (search->info & 3);

	/* Counting down from a number that the verifier cannot know keeps it from following each turn. */
	for (; search->rows && can_loop; search->rows--) {
		u64 at = search->at, start, next;
		u32 info;

		if (search->end < at || search->end - at < address_size + 1)
			return FW_LOOKUP_BAD;
		if (!fw_ready(w, at, address_size + 1))
			return FW_LOOKUP_MISS;
		start = fw_unsigned_word(w, at, address_size);
		info = fw_get(w, at + address_size, 1);
		at += address_size + 1;
		next = at + ((info >> 1 & 15) << (info >> 5 & 3));
		if ((info >> 5 & 3) > 2 || next > search->end || start < search->least || start > search->furthest)
			return FW_LOOKUP_BAD;
		if (start > search->offset)
			break;
		search->least = start + 1;
		search->hit = at;
		search->hit_info = info;
		search->at = next;
	}
	return search->hit ? FW_LOOKUP_FOUND : FW_LOOKUP_NONE;
}

/* Searches w->table for the rule at search.place, from where the search stands. */
__noinline int fw_search(struct fw_walk *w)
{
	struct fw_search *search;
	int found;

	FW_USE_ARENA();
	if (!w)
		return FW_LOOKUP_BAD;
	search = &w->search;
	if (search->stage == FW_SEARCH_INDEX) {
		found = fw_read_entry(w, search);
		if (found)
			return found;
		search->stage = FW_SEARCH_ATTRIBUTE;
	}
	if (search->stage == FW_SEARCH_ATTRIBUTE) {
		found = fw_read_attribute(w, search);
		if (found)
			return found;
		search->stage = FW_SEARCH_ROWS;
		/* So much is looked through, of longer functions nothing is found. */
		if (search->end - search->at > FW_MAX_ROW_BYTES)
			search->end = search->at + FW_MAX_ROW_BYTES;
		if (!search->rows) {
			/* Without rows: V3's outermost, unless it is a signal frame that an assembler could not describe, or
			 * says that its rows are flexible. */
			w->rule.outermost = 1;
			return w->rule.signal || search->info2 || fw_is_v2(w) ? FW_LOOKUP_NONE : FW_LOOKUP_FOUND;
		}
	}
	found = fw_find_row(w, search);
	return found ? found : fw_lower(w, search->hit, search->hit_info, search->info2 & 1);
}

/* Begins a search in w->table. */
static __always_inline void fw_search_begin(struct fw_walk *w, u64 place)
{
	struct fw_rule blank = {};

	w->rule = blank;
	w->search.stage = FW_SEARCH_INDEX;
	w->search.place = place;
	w->search.first = 0;
	w->search.passed = 0;
	w->search.count = w->table.functions;
	w->search.end = w->table.rows_at + (u64)w->table.rows_len;
	w->search.hit = 0;
	w->search.least = 0;
}

#endif
