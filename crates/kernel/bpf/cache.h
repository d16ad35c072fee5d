/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The rule cache, in front of all tables and sections.
 *
 * Two words an entry, written and read by any CPU without a lock: the rule, and a tag that is the key
 * mixed with the rule. A reader that meets halves of two writers finds a tag that fits neither. The
 * factor is the loader's secret, so that nobody can choose rules whose halves fit somebody else's key. */
#ifndef FRAMEWALK_CACHE_H
#define FRAMEWALK_CACHE_H

#define FW_CACHE_OFFSET_BITS 30
#define FW_CACHE_MIX 0x9e3779b97f4a7c15ull

/* Set by the loader before loading. */
const volatile u64 cache_secret = 1;

/* A packed rule of a table or section, from bit 0: CFA offset (18 bits, signed), RA and FP offsets (13 each, signed), registers
 * of the CFA, RA and FP (4 each), kinds of RA and FP (2 each), CFA loaded, signal, outermost, and a bit
 * that is always set. What does not fit is 0, and not cached. */
#define FW_PACK_CFA 18
#define FW_PACK_SLOT 13

static __always_inline bool fw_fits(s32 offset, u32 bits)
{
	return offset >= -(1 << (bits - 1)) && offset < 1 << (bits - 1);
}

static __always_inline u64 fw_rule_pack(const struct fw_rule *rule)
{
	if (rule->switches || !fw_fits(rule->cfa_off, FW_PACK_CFA) || !fw_fits(rule->ra_off, FW_PACK_SLOT) || !fw_fits(rule->fp_off, FW_PACK_SLOT))
		return 0;
	return ((u64)rule->cfa_off & ((1 << FW_PACK_CFA) - 1)) | ((u64)rule->ra_off & ((1 << FW_PACK_SLOT) - 1)) << 18 |
	       ((u64)rule->fp_off & ((1 << FW_PACK_SLOT) - 1)) << 31 | (u64)(rule->cfa_reg & 15) << 44 |
	       (u64)(rule->ra_reg & 15) << 48 | (u64)(rule->fp_reg & 15) << 52 | (u64)(rule->ra_kind & 3) << 56 |
	       (u64)(rule->fp_kind & 3) << 58 | (u64)(rule->cfa_deref & 1) << 60 | (u64)(rule->signal & 1) << 61 |
	       (u64)(rule->outermost & 1) << 62 | 1ull << 63;
}

static __always_inline void fw_rule_unpack(struct fw_rule *rule, u64 packed)
{
	/* What is never packed; the rule before this one may have had it. */
	rule->cfa_add = 0;
	rule->body = FW_RULE_EVERYWHERE;
	rule->switches = 0;
	rule->cfa_off = (s32)((u32)packed << (32 - FW_PACK_CFA)) >> (32 - FW_PACK_CFA);
	rule->ra_off = (s32)((u32)(packed >> 18) << (32 - FW_PACK_SLOT)) >> (32 - FW_PACK_SLOT);
	rule->fp_off = (s32)((u32)(packed >> 31) << (32 - FW_PACK_SLOT)) >> (32 - FW_PACK_SLOT);
	rule->cfa_reg = packed >> 44 & 15;
	rule->ra_reg = packed >> 48 & 15;
	rule->fp_reg = packed >> 52 & 15;
	rule->ra_kind = packed >> 56 & 3;
	rule->fp_kind = packed >> 58 & 3;
	rule->cfa_deref = packed >> 60 & 1;
	rule->signal = packed >> 61 & 1;
	rule->outermost = packed >> 62 & 1;
}

/* A hole in a table, as a rule that none lowers to: outermost, and yet with a CFA to load. */
static __always_inline void fw_make_hole(struct fw_rule *rule)
{
	struct fw_rule hole = {.outermost = 1, .cfa_deref = 1};

	*rule = hole;
}

static __always_inline bool fw_rule_is_hole(const struct fw_rule *rule)
{
	return rule->outermost && rule->cfa_deref;
}

/* The key of a place, or 0 where it has none: which table, and where in it. */
static __always_inline u64 fw_cache_key(u64 number, u64 offset)
{
	if (number >> (64 - FW_CACHE_OFFSET_BITS) || offset >> FW_CACHE_OFFSET_BITS)
		return 0;
	return number << FW_CACHE_OFFSET_BITS | offset;
}

static __always_inline u32 fw_cache_at(u64 key)
{
	return (key * FW_CACHE_MIX >> (64 - FW_CACHE_BITS)) * FW_CACHE_ENTRY;
}

static __always_inline u64 fw_cache_get(u64 key)
{
	u32 at = fw_cache_at(key);
	u64 rule = fw_load64(at + 8);

	return fw_load64(at) == (key ^ rule * cache_secret) ? rule : 0;
}

static __always_inline void fw_cache_put(u64 key, u64 rule)
{
	u32 at = fw_cache_at(key);

	fw_store64(at, key ^ rule * cache_secret);
	fw_store64(at + 8, rule);
}

/* The rule of a place that was found before. */
static __always_inline bool fw_cached(struct fw_walk *w, u64 key)
{
	u64 packed = key ? fw_cache_get(key) : 0;

	if (packed)
		fw_rule_unpack(&w->rule, packed);
	return packed;
}

static __always_inline void fw_cache(struct fw_walk *w, u64 key)
{
	u64 packed = key ? fw_rule_pack(&w->rule) : 0;

	if (packed)
		fw_cache_put(key, packed);
}

#endif
