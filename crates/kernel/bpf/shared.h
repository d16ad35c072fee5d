/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the BPF programs and the Rust loader share. This file is the only source: the loader reads
 * these types through the object's BTF (the skeleton's `types`), and names of stops and origins come
 * from the walk crate through the generated reasons.h. */
#ifndef FRAMEWALK_SHARED_H
#define FRAMEWALK_SHARED_H

/* Frames of the user stack at most, and of the kernel stack at most (the kernel's own limit). */
#define FW_USER_FRAMES 510
#define FW_KERNEL_FRAMES 127
/* Words of a sample: a frame of generated code has two. */
#define FW_WORDS (2 * FW_USER_FRAMES + FW_KERNEL_FRAMES)

/* Bytes of stack that one read brings. */
#define FW_WINDOW 2048
/* Bytes of stack that a sample ships, at most, when its walk has to be finished outside. */
#define FW_COPY (64 * 1024)

/* A caller's CFA lies at most this far above its callee's (walk crate: MAX_FRAME_SIZE). */
#define FW_MAX_FRAME_SIZE (1ull << 26)
/* Below the stack pointer, bytes (AMD64 psABI 3.2.2; walk crate: Arch::red_zone). */
#define FW_RED_ZONE 128
/* A signal frame, or generated code that says so, may switch stacks; this often per walk (walk crate:
 * MAX_SWITCHES). */
#define FW_MAX_SWITCHES 64

/* The arena: rule cache first, sections after it. */
#define FW_CACHE_BITS 14
#define FW_CACHE_ENTRY 16
#define FW_CACHE_BYTES ((1ull << FW_CACHE_BITS) * FW_CACHE_ENTRY)
#define FW_ARENA_PAGES (1u << 19) /* 2 GiB of addresses; pages exist once the loader fills them */

/* Which file a mapping shows. Opaque to the loader: it registers what it was asked for. */
struct fw_key {
	u64 inode;
	s64 mtime_sec;
	u64 size;
	u32 device;
	u32 mtime_nsec;
};

enum fw_object_state {
	FW_OBJECT_WANTED = 0, /* asked for, table not ready */
	FW_OBJECT_READY = 1,  /* has a table */
	FW_OBJECT_BARE = 2,   /* nobody describes it: frame pointer guesses */
	FW_OBJECT_FOREIGN = 3 /* not code of this machine */
};

/* An object and its table: an SFrame V3 section in the arena, in the space of file offsets, that
 * is, as if mapped at address 0 beside a text that starts at its file offset. */
struct fw_object {
	u32 id;      /* the loader's number, below 2^20 */
	enum fw_object_state state;
	u32 section; /* offset in the arena */
	u32 fdes;    /* offset of the function index in the section */
	u32 num_fdes;
	u32 fres; /* offset of the rows in the section */
	u32 fres_len;
	u32 origin; /* FW_ORIGIN_FILE or FW_ORIGIN_CONVERTED */
};

/* A frame in one word: origin (4 bits), flags (2 bits), then either object id (20 bits) and file
 * offset (38 bits), or a flag (1 bit) and an address (57 bits). */
#define FW_FRAME_ORIGIN_SHIFT 60
#define FW_FRAME_OBJECT (1ull << 59)
#define FW_FRAME_RETURN (1ull << 58)
#define FW_FRAME_ID_SHIFT 38
#define FW_FRAME_OFFSET_MASK ((1ull << 38) - 1)
/* Of an address: a word follows, with what a frame area says of the frame. The number of its name (0: none), and a flag. */
#define FW_FRAME_DESCRIBED (1ull << 57)
#define FW_FRAME_ADDRESS_MASK ((1ull << 57) - 1)
#define FW_DESCRIBED_RUNTIME (1ull << 63)

enum fw_record_kind {
	FW_RECORD_SAMPLE = 1,
	FW_RECORD_STACK = 2,
	FW_RECORD_WANT = 3,
	FW_RECORD_REGISTERS = 4,
	FW_RECORD_HEARD = 5,
	FW_RECORD_NAME = 6,
};

enum fw_sample_flags {
	FW_SAMPLE_LINKED = 1,   /* user frames follow in the sample with the same id */
	FW_SAMPLE_DEFERRED = 2, /* walked in task work */
	FW_SAMPLE_RETURN = 4,   /* where the walk stands: pc is a return address */
	FW_SAMPLE_TOP = 8,      /* where the walk stands: the topmost frame, all registers known */
};

/* A sample: this header, then the words of num_kernel + num_user frames. */
struct fw_sample {
	enum fw_record_kind kind;
	u32 pid;
	u32 tid;
	u32 cpu;
	enum fw_sample_flags flags;
	u16 num_kernel;
	u16 num_user;
	u16 copied; /* stack pieces sent before this record */
	u16 stop;
	u32 origin; /* how `pc` below was learned */
	u64 time;
	u64 id; /* joins LINKED samples and stack chunks */
	/* Where the walk stands, for finishing it outside. */
	u64 pc;
	u64 sp;
	u64 fp;
	u8 comm[16];
};

/* A piece of the stack of sample `id`: this header, then `len` bytes. */
struct fw_stack {
	enum fw_record_kind kind;
	u32 len;
	u64 id;
	u64 address;
};

/* The registers of the topmost frame of sample `id`, by DWARF number. */
struct fw_registers {
	enum fw_record_kind kind;
	u32 pad;
	u64 id;
	u64 values[16];
};

/* The name of generated code, sent once before the first sample that refers to it: `len` bytes. No other name ever
 * has its number. */
struct fw_name {
	enum fw_record_kind kind;
	u32 len;
	u64 number;
	u8 bytes[FW_AREA_MAX_NAME + 1];
};

/* Please register this object. */
struct fw_want {
	enum fw_record_kind kind;
	u32 pid;
	struct fw_key key;
	u64 start;
	u64 end;
};

/* ---- announced sections ---- */

/* Sections of one address space, at most (printed from crates/announce), and how many a page holds: with
 * its key and the map's own header a page is just below 4 kB. */
#define FW_PAGE_SECTIONS 45
#define FW_PAGES ((FW_MAX_SECTIONS + FW_PAGE_SECTIONS - 1) / FW_PAGE_SECTIONS)

/* A section or a frame area that a process registered: what was read and checked at that moment, never again. (Where
 * nothing else is said, "section" means both.) */
struct fw_section {
	u64 start; /* text: first address, and the end */
	u64 end;
	u64 key;
	u64 address; /* of the section, in the process's memory */
	u64 number;  /* no other registration on this machine has it; from FW_FIRST_NUMBER up */
	u32 length;
	u32 index; /* offsets from the section's first byte */
	u32 functions;
	u32 rows_at;
	u32 rows_len;
	u32 rows; /* as the header alleges */
	u8 version;
	u8 pcrel;
	u8 writable;    /* its mapping was, at registration */
	u8 quarantined; /* it was seen to have changed: not used any more */
	u8 area;        /* it is a frame area: only what follows, and nothing of the above that a header says */
	u8 granule_shift;
	u8 adopted; /* found by somebody who started late: its process may say the same yet */
	u8 pad;
	u32 capacity;
	u32 how; /* the default rule */
	u32 rule[2];
};

/* Object ids of tables lie below, so that both can be keys of the rule cache. */
#define FW_FIRST_NUMBER (1ull << 20)

/* What an address space has registered: sections in the order of their text, dense in pages. */
struct fw_space {
	u64 id; /* of the address space */
	u32 sequence; /* odd while it is being changed */
	u32 lock;
	u32 count;
	u32 processes; /* that share it */
	/* Of whoever has the lock. Kept in memory because the verifier would follow each turn of a loop whose
	 * counters it knows. */
	u32 slot;
	u32 to;
	u32 before;  /* sections that stay and start below the text that is looked for */
	u32 matches; /* sections of its key */
	u32 overlap;
	u32 areas; /* that stay, and their bytes */
	u64 area_bytes;
	u32 twin; /* slot + 1 of the adopted area that is the one that is looked for */
	u32 pad;
	u64 first[FW_PAGES]; /* where the text of each page's first section starts */
};

struct fw_page_key {
	u64 space;
	u32 page;
	u32 pad;
};

struct fw_page {
	struct fw_section sections[FW_PAGE_SECTIONS];
};

/* What a section was good for. */
struct fw_use {
	u64 frames;     /* found by it */
	u64 unreadable; /* lookups that its memory did not allow */
	u64 malformed;  /* lookups that met nonsense */
};

/* One for the machine. */
struct fw_registry {
	u64 layout;  /* FW_LAYOUT: who shares these maps must mean the same by them */
	u64 numbers; /* given out */
	u64 spaces;  /* that hold sections now */
	u64 sections;
	u64 heard;   /* calls */
	u64 refused; /* of them */
	u64 later;   /* registrations that task work finished, because a page was absent */
	u64 full;    /* refused or not copied for lack of room */
	u64 unheard; /* calls of which the listener could not be told: its ring was full */
};
#define FW_LAYOUT 3

/* A call that was heard, for the listener. */
struct fw_heard {
	enum fw_record_kind kind;
	u32 pid;
	u32 tid;
	u32 option;
	u64 key;
	u64 address;
	u64 length;
	u64 how; /* kind and flags */
	s64 answer;
	u64 space;
	u64 number;
	u64 answered; /* the caller was told */
};

/* A process that somebody who started late looks at, and an area that lies in its memory. */
struct fw_late {
	u64 space; /* its address space */
	u64 key;
	u64 address;
	u64 length;
	s64 answer; /* as a call's; or one of those below */
	u32 pid;
	u32 pad;
};

#define FW_LATE_GONE 0   /* there is no such process, or it has another address space now */
#define FW_LATE_EARLY -11 /* it has not run yet, and may still get copies of what its parent registered */

/* Counters, one set per CPU. */
struct fw_counts {
	u64 samples;      /* events seen */
	u64 run_ns;       /* time in the event program and in task work */
	u64 run_cnt;      /* how often either ran */
	u64 frames;       /* user frames */
	u64 deferred;     /* task works scheduled */
	u64 resumed;      /* of them, those that ran or whose thread ended */
	u64 searches;     /* rules that were not in the cache */
	u64 maps;         /* lookups in VMA trees */
	u64 full_ring;    /* records that did not fit the ring: lost */
	u64 undeferred;   /* walks that task work did not take: walked at once instead */
	u64 full_objects; /* objects beyond the table */
	u64 unreadable;   /* lookups that the memory of an announced section did not allow */
	u64 malformed_sections; /* lookups that met nonsense in one */
	u64 busy_areas;   /* lookups in frame areas that changed again and again */
	u64 uncopied;     /* pieces of stack that were not sent, to keep room in the ring for samples */
	u64 unsent_names; /* names of generated code for which the ring had no room */
};

#endif
