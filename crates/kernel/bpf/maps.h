/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which mapping holds an address, asked of the process's own VMA tree at the moment of the walk.
 *
 * The tree (a maple tree, lib/maple_tree.c) is built for readers without locks under RCU, so this
 * works in any context, in interrupts too, where the bpf_find_vma helper needs a lock that it may
 * not get. What is found is believed only if the VMA itself covers the address and belongs to this mm,
 * and reads the same twice; a tree of another shape than expected therefore finds nothing rather
 * than something wrong. */
#ifndef FRAMEWALK_MAPS_H
#define FRAMEWALK_MAPS_H

#define FW_MAPLE_LEAF 1
#define FW_MAPLE_RANGE 2
#define FW_MAPLE_ARANGE 3
#define FW_MAPLE_DEPTH 8

#define FW_VM_WRITE 2
#define FW_VM_EXEC 4

#define FW_TYPED(type, address) \
	((struct type *)bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(struct type)))

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

/* A kernel word as a number. A field of pointer type would come as a pointer, which the verifier does
 * not let through as a number; pivots are numbers. */
static __always_inline u64 fw_kernel_word(u64 address)
{
	return FW_TYPED(maple_range_64, address - bpf_core_field_offset(struct maple_range_64, pivot))->pivot[0];
}

/* One level down: the slot of `node` that holds `address`. */
static __always_inline u64 fw_maple_slot(u64 node, u32 type, u64 address)
{
	struct maple_range_64 *range = FW_TYPED(maple_range_64, node);
	u32 pivots, end;
	u64 slot;

	if (type == FW_MAPLE_ARANGE) {
		struct maple_arange_64 *arange = FW_TYPED(maple_arange_64, node);

		end = arange->meta.end;
		pivots = 9;
		slot = node + bpf_core_field_offset(struct maple_arange_64, slot);
	} else {
		u64 last = range->pivot[14];

		/* An unset last pivot means that the metadata behind the slots tells the end. */
		end = last ? 15 : FW_TYPED(maple_metadata, node + bpf_core_field_offset(struct maple_range_64, slot) + 15 * 8)->end;
		pivots = 15;
		slot = node + bpf_core_field_offset(struct maple_range_64, slot);
	}
	if (end > pivots)
		end = pivots;
	/* Pivots ascend: the slot's number is how many lie below the address. An address is summed up
	 * rather than a number, because the verifier would follow each value of a number. */
#define FW_PIVOT(i) \
	if (i < end && range->pivot[i] < address) \
		slot += sizeof(void *);
	FW_PIVOT(0) FW_PIVOT(1) FW_PIVOT(2) FW_PIVOT(3) FW_PIVOT(4) FW_PIVOT(5) FW_PIVOT(6) FW_PIVOT(7)
	FW_PIVOT(8)
	if (pivots == 15) {
		FW_PIVOT(9) FW_PIVOT(10) FW_PIVOT(11) FW_PIVOT(12) FW_PIVOT(13) FW_PIVOT(14)
	}
#undef FW_PIVOT
	return fw_kernel_word(slot);
}

/* The VMA that the tree has for `address`, or 0. Not validated. */
__noinline u64 fw_maple_find(u64 root, u64 address)
{
	u64 entry = root;

	for (u32 depth = 0; depth < FW_MAPLE_DEPTH; depth++) {
		u32 type = (entry >> 3) & 15;

		/* Low bits of a node's pointer: its type from bit 3 on; bit 1 marks a root (lib/maple_tree.c). */
		if (entry < 4096 || (entry & 3) != (depth ? 0 : 2))
			return 0;
		entry = fw_maple_slot(entry & ~255ull, type, address);
		if (type == FW_MAPLE_LEAF)
			return (entry & 3) || entry < 4096 ? 0 : entry;
	}
	return 0;
}

/* A number that changes whenever the mappings of `mm` do, or 0 where that cannot be told: every write
 * section of the mmap lock counts (include/linux/mmap_lock.h). Odd while one is under way. */
static __always_inline u32 fw_maps_version(struct mm_struct *mm)
{
	struct mm_struct___old *old = (struct mm_struct___old *)mm;
	u32 version;

	if (bpf_core_field_exists(mm->mm_lock_seq.sequence)) {
		version = mm->mm_lock_seq.sequence;
		return version & 1 ? 0 : version;
	}
	return bpf_core_field_exists(old->mm_lock_seq) ? old->mm_lock_seq : 0;
}

#endif
