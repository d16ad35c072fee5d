/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reading the current thread's user memory: where it may sleep, absent pages are faulted in. */
#ifndef FRAMEWALK_USER_H
#define FRAMEWALK_USER_H

static __always_inline long fw_read_user(void *to, u32 size, u64 from, bool sleepable)
{
	if (sleepable)
		return bpf_copy_from_user(to, size, (const void *)from);
	return bpf_probe_read_user(to, size, (const void *)from);
}

#endif
