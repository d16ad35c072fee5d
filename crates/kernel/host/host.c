// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The walk of the kernel (bpf/walk.h) as ordinary C, in a world that is made by hand: mappings in a maple tree as the
 * kernel builds them, tables in an arena, and memory that a callback reads. For tests and fuzzing. */
#include "walk.h"
#include "claim.h"
#include "area_claim.h"

void *calloc(unsigned long count, unsigned long size);
void free(void *memory);
void *mmap(void *address, unsigned long length, int protection, int flags, int fd, long offset);
int munmap(void *address, unsigned long length);

#define PROT_READ_WRITE 3
#define MAP_PRIVATE_ANONYMOUS_NORESERVE 0x4022
#define ARENA_BYTES ((unsigned long)FW_ARENA_PAGES * 4096)
/* kernel/bpf/verifier.c: BPF_MAX_TIMED_LOOPS and BPF_MAX_LOOPS are of this order. */
#define LOOPS (8u << 20)
#define BUCKETS 256
#define MAX_VMAS 64
#define MAX_OBJECTS 16
/* Of each kind of node, in a tree of that many mappings and gaps. */
#define MAX_NODES 64

/* An entry of a map: its key follows, then its value. */
struct entry {
	struct entry *next;
	const void *map;
	u32 key_size;
	u64 bytes[];
};

typedef int (*reader)(void *context, void *to, u32 size, u64 from);

struct fw_world {
	struct task_struct task;
	struct signal_struct signal;
	struct mm_struct mm;
	struct pt_regs registers;
	struct vm_area_struct vmas[MAX_VMAS];
	u32 num_vmas;
	struct super_block device;
	struct inode inodes[MAX_OBJECTS];
	struct file files[MAX_OBJECTS];
	u8 nodes[MAX_NODES + 1][256];
	u8 *arena;
	u32 arena_used;
	struct entry *buckets[BUCKETS];
	struct fw_walk walk;
	reader read;
	void *context;
	u32 loops;
	u32 reads;
	u8 out_of_loops;
};

_Thread_local struct fw_world *fw_here;

/* ---- what host.h promises ------------------------------------------------------------------------ */

void *bpf_rdonly_cast(const void *obj, __u32 btf_id)
{
	(void)btf_id;
	return (void *)obj;
}

void bpf_rcu_read_lock(void)
{
}

void bpf_rcu_read_unlock(void)
{
}

static bool same(const void *a, const void *b, u32 size)
{
	const u8 *x = a, *y = b;

	while (size && *x == *y) {
		x++;
		y++;
		size--;
	}
	return !size;
}

static struct entry **find(const void *map, const void *key, u32 key_size)
{
	const u8 *bytes = key;
	u32 hash = (u64)map >> 4;
	struct entry **at;

	for (u32 i = 0; i < key_size; i++)
		hash = hash * 31 + bytes[i];
	at = &fw_here->buckets[hash % BUCKETS];
	while (*at && ((*at)->map != map || (*at)->key_size != key_size || !same((*at)->bytes, key, key_size)))
		at = &(*at)->next;
	return at;
}

static void *value_of(struct entry *entry)
{
	return (u8 *)entry->bytes + (entry->key_size + 7) / 8 * 8;
}

long fw_world_update(const void *map, const void *key, u32 key_size, const void *value, u32 value_size, u64 flags)
{
	struct entry **at = find(map, key, key_size);

	if (*at && flags & BPF_NOEXIST)
		return -17;
	if (!*at) {
		*at = calloc(1, sizeof(struct entry) + (key_size + 7) / 8 * 8 + value_size);
		if (!*at)
			return -12;
		(*at)->map = map;
		(*at)->key_size = key_size;
		__builtin_memcpy((*at)->bytes, key, key_size);
	}
	if (value)
		__builtin_memcpy(value_of(*at), value, value_size);
	return 0;
}

/* Arrays have all their entries from the beginning. */
void *fw_world_lookup(const void *map, u32 type, const void *key, u32 key_size, u32 value_size)
{
	struct entry *entry = *find(map, key, key_size);

	if (!entry && (type == BPF_MAP_TYPE_ARRAY || type == BPF_MAP_TYPE_PERCPU_ARRAY)) {
		fw_world_update(map, key, key_size, NULL, value_size, BPF_ANY);
		entry = *find(map, key, key_size);
	}
	return entry ? value_of(entry) : NULL;
}

long fw_world_delete(const void *map, const void *key, u32 key_size)
{
	struct entry **at = find(map, key, key_size), *entry = *at;

	if (!entry)
		return -2;
	*at = entry->next;
	free(entry);
	return 0;
}

/* As the kernel's helpers do, it leaves noughts where it fails. */
long fw_world_read(void *to, u32 size, u64 from)
{
	fw_here->reads++;
	if (!fw_here->read(fw_here->context, to, size, from))
		return 0;
	__builtin_memset(to, 0, size);
	return -14;
}

u8 *fw_world_arena(u32 at)
{
	/* 8 bytes more are mapped. */
	return fw_here->arena + (at < ARENA_BYTES ? at : ARENA_BYTES);
}

bool fw_world_loops(void)
{
	if (fw_here->loops) {
		fw_here->loops--;
		return true;
	}
	fw_here->out_of_loops = 1;
	return false;
}

void *fw_world_task(void)
{
	return &fw_here->task;
}

void *fw_world_registers(void)
{
	return &fw_here->registers;
}

/* ---- the world ------------------------------------------------------------------------------------ */

void fw_world_free(struct fw_world *world)
{
	if (!world)
		return;
	if (world->arena)
		munmap(world->arena, ARENA_BYTES + 4096);
	for (u32 i = 0; i < BUCKETS; i++) {
		while (world->buckets[i]) {
			struct entry *entry = world->buckets[i];

			world->buckets[i] = entry->next;
			free(entry);
		}
	}
	free(world);
}

struct fw_world *fw_world_new(void)
{
	struct fw_world *world = calloc(1, sizeof(*world));

	if (!world)
		return NULL;
	world->arena = mmap(NULL, ARENA_BYTES + 4096, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS_NORESERVE, -1, 0);
	if (world->arena == (u8 *)-1) {
		world->arena = NULL;
		fw_world_free(world);
		return NULL;
	}
	world->arena_used = FW_CACHE_BYTES;
	world->task.mm = &world->mm;
	world->task.signal = &world->signal;
	world->task.pid = world->task.tgid = 1;
	world->mm.context.ctx_id = 1;
	world->mm.mm_lock_seq.sequence = 2;
	world->device.s_dev = 1;
	world->registers.cs = FW_USER64_CS;
	for (u32 i = 0; i < MAX_OBJECTS; i++) {
		world->inodes[i].i_ino = i;
		world->inodes[i].i_sb = &world->device;
		world->files[i].f_inode = &world->inodes[i];
	}
	return world;
}

/* Forgets mappings, tables, caches and what was announced. */
void fw_world_clear(struct fw_world *world)
{
	world->num_vmas = 0;
	__builtin_memset(world->arena, 0, world->arena_used);
	world->arena_used = FW_CACHE_BYTES;
	for (u32 i = 0; i < BUCKETS; i++) {
		while (world->buckets[i]) {
			struct entry *entry = world->buckets[i];

			world->buckets[i] = entry->next;
			free(entry);
		}
	}
	/* As another address space would. */
	world->mm.context.ctx_id++;
	world->mm.mm_lock_seq.sequence += 2;
}

/* The object with this number: `state` of enum fw_object_state; where it is ready, by a V3 section. */
int fw_world_object(struct fw_world *world, u32 number, u32 state, u32 origin, const u8 *section, u32 length, u32 index,
		    u32 functions, u32 rows_at, u32 rows_len)
{
	struct fw_object object = {.id = number, .state = state, .origin = origin, .section = world->arena_used};
	struct fw_key key = {};

	if (number >= MAX_OBJECTS || length > ARENA_BYTES - world->arena_used)
		return -1;
	object.fdes = index;
	object.num_fdes = functions;
	object.fres = rows_at;
	object.fres_len = rows_len;
	__builtin_memcpy(world->arena + world->arena_used, section, length);
	world->arena_used += length;
	fw_here = world;
	fw_inode_key(&world->inodes[number], &key);
	return bpf_map_update_elem(&objects, &key, &object, BPF_ANY);
}

/* A mapping: mappings come in the order of their addresses. `object` below 0: no file. */
int fw_world_map(struct fw_world *world, u64 start, u64 end, u64 page, int executable, int object)
{
	struct vm_area_struct *vma = &world->vmas[world->num_vmas];

	if (world->num_vmas >= MAX_VMAS || object >= MAX_OBJECTS || start >= end ||
	    (world->num_vmas && start < vma[-1].vm_end))
		return -1;
	vma->vm_start = start;
	vma->vm_end = end;
	vma->vm_mm = &world->mm;
	vma->vm_flags = executable ? FW_VM_EXEC : FW_VM_WRITE;
	vma->vm_pgoff = page;
	vma->vm_file = object < 0 ? NULL : &world->files[object];
	world->num_vmas++;
	return 0;
}

/* Slots of a node: the last address of each, and what it holds. */
struct level {
	u64 last[2 * MAX_VMAS + 1];
	void *slot[2 * MAX_VMAS + 1];
	u32 count;
};

static void *node_of(struct fw_world *world, u32 number)
{
	/* Aligned to their size: the low bits of a pointer to one tell its type. */
	return (void *)(((u64)world->nodes + 255 & ~255ull) + number * 256ull);
}

/* Puts a level's slots into nodes of up to `most` slots, which become the level. */
static u32 pack(struct fw_world *world, struct level *level, u32 nodes, u32 most)
{
	u32 type = most > 10 ? FW_MAPLE_LEAF : FW_MAPLE_ARANGE, made = 0;

	for (u32 from = 0; from < level->count; from += most) {
		u32 count = level->count - from < most ? level->count - from : most;
		void *node = node_of(world, nodes++);
		struct maple_arange_64 *inner = node;
		struct maple_range_64 *leaf = node;

		__builtin_memset(node, 0, 256);
		for (u32 i = 0; i < count; i++) {
			u64 last = level->last[from + i];

			if (type == FW_MAPLE_LEAF) {
				leaf->slot[i] = level->slot[from + i];
				if (i < 15)
					leaf->pivot[i] = last;
			} else {
				inner->slot[i] = level->slot[from + i];
				if (i < 9)
					inner->pivot[i] = last;
			}
		}
		if (type == FW_MAPLE_ARANGE)
			inner->meta.end = count - 1;
		else if (count < 16)
			((struct maple_metadata *)&leaf->slot[15])->end = count - 1;
		level->last[made] = level->last[from + count - 1];
		level->slot[made++] = (void *)((u64)node | type << 3);
	}
	level->count = made;
	return nodes;
}

/* Builds the tree of the mappings (lib/maple_tree.c). Leaves have `leaf` slots at most, 2 to 16. */
void fw_world_mapped(struct fw_world *world, u32 leaf)
{
	struct level level = {.count = 0};
	u64 next = 0;
	u32 nodes;

	for (u32 i = 0; i < world->num_vmas; i++) {
		struct vm_area_struct *vma = &world->vmas[i];

		if (vma->vm_start > next) {
			level.last[level.count] = vma->vm_start - 1;
			level.slot[level.count++] = NULL;
		}
		level.last[level.count] = vma->vm_end - 1;
		level.slot[level.count++] = vma;
		next = vma->vm_end;
	}
	level.last[level.count] = ~0ull;
	level.slot[level.count++] = NULL;
	nodes = pack(world, &level, 0, leaf < 11 ? 11 : leaf > 16 ? 16 : leaf);
	while (level.count > 1)
		nodes = pack(world, &level, nodes, 10);
	/* A root is marked. */
	world->mm.mm_mt.ma_root = (void *)((u64)level.slot[0] | 2);
	world->mm.mm_lock_seq.sequence += 2;
}

/* Registers what lies at an address, as a call would: 0, or an errno below it. At most a page full of sections, without
 * regard to overlap: that is the registry's. */
long fw_world_announce(struct fw_world *world, int area, u64 key, u64 address, u64 length, u64 number, reader read,
		       void *context)
{
	struct fw_section section = {.key = key, .address = address, .number = number};
	static const struct fw_space empty_space;
	static const struct fw_page empty_page;
	struct fw_page_key page_key = {.space = world->mm.context.ctx_id};
	struct fw_registry *all;
	struct fw_space *space;
	struct fw_page *page;
	long error;
	u32 at;

	fw_here = world;
	world->read = read;
	world->context = context;
	world->loops = LOOPS;
	error = area ? fw_read_area(&section, length, true) : fw_read_section(&section, length, true);
	if (error)
		return error;
	bpf_map_update_elem(&spaces, &page_key.space, &empty_space, BPF_NOEXIST);
	bpf_map_update_elem(&pages, &page_key, &empty_page, BPF_NOEXIST);
	space = bpf_map_lookup_elem(&spaces, &page_key.space);
	page = bpf_map_lookup_elem(&pages, &page_key);
	all = fw_the_registry();
	if (!space || !page || !all || space->count >= FW_PAGE_SECTIONS)
		return -FW_ENOSPC;
	for (at = space->count; at && page->sections[at - 1].start > section.start; at--)
		page->sections[at] = page->sections[at - 1];
	page->sections[at] = section;
	all->spaces = 1;
	space->id = page_key.space;
	space->count++;
	space->sequence += 2;
	space->first[0] = page->sections[0].start;
	return 0;
}

/* ---- a walk ------------------------------------------------------------------------------------------ */

struct fw_world_walk {
	/* Where it begins. */
	u64 pc;
	u64 sp;
	u64 fp;
	u64 registers[16]; /* by DWARF number, of a topmost frame */
	u32 limit;
	u32 origin;
	u8 top;
	u8 is_return;
	u8 sleepable;
	u8 may_defer;
	/* How it ended, and where it stood. */
	u32 stop;
	u32 words;
	u32 frames;
	u32 reads; /* calls of the reader */
	u32 out_of_loops;
	const u64 *stack;
};

void fw_world_walk(struct fw_world *world, struct fw_world_walk *walk, reader read, void *context)
{
	struct pt_regs *regs = &world->registers;
	struct fw_walk *w = &world->walk;
	const u64 *r = walk->registers;

	fw_here = world;
	world->read = read;
	world->context = context;
	world->reads = 0;
	world->loops = LOOPS;
	world->out_of_loops = 0;
	regs->ax = r[0];
	regs->dx = r[1];
	regs->cx = r[2];
	regs->bx = r[3];
	regs->si = r[4];
	regs->di = r[5];
	regs->r8 = r[8];
	regs->r9 = r[9];
	regs->r10 = r[10];
	regs->r11 = r[11];
	regs->r12 = r[12];
	regs->r13 = r[13];
	regs->r14 = r[14];
	regs->r15 = r[15];
	regs->ip = walk->pc;
	regs->sp = walk->sp;
	regs->bp = walk->fp;
	w->num_kernel = 0;
	fw_begin(w, walk->limit);
	w->may_defer = walk->may_defer;
	w->top = walk->top;
	w->is_return = walk->is_return;
	w->origin = walk->origin;
	walk->stop = fw_run(w, walk->sleepable);
	walk->pc = w->pc;
	walk->sp = w->sp;
	walk->fp = w->fp;
	walk->words = w->num_words;
	walk->frames = w->num_user;
	walk->stack = w->frames;
	walk->reads = world->reads;
	walk->out_of_loops = world->out_of_loops;
}
