/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Walking by frame areas: memory in which a process describes code that it generates, while it does so. It is read
 * where it is, at any instant, and believed in nothing: every offset is checked, every loop is bounded, and what is
 * found counts only if it reads the same afterwards. The same in Rust: crates/announce/src/area/observe.rs.
 *
 * A lookup is a row of stages, each of which needs some bytes of the area:
 *
 *     WORDS   generation: odd while the area is being reset
 *     INDEX   the words of the granule of the place, and of the one before
 *     ENTRY   of the chains that begin there, each in turn: which live one holds the place?
 *     ROWS    if it has any, searched as in every section (lookup.h)
 *     NAME    its length, and it: if the name was not sent before
 *     AGAIN   the entry once more: is it what it was?
 *     STILL   generation once more
 *
 * What needs bytes says so (FW_LOOKUP_MISS) and is begun again at its stage when they are there: only their fetching
 * depends on whether one may sleep. */
#ifndef FRAMEWALK_AREA_H
#define FRAMEWALK_AREA_H

#include "area_rule.h"
#include "names.h"

/* How often a lookup is begun again in an area that changes meanwhile. */
#define FW_AREA_TRIES 4

/* Asks for `len` bytes at `at` of the area, for a stage. */
static __always_inline int fw_area_want(struct fw_walk *w, const struct fw_section *area, enum fw_area_stage stage, u64 at,
					u32 len)
{
	if (at + len > area->length)
		return FW_LOOKUP_BAD;
	w->area.stage = stage;
	w->area.at = at;
	w->area.len = len;
	return FW_LOOKUP_MISS;
}

/* Fetches what was asked for. */
static __always_inline bool fw_fetch_area(struct fw_walk *w, bool sleepable)
{
	const struct fw_section *area = &w->sections[w->section & (FW_SECTIONS - 1)].section;
	u32 len = w->area.len;

	w->area.len = 0;
	if (!len)
		return false;
	/* The length that is checked shall be the one that is used: both checks in one would be of their difference, and
	 * the verifier of 6.12 would learn nothing of the length. */
	barrier_var(len);
	if (len > sizeof(w->area.bytes))
		return false;
	return !fw_read_user(&w->area.bytes, len, area->address + w->area.at, sleepable);
}

static __always_inline int fw_area_want_words(struct fw_walk *w, const struct fw_section *area, enum fw_area_stage stage)
{
	return fw_area_want(w, area, stage, FW_AREA_GENERATION_AT, sizeof(struct fw_area_words));
}

static __always_inline int fw_area_want_entry(struct fw_walk *w, const struct fw_section *area, enum fw_area_stage stage,
					      u32 slot)
{
	if (!slot || slot > area->capacity)
		return FW_LOOKUP_BAD;
	return fw_area_want(w, area, stage, FW_AREA_HEADER_SIZE + FW_AREA_ENTRY_SIZE * (slot - 1),
			    sizeof(struct fw_area_entry));
}

static __always_inline u64 fw_area_heap_of(const struct fw_section *area)
{
	return fw_area_heap_at(area->capacity, area->end - area->start, area->granule_shift & 31);
}

/* Bytes of the heap that are in use. */
static __always_inline u64 fw_area_heap(const struct fw_walk *w, const struct fw_section *area)
{
	u64 room = area->length - fw_area_heap_of(area);

	return w->area.heap_used < room ? w->area.heap_used : room;
}

static __always_inline const struct fw_section *fw_area_of(const struct fw_walk *w)
{
	return &w->sections[w->section & (FW_SECTIONS - 1)].section;
}

/* ---- what is known from before ---------------------------------------------------------------
 * A producer counts a tombstone before the code goes away. So what was found at a pc still holds while the count is
 * the same, if the pc is on the stack of the thread that is walked, as it is here. The count is read once a walk. */

static __always_inline struct fw_area_known *fw_area_known_at(struct fw_walk *w, u64 pc)
{
	return &w->area.known[pc * FW_CACHE_MIX >> (64 - FW_AREA_KNOWN_BITS)];
}

/* By the words that were seen last, w->rule and w->area.described are what was found before. */
static __always_inline bool fw_area_is_known(struct fw_walk *w, const struct fw_section *area, u64 pc)
{
	const struct fw_area_known *known = fw_area_known_at(w, pc);

	if (known->area != area->number || known->pc != pc || known->generation != w->area.seen_generation ||
	    known->tombstones != w->area.seen_tombstones)
		return false;
	fw_rule_unpack(&w->rule, known->rule);
	w->rule.body = known->body;
	w->area.described = known->described;
	return true;
}

/* Keeps what was found now, if it fits and all that belongs to it was to be had. */
static __always_inline void fw_area_keep(struct fw_walk *w, const struct fw_section *area, u64 pc)
{
	struct fw_area_known *known = fw_area_known_at(w, pc);
	u64 rule = fw_rule_pack(&w->rule);

	if (!rule || !w->area.slot || !area->number || (w->area.hit.how >> 8 & FW_AREA_NAMED && !w->area.named))
		return;
	known->area = area->number;
	known->pc = pc;
	known->generation = w->area.generation;
	known->tombstones = w->area.tombstones;
	known->rule = rule;
	known->body = w->rule.body;
	known->described = w->area.described;
}

/* Begins a lookup. */
__noinline int fw_area_begin(struct fw_walk *w, u64 pc)
{
	const struct fw_section *area;

	if (!w)
		return FW_LOOKUP_BAD;
	area = fw_area_of(w);
	w->area.slot = 0;
	w->area.named = 0;
	w->area.unnamed = 0;
	if (!area->capacity)
		return FW_LOOKUP_NONE;
	if (w->area.seen == area->number && fw_area_is_known(w, area, pc))
		return FW_LOOKUP_KNOWN;
	return fw_area_want_words(w, area, FW_AREA_AT_WORDS);
}

static __always_inline int fw_area_words(struct fw_walk *w, const struct fw_section *area, u64 place)
{
	u64 granule = place >> (area->granule_shift & 31);

	w->area.generation = w->area.bytes.words.generation;
	w->area.tombstones = w->area.bytes.words.tombstones;
	w->area.heap_used = w->area.bytes.words.heap_used;
	if (w->area.generation & 1)
		return FW_LOOKUP_BUSY;
	w->area.seen = area->number;
	w->area.seen_generation = w->area.generation;
	w->area.seen_tombstones = w->area.tombstones;
	if (fw_area_is_known(w, area, area->start + place))
		return FW_LOOKUP_KNOWN;
	/* Granule 0 has the entries before it. */
	return fw_area_want(w, area, FW_AREA_AT_INDEX, fw_area_index_at(area->capacity) + 4 * granule - 4, 8);
}

/* The next entry of the chain; behind the last one the other chain; behind that what was found is looked into. */
static __always_inline int fw_area_next(struct fw_walk *w, const struct fw_section *area)
{
	if (!w->area.next) {
		w->area.word = w->area.before;
		w->area.next = w->area.before & ~FW_AREA_COVERED;
		w->area.before = 0;
		w->area.hops = 0;
	}
	if (!w->area.next)
		return FW_LOOKUP_FOUND;
	if (w->area.hops++ >= FW_AREA_MAX_HOPS)
		return FW_LOOKUP_BAD;
	return fw_area_want_entry(w, area, FW_AREA_AT_ENTRY, w->area.next);
}

static __always_inline int fw_area_index(struct fw_walk *w, const struct fw_section *area, u64 place)
{
	w->area.before = place >> (area->granule_shift & 31) ? w->area.bytes.index[0] : 0;
	w->area.word = w->area.bytes.index[1];
	w->area.next = w->area.word & ~FW_AREA_COVERED;
	w->area.hops = 0;
	return fw_area_next(w, area);
}

static __always_inline int fw_area_entry(struct fw_walk *w, const struct fw_section *area, u64 place)
{
	u32 live = w->area.generation << FW_AREA_STATE_BITS | FW_AREA_LIVE, slot = w->area.next;
	const struct fw_area_entry *entry = &w->area.bytes.entry;

	if (entry->state == live && place >= entry->start && place - entry->start < entry->size) {
		/* Two that claim it: one that has just gone and the one that came for it, or nonsense. */
		if (w->area.slot && w->area.slot != slot)
			return FW_LOOKUP_CONFLICT;
		w->area.slot = slot;
		w->area.hit = *entry;
	}
	if (w->area.word & FW_AREA_COVERED) {
		w->area.next = 0;
		return fw_area_next(w, area);
	}
	/* An older entry has a lower slot. */
	if (entry->next >= slot)
		return FW_LOOKUP_BAD;
	w->area.next = entry->next;
	return fw_area_next(w, area);
}

/* Prepares w->search for the rows that were found: a function attribute and rows, as in any section. */
static __always_inline void fw_area_rows(struct fw_walk *w, const struct fw_section *area, u64 place)
{
	w->table.at = area->address;
	w->table.user = 1;
	w->table.version = SFRAME_V3;
	w->piece_len = 0;
	w->search.stage = FW_SEARCH_ATTRIBUTE;
	w->search.offset = place - w->area.hit.start;
	w->search.furthest = w->area.hit.size;
	w->search.at = fw_area_heap_of(area) + w->area.hit.rule[0];
	w->search.end = w->search.at + w->area.hit.rule[1];
	w->search.hit = 0;
	w->search.least = 0;
}

/* What the words mean that were found, or the default rule. */
__noinline int fw_area_meaning(struct fw_walk *w, u64 place)
{
	struct fw_rule blank = {};
	const struct fw_section *area;

	if (!w)
		return FW_LOOKUP_BAD;
	area = fw_area_of(w);
	w->rule = blank;
	if (w->area.slot)
		return fw_area_lower(&w->rule, w->area.hit.how, w->area.hit.rule[0], w->area.hit.rule[1],
				     place - w->area.hit.start, fw_area_heap(w, area));
	if ((area->how & 0xff) == FW_AREA_NONE)
		return FW_LOOKUP_NONE;
	return fw_area_lower(&w->rule, area->how, area->rule[0], area->rule[1], ~0u, 0);
}

/* The name is read next, if there is one that was not sent before; then what was found is read again. */
static __always_inline int fw_area_name(struct fw_walk *w, const struct fw_section *area)
{
	u64 at = w->area.hit.cookie;

	if (w->area.hit.how >> 8 & FW_AREA_NAMED && at < fw_area_heap(w, area)) {
		w->area.named = fw_known_name(area->number, w->area.generation, w->area.slot);
		if (!w->area.named)
			return fw_area_want(w, area, FW_AREA_AT_NAME_LEN, fw_area_heap_of(area) + at, 1);
	}
	return fw_area_want_entry(w, area, FW_AREA_AT_AGAIN, w->area.slot);
}

static __always_inline int fw_area_name_len(struct fw_walk *w, const struct fw_section *area)
{
	u64 at = (u64)w->area.hit.cookie + 1;
	u32 len = w->area.bytes.raw[0];

	if (!len || at + len > fw_area_heap(w, area))
		return fw_area_want_entry(w, area, FW_AREA_AT_AGAIN, w->area.slot);
	w->name.len = len;
	return fw_area_want(w, area, FW_AREA_AT_NAME, fw_area_heap_of(area) + at, len);
}

/* Pruning of dead entries changes `next`; it is nothing that was used. */
static __always_inline int fw_area_again(struct fw_walk *w, const struct fw_section *area)
{
	const struct fw_area_entry *entry = &w->area.bytes.entry, *hit = &w->area.hit;

	if (entry->start != hit->start || entry->size != hit->size || entry->state != hit->state || entry->how != hit->how ||
	    entry->rule[0] != hit->rule[0] || entry->rule[1] != hit->rule[1] || entry->cookie != hit->cookie)
		return FW_LOOKUP_BUSY;
	return fw_area_want_words(w, area, FW_AREA_AT_STILL);
}

static __always_inline int fw_area_still(struct fw_walk *w)
{
	if (w->area.bytes.words.generation != w->area.generation)
		return FW_LOOKUP_BUSY;
	return w->area.slot > w->area.bytes.words.claimed ? FW_LOOKUP_BAD : FW_LOOKUP_FOUND;
}

/* When both chains are looked through. */
static __always_inline int fw_area_found(struct fw_walk *w, const struct fw_section *area, u64 place)
{
	w->area.answer = fw_area_meaning(w, place);
	if (!w->area.slot)
		return fw_area_want_words(w, area, FW_AREA_AT_STILL);
	if (w->area.answer == FW_LOOKUP_BAD)
		return FW_LOOKUP_BAD;
	if (w->area.answer != FW_LOOKUP_ROWS)
		return fw_area_name(w, area);
	fw_area_rows(w, area, place);
	w->area.stage = FW_AREA_AT_ROWS;
	return FW_LOOKUP_ROWS;
}

/* Searches the rows as far as their bytes are there. */
static __always_inline int fw_area_search(struct fw_walk *w, const struct fw_section *area)
{
	int found = fw_search(w);

	if (found == FW_LOOKUP_MISS || found == FW_LOOKUP_BAD)
		return found;
	w->rule.signal |= (w->area.hit.how >> 8 & FW_AREA_SIGNAL) != 0;
	w->area.answer = found;
	return fw_area_name(w, area);
}

/* One stage, by the bytes that were fetched for it. */
__noinline int fw_area_stage(struct fw_walk *w, u64 place)
{
	const struct fw_section *area;
	int found;

	if (!w)
		return FW_LOOKUP_BAD;
	area = fw_area_of(w);
	switch (w->area.stage) {
	case FW_AREA_AT_WORDS:
		return fw_area_words(w, area, place);
	case FW_AREA_AT_INDEX:
		found = fw_area_index(w, area, place);
		break;
	case FW_AREA_AT_ENTRY:
		found = fw_area_entry(w, area, place);
		break;
	case FW_AREA_AT_ROWS:
		return fw_area_search(w, area);
	case FW_AREA_AT_NAME_LEN:
		return fw_area_name_len(w, area);
	case FW_AREA_AT_NAME:
		w->area.unnamed = 1;
		__builtin_memcpy(w->name.bytes, w->area.bytes.raw, sizeof(w->name.bytes));
		return fw_area_want_entry(w, area, FW_AREA_AT_AGAIN, w->area.slot);
	case FW_AREA_AT_AGAIN:
		return fw_area_again(w, area);
	default:
		found = fw_area_still(w);
		return found == FW_LOOKUP_FOUND ? w->area.answer : found;
	}
	return found == FW_LOOKUP_FOUND ? fw_area_found(w, area, place) : found;
}

/* Goes on with the lookup of `pc` in the area of w->section: FOUND: by w->rule; NONE: it says nothing. MISS: bytes of
 * the area (w->area.len) or a piece of rows are needed first. */
static __always_inline int fw_area_look(struct fw_walk *w, u64 pc)
{
	u64 place = pc - fw_area_of(w)->start;
	int found;

	if (!w->searching) {
		w->searching = 1;
		w->area.tries = 0;
		found = fw_area_begin(w, pc);
		return found == FW_LOOKUP_NONE ? fw_area_meaning(w, 0) : found;
	}
	found = fw_area_stage(w, place);
	if (found == FW_LOOKUP_ROWS)
		found = fw_area_stage(w, place);
	if ((found == FW_LOOKUP_BUSY || found == FW_LOOKUP_CONFLICT) && w->area.tries++ < FW_AREA_TRIES)
		found = fw_area_begin(w, pc);
	return found;
}

#endif
