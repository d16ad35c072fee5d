/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The numbers of the format that the programs need. */
#ifndef FRAMEWALK_SFRAME_H
#define FRAMEWALK_SFRAME_H

/* SFrame's header (specification, section "SFrame Header"), little endian. */
struct sframe_header {
	u16 magic;
	u8 version;
	u8 flags;
	u8 abi;
	s8 fixed_fp;
	s8 fixed_ra;
	u8 auxiliary;
	u32 functions;
	u32 rows;
	u32 rows_len;
	u32 index;
	u32 rows_at;
};

#define SFRAME_MAGIC 0xdee2
#define SFRAME_ABI_AMD64 3
#define SFRAME_SORTED 1
#define SFRAME_PCREL 4
#define SFRAME_FLAGS_V2 7
#define SFRAME_FLAGS_V3 5

/* SFrame V2 and V3 (specification, sections 2 to 4). */
#define SFRAME_V2 2
#define SFRAME_V3 3
#define SFRAME_ENTRY_V2 20
#define SFRAME_ENTRY_V3 16
#define SFRAME_ATTR_SIZE 5
/* Functions without bytes in a row that a lookup passes over (crates/sframe: MAX_EMPTY). */
#define SFRAME_MAX_EMPTY 64
#define SFRAME_INFO_MASK_PC 0x10
#define SFRAME_INFO_SIGNAL 0x80
/* Bits that mean nothing on AMD64: the key of signed return addresses, and what is reserved. */
#define SFRAME_INFO_NOT_V2 0xe0
#define SFRAME_INFO_NOT_V3 0x60
#define SFRAME_INFO2_FLEX 1
#define SFRAME_ROW_BASE_SP 1
/* On AMD64 no return address is signed. */
#define SFRAME_ROW_SIGNED_RA 0x80

#endif
