/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The row, lowered: what every source of unwind data becomes, and what the step executes. */
#ifndef FRAMEWALK_RULE_H
#define FRAMEWALK_RULE_H

/* Kinds of `ra` and `fp`: */
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
	s32 cfa_add; /* to the CFA, after it was loaded */
	u8 switches; /* the CFA may lie on another stack */
	u8 body;     /* enum fw_rule_body: it holds in the body of a function, and where that is the instruction tells */
};

enum fw_rule_body {
	FW_RULE_EVERYWHERE = 0,
	FW_RULE_BEFORE_RETURN = 1, /* not at the return itself */
	FW_RULE_FRAME_MADE = 2,    /* nor before the frame pointer is set */
};

/* What a search of a table, a section or an area answers. */
enum fw_lookup {
	FW_LOOKUP_FOUND,
	FW_LOOKUP_NONE,
	FW_LOOKUP_BAD,  /* nonsense */
	FW_LOOKUP_MISS, /* bytes are needed first, or cannot be had */
	FW_LOOKUP_HOLE, /* no function, but so large a hole between two that the frame pointer may be tried */
	/* of an area: */
	FW_LOOKUP_BUSY,     /* it changed meanwhile */
	FW_LOOKUP_CONFLICT, /* two entries hold the place */
	FW_LOOKUP_ROWS,     /* its rows are to be searched */
	FW_LOOKUP_OPAQUE,   /* it says that there is no telling */
	FW_LOOKUP_KNOWN,    /* found before */
};

/* A sum that is not one in 64 bits is no address: false. */
static __always_inline bool fw_add(u64 base, s64 offset, u64 *sum)
{
	*sum = base + offset;
	return (offset < 0) == (*sum < base);
}

/* AMD64 psABI, figure 3.36. Only this machine: the Rust walker has a table of machines (crates/walk/src/arch.rs). */
#define FW_REG_FP 6
#define FW_REG_SP 7

#endif
