/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The sorted array of an address space's sections, as its one writer changes it. spaces.h reads it. */
#ifndef FRAMEWALK_SORTED_H
#define FRAMEWALK_SORTED_H

#include "spaces.h"

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

/* Whether `at` was adopted, and `section` is what its process says of it. */
static __always_inline bool fw_is_twin(const struct fw_section *at, const struct fw_section *section)
{
	return at->adopted && section->area && !section->adopted && at->key == section->key &&
	       at->address == section->address && at->start == section->start && at->end == section->end;
}

/* Looks for the text of `section`, and for sections of its key, which stay only if `keep`. */
static __always_inline bool fw_look_through(struct fw_space *space, const struct fw_section *section, bool keep)
{
	struct fw_page *body = NULL;
	u64 id = space->id;
	u32 page = 0;

	space->before = space->matches = space->overlap = space->areas = 0;
	space->area_bytes = space->twin = 0;
	FW_FOR_EACH_SLOT(space) {
		struct fw_section *at = FW_SLOT(page, body, id, space->slot);

		if (!at)
			return false;
		if (at->key == section->key) {
			space->matches++;
			if (!keep)
				continue;
		}
		if (fw_is_twin(at, section)) {
			space->twin = space->slot + 1;
			continue;
		}
		if (at->start < section->end && section->start < at->end)
			space->overlap = 1;
		if (at->start < section->start)
			space->before++;
		if (at->area) {
			space->areas++;
			space->area_bytes += at->length;
		}
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

/* Takes out the sections of the key; with a number only that one. */
static __always_inline void fw_take_out(struct fw_space *space, u64 key, u64 number)
{
	struct fw_page *from_body = NULL, *to_body = NULL;
	u32 from_page = 0, to_page = 0;
	u64 id = space->id;

	space->to = 0;
	FW_FOR_EACH_SLOT(space) {
		struct fw_section *from = FW_SLOT(from_page, from_body, id, space->slot), *at;

		if (!from)
			break;
		if (from->key == key && (!number || from->number == number))
			continue;
		at = FW_SLOT(to_page, to_body, id, space->to);
		if (!at)
			break;
		fw_place(space, at, from, to_page, space->to);
		space->to++;
	}
	space->count = space->to;
}

/* Puts the section in the place of its twin, which has the same text. */
static __always_inline void fw_take_over(struct fw_space *space, const struct fw_section *section)
{
	struct fw_page *body = NULL;
	struct fw_section *at;
	u32 page = 0;

	at = FW_SLOT(page, body, space->id, space->twin - 1);
	if (at)
		*at = *section;
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

#endif
