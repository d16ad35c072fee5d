/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Frame areas of processes that registered them before anybody listened (docs/abi.md, "Late start"). Whoever starts
 * late looks for them in /proc and says where they are; what it says is an allegation like a call's, and each area is
 * checked here as if its process had made the call at this moment.
 *
 * The process runs meanwhile, makes calls, forks, execs and ends; its pid may be another's by now. So its address
 * space, whose number is never used again, has to be the one that was looked at, both before and after. */
#ifndef FRAMEWALK_LATE_H
#define FRAMEWALK_LATE_H

#include "announce.h"

#define FW_TASK_NEW 0x800 /* include/linux/sched.h: TASK_NEW */

extern struct task_struct *bpf_task_from_pid(s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

static __always_inline long fw_late_space(struct task_struct *task, u64 *space)
{
	struct mm_struct *mm = task->mm;

	*space = mm && !(task->flags & FW_KERNEL_THREAD) ? fw_space_id(mm) : 0;
	if (!*space)
		return FW_LATE_GONE;
	/* fw_forked() comes before it runs, and would find that it has something already. */
	return task->__state & FW_TASK_NEW ? FW_LATE_EARLY : 1;
}

static __always_inline bool fw_has_magic(struct task_struct *task, u64 address)
{
	u64 magic = 0;

	return !bpf_copy_from_user_task(&magic, sizeof(magic), (const void *)address, task, 0) && magic == FW_AREA_MAGIC;
}

/* `section` has key and address. */
static __always_inline long fw_adopt(struct task_struct *task, u64 space, u64 length, struct fw_section *section)
{
	struct fw_area_header header;
	struct fw_who who = fw_who(task);
	u64 now = 0;
	long answer = fw_late_space(task, &now);

	if (answer != 1)
		return answer;
	if (now != space || who.space != space)
		return FW_LATE_GONE;
	if (!fw_is_range(section->address, length))
		return -FW_EINVAL;
	if (length < sizeof(header))
		return -FW_EBADMSG;
	if (bpf_copy_from_user_task(&header, sizeof(header), (const void *)section->address, task, 0))
		return -FW_EFAULT;
	answer = fw_check_area(section, &header, length);
	if (answer)
		return answer;
	section->writable = fw_is_writable(task, section->address);
	answer = fw_insert(section, &who, false);
	/* Before a process takes an area back it clears the magic (docs/abi.md). If it did so after that was read, its
	 * call may have come too early to find anything. */
	if (answer > 0 && !fw_has_magic(task, section->address)) {
		fw_unregister(space, section->key, section->number);
		answer = -FW_EBADMSG;
	}
	if (fw_has_left(task, space)) {
		u32 pid = who.pid;
		u64 *known = bpf_map_lookup_elem(&processes, &pid);

		/* Its exec, or its end, may have been heard before it joined. */
		if (known && *known == space)
			fw_leave(pid);
		return FW_LATE_GONE;
	}
	return answer;
}

#endif
