/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The arena holds what is built outside and read by every walk: tables, and the rule cache. Reads of
 * pages that do not exist give zeros and fault nobody (kernel/bpf/arena.c). */
#ifndef FRAMEWALK_ARENA_H
#define FRAMEWALK_ARENA_H

/* The loader chooses its user address, a multiple of 4 GiB: the low 32 bits are the offset. */
struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FW_ARENA_PAGES);
} arena SEC(".maps");

#ifdef __bpf__
#define FW_IN_ARENA(type, at) ((type __attribute__((address_space(1))) *)(u64)(at))
/* A move that the compiler cannot leave out, nor merge with another. */
#define fw_move_var(var) asm volatile("%0 = %0" : "+r"(var))
#endif

/* A program that touches the arena must name it once, so that the verifier knows which one. */
#define FW_USE_ARENA() asm volatile("" ::"r"(&arena))

static __always_inline u64 fw_load64(u32 at)
{
	return *FW_IN_ARENA(u64, at);
}
static __always_inline u32 fw_load32(u32 at)
{
	return *FW_IN_ARENA(u32, at);
}
static __always_inline u16 fw_load16(u32 at)
{
	return *FW_IN_ARENA(u16, at);
}
static __always_inline u8 fw_load8(u32 at)
{
	return *FW_IN_ARENA(u8, at);
}
static __always_inline void fw_store64(u32 at, u64 value)
{
	*FW_IN_ARENA(u64, at) = value;
}

#endif
