/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The mappings that a walk has met, kept from walk to walk, and the objects that they show. An object that nobody has
 * registered is asked for once. */
#ifndef FRAMEWALK_RANGES_H
#define FRAMEWALK_RANGES_H

/* Requests for objects that nobody registered yet; the loader reads them. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} wants SEC(".maps");

/* The loader counts it up with every object that it registers. */
volatile u32 tables_version = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct fw_key);
	__type(value, struct fw_object);
} objects SEC(".maps");

/* The vdso has no file: its key has a device that none has. */
#define FW_VDSO_DEVICE 0xffffffffu

static __always_inline void fw_inode_key(struct inode *inode, struct fw_key *key)
{
	key->inode = inode->i_ino;
	key->size = inode->i_size;
	key->device = inode->i_sb->s_dev;
	if (bpf_core_field_exists(inode->i_mtime_sec)) {
		key->mtime_sec = inode->i_mtime_sec;
		key->mtime_nsec = inode->i_mtime_nsec;
	} else {
		struct inode___old *old = (struct inode___old *)inode;

		key->mtime_sec = old->__i_mtime.tv_sec;
		key->mtime_nsec = old->__i_mtime.tv_nsec;
	}
}

static __always_inline void fw_want_object(struct fw_walk *w, struct fw_key *key, u64 start, u64 end)
{
	struct fw_object wanted = {.state = FW_OBJECT_WANTED};
	long error = bpf_map_update_elem(&objects, key, &wanted, BPF_NOEXIST);

	if (error) {
		/* -EEXIST: another CPU asked at the same moment. */
		if (error != -17)
			FW_COUNT(full_objects, 1);
		return;
	}
	w->want.kind = FW_RECORD_WANT;
	w->want.pid = w->pid;
	w->want.key = *key;
	w->want.start = start;
	w->want.end = end;
	if (bpf_ringbuf_output(&wants, &w->want, sizeof(w->want), BPF_RB_FORCE_WAKEUP)) {
		/* Nobody heard it: let the next walk ask again. */
		bpf_map_delete_elem(&objects, key);
		FW_COUNT(full_ring, 1);
	}
}

/* What the VMA says, once. 0, or a stop. */
static __always_inline int fw_map_once(struct mm_struct *mm, u64 pc, struct fw_range *range, struct fw_key *key)
{
	u64 entry = fw_maple_find(fw_kernel_word((u64)&mm->mm_mt.ma_root), pc), start, end, pgoff;
	struct vm_area_struct *vma;
	struct file *file;

	if (!entry)
		return FW_STOP(FW_STOP_NOT_CODE);
	vma = FW_TYPED(vm_area_struct, entry);
	start = vma->vm_start;
	end = vma->vm_end;
	pgoff = vma->vm_pgoff;
	file = vma->vm_file;
	if (pc < start || pc >= end || vma->vm_mm != mm)
		return FW_STOP(FW_STOP_MAPS_BUSY);
	if (!(vma->vm_flags & FW_VM_EXEC))
		return FW_STOP(FW_STOP_NOT_CODE);
	range->start = start;
	range->end = end;
	range->bias = start - (pgoff << 12);
	range->kind = FW_RANGE_OBJECT;
	if (file) {
		fw_inode_key(file->f_inode, key);
	} else if (start == (u64)mm->context.vdso) {
		range->bias = start;
		key->device = FW_VDSO_DEVICE;
	} else {
		range->bias = 0;
		range->kind = FW_RANGE_ANONYMOUS;
	}
	/* The same twice, or it was changing under us. */
	if (vma->vm_start != start || vma->vm_end != end || vma->vm_pgoff != pgoff || vma->vm_file != file || vma->vm_mm != mm)
		return FW_STOP(FW_STOP_MAPS_BUSY);
	return FW_GO;
}

/* Learns the mapping of `pc` into the next slot of the walk's ranges. */
static __always_inline int fw_map(struct fw_walk *w, u64 pc)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;
	struct fw_range *range = &w->ranges[w->num_ranges & (FW_RANGES - 1)];
	struct fw_object *object;
	struct fw_key key = {};
	int stop;

	if (!mm)
		return FW_STOP(FW_STOP_EXITED);
	FW_COUNT(maps, 1);
	/* Task work runs outside of it; elsewhere it costs nothing. */
	bpf_rcu_read_lock();
	stop = fw_map_once(mm, pc, range, &key);
	if (stop)
		stop = fw_map_once(mm, pc, range, &key);
	bpf_rcu_read_unlock();
	if (stop) {
		/* What is half written holds no address. */
		range->start = range->end = 0;
		return stop;
	}
	if (range->kind == FW_RANGE_OBJECT) {
		object = bpf_map_lookup_elem(&objects, &key);
		if (object) {
			range->object = *object;
		} else {
			fw_want_object(w, &key, range->start, range->end);
			range->object.state = FW_OBJECT_WANTED;
		}
	}
	w->last = w->num_ranges;
	w->num_ranges++;
	return FW_GO;
}

static __always_inline bool fw_in(const struct fw_range *range, u64 pc)
{
	return pc - range->start < range->end - range->start;
}

/* Makes w->last the range of `pc`. */
__noinline int fw_locate(struct fw_walk *w, u64 pc)
{
	if (!w || pc >= FW_USER_END)
		return FW_STOP(FW_STOP_NOT_CODE);
	if (w->num_ranges && fw_in(&w->ranges[w->last & (FW_RANGES - 1)], pc))
		return FW_GO;
	for (u32 i = 0; i < FW_RANGES; i++) {
		if (i < w->num_ranges && fw_in(&w->ranges[i], pc)) {
			w->last = i;
			return FW_GO;
		}
	}
	return fw_map(w, pc);
}

/* Forgets the ranges of earlier walks unless they still hold. */
static __always_inline void fw_keep_ranges(struct fw_walk *w, struct mm_struct *mm)
{
	u32 version = mm ? fw_maps_version(mm) : 0;
	u64 id = mm ? mm->context.ctx_id : 0;

	if (version && w->ranges_mm == id && w->ranges_version == version && w->ranges_tables == tables_version)
		return;
	w->ranges_mm = id;
	w->ranges_version = version;
	w->ranges_tables = tables_version;
	w->num_ranges = 0;
	w->last = 0;
}

#endif
