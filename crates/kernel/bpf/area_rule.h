/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the words of a frame area's entry mean. The same in Rust: crates/announce/src/area/observe.rs. */
#ifndef FRAMEWALK_AREA_RULE_H
#define FRAMEWALK_AREA_RULE_H

#include "rule.h"

/* The return address is right below the CFA (psABI). */
static __always_inline void fw_area_ordinary(struct fw_rule *rule, u32 reg, s32 cfa)
{
	rule->cfa_reg = reg;
	rule->cfa_off = cfa;
	rule->ra_kind = FW_RULE_AT_CFA;
	rule->ra_off = -8;
}

/* FIXED and STACK_SWITCH: where the two registers are saved, from the CFA. */
static __always_inline void fw_area_saved(struct fw_rule *rule, s32 ra, s32 fp)
{
	rule->ra_kind = FW_RULE_AT_CFA;
	rule->ra_off = ra;
	rule->fp_kind = fp ? FW_RULE_AT_CFA : FW_RULE_SAME;
	rule->fp_off = fp;
}

static __always_inline int fw_area_fixed(struct fw_rule *rule, u32 first, u32 second, bool in_register)
{
	s32 cfa = first, ra = (s16)second, fp = (s16)(second >> 16);

	if (cfa & 7 || cfa < (in_register ? 0 : 8) || cfa > (s32)FW_MAX_FRAME_SIZE || fp & 7)
		return FW_LOOKUP_BAD;
	if (in_register ? ra < 0 || ra > 15 : ra & 7)
		return FW_LOOKUP_BAD;
	fw_area_saved(rule, ra, fp);
	if (in_register) {
		rule->ra_kind = FW_RULE_VALUE_REG;
		rule->ra_reg = ra;
		rule->ra_off = 0;
	}
	rule->cfa_reg = FW_REG_SP;
	rule->cfa_off = cfa;
	rule->body = FW_RULE_BEFORE_RETURN;
	return FW_LOOKUP_FOUND;
}

static __always_inline int fw_area_switch(struct fw_rule *rule, u32 first, u32 second, bool in_register)
{
	s32 from = (s16)first, add = (s16)(first >> 16), ra = (s16)second, fp = (s16)(second >> 16);

	if ((add | ra | fp) & 7 || (in_register ? from < 0 || from > 15 : from & 7))
		return FW_LOOKUP_BAD;
	fw_area_saved(rule, ra, fp);
	rule->cfa_reg = in_register ? from : FW_REG_SP;
	rule->cfa_off = in_register ? 0 : from;
	rule->cfa_deref = !in_register;
	rule->cfa_add = add;
	rule->switches = 1;
	return FW_LOOKUP_FOUND;
}

/* Lowers the words of an entry at a place so many bytes behind its start. `heap`: bytes of the heap that are in use.
 * The rule is blank before. */
static __always_inline int fw_area_lower(struct fw_rule *rule, u32 how, u32 first, u32 second, u32 offset, u64 heap)
{
	u32 kind = how & 0xff, flags = how >> 8 & 0xff, prologue = how >> 16;
	bool in_register = flags & FW_AREA_IN_REGISTER;
	int found = FW_LOOKUP_FOUND;

	if (flags & ~FW_AREA_FLAGS)
		return FW_LOOKUP_BAD;
	if (in_register && kind != FW_AREA_FIXED && kind != FW_AREA_STACK_SWITCH)
		return FW_LOOKUP_BAD;
	if (kind != FW_AREA_FIXED && kind != FW_AREA_STACK_SWITCH && kind != FW_AREA_ROWS && (first || second))
		return FW_LOOKUP_BAD;
	if (kind == FW_AREA_STACK_SWITCH && flags & FW_AREA_SIGNAL)
		return FW_LOOKUP_BAD;
	switch (kind) {
	case FW_AREA_FRAME_POINTER:
		fw_area_ordinary(rule, FW_REG_FP, 16);
		rule->fp_kind = FW_RULE_AT_CFA;
		rule->fp_off = -16;
		rule->body = FW_RULE_FRAME_MADE;
		break;
	case FW_AREA_FIXED:
		found = fw_area_fixed(rule, first, second, in_register);
		break;
	case FW_AREA_ROWS:
		if (!second || second > FW_AREA_MAX_ROWS || (u64)first + second > heap)
			return FW_LOOKUP_BAD;
		found = FW_LOOKUP_ROWS;
		break;
	case FW_AREA_STACK_SWITCH:
		found = fw_area_switch(rule, first, second, in_register);
		break;
	case FW_AREA_OUTERMOST:
		rule->outermost = 1;
		break;
	case FW_AREA_OPAQUE:
		found = FW_LOOKUP_OPAQUE;
		break;
	default:
		return FW_LOOKUP_BAD;
	}
	if (found != FW_LOOKUP_BAD && offset < prologue) {
		/* As at the first instruction of any function. */
		struct fw_rule entry = {};

		*rule = entry;
		fw_area_ordinary(rule, FW_REG_SP, 8);
		found = FW_LOOKUP_FOUND;
	}
	rule->signal = !!(flags & FW_AREA_SIGNAL);
	return found;
}

/* Where the parts of an area lie, from its start. */
static __always_inline u64 fw_area_index_at(u32 capacity)
{
	return FW_AREA_HEADER_SIZE + FW_AREA_ENTRY_SIZE * capacity;
}

static __always_inline u64 fw_area_heap_at(u32 capacity, u64 text_len, u32 shift)
{
	u64 granules = capacity ? (text_len + (1ull << shift) - 1) >> shift : 0;

	return (fw_area_index_at(capacity) + 4 * granules + 7) & ~7ull;
}

#endif
