/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From a file offset to the rule that holds there: the rule cache, then the SFrame V3 section of the
 * object in the arena. Sections were checked whole before they were put there; every bound is
 * checked again all the same, because a mistake here must end a walk and nothing else. */
#ifndef FRAMEWALK_LOOKUP_H
#define FRAMEWALK_LOOKUP_H

enum { FW_LOOKUP_FOUND = 0, FW_LOOKUP_NONE = 1, FW_LOOKUP_BAD = 2 };

/* SFrame V3 (specification, sections 2 to 4). */
#define SFRAME_FDE_SIZE 16
#define SFRAME_ATTR_SIZE 5
#define SFRAME_INFO_MASK_PC 0x10
#define SFRAME_INFO_SIGNAL 0x80
#define SFRAME_INFO2_FLEX 1
#define SFRAME_ROW_BASE_SP 1

/* AMD64 psABI, figure 3.36. */
#define FW_REG_FP 6
#define FW_REG_SP 7

/* ---- the rule cache --------------------------------------------------------------------------
 * One word an entry, so that it can be read and written by any CPU without tearing: 34 bits of
 * tag, 30 bits of rule. Object id and file offset (48 bits) are multiplied by an odd constant
 * modulo 2^48, which loses nothing: 14 bits choose the entry and the other 34 are the tag. */

#define FW_CACHE_KEY_BITS 48
#define FW_CACHE_OFFSET_BITS 30
#define FW_CACHE_TAG_BITS (FW_CACHE_KEY_BITS - FW_CACHE_BITS)
#define FW_CACHE_RULE_BITS (64 - FW_CACHE_TAG_BITS)
#define FW_CACHE_MIX 0x9e3779b97f4bull

_Static_assert(FW_CACHE_RULE_BITS == 30, "a packed rule has 30 bits");

/* A packed rule: outermost (1), CFA on FP (1), FP slot in words below the CFA (12, 0 = unchanged),
 * CFA offset in words (16). RA is at CFA - 8. What does not fit is not cached. */
static __always_inline u32 fw_rule_pack(const struct fw_rule *rule)
{
	u32 cfa, fp = 0;

	if (rule->signal)
		return 0;
	if (rule->outermost)
		return 1u << 29;
	if (rule->cfa_deref || rule->ra_kind != FW_RULE_AT_CFA || rule->ra_off != -8)
		return 0;
	if (rule->cfa_reg != FW_REG_SP && rule->cfa_reg != FW_REG_FP)
		return 0;
	if (rule->cfa_off <= 0 || (rule->cfa_off & 7) || rule->cfa_off >= 8 << 16)
		return 0;
	if (rule->fp_kind == FW_RULE_AT_CFA) {
		if (rule->fp_off >= 0 || (rule->fp_off & 7) || rule->fp_off <= -(8 << 12))
			return 0;
		fp = -rule->fp_off / 8;
	} else if (rule->fp_kind != FW_RULE_SAME) {
		return 0;
	}
	cfa = rule->cfa_off / 8;
	return (u32)(rule->cfa_reg == FW_REG_FP) << 28 | fp << 16 | cfa;
}

static __always_inline void fw_rule_unpack(struct fw_rule *rule, u32 packed)
{
	u32 fp = packed >> 16 & 0xfff;

	rule->outermost = packed >> 29;
	rule->signal = 0;
	rule->cfa_reg = packed >> 28 & 1 ? FW_REG_FP : FW_REG_SP;
	rule->cfa_deref = 0;
	rule->cfa_off = (packed & 0xffff) * 8;
	rule->ra_kind = FW_RULE_AT_CFA;
	rule->ra_off = -8;
	rule->fp_kind = fp ? FW_RULE_AT_CFA : FW_RULE_SAME;
	rule->fp_off = -(s32)(fp * 8);
}

static __always_inline u64 fw_cache_mix(u32 id, u64 offset)
{
	return (((u64)id << FW_CACHE_OFFSET_BITS | offset) * FW_CACHE_MIX) & ((1ull << FW_CACHE_KEY_BITS) - 1);
}

static __always_inline bool fw_cacheable(u32 id, u64 offset)
{
	return id < 1u << (FW_CACHE_KEY_BITS - FW_CACHE_OFFSET_BITS) && offset < 1ull << FW_CACHE_OFFSET_BITS;
}

static __always_inline u32 fw_cache_get(u64 mix)
{
	u64 entry = fw_load64((mix >> FW_CACHE_TAG_BITS) * 8);

	if (entry >> FW_CACHE_RULE_BITS != (mix & ((1ull << FW_CACHE_TAG_BITS) - 1)))
		return 0;
	return entry & ((1u << FW_CACHE_RULE_BITS) - 1);
}

static __always_inline void fw_cache_put(u64 mix, u32 packed)
{
	fw_store64((mix >> FW_CACHE_TAG_BITS) * 8, mix << FW_CACHE_RULE_BITS | packed);
}

/* ---- the section ---------------------------------------------------------------------------- */

static __always_inline u32 fw_unsigned_word(u32 at, u32 size)
{
	if (size == 1)
		return fw_load8(at);
	if (size == 2)
		return fw_load16(at);
	return fw_load32(at);
}

static __always_inline s32 fw_word(u32 at, u32 size)
{
	u32 word = fw_unsigned_word(at, size);

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
__noinline u64 fw_entity(u32 at, u32 left, u32 size)
{
	u32 control, reg, kind;

	FW_USE_ARENA();
	if (!left)
		return FW_RULE_SAME;
	control = fw_unsigned_word(at, size);
	if (!control)
		return 1ull << 38;
	reg = control >> 3;
	if (left < 2 || control & 4 || reg > 15 || (!(control & 1) && reg))
		return FW_ENTITY_BAD;
	if (control & 1)
		kind = control & 2 ? FW_RULE_AT_REG : FW_RULE_VALUE_REG;
	else
		kind = FW_RULE_AT_CFA;
	return (u32)fw_word(at + size, size) | (u64)reg << 32 | (u64)kind << 36 | 2ull << 38;
}

/* Lowers the words of a FLEX row. */
static __always_inline int fw_lower_flex(struct fw_rule *rule, u32 at, u32 left, u32 size)
{
	u64 cfa, ra, fp;

	cfa = fw_entity(at, left, size);
	at += FW_ENTITY_WORDS(cfa) * size;
	left -= FW_ENTITY_WORDS(cfa);
	ra = fw_entity(at, left, size);
	at += FW_ENTITY_WORDS(ra) * size;
	left -= FW_ENTITY_WORDS(ra);
	fp = fw_entity(at, left, size);
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

/* Lowers the row whose words are at `at`. AMD64: RA is at CFA - 8 unless FLEX says otherwise. */
static __always_inline int fw_lower(struct fw_rule *rule, u32 at, u32 info, bool flex)
{
	u32 words = info >> 1 & 15, size = info >> 5 & 3;

	if (size > 2)
		return FW_LOOKUP_BAD;
	size = 1u << size;
	rule->outermost = words == 0;
	if (rule->outermost)
		return FW_LOOKUP_FOUND;
	rule->ra_kind = FW_RULE_AT_CFA;
	rule->ra_off = -8;
	if (flex)
		return fw_lower_flex(rule, at, words, size);
	if (words > 2)
		return FW_LOOKUP_BAD;
	rule->cfa_reg = info & SFRAME_ROW_BASE_SP ? FW_REG_SP : FW_REG_FP;
	rule->cfa_deref = 0;
	rule->cfa_off = fw_word(at, size);
	rule->fp_kind = words == 2 ? FW_RULE_AT_CFA : FW_RULE_SAME;
	rule->fp_off = words == 2 ? fw_word(at + size, size) : 0;
	return FW_LOOKUP_FOUND;
}

/* The last function that starts at or before `offset`: its number, or num_fdes when there is none. */
static __always_inline u32 fw_find_fde(const struct fw_object *object, u64 offset)
{
	u32 first = 0, count = object->num_fdes;
	u32 base = object->section + object->fdes;

	while (count > 1 && can_loop) {
		u32 half = count / 2, middle = first + half;
		/* A start is relative to its own field, and fields are in the section's own space. */
		s64 start = (s64)fw_load64(base + middle * SFRAME_FDE_SIZE) + object->fdes + middle * SFRAME_FDE_SIZE;

		if (start <= (s64)offset)
			first = middle;
		count -= half;
		if (start > (s64)offset)
			count = half;
	}
	return first;
}

/* Searches the section of the object of range `range` for the rule at `offset`. */
__noinline int fw_search(struct fw_walk *w, u32 range, u64 offset)
{
	const struct fw_object *object;
	struct fw_rule *rule;
	u32 fde, field, size, fre, end, rows, info, info2, rep, address_size, at, hit = 0, hit_info = 0;
	s64 start;

	FW_USE_ARENA();
	if (!w)
		return FW_LOOKUP_BAD;
	rule = &w->rule;
	object = &w->ranges[range & (FW_RANGES - 1)].object;
	if (!object->num_fdes)
		return FW_LOOKUP_NONE;
	fde = fw_find_fde(object, offset);
	field = object->fdes + fde * SFRAME_FDE_SIZE;
	start = (s64)fw_load64(object->section + field) + field;
	size = fw_load32(object->section + field + 8);
	fre = fw_load32(object->section + field + 12);
	if (start > (s64)offset || offset - start >= size)
		return FW_LOOKUP_NONE;
	if (fre > object->fres_len || object->fres_len - fre < SFRAME_ATTR_SIZE)
		return FW_LOOKUP_BAD;
	at = object->section + object->fres + fre;
	end = object->section + object->fres + object->fres_len;
	rows = fw_load16(at);
	info = fw_load8(at + 2);
	info2 = fw_load8(at + 3);
	rep = fw_load8(at + 4);
	at += SFRAME_ATTR_SIZE;
	offset -= start;
	if (info & SFRAME_INFO_MASK_PC) {
		if (!rep)
			return FW_LOOKUP_BAD;
		offset %= rep;
	}
	address_size = info & 15;
	if (address_size > 2 || (info2 & 31) > SFRAME_INFO2_FLEX)
		return FW_LOOKUP_BAD;
	address_size = 1u << address_size;
	rule->signal = info >> 7;
	if (!rows) {
		/* Without rows: outermost, unless it is a signal frame that an assembler could not describe. */
		rule->outermost = 1;
		return rule->signal ? FW_LOOKUP_NONE : FW_LOOKUP_FOUND;
	}
	/* Counting down from a number that the verifier cannot know keeps it from following each turn. */
	for (; rows && can_loop; rows--) {
		u32 row_info, words;

		if (end < at || end - at < address_size + 1)
			break;
		if (fw_unsigned_word(at, address_size) > offset)
			break;
		row_info = fw_load8(at + address_size);
		words = row_info >> 1 & 15;
		at += address_size + 1;
		hit = at;
		hit_info = row_info;
		at += words << (row_info >> 5 & 3);
	}
	if (!hit)
		return FW_LOOKUP_NONE;
	if (at > end)
		return FW_LOOKUP_BAD;
	return fw_lower(rule, hit, hit_info, info2 & 1);
}

#endif
