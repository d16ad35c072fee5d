// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What the walker's cost is measured against: a sample that does nothing, and one that does what
 * profilers do today, bpf_get_stack by frame pointer. */
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FRAMES 127 /* kernel.perf_event_max_stack */
#define BPF_F_USER_STACK (1 << 8)

struct sample {
	u64 time;
	u64 pid_tgid;
	u32 cpu;
	u32 len;
	char comm[16];
	u64 frames[FRAMES];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct sample);
} scratch SEC(".maps");

u64 count;
u64 run_ns;
u64 frames;

SEC("perf_event")
int empty(void *ctx)
{
	return 0;
}

SEC("perf_event")
int get_stack(void *ctx)
{
	u64 begin = bpf_ktime_get_ns();
	u32 zero = 0;
	struct sample *sample = bpf_map_lookup_elem(&scratch, &zero);
	long bytes;

	if (!sample)
		return 0;
	bytes = bpf_get_stack(ctx, sample->frames, sizeof(sample->frames), BPF_F_USER_STACK);
	if (bytes < 0)
		bytes = 0;
	sample->time = begin;
	sample->pid_tgid = bpf_get_current_pid_tgid();
	sample->cpu = bpf_get_smp_processor_id();
	sample->len = bytes / 8;
	bpf_get_current_comm(sample->comm, sizeof(sample->comm));
	if (bytes <= sizeof(sample->frames))
		bpf_ringbuf_output(&samples, sample, __builtin_offsetof(struct sample, frames) + bytes, BPF_RB_NO_WAKEUP);
	count++;
	frames += bytes / 8;
	run_ns += bpf_ktime_get_ns() - begin;
	return 0;
}
