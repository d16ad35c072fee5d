/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a section claims about itself: read once, when it is registered, and checked in the order of docs/abi.md. */
#ifndef FRAMEWALK_CLAIM_H
#define FRAMEWALK_CLAIM_H

#include "sframe.h"

static __always_inline long fw_read_header(struct fw_section *section, u32 size, bool sleepable)
{
	struct sframe_header header;
	u64 base, index_end, rows_at;
	bool v2;

	if (size < sizeof(header))
		return -FW_EBADMSG;
	if (fw_read_user(&header, sizeof(header), section->address, sleepable))
		return -FW_EFAULT;
	if (header.magic != SFRAME_MAGIC)
		return -FW_EBADMSG;
	v2 = header.version == SFRAME_V2;
	if ((!v2 && header.version != SFRAME_V3) || header.abi != SFRAME_ABI_AMD64)
		return -FW_EPROTONOSUPPORT;
	if (header.flags & ~(v2 ? SFRAME_FLAGS_V2 : SFRAME_FLAGS_V3) || !(header.flags & SFRAME_SORTED))
		return -FW_EBADMSG;
	if (header.fixed_fp || header.fixed_ra != -8 || !header.functions)
		return -FW_EBADMSG;
	/* In 64 bits none of these sums overflows. */
	base = sizeof(header) + header.auxiliary;
	index_end = base + header.index + (u64)header.functions * (v2 ? SFRAME_ENTRY_V2 : SFRAME_ENTRY_V3);
	rows_at = base + header.rows_at;
	if (index_end > rows_at || rows_at + header.rows_len > size)
		return -FW_EBADMSG;
	section->length = size;
	section->version = header.version;
	section->pcrel = !!(header.flags & SFRAME_PCREL);
	section->functions = header.functions;
	section->rows = header.rows;
	section->index = base + header.index;
	section->rows_at = rows_at;
	section->rows_len = header.rows_len;
	return 0;
}

/* Start and size of the function with this number, and whether the start left 64 bits. */
static __always_inline long fw_read_function(const struct fw_section *section, u32 number, u64 *start, u32 *size,
					     bool *wraps, bool sleepable)
{
	bool v2 = section->version == SFRAME_V2;
	u64 base = section->address, at = base + section->index + (u64)number * (v2 ? SFRAME_ENTRY_V2 : SFRAME_ENTRY_V3);
	/* Start of 4 bytes (V2) or 8, size; what follows is only for walks. */
	struct {
		u32 low;
		u32 high;
		u32 size;
		u32 rest[2];
	} entry;
	s64 offset;

	if (fw_read_user(&entry, v2 ? SFRAME_ENTRY_V2 : SFRAME_ENTRY_V3, at, sleepable))
		return -FW_EFAULT;
	offset = v2 ? (s64)(s32)entry.low : (s64)((u64)entry.high << 32 | entry.low);
	*size = v2 ? entry.high : entry.size;
	if (section->pcrel)
		base = at;
	*start = base + offset;
	if ((offset < 0) != (*start < base))
		*wraps = true;
	return 0;
}

static __always_inline long fw_read_section(struct fw_section *section, u64 size, bool sleepable)
{
	bool wraps = false;
	u32 last_size;
	u64 last;
	long error;

	error = fw_read_header(section, size, sleepable);
	if (!error)
		error = fw_read_function(section, 0, &section->start, &last_size, &wraps, sleepable);
	last = section->start;
	/* Each is read once; what cannot be read is said before what is nonsense. */
	if (!error && section->functions > 1)
		error = fw_read_function(section, section->functions - 1, &last, &last_size, &wraps, sleepable);
	if (error)
		return error;
	section->end = last + last_size;
	if (wraps || section->end < last || !section->start || section->start >= section->end ||
	    section->end > FW_USER_END)
		return -FW_EBADMSG;
	return 0;
}

/* Whether the section can be written where it is mapped: the mapping of its first byte counts. */
static __always_inline bool fw_is_writable(struct task_struct *task, u64 address)
{
	struct mm_struct *mm = task->mm;
	bool writable = false;
	u64 entry;

	bpf_rcu_read_lock();
	entry = mm ? fw_maple_find(fw_kernel_word((u64)&mm->mm_mt.ma_root), address) : 0;
	if (entry) {
		struct vm_area_struct *vma = FW_TYPED(vm_area_struct, entry);

		writable = vma->vm_mm == mm && vma->vm_flags & FW_VM_WRITE;
	}
	bpf_rcu_read_unlock();
	return writable;
}

#endif
