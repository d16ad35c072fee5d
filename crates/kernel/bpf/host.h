/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the kernel and libbpf give to a BPF program, for the same source compiled as ordinary C: so the walk of the kernel
 * runs beside others in one process, under sanitizers, and with a memory that fails where a test wants it to
 * (host/host.c). One world a thread at a time: fw_here. */
#ifndef FRAMEWALK_HOST_H
#define FRAMEWALK_HOST_H

#define SEC(name)
#define __ksym
#define __weak __attribute__((weak))
#define __always_inline inline __attribute__((always_inline))
#define __noinline static __attribute__((noinline, unused))
#define barrier() asm volatile("" ::: "memory")
#define barrier_var(var) asm volatile("" : "+r"(var))
#define fw_move_var(var) barrier_var(var)

/* Maps are described as for libbpf, so that their sizes can be taken from the description. */
#define __uint(name, number) int (*name)[number]
#define __type(name, type) typeof(type) *name

struct fw_world;
extern _Thread_local struct fw_world *fw_here;

void *fw_world_lookup(const void *map, u32 type, const void *key, u32 key_size, u32 value_size);
long fw_world_update(const void *map, const void *key, u32 key_size, const void *value, u32 value_size, u64 flags);
long fw_world_delete(const void *map, const void *key, u32 key_size);
long fw_world_read(void *to, u32 size, u64 from);
u8 *fw_world_arena(u32 at);
_Bool fw_world_loops(void);
void *fw_world_task(void);
void *fw_world_registers(void);

#define bpf_map_lookup_elem(map, key_at) \
	fw_world_lookup(map, sizeof(*(map)->type) / sizeof(int), key_at, sizeof(*(map)->key), sizeof(*(map)->value))
#define bpf_map_update_elem(map, key_at, value_at, flags) \
	fw_world_update(map, key_at, sizeof(*(map)->key), value_at, sizeof(*(map)->value), flags)
#define bpf_map_delete_elem(map, key_at) fw_world_delete(map, key_at, sizeof(*(map)->key))

#define bpf_probe_read_user(to, size, from) fw_world_read(to, size, (u64)(from))
#define bpf_copy_from_user(to, size, from) fw_world_read(to, size, (u64)(from))
#define bpf_get_current_task_btf() ((struct task_struct *)fw_world_task())
#define bpf_task_pt_regs(task) fw_world_registers()
#define FW_IN_ARENA(type, at) ((type *)fw_world_arena(at))

/* Records go nowhere, and there is always room for them. */
#define bpf_ringbuf_output(map, data, size, flags) 0l
#define bpf_ringbuf_query(map, what) 0ul

/* Types are what they look like, and only the newest kernel's. */
#define bpf_core_type_id_kernel(type) 0
#define bpf_core_field_exists(field) 1
#define bpf_core_field_offset(type, field) __builtin_offsetof(type, field)

/* The kernel's budget, too. To use it up is a fault that the world remembers. */
#define can_loop fw_world_loops()

#endif
