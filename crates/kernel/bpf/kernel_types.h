/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The few kernel types that the walker reads, with only the fields that it reads. CO-RE relocates
 * every access against the running kernel's BTF, so offsets here mean nothing. (Outside of the kernel they are what
 * they look like: host.h.) */
#ifndef FRAMEWALK_KERNEL_TYPES_H
#define FRAMEWALK_KERNEL_TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u32 __wsum;
typedef u16 __sum16;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_LRU_HASH = 9, BPF_MAP_TYPE_RINGBUF = 27, BPF_MAP_TYPE_ARENA = 33 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1024 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };
enum { BPF_RB_AVAIL_DATA = 0, BPF_RB_RING_SIZE = 1 };

#ifdef __bpf__
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#endif

/* Complete: libbpf compares kfunc prototypes, and a mere declaration would not match. */
struct bpf_map {
	u32 max_entries;
};

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax;
	unsigned long ip;
	/* 6.9 and later: a union with the 64-bit csx; reading two bytes serves both */
	u16 cs;
	unsigned long sp;
};

struct super_block {
	u32 s_dev;
};

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
	s64 i_size;
	s64 i_mtime_sec;
	u32 i_mtime_nsec;
};

/* before 6.11 */
struct timespec64___old {
	s64 tv_sec;
	long tv_nsec;
};
struct inode___old {
	struct timespec64___old __i_mtime;
};

struct file {
	struct inode *f_inode;
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	struct mm_struct *vm_mm;
	unsigned long vm_flags;
	unsigned long vm_pgoff;
	struct file *vm_file;
};

struct maple_range_64 {
	void *parent;
	unsigned long pivot[15];
	void *slot[16];
};

struct maple_metadata {
	u8 end;
	u8 gap;
};

struct maple_arange_64 {
	void *parent;
	unsigned long pivot[9];
	void *slot[10];
	unsigned long gap[10];
	struct maple_metadata meta;
};

struct maple_tree {
	void *ma_root;
};

typedef struct {
	u64 ctx_id;
	void *vdso;
} mm_context_t;

struct seqcount {
	u32 sequence;
};
typedef struct seqcount seqcount_t;

typedef struct {
	int counter;
} atomic_t;

struct mm_struct {
	struct maple_tree mm_mt;
	atomic_t mm_users; /* threads that have it, and short-lived references */
	mm_context_t context;
	seqcount_t mm_lock_seq;
};

/* 6.4 to 6.12 */
struct mm_struct___old {
	int mm_lock_seq;
};

struct signal_struct {
	atomic_t live; /* threads */
};

struct task_struct {
	struct signal_struct *signal;
	int pid;
	int tgid;
	unsigned int __state;
	unsigned int flags;
	struct mm_struct *mm;
	char comm[16];
};

#ifdef __bpf__
#pragma clang attribute pop
#endif

typedef struct pt_regs bpf_user_pt_regs_t;

/* uapi/linux/bpf_perf_event.h; accesses are rewritten by the verifier, offsets are uapi: no CO-RE.
 * Only cs is read, as in uapi ptrace.h. */
struct bpf_perf_event_data {
	u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax;
	u64 rip, cs, eflags, rsp, ss;
	u64 sample_period, addr;
};

/* include/uapi/linux/bpf.h */
struct bpf_raw_tracepoint_args {
	u64 args[0];
};

struct bpf_pidns_info {
	u32 pid;
	u32 tgid;
};

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

#ifdef __bpf__
/* Bounds a loop without the verifier following each turn: the may_goto instruction (Linux 6.9) leaves
 * the loop once a budget of some millions is used up. Never the only bound of a loop here. */
#define can_loop \
	({ \
		__label__ out_of_budget, done; \
		bool go_on = true; \
		asm volatile goto("may_goto %l[out_of_budget]" :::: out_of_budget); \
		goto done; \
	out_of_budget: \
		go_on = false; \
	done:; \
		go_on; \
	})
#endif

#endif
