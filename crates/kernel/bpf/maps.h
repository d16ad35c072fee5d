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

/* A nought that the verifier does not know: it would follow each turn of a loop whose count it knows. */
volatile u32 fw_nought;

/* One level down: the slot of `node` that holds `address`. Pivots ascend: as many slots lie before it as there are
 * pivots below the address. */
static __always_inline u64 fw_maple_slot(u64 node, u32 type, u64 address)
{
	u64 pivot = node + bpf_core_field_offset(struct maple_range_64, pivot), first = pivot, slots;
	u32 pivots, end;

	if (type == FW_MAPLE_ARANGE) {
		slots = node + bpf_core_field_offset(struct maple_arange_64, slot);
		end = FW_TYPED(maple_arange_64, node)->meta.end;
		pivots = 9;
	} else {
		slots = node + bpf_core_field_offset(struct maple_range_64, slot);
		/* An unset last pivot means that the metadata behind the slots tells the end. */
		end = FW_TYPED(maple_range_64, node)->pivot[14] ? 15 : FW_TYPED(maple_metadata, slots + 15 * 8)->end;
		pivots = 15;
	}
	end = (end > pivots ? pivots : end) + fw_nought;
	while (end && fw_kernel_word(pivot) < address && can_loop) {
		pivot += sizeof(u64);
		end--;
	}
	return fw_kernel_word(slots + (pivot - first));
}

/* The VMA that the tree has for `address`, or 0. Not validated. */
__noinline u64 fw_maple_find(u64 root, u64 address)
{
	u32 left = FW_MAPLE_DEPTH + fw_nought, type;
	u64 entry = root;

	/* Low bits of a node's pointer: its type from bit 3 on; bit 1 marks a root (lib/maple_tree.c). */
	if ((entry & 3) != 2)
		return 0;
	entry &= ~3ull;
	for (; left && can_loop; left--) {
		if (entry < 4096 || entry & 3)
			return 0;
		type = (entry >> 3) & 15;
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
