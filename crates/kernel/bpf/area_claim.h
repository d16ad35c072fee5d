/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a frame area claims about itself: the part of its header that never changes, read once, when it is registered,
 * and checked in the order of docs/abi.md. */
#ifndef FRAMEWALK_AREA_CLAIM_H
#define FRAMEWALK_AREA_CLAIM_H

#include "area_rule.h"

struct fw_area_header {
	u64 magic; /* the version is its last byte */
	u32 byte_order;
	u16 header_size;
	u16 entry_size;
	u16 machine;
	u16 granule_shift;
	u32 capacity;
	u64 text_start;
	u64 text_len;
	u64 area_len;
	u64 key;
	u32 how;
	u32 rule[2];
	u32 reserved[15];
};

#define FW_AREA_FIELD(field, at) _Static_assert(__builtin_offsetof(struct fw_area_header, field) == at, #field)
FW_AREA_FIELD(byte_order, FW_AREA_BYTE_ORDER_AT);
FW_AREA_FIELD(machine, FW_AREA_MACHINE_AT);
FW_AREA_FIELD(capacity, FW_AREA_CAPACITY_AT);
FW_AREA_FIELD(text_start, FW_AREA_TEXT_START_AT);
FW_AREA_FIELD(area_len, FW_AREA_AREA_LEN_AT);
FW_AREA_FIELD(key, FW_AREA_KEY_AT);
FW_AREA_FIELD(how, FW_AREA_DEFAULT_AT);
FW_AREA_FIELD(reserved, FW_AREA_RESERVED_AT);
_Static_assert(sizeof(struct fw_area_header) == FW_AREA_GEOMETRY_SIZE, "geometry");

#define FW_MACHINE_AMD64 62 /* include/uapi/linux/elf-em.h */
#define FW_VERSION_MASK (0xffull << 56)

/* Nothing that needs an entry's start, rows or name. */
static __always_inline bool fw_area_is_default(const struct fw_area_header *header)
{
	u32 kind = header->how & 0xff, flags = header->how >> 8;
	struct fw_rule rule = {};

	if (kind == FW_AREA_NONE)
		return !header->how && !header->rule[0] && !header->rule[1];
	if (kind == FW_AREA_ROWS || flags & ~(FW_AREA_RUNTIME | FW_AREA_IN_REGISTER))
		return false;
	return fw_area_lower(&rule, header->how, header->rule[0], header->rule[1], ~0u, 0) != FW_LOOKUP_BAD;
}

static __always_inline bool fw_area_is_sound(const struct fw_area_header *header, u64 size)
{
	u64 reserved = 0;

	for (u32 i = 0; i < sizeof(header->reserved) / 4; i++)
		reserved |= header->reserved[i];
	return header->header_size == FW_AREA_HEADER_SIZE && header->entry_size == FW_AREA_ENTRY_SIZE &&
	       header->capacity <= FW_AREA_MAX_CAPACITY && header->granule_shift >= FW_AREA_MIN_SHIFT &&
	       header->granule_shift <= FW_AREA_MAX_SHIFT && header->area_len == size && !reserved &&
	       fw_area_is_default(header) &&
	       fw_area_heap_at(header->capacity, header->text_len, header->granule_shift & 31) <= size;
}

/* Checks a header that was read; `section` has address and key. */
static __always_inline long fw_check_area(struct fw_section *section, const struct fw_area_header *header, u64 size)
{
	if ((header->magic ^ FW_AREA_MAGIC) & ~FW_VERSION_MASK || header->byte_order != FW_AREA_BYTE_ORDER)
		return -FW_EBADMSG;
	if (header->magic != FW_AREA_MAGIC || header->machine != FW_MACHINE_AMD64)
		return -FW_EPROTONOSUPPORT;
	if (!header->text_start || !header->text_len || header->text_len > FW_AREA_MAX_TEXT ||
	    header->text_start > FW_USER_END || header->text_len > FW_USER_END - header->text_start)
		return -FW_EBADMSG;
	if (!fw_area_is_sound(header, size))
		return -FW_EBADMSG;
	/* Whoever finds the area without having heard the call has to know it by the same key. */
	if (header->key != section->key)
		return -FW_EBADMSG;
	section->area = 1;
	section->length = size;
	section->start = header->text_start;
	section->end = header->text_start + header->text_len;
	section->capacity = header->capacity;
	section->granule_shift = header->granule_shift;
	section->how = header->how;
	section->rule[0] = header->rule[0];
	section->rule[1] = header->rule[1];
	return 0;
}

static __always_inline long fw_read_area(struct fw_section *section, u64 size, bool sleepable)
{
	struct fw_area_header header;

	if (size < sizeof(header))
		return -FW_EBADMSG;
	if (fw_read_user(&header, sizeof(header), section->address, sleepable))
		return -FW_EFAULT;
	return fw_check_area(section, &header, size);
}

#endif
