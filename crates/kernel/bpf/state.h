/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The state of one walk. It lives in a map value, never on the BPF stack: it is too large, and task
 * work may sleep and migrate, so it belongs to the thread there. */
#ifndef FRAMEWALK_STATE_H
#define FRAMEWALK_STATE_H

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
	u32 first;  /* functions that are left: the first and how many */
	u32 count;
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

/* A frame needs three words at most: CFA, RA, FP. */
#define FW_KEPT 4

/* Rules of one row, lowered. Kinds of `ra` and `fp`: */
enum fw_rule_kind {
	FW_RULE_SAME = 0,     /* still in its own register */
	FW_RULE_AT_CFA = 1,   /* the word at CFA + offset */
	FW_RULE_AT_REG = 2,   /* the word at register + offset */
	FW_RULE_VALUE_REG = 3 /* register + offset */
};

struct fw_rule {
	u8 outermost;
	u8 signal;
	u8 cfa_reg;
	u8 cfa_deref;
	s32 cfa_off;
	u8 ra_kind;
	u8 ra_reg;
	u8 fp_kind;
	u8 fp_reg;
	s32 ra_off;
	s32 fp_off;
};

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
	u32 num_user;
	u32 num_kernel;
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
	struct {
		u64 address;
		u64 word;
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
	/* Records that are not samples. */
	struct fw_want want;
	struct fw_registers registers;
	struct fw_sample sample;
	u64 frames[FW_FRAMES]; /* directly behind its header */
	u64 slack[3];          /* so that masked indexes stay inside */
};

#endif
