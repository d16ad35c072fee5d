/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Names of generated code: each is sent once, before the samples that refer to it by its number, while the code exists.
 * So they stay right when the code is freed, its memory used again, or its process gone. */
#ifndef FRAMEWALK_NAMES_H
#define FRAMEWALK_NAMES_H

/* Where records go: to whoever reads the samples. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 32 * 1024 * 1024); /* the loader may choose less */
} samples SEC(".maps");

/* An entry of an area, by what never means another. */
struct fw_named {
	u64 area; /* number of the registration */
	u32 generation;
	u32 slot;
};

/* Those that were sent. What was not used for long is forgotten, and sent again under another number. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct fw_named);
	__type(value, u64);
} names SEC(".maps");

volatile u64 last_name = 0;

/* The number of a name that was sent, or 0. */
__noinline u64 fw_known_name(u64 area, u32 generation, u32 slot)
{
	struct fw_named which = {.area = area, .generation = generation, .slot = slot};
	u64 *known = bpf_map_lookup_elem(&names, &which);

	return known ? *known : 0;
}

/* Sends w->name; its number, or 0 where that cannot be. */
__noinline u64 fw_send_name(struct fw_walk *w, u64 area, u32 generation, u32 slot)
{
	struct fw_named which = {.area = area, .generation = generation, .slot = slot};
	u64 number;

	if (!w)
		return 0;
	/* Samples go before: whoever makes up names all the time fills half of the ring with them at most. */
	if (bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&samples, BPF_RB_RING_SIZE) / 2) {
		FW_COUNT(unsent_names, 1);
		return 0;
	}
	number = __sync_fetch_and_add(&last_name, 1) + 1;
	w->name.kind = FW_RECORD_NAME;
	w->name.number = number;
	if (bpf_ringbuf_output(&samples, &w->name, sizeof(w->name), BPF_RB_NO_WAKEUP)) {
		FW_COUNT(unsent_names, 1);
		return 0;
	}
	bpf_map_update_elem(&names, &which, &number, BPF_ANY);
	return number;
}

#endif
