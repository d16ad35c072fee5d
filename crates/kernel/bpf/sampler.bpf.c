// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The sampling programs: what a perf event does. Programs and maps only; the walk is in walk.h. */
#include "walk.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Immediate walks: an interrupt owns its CPU's state, and no second one can come while it walks. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fw_walk);
} scratch SEC(".maps");

/* Deferred walks: the state belongs to the thread, for a walk may sleep in a page fault. */
struct bpf_task_work {
	u64 __opaque;
} __attribute__((aligned(8)));

struct fw_thread {
	struct bpf_task_work work;
	u32 pending;
	u32 pad;
	struct fw_walk walk;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, struct fw_thread);
} threads SEC(".maps");

/* Set by the loader before loading. */
const volatile u32 frame_limit = FW_USER_FRAMES;
const volatile bool defer_always = false;
/* The loader's pid namespace, where that is not the initial one: device and inode of /proc/self/ns/pid. */
const volatile u64 namespace_device = 0;
const volatile u64 namespace_inode = 0;

/* 6.18 calls it ..._impl and passes the program's aux last; 7.x drops both. */
extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *tw, void *map__map,
					      int (*callback)(struct bpf_map *map, void *key, void *value),
					      void *aux__prog) __ksym __weak;
extern int bpf_task_work_schedule_resume(struct task_struct *task, struct bpf_task_work *tw, void *map__map,
					 int (*callback)(struct bpf_map *map, void *key, void *value)) __ksym __weak;

/* include/linux/sched.h */
#define PF_EXITING 0x00000004
#define PF_KTHREAD 0x00200000

/* Process and thread id as the loader's pid namespace has them; as the initial one has them for
 * processes that it cannot see. */
static __always_inline u64 visible_pid_tgid(void)
{
	struct bpf_pidns_info ids = {};

	if (namespace_inode && !bpf_get_ns_current_pid_tgid(namespace_device, namespace_inode, &ids, sizeof(ids)))
		return (u64)ids.tgid << 32 | ids.pid;
	return bpf_get_current_pid_tgid();
}

static __always_inline void fill_header(struct fw_walk *w, u64 time, u64 id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 pid_tgid = visible_pid_tgid();
	struct fw_sample *sample = &w->sample;

	sample->kind = FW_RECORD_SAMPLE;
	w->pid = pid_tgid >> 32;
	sample->pid = w->pid;
	sample->tid = (u32)pid_tgid;
	sample->cpu = bpf_get_smp_processor_id();
	sample->time = time;
	sample->id = id;
	sample->flags = 0;
	sample->copied = 0;
	sample->num_kernel = w->num_kernel;
	sample->num_user = 0;
	__builtin_memcpy(sample->comm, task->comm, sizeof(sample->comm));
}

static __always_inline void send(struct fw_walk *w, u32 stop)
{
	u32 words = w->num_words;

	if (words > FW_WORDS)
		words = FW_WORDS;
	w->sample.stop = stop;
	w->sample.origin = w->origin;
	w->sample.num_kernel = w->num_kernel;
	w->sample.num_user = w->num_user;
	w->sample.pc = w->pc;
	w->sample.sp = w->sp;
	w->sample.fp = w->fp;
	w->sample.flags |= (w->is_return ? FW_SAMPLE_RETURN : 0) | (w->top ? FW_SAMPLE_TOP : 0);
	if (bpf_ringbuf_output(&samples, &w->sample, sizeof(w->sample) + words * 8, BPF_RB_NO_WAKEUP))
		FW_COUNT(full_ring, 1);
}

/* Ships what it takes to finish a walk outside: the stack from where the walk stands, bounded. The
 * window serves as the buffer. */
static __always_inline void ship_stack(struct fw_walk *w, bool sleepable)
{
	u64 address = w->sp & ~7ull, ring_size = bpf_ringbuf_query(&samples, BPF_RB_RING_SIZE);

	if (w->top) {
		w->registers.kind = FW_RECORD_REGISTERS;
		w->registers.id = w->sample.id;
		for (u32 i = 0; i < 16; i++)
			w->registers.values[i] = fw_thread_register(i);
		if (bpf_ringbuf_output(&samples, &w->registers, sizeof(w->registers), BPF_RB_NO_WAKEUP))
			FW_COUNT(full_ring, 1);
	}
	for (u32 i = 0; i < FW_COPY / FW_WINDOW && can_loop; i++) {
		u64 rest = 4096 - (address & 4095);
		u32 len = rest < FW_WINDOW ? rest : FW_WINDOW;

		if (len > FW_WINDOW || !len || fw_read_user(w->window, len, address, sleepable))
			break;
		w->stack.kind = FW_RECORD_STACK;
		w->stack.len = len;
		w->stack.id = w->sample.id;
		w->stack.address = address;
		/* A sample that ends early is better than none: half of the ring is for samples alone. */
		if (bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) > ring_size / 2 ||
		    bpf_ringbuf_output(&samples, &w->stack, sizeof(w->stack) + len, BPF_RB_NO_WAKEUP)) {
			FW_COUNT(uncopied, 1);
			break;
		}
		w->sample.copied++;
		address += len;
	}
	w->window_len = 0;
}

static __always_inline u32 walk_now(struct fw_walk *w, bool sleepable)
{
	fw_begin(w, frame_limit);
	return fw_run(w, sleepable);
}

static __always_inline void finish(struct fw_walk *w, u32 stop, bool sleepable)
{
	if (stop == FW_STOP_TABLE_PENDING || stop == FW_STOP_MAPS_BUSY)
		ship_stack(w, sleepable);
	send(w, stop);
}

static __always_inline void account(struct fw_walk *w, u64 begin)
{
	u32 zero = 0;
	struct fw_counts *c = bpf_map_lookup_elem(&counts, &zero);

	if (!c)
		return;
	c->frames += w->num_user;
	c->run_cnt++;
	c->run_ns += bpf_ktime_get_ns() - begin;
}

/* Leaves the kernel's frames alone: the user's are not walked yet, or are another sample's. */
static __always_inline void without_user(struct fw_walk *w)
{
	w->num_user = 0;
	w->num_words = w->num_kernel;
}

/* Task work: in the thread's own context, just before it returns to user mode; reads may fault. */
static int walk_deferred(struct bpf_map *map, void *key, void *value)
{
	u64 begin = bpf_ktime_get_ns();
	struct fw_thread *thread = value;
	struct fw_walk *w;
	u32 stop;

	if (!thread)
		return 0;
	w = &thread->walk;
	stop = walk_now(w, true);
	finish(w, stop, true);
	thread->pending = 0;
	FW_COUNT(resumed, 1);
	account(w, begin);
	return 0;
}

static __always_inline long schedule(struct fw_thread *thread)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (bpf_ksym_exists(bpf_task_work_schedule_resume))
		return bpf_task_work_schedule_resume(task, &thread->work, &threads, walk_deferred);
	if (bpf_ksym_exists(bpf_task_work_schedule_resume_impl))
		return bpf_task_work_schedule_resume_impl(task, &thread->work, &threads, walk_deferred, NULL);
	return -1;
}

static __always_inline struct fw_walk *scratch_walk(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

/* Begins a sample in this CPU's scratch: header and kernel frames. */
static __always_inline bool begin_sample(struct bpf_perf_event_data *ctx, struct fw_walk *w, u64 now)
{
	bool in_kernel = !(ctx->cs & 3);

	w->num_kernel = 0;
	if (in_kernel) {
		long bytes = bpf_get_stack(ctx, w->frames, FW_KERNEL_FRAMES * 8, 0);

		if (bytes > 0)
			w->num_kernel = bytes / 8;
	}
	without_user(w);
	fill_header(w, now, now ^ (u64)bpf_get_current_task());
	return in_kernel;
}

SEC("perf_event")
int sample_immediate(struct bpf_perf_event_data *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct fw_walk *w = scratch_walk();

	if (!w)
		return 0;
	begin_sample(ctx, w, now);
	if (bpf_get_current_task_btf()->flags & PF_KTHREAD)
		send(w, FW_STOP_KERNEL_THREAD);
	else
		finish(w, walk_now(w, false), false);
	FW_COUNT(samples, 1);
	account(w, now);
	return 0;
}

static char empty_thread[sizeof(struct fw_thread)];

static __always_inline struct fw_thread *thread_state(void)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct fw_thread *thread = bpf_map_lookup_elem(&threads, &tid);

	if (!thread) {
		bpf_map_update_elem(&threads, &tid, empty_thread, BPF_NOEXIST);
		thread = bpf_map_lookup_elem(&threads, &tid);
	}
	return thread;
}

/* Hands the sample over to task work. False when that cannot be. */
static __always_inline bool defer(struct fw_walk *w)
{
	struct fw_thread *thread;
	u32 bytes = w->num_kernel * 8;

	/* It does not return to user mode any more. Task work that is added behind its last moment for that is
	 * dropped without a word (kernel/exit.c: exit_task_work). */
	if (bpf_get_current_task_btf()->flags & PF_EXITING)
		return false;
	thread = thread_state();
	if (!thread) {
		FW_COUNT(undeferred, 1);
		return false;
	}
	if (thread->pending) {
		/* Another tick before the thread returned to user mode: it will have the same user stack. */
		without_user(w);
		w->sample.id = thread->walk.sample.id;
		w->sample.flags |= FW_SAMPLE_LINKED;
		send(w, FW_STOP_PENDING);
		return true;
	}
	if (bytes > FW_KERNEL_FRAMES * 8)
		return false;
	__builtin_memcpy(&thread->walk.sample, &w->sample, sizeof(w->sample));
	thread->walk.pid = w->pid;
	bpf_probe_read_kernel(thread->walk.frames, bytes, w->frames);
	thread->walk.num_kernel = w->num_kernel;
	without_user(&thread->walk);
	thread->walk.sample.flags |= FW_SAMPLE_DEFERRED;
	thread->pending = 1;
	if (schedule(thread)) {
		thread->pending = 0;
		FW_COUNT(undeferred, 1);
		return false;
	}
	FW_COUNT(deferred, 1);
	return true;
}

/* Whether task work can do better: fault absent pages in, to walk or to ship them. */
static __always_inline bool better_later(u32 stop)
{
	return stop == FW_STOP_READ_FAULT || stop == FW_STOP_TABLE_PENDING || stop == FW_STOP_MAPS_BUSY ||
	       stop == FW_STOP_SECTION_UNREADABLE;
}

SEC("perf_event")
int sample_deferred(struct bpf_perf_event_data *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct fw_walk *w = scratch_walk();
	u32 stop;

	if (!w)
		return 0;
	begin_sample(ctx, w, now);
	if (bpf_get_current_task_btf()->flags & PF_KTHREAD) {
		send(w, FW_STOP_KERNEL_THREAD);
	} else {
		if (!defer_always || !defer(w)) {
			w->may_defer = !defer_always;
			stop = walk_now(w, false);
			if (!better_later(stop) || defer_always || !defer(w))
				finish(w, stop, false);
		}
	}
	FW_COUNT(samples, 1);
	account(w, now);
	return 0;
}

/* A thread that ends takes its state along; what was still due leaves with its reason. */
SEC("raw_tp/sched_process_exit")
int thread_exit(void *ctx)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct fw_thread *thread = bpf_map_lookup_elem(&threads, &tid);

	if (!thread)
		return 0;
	if (thread->pending) {
		send(&thread->walk, FW_STOP_EXITED);
		FW_COUNT(resumed, 1);
	}
	bpf_map_delete_elem(&threads, &tid);
	return 0;
}
