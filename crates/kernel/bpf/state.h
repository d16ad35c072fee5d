/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The state of one walk. It lives in a map value, never on the BPF stack: it is too large, and task
 * work may sleep and migrate, so it belongs to the thread there. */
#ifndef FRAMEWALK_STATE_H
#define FRAMEWALK_STATE_H

#include "rule.h"

/* An executable mapping as it was when this walk met it. */
struct fw_range {
	u64 start;
	u64 end;
	u64 bias; /* file offset = pc - bias */
	u32 kind; /* enum fw_range_kind */
	struct fw_object object;
};

enum fw_range_kind {
	FW_RANGE_OBJECT = 1,    /* a file or the vdso; see object.state */
	FW_RANGE_ANONYMOUS = 2, /* executable, no file: generated code */
};

#define FW_RANGES 8

/* A section to search: in the arena (`at` is an offset there, places are file offsets) or in user memory
 * (`at` is an address, places are addresses). Offsets are from the section's first byte. */
struct fw_table {
	u64 at;
	u64 base;   /* of functions' starts: 0 in the arena, `at` in user memory */
	u32 index;  /* offset of the function index */
	u32 functions;
	u32 rows_at;
	u32 rows_len;
	u8 user;
	u8 version;
	u8 pcrel; /* a start is relative to its own field */
};

/* Where a search of w->table stands. */
enum fw_search_stage { FW_SEARCH_INDEX, FW_SEARCH_ATTRIBUTE, FW_SEARCH_ROWS };

struct fw_search {
	u64 place;
	u64 offset; /* of the place, from its function's start */
	u64 at;     /* offset of what is read next */
	u64 end;    /* of the rows */
	u64 hit;    /* offset of the words of the last row that starts at or before the place */
	u64 least;  /* where the next row may start, */
	u32 furthest; /* and where any may */
	u32 first;  /* functions that are left: the first and how many */
	u32 count;
	u32 passed; /* functions without bytes */
	u32 rows; /* that are left */
	u8 hit_info;
	u8 info;
	u8 info2;
	u8 block;
	enum fw_search_stage stage;
};

/* Bytes of a section in user memory that one read brings. */
#define FW_PIECE 1024

/* An announced section as this walk met it, and what it was good for since that was last noted. */
struct fw_near {
	struct fw_section section;
	u32 frames;
	u32 unreadable;
	u32 malformed;
	u32 pad;
};

#define FW_SECTIONS 8

/* An entry of a frame area (crates/announce/src/area/layout.rs). */
struct fw_area_entry {
	u32 start;
	u32 size;
	u32 state;
	u32 how;
	u32 rule[2];
	u32 next;
	u32 cookie;
};

/* The words of an area's header that change, on two cache lines. */
struct fw_area_words {
	u32 generation;
	u32 tombstones;
	u32 pad[14];
	u32 claimed;
	u32 heap_used;
};

/* A frame needs three words at most by rule: CFA, RA, FP. A guess may need those and eight of code. */
#define FW_KEPT 16

/* What was found at a place of an area, for later frames and walks: it holds as long as no entry of the area died. */
struct fw_area_known {
	u64 area; /* number of the registration */
	u64 pc;
	u32 generation;
	u32 tombstones;
	u64 rule;      /* packed (cache.h), but for `body` */
	u64 body;
	u64 described; /* the second word of its frame; 0: it has none */
};

#define FW_AREA_KNOWN_BITS 6

/* Where a lookup in a frame area stands (area.h), what was fetched, and what was found. */
enum fw_area_stage {
	FW_AREA_AT_WORDS,
	FW_AREA_AT_INDEX,
	FW_AREA_AT_ENTRY,
	FW_AREA_AT_ROWS,
	FW_AREA_AT_NAME_LEN,
	FW_AREA_AT_NAME,
	FW_AREA_AT_AGAIN,
	FW_AREA_AT_STILL,
};

struct fw_area_search {
	enum fw_area_stage stage;
	u32 len; /* bytes that are needed next, at `at` of the area; 0: none, or a piece of rows */
	u64 at;
	union {
		struct fw_area_words words;
		u32 index[2]; /* of the granule before and of the place's own */
		struct fw_area_entry entry;
		u8 raw[FW_AREA_MAX_NAME + 1];
	} bytes;
	u32 tries;
	u32 generation;
	u32 heap_used;
	u32 word;   /* of the index: the chain that is followed */
	u32 before; /* the one that comes after it */
	u32 next;   /* slot + 1 */
	u32 hops;
	u32 slot; /* of the hit, plus 1; 0: none */
	struct fw_area_entry hit;
	int answer;
	u32 tombstones;
	u32 unnamed; /* its name was read, and is to be sent */
	u64 named;   /* the number of its name */
	u64 described; /* the second word of the frame */
	/* The area whose words this walk has seen last: `generation` and `tombstones` are they. */
	u64 seen;
	u32 seen_generation;
	u32 seen_tombstones;
	struct fw_area_known known[1 << FW_AREA_KNOWN_BITS];
};

_Static_assert(__builtin_offsetof(struct fw_area_words, tombstones) == FW_AREA_TOMBSTONES_AT - FW_AREA_GENERATION_AT, "");
_Static_assert(__builtin_offsetof(struct fw_area_words, claimed) == FW_AREA_CLAIMED_AT - FW_AREA_GENERATION_AT, "");
_Static_assert(__builtin_offsetof(struct fw_area_words, heap_used) == FW_AREA_HEAP_USED_AT - FW_AREA_GENERATION_AT, "");
_Static_assert(__builtin_offsetof(struct fw_area_entry, state) == FW_AREA_STATE, "");
_Static_assert(__builtin_offsetof(struct fw_area_entry, rule) == FW_AREA_RULE0, "");
_Static_assert(__builtin_offsetof(struct fw_area_entry, cookie) == FW_AREA_COOKIE, "");
_Static_assert(sizeof(struct fw_area_entry) == FW_AREA_ENTRY_SIZE, "");

struct fw_walk {
	/* The frame reached. */
	u64 pc;
	u64 sp;
	u64 fp;
	u8 top;        /* all registers are the thread's own */
	u8 is_return;  /* pc is a return address */
	u8 origin;     /* how pc was learned */
	u8 num_switches;
	u32 pid;       /* for requests: as the loader's pid namespace has it */
	u32 last;      /* range used last */
	u32 num_ranges;
	u32 limit;
	u32 num_user;   /* frames */
	u32 num_kernel; /* frames, and words */
	u32 num_words;
	struct fw_rule rule;
	u32 rule_origin; /* who says so */
	struct fw_table table;
	struct fw_search search;
	/* Where signal frames left the stack. */
	struct {
		u64 ra;
		u64 cfa;
	} switches[FW_MAX_SWITCHES];
	/* The word that is needed next, and those of this frame that were fetched. */
	u64 miss;
	u32 num_kept;
	u8 miss_code; /* it is code */
	struct {
		u64 address;
		u64 word;
		u64 unreadable;
	} kept[FW_KEPT];
	/* Ranges are kept from walk to walk while neither mappings nor tables changed: whose they are
	 * (a number that no other mm will ever have, arch/x86/include/asm/mmu.h), and as of when. */
	u64 ranges_mm;
	u32 ranges_version;
	u32 ranges_tables;
	struct fw_range ranges[FW_RANGES];
	/* The same for announced sections, and a stretch of addresses that none of them describes. `announced`: the
	 * address space has any; `section`: the one that is searched. */
	u64 space;
	u32 space_sequence;
	u8 announced;
	u8 searching;
	u8 unreadable;
	u8 may_defer; /* the walk can be tried again where pages may be faulted in */
	u32 num_sections;
	u32 section;
	u64 gap_start;
	u64 gap_end;
	struct fw_near sections[FW_SECTIONS];
	/* The mapping that holds the stack pointer, for guesses. */
	u64 stack_start;
	u64 stack_end;
	/* The window: `window_len` bytes of stack from `window_at`. */
	u64 window_at;
	u64 window_len;
	struct fw_stack stack; /* header of a shipped piece, whose body is the window */
	u64 window[FW_WINDOW / 8];
	/* The same for a section in user memory. */
	u64 piece_at;
	u64 piece_len;
	u32 pieces; /* read for this frame */
	u8 piece[FW_PIECE + 8];
	struct fw_area_search area;
	/* Records that are not samples. */
	struct fw_name name;
	struct fw_want want;
	struct fw_registers registers;
	struct fw_sample sample;
	u64 frames[FW_WORDS]; /* directly behind its header */
	u64 slack[3];          /* so that masked indexes stay inside */
};

#endif
