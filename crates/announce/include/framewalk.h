/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * framewalk: say what describes this process's code (docs/abi.md): SFrame sections, and frame areas for generated code.
 *
 * No allocator, no locks, no libc, errno untouched: usable before main, in constructors, in signal handlers
 * and inside a dynamic loader.
 *
 * Printed by `./run header` from the Rust tables. Do not edit.
 */
#ifndef FRAMEWALK_H
#define FRAMEWALK_H

#include <stddef.h>
#include <stdint.h>

/* The system calls themselves, for those who would rather make them:
 * prctl(FRAMEWALK_PR_REGISTER, key, address, length, flags) and
 * prctl(FRAMEWALK_PR_UNREGISTER, key, 0, 0, 0). */
#define FRAMEWALK_PR_REGISTER 0x53464701
#define FRAMEWALK_PR_UNREGISTER 0x53464702

/* Flag: the section takes the place of everything that the key holds, at once. */
#define FRAMEWALK_REPLACE 0x100u

/* Sections that a process may have registered at one time. */
#define FRAMEWALK_MAX_SECTIONS 4096

enum framewalk_refusal {
	FRAMEWALK_UNKNOWN_KEY = 2, /* ENOENT: nothing is registered under this key */
	FRAMEWALK_UNREADABLE = 14, /* EFAULT: the section cannot be read */
	FRAMEWALK_OVERLAP = 17, /* EEXIST: its text overlaps that of a registered section */
	FRAMEWALK_ARGUMENTS = 22, /* EINVAL: bad kind, flags or address range */
	FRAMEWALK_QUOTA = 28, /* ENOSPC: no room for another section */
	FRAMEWALK_MALFORMED = 74, /* EBADMSG: the header is malformed */
	FRAMEWALK_UNSUPPORTED = 93, /* EPROTONOSUPPORT: this version or machine is not supported */
};

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Both functions answer
 *   > 0   accepted: an id, or how many sections were removed
 *     0   nobody answered: nobody walks stacks here, or a filter of system calls is in the way. It may have been
 *         heard all the same, by one who can only listen: unregister as if it had been accepted.
 *   < 0   refused, and nothing has changed: the negative of a framewalk_refusal, which is an errno
 * A program is right whatever they answer; only its stacks in profiles are better for it.
 */

/*
 * Registers the SFrame section (version 2 or 3) of `length` bytes at `section`, under a key of the caller's choice.
 * Several sections may be registered under one key. `flags` are 0 or FRAMEWALK_REPLACE.
 *
 * Memory that cannot be read is refused like a section that is none. But during the call nobody may unmap the
 * section or write into its header.
 */
int64_t framewalk_register(uint64_t key, const void *section, size_t length, unsigned flags);

/* Unregisters everything that the key holds. To be called before the code or its section goes away. */
int64_t framewalk_unregister(uint64_t key);


/* Entries at most. */
#define FRAMEWALK_MAX_CAPACITY 16777216u

/* Bytes of text at most. */
#define FRAMEWALK_MAX_TEXT 4294967296u

/* Bytes of an area at most, and of all areas of an address space together. */
#define FRAMEWALK_MAX_AREA 1073741824u

/* Smallest granule: 64 bytes. */
#define FRAMEWALK_MIN_SHIFT 6u

/* Largest granule: 64 kB. */
#define FRAMEWALK_MAX_SHIFT 16u

/* Entries that one lookup passes in one chain, at most. */
#define FRAMEWALK_MAX_HOPS 64u

/* Bytes of rows of one entry at most. */
#define FRAMEWALK_MAX_ROWS 65536u

/* Bytes of a name at most; a name is a byte of length, and so many bytes of UTF-8. */
#define FRAMEWALK_MAX_NAME 255u

/* Kind, as a default rule only: there is none. */
#define FRAMEWALK_NONE 0u

/* Kind: the function keeps a frame pointer (on AMD64: rbp). CFA = FP + 2 words, RA and FP below it. */
#define FRAMEWALK_FRAME_POINTER 1u

/* Kind: CFA = SP + rule0 (i32). RA is at CFA + low half of rule1, FP at CFA + high half (i16 each; 0: unchanged). */
#define FRAMEWALK_FIXED 2u

/* Kind: rule1 bytes at rule0 of the heap, an SFrame V3 function attribute and its rows. */
#define FRAMEWALK_ROWS 3u

/* Kind: the frame goes on on another stack, whose pointer S is in the word at SP + low half of rule0 (i16). CFA = S + high half of rule0 (i16); rule1 as in FIXED. */
#define FRAMEWALK_STACK_SWITCH 4u

/* Kind: there is no caller. */
#define FRAMEWALK_OUTERMOST 5u

/* Kind: there is a caller, but no way to tell where. */
#define FRAMEWALK_OPAQUE 6u

/* Flag: belongs to a language's run time, and may be folded away for people. */
#define FRAMEWALK_RUNTIME 1u

/* Flag: a signal trampoline: the caller was interrupted, not calling. */
#define FRAMEWALK_SIGNAL 2u

/* Flag: what FIXED calls RA, or STACK_SWITCH calls S, is in the register whose DWARF number is in place of the offset. */
#define FRAMEWALK_IN_REGISTER 4u

/*
 * Frame areas: generated code, described function by function, without a system call for each.
 *
 * Publishing, tombstoning and moving may be done by any number of threads at the same time; nothing is locked. An area
 * is private memory: after fork(2) each process describes its own code in its own copy.
 */
struct framewalk_area;

/* `how` of a function: its kind, its flags, and the bytes at its beginning in which the machine's entry rule holds. */
#define FRAMEWALK_HOW(kind, flags, prologue_len) \
	((uint32_t)(kind) | (uint32_t)(flags) << 8 | (uint32_t)(prologue_len) << 16)
/* Two signed halves of a word of `rule`. */
#define FRAMEWALK_HALVES(low, high) ((uint32_t)(uint16_t)(low) | (uint32_t)(uint16_t)(high) << 16)

struct framewalk_area_options {
	uint64_t text_start;    /* the range in which code is, or will be, generated */
	uint64_t text_len;
	uint32_t capacity;      /* functions until it is full or reset, dead ones included; 0: only the default rule */
	uint32_t granule_shift; /* at most FRAMEWALK_MAX_HOPS live functions may start in 2^granule_shift bytes of text */
	uint64_t heap;          /* bytes for rows and names */
	uint64_t key;           /* under which it is registered */
	uint32_t how;           /* the rule for text that no function describes; FRAMEWALK_NONE: there is none */
	uint32_t rule[2];
};

struct framewalk_function {
	uint64_t start;
	uint32_t size;
	uint32_t how;
	uint32_t rule[2];
	uint32_t cookie;        /* any number of the program's own, where there is no name */
	const void *rows;       /* for FRAMEWALK_ROWS: an SFrame V3 function attribute and its rows; copied */
	uint32_t rows_len;
	const char *name;       /* UTF-8, or NULL; cut at FRAMEWALK_MAX_NAME bytes, and copied */
	uint32_t name_len;
};

/* Maps an area and registers it. NULL: bad options, or no memory. The area works whatever registering was answered. */
struct framewalk_area *framewalk_area_create(const struct framewalk_area_options *options);

/* What registering it was answered: see framewalk_register. */
int64_t framewalk_area_answer(const struct framewalk_area *area);

/* Unregisters and unmaps it. */
void framewalk_area_destroy(struct framewalk_area *area);

/*
 * A larger area, or one without the dead: map it (it is not registered yet), publish in it what still exists, let it take the
 * place of the old one (same key; NULL: of none) at once, destroy the old one. Answers like framewalk_register.
 */
struct framewalk_area *framewalk_area_map(const struct framewalk_area_options *options);
int64_t framewalk_area_replace(struct framewalk_area *area, struct framewalk_area *old);

/*
 * Describes a function; only then may its code be made reachable. Answers a slot, 0 or above; -ENOSPC: no slot left, no heap
 * left, or too many functions in its granule; -EINVAL: not in the text, not a rule, or inside of a live function.
 */
int64_t framewalk_area_publish(const struct framewalk_area *area, const struct framewalk_function *function);

/* Says that a function is gone: BEFORE its code is freed or overwritten. 0, or -EINVAL: that slot is not alive. */
int framewalk_area_tombstone(const struct framewalk_area *area, int64_t slot);

/*
 * Says that a function goes to another address: before its old code is overwritten and its new one made reachable. Answers
 * its new slot like framewalk_area_publish; whatever the answer, the old slot is dead.
 */
int64_t framewalk_area_move(const struct framewalk_area *area, int64_t slot, uint64_t new_start);

/* Begins anew with all slots. No code that the area describes may exist, and no other thread may use the area meanwhile. */
void framewalk_area_reset(struct framewalk_area *area);

#ifdef __cplusplus
}
#endif

#endif
