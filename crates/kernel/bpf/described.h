/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A frame in code that a frame area describes: how the walk goes on from it, and what people call it. */
#ifndef FRAMEWALK_DESCRIBED_H
#define FRAMEWALK_DESCRIBED_H

/* What the area says of the frame, in a word. */
static __always_inline u64 fw_describe(struct fw_walk *w, const struct fw_section *area)
{
	u32 how = w->area.slot ? w->area.hit.how : area->how;

	if (w->area.unnamed)
		w->area.named = fw_send_name(w, area->number, w->area.generation, w->area.slot);
	return w->area.named | (how >> 8 & FW_AREA_RUNTIME ? FW_DESCRIBED_RUNTIME : 0);
}

/* Adds w->area.described to the frame that was noted last. Such a frame is an address, whatever is mapped there. */
__noinline int fw_add_described(struct fw_walk *w)
{
	u64 word;
	u32 at;

	if (!w)
		return 0;
	word = w->area.described;
	at = w->num_words;
	if (!word || !at)
		return 0;
	/* As above: two checks. */
	barrier_var(at);
	if (at >= FW_WORDS)
		return 0;
	w->frames[at - 1] = (w->frames[at - 1] & (0xfull << FW_FRAME_ORIGIN_SHIFT | FW_FRAME_RETURN)) |
			    (w->pc & FW_FRAME_ADDRESS_MASK) | FW_FRAME_DESCRIBED;
	w->frames[at] = word;
	w->num_words++;
	return 0;
}

/* Asks the area: FW_BY_RULE: by w->rule; FW_GO: it says nothing; FW_MISS: bytes are needed first; or a stop. */
static __always_inline int fw_find_in_area(struct fw_walk *w, struct fw_near *near, u64 pc)
{
	int found = w->unreadable ? FW_LOOKUP_MISS : fw_area_look(w, pc);

	if (found == FW_LOOKUP_MISS && !w->unreadable)
		return FW_MISS;
	w->searching = 0;
	switch (found) {
	case FW_LOOKUP_MISS:
		near->unreadable++;
		return FW_GO;
	case FW_LOOKUP_BAD:
	case FW_LOOKUP_CONFLICT:
		near->malformed++;
		return FW_GO;
	case FW_LOOKUP_BUSY:
		FW_COUNT(busy_areas, 1);
		return FW_GO;
	case FW_LOOKUP_FOUND:
	case FW_LOOKUP_KNOWN:
	case FW_LOOKUP_OPAQUE:
		break;
	default:
		return FW_GO;
	}
	near->frames++;
	if (found != FW_LOOKUP_KNOWN) {
		w->area.described = fw_describe(w, &near->section);
		if (found == FW_LOOKUP_FOUND)
			fw_area_keep(w, &near->section, pc);
	}
	fw_add_described(w);
	w->rule_origin = FW_ORIGIN_FRAME_AREA;
	return found == FW_LOOKUP_OPAQUE ? FW_STOP(FW_STOP_OPAQUE) : FW_BY_RULE;
}

#endif
