// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The hooks of the announce ABI: programs and maps only; what they do is in announce.h. The loader takes the
 * first of the four that the kernel allows:
 *
 *     call_sleepable   answers, and faults absent pages in       fmod_ret.s on the system call
 *     call_answer      answers                                   fmod_ret on the LSM hook
 *     call_unknown     only listens: the caller sees EINVAL      tracepoint of unknown options
 *     call_entry       only listens, at every system call        tracepoint of system calls
 *
 * The kernel does not run a program while the same one is on this CPU already, and on it is also one that sleeps or was
 * preempted. So those that come later on a call's way are loaded, too: they hear what the first one missed. A call
 * that was answered never gets to the next.
 */
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "reasons.h"
#include "shared.h"
#include "user.h"
#include "maps.h"
#include "announce.h"
#include "late.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* So that the loader knows the layout of what comes through the ring: types of maps and globals are exported. */
struct fw_heard heard_layout;

/* ---- a page that is absent ----------------------------------------------------------------------
 * A hook that only listens need not answer now. Where the section cannot be read at once, task work reads it, in
 * the caller's own context and before the call returns to user mode (Linux 6.18). */

struct bpf_task_work {
	u64 __opaque;
} __attribute__((aligned(8)));

struct fw_later {
	struct bpf_task_work work;
	struct fw_call call;
	struct fw_section section;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, u32); /* thread */
	__type(value, struct fw_later);
} later SEC(".maps");

/* 6.18 calls it ..._impl and passes the program's aux last; 7.x drops both. */
extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *tw, void *map__map,
					      int (*callback)(struct bpf_map *map, void *key, void *value),
					      void *aux__prog) __ksym __weak;
extern int bpf_task_work_schedule_resume(struct task_struct *task, struct bpf_task_work *tw, void *map__map,
					 int (*callback)(struct bpf_map *map, void *key, void *value)) __ksym __weak;

static int do_later(struct bpf_map *map, void *key, void *value)
{
	struct fw_later *thread = value;
	long answer;

	if (!thread)
		return 0;
	FW_COUNT_CALL(later);
	answer = fw_do(&thread->call, &thread->section, true);
	fw_tell(&thread->call, thread->section.number, answer, false);
	return 0;
}

static char empty_later[sizeof(struct fw_later)];

static __always_inline bool put_off(const struct fw_call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 tid = bpf_get_current_pid_tgid();
	struct fw_section blank = {};
	struct fw_later *thread;

	bpf_map_update_elem(&later, &tid, empty_later, BPF_NOEXIST);
	thread = bpf_map_lookup_elem(&later, &tid);
	if (!thread)
		return false;
	thread->call = *call;
	thread->section = blank;
	if (bpf_ksym_exists(bpf_task_work_schedule_resume))
		return !bpf_task_work_schedule_resume(task, &thread->work, &later, do_later);
	if (bpf_ksym_exists(bpf_task_work_schedule_resume_impl))
		return !bpf_task_work_schedule_resume_impl(task, &thread->work, &later, do_later, NULL);
	return false;
}

/* ---- hooks --------------------------------------------------------------------------------------- */

static __always_inline void listen(const struct fw_call *call)
{
	struct fw_section section = {};
	long answer = fw_do(call, &section, false);

	if (answer != -FW_EFAULT || !put_off(call))
		fw_tell(call, section.number, answer, false);
}

static __always_inline long answer(const struct fw_call *call, bool sleepable)
{
	struct fw_section section = {};
	long result = fw_do(call, &section, sleepable);

	fw_tell(call, section.number, result, true);
	return result;
}

/* A system call returns a long: an int would come without its sign. */
SEC("fmod_ret.s/__x64_sys_prctl")
long BPF_PROG(call_sleepable, struct pt_regs *regs)
{
	struct fw_call call = {regs->di, regs->si, regs->dx, regs->r10, regs->r8};

	return fw_is_call(call.option) ? answer(&call, true) : 0;
}

SEC("fmod_ret/security_task_prctl")
int BPF_PROG(call_answer, int option, u64 key, u64 address, u64 length, u64 how)
{
	struct fw_call call = {option, key, address, length, how};

	return fw_is_call(call.option) ? answer(&call, false) : 0;
}

SEC("raw_tp/task_prctl_unknown")
int call_unknown(struct bpf_raw_tracepoint_args *ctx)
{
	struct fw_call call = {ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3], ctx->args[4]};

	if (fw_is_call(call.option))
		listen(&call);
	return 0;
}

#define NR_PRCTL 157 /* arch/x86/entry/syscalls/syscall_64.tbl */

SEC("tp_btf/sys_enter")
int BPF_PROG(call_entry, struct pt_regs *regs, long number)
{
	struct fw_call call;

	if (number != NR_PRCTL || !fw_is_call((u32)regs->di))
		return 0;
	call.option = regs->di;
	call.key = regs->si;
	call.address = regs->dx;
	call.length = regs->r10;
	call.how = regs->r8;
	listen(&call);
	return 0;
}

/* Since 7.0 these can be preempted, too (where they copy, that takes a while), and would miss what happens on the
 * same CPU meanwhile. There they are loaded three times: who finds the work done does nothing. */

static __always_inline int executed(struct task_struct *task, int tid)
{
	/* A thread that was not the first is from now on, and has its id. */
	u32 old = tid;

	bpf_map_delete_elem(&later, &old);
	fw_leave(task->tgid);
	return 0;
}

static __always_inline int ended(struct task_struct *task)
{
	u32 tid = task->pid;

	bpf_map_delete_elem(&later, &tid);
	/* It was counted down already: the last thread finds 0. */
	if (!task->signal->live.counter)
		fw_leave(task->tgid);
	return 0;
}

#define LIFE(number) \
	SEC("tp_btf/sched_process_fork") \
	int BPF_PROG(forked_##number, struct task_struct *parent, struct task_struct *child) \
	{ \
		fw_forked(parent, child); \
		return 0; \
	} \
	SEC("tp_btf/sched_process_exec") \
	int BPF_PROG(executed_##number, struct task_struct *task, int tid) \
	{ \
		return executed(task, tid); \
	} \
	SEC("tp_btf/sched_process_exit") \
	int BPF_PROG(ended_##number, struct task_struct *task) \
	{ \
		return ended(task); \
	}

LIFE(1)
LIFE(2)
LIFE(3)

/* ---- for the loader ------------------------------------------------------------------------------- */

/* A section was seen to have changed: it is not used any more. */
struct fw_quarantine {
	u64 space;
	u64 number;
};

SEC("syscall")
int quarantine(struct fw_quarantine *which)
{
	struct fw_page *body = NULL;
	struct fw_space *space;
	u64 id = which->space, number = which->number;
	u32 page = 0;
	int done = 0;

	space = bpf_map_lookup_elem(&spaces, &id);
	if (!space || !fw_lock(space, id))
		return 0;
	FW_FOR_EACH_SLOT(space) {
		struct fw_section *at = FW_SLOT(page, body, id, space->slot);

		if (!at)
			break;
		if (at->number == number) {
			fw_change(space);
			at->quarantined = 1;
			fw_changed(space);
			done = 1;
			break;
		}
	}
	fw_unlock(space);
	return done;
}

/* The address space of a process. */
SEC("syscall")
int whose(struct fw_late *late)
{
	struct task_struct *task = bpf_task_from_pid(late->pid);

	late->answer = FW_LATE_GONE;
	if (!task)
		return 0;
	late->answer = fw_late_space(task, &late->space);
	bpf_task_release(task);
	return 0;
}

/* Takes in an area that a process registered before anybody listened. */
SEC("syscall")
int adopt(struct fw_late *late)
{
	struct task_struct *task = bpf_task_from_pid(late->pid);
	struct fw_section section = {.key = late->key, .address = late->address, .adopted = 1};

	late->answer = FW_LATE_GONE;
	if (!task)
		return 0;
	late->answer = fw_adopt(task, late->space, late->length, &section);
	bpf_task_release(task);
	return 0;
}

/* What a walk finds at a pc: a section and its text, or number 0 and the gap that holds the pc. */
struct fw_find {
	u64 space;
	u64 pc;
	u64 start;
	u64 end;
	u64 number;
};

SEC("syscall")
int find(struct fw_find *which)
{
	struct fw_section found = {};
	struct fw_space *space;
	u64 id = which->space;
	bool read = false;

	space = bpf_map_lookup_elem(&spaces, &id);
	for (u32 i = 0; i < FW_SPACE_TRIES && space && !read; i++)
		read = fw_space_read(space, id, which->pc, &found);
	which->start = found.start;
	which->end = found.end;
	which->number = found.number;
	return read;
}
