/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where nobody describes the code: the frame pointer, if what it says checks out. A guess, and marked. The rules are
 * those of the reference walker (crates/walk/src/guess.rs). */
#ifndef FRAMEWALK_GUESS_H
#define FRAMEWALK_GUESS_H

/* What the frame of the code at pc looks like, if that code keeps a frame pointer. */
enum fw_entry_state {
	FW_BODY = 0,   /* the frame pointer is this frame's */
	FW_ENTRY = 1,  /* nothing is pushed, or all is popped: RA at SP */
	FW_PUSHED = 2, /* the caller's frame pointer is at SP, RA above it */
};

/* Eight bytes of code at `address`, 0 where they cannot be read; FW_MISS to come again when they have been fetched. */
static __always_inline int fw_code_at(struct fw_walk *w, u64 address, u64 *code)
{
	for (u32 i = 0; i < FW_KEPT && i < w->num_kept; i++) {
		if (w->kept[i].address == address) {
			*code = w->kept[i].word;
			return FW_GO;
		}
	}
	w->miss = address;
	w->miss_code = 1;
	return FW_MISS;
}

static __always_inline bool fw_is_ret(u32 at)
{
	return (u8)at == 0xc3 || (u8)at == 0xc2 || (u16)at == 0xc3f3;
}

/* By the byte before pc (the lowest one) and seven from pc on. Intel SDM volume 2: 55 is push rbp, 48 89 e5 and 48 8b ec
 * are mov rbp, rsp, f3 0f 1e fa is endbr64, c3 and c2 are ret. HotSpot asks between pop rbp and ret whether to stop:
 * 49 3b a7 is cmp rsp, [r15 + disp32], 0f 87 is ja rel32. */
__noinline int fw_state_of(u64 code)
{
	u32 before = code, at = code >> 8;

	if (fw_is_ret(at))
		return FW_ENTRY;
	if (at == 0xe5894855 || at == 0xec8b4855 || code >> 8 == 0x894855fa1e0ff3 || code >> 8 == 0x8b4855fa1e0ff3)
		return FW_ENTRY;
	if ((at & 0xffffff) == 0xa73b49 || ((u16)at == 0x870f && code >> 56 == 0xc3))
		return FW_ENTRY;
	return before == 0xe5894855 || before == 0xec8b4855 ? FW_PUSHED : FW_BODY;
}

/* Whether push rbp; mov rbp, rsp follows in the same piece of code: 24 bytes from the one before pc on. ret and int3 end it. */
__noinline int fw_prologue_ahead(u64 code, u64 next, u64 last)
{
	for (u32 left = 20; left; left--) {
		code = code >> 8 | next << 56;
		next = next >> 8 | last << 56;
		last >>= 8;
		if ((u32)code == 0xe5894855 || (u32)code == 0xec8b4855)
			return 1;
		if ((u8)code == 0xc3 || (u8)code == 0xcc)
			return 0;
	}
	return 0;
}

/* How long a call through register or memory (ff /2) is: Intel SDM volume 2, table 2-2. 0: it is none. */
static __always_inline u32 fw_call_length(u32 modrm, u32 sib)
{
	u32 mod = modrm >> 6, rm = modrm & 7;

	if ((modrm >> 3 & 7) != 2)
		return 0;
	if (mod == 3)
		return 2;
	if (mod == 0 && (rm == 5 || (rm == 4 && (sib & 7) == 5)))
		return rm == 5 ? 6 : 7;
	return (rm == 4 ? 3 : 2) + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

/* Whether eight bytes of code end with a call. */
__noinline int fw_is_call(u64 code)
{
	if ((code >> 24 & 0xff) == 0xe8)
		return 1;
	for (u32 length = 2; length <= 7; length++) {
		u64 call = code >> (64 - 8 * length);

		if ((call & 0xff) == 0xff && fw_call_length(call >> 8 & 0xff, call >> 16 & 0xff) == length)
			return 1;
	}
	return 0;
}

/* Whether code begins by making its stack pointer from its frame pointer: it keeps one, and is returned to by what moved
 * the stack pointer. HotSpot's interpreter pushes such return addresses and jumps, where others call.
 * 48 8b 65 is mov rsp, [rbp + disp8]; 48 8b 4d, and 48 8d 64 cd behind its displacement, are mov rcx, [rbp + disp8] and
 * lea rsp, [rbp + rcx * 8 + disp8]. */
__noinline int fw_is_resumed(u64 code)
{
	return (code & 0xffffff) == 0x658b48 || ((code & 0xffffff) == 0x4d8b48 && code >> 32 == 0xcd648d48);
}

/* Whether a return address looks like one; FW_MISS. */
static __always_inline int fw_is_return(struct fw_walk *w, u64 ra)
{
	u64 code;

	if (fw_code_at(w, ra - 8, &code))
		return FW_MISS;
	if (fw_is_call(code))
		return 1;
	if (fw_code_at(w, ra, &code))
		return FW_MISS;
	return fw_is_resumed(code);
}

/* An enum fw_entry_state, or FW_MISS. Callers called from their bodies. */
static __always_inline int fw_entry_state(struct fw_walk *w)
{
	/* The page before may not be there. */
	u32 shift = w->pc & 4095 ? 0 : 8;
	u64 code, next, last, ra;
	int state;

	if (w->is_return)
		return FW_BODY;
	if (fw_code_at(w, w->pc - !shift, &code))
		return FW_MISS;
	state = fw_state_of(code << shift);
	if (state != FW_BODY)
		return state;
	if (fw_code_at(w, w->pc + 7, &next) || fw_code_at(w, w->pc + 15, &last))
		return FW_MISS;
	if (!fw_prologue_ahead(code << shift, next, last))
		return FW_BODY;
	/* What some put before the prologue touches no stack. But it may be the end of other code: the stack decides. */
	state = fw_word_at(w, w->sp, &ra);
	if (state)
		return state == FW_MISS ? FW_MISS : FW_BODY;
	if (fw_locate(w, ra - 1))
		return FW_BODY;
	state = fw_is_return(w, ra);
	if (state == FW_MISS)
		return FW_MISS;
	return state ? FW_ENTRY : FW_BODY;
}

/* A rule that holds in a function's body, for a frame that may be elsewhere in it: w->rule becomes what holds where it
 * stands. FW_GO, or FW_MISS. */
static __always_inline int fw_settle(struct fw_walk *w)
{
	struct fw_rule entry = {.cfa_reg = FW_REG_SP, .cfa_off = 8, .ra_kind = FW_RULE_AT_CFA, .ra_off = -8};
	int state = FW_BODY;
	u64 code;

	if (w->is_return) {
		w->rule.body = FW_RULE_EVERYWHERE;
		return FW_GO;
	}
	if (w->rule.body == FW_RULE_FRAME_MADE) {
		state = fw_entry_state(w);
	} else {
		if (fw_code_at(w, w->pc, &code))
			return FW_MISS;
		state = fw_is_ret(code) ? FW_ENTRY : FW_BODY;
	}
	if (state == FW_MISS)
		return FW_MISS;
	w->rule.body = FW_RULE_EVERYWHERE;
	if (state == FW_BODY)
		return FW_GO;
	entry.signal = w->rule.signal;
	if (state == FW_PUSHED) {
		entry.cfa_off = 16;
		entry.fp_kind = FW_RULE_AT_CFA;
		entry.fp_off = -16;
	}
	w->rule = entry;
	return FW_GO;
}

/* The bounds of the mapping that holds `address`, as the tree has it at this moment. */
static __always_inline bool fw_stack_once(struct mm_struct *mm, u64 address, u64 *start, u64 *end)
{
	u64 entry = fw_maple_find(fw_kernel_word((u64)&mm->mm_mt.ma_root), address);
	struct vm_area_struct *vma;

	if (!entry)
		return false;
	vma = FW_TYPED(vm_area_struct, entry);
	*start = vma->vm_start;
	*end = vma->vm_end;
	if (address < *start || address >= *end || vma->vm_mm != mm)
		return false;
	return vma->vm_start == *start && vma->vm_end == *end && vma->vm_mm == mm;
}

/* Whether the two words at `at` lie in the mapping that holds the stack pointer. A new thread whose frame pointer is still
 * its parent's is not to be walked into the parent's frames. */
__noinline int fw_on_stack(struct fw_walk *w, u64 at)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;
	u64 start = 0, end = 0;

	if (!w || !mm)
		return 0;
	if (w->sp - w->stack_start >= w->stack_end - w->stack_start) {
		bpf_rcu_read_lock();
		if (!fw_stack_once(mm, w->sp, &start, &end) && !fw_stack_once(mm, w->sp, &start, &end))
			start = end = 0;
		bpf_rcu_read_unlock();
		w->stack_start = start;
		w->stack_end = end;
	}
	return at >= w->stack_start && at < w->stack_end && w->stack_end - at >= 16;
}

/* Begun again after a miss, as a step by rule is. */
static __always_inline int fw_step_guess(struct fw_walk *w)
{
	int state = fw_entry_state(w), stop;
	u64 at, fp, ra;

	if (state == FW_MISS)
		return state;
	/* Where the frame pointer is saved, or would be: RA is above it. */
	at = state == FW_BODY ? w->fp : state == FW_PUSHED ? w->sp : w->sp - 8;
	if (at & 7 || (state != FW_ENTRY && at < w->sp) || (state == FW_BODY && at - w->sp > FW_MAX_FRAME_SIZE - 16))
		return FW_STOP(FW_STOP_FRAME_POINTER);
	if (state == FW_BODY && !fw_on_stack(w, at))
		return FW_STOP(FW_STOP_FRAME_POINTER);
	fp = w->fp;
	stop = state == FW_ENTRY ? FW_GO : fw_word_at(w, at, &fp);
	if (!stop)
		stop = fw_word_at(w, at + 8, &ra);
	if (stop)
		return stop == FW_MISS ? stop : FW_STOP(FW_STOP_FRAME_POINTER);
	if (!ra)
		return FW_STOP(FW_STOP_ZERO_RETURN);
	/* Callers that are described may use the register for anything, but not for what was below their frames. */
	if ((state != FW_ENTRY && fp - w->sp <= at - w->sp) || fw_locate(w, ra - 1))
		return FW_STOP(FW_STOP_FRAME_POINTER);
	stop = fw_is_return(w, ra);
	if (stop == FW_MISS)
		return FW_MISS;
	if (!stop)
		return FW_STOP(FW_STOP_FRAME_POINTER);
	w->pc = ra;
	w->sp = at + 16;
	w->fp = fp;
	w->is_return = 1;
	w->top = 0;
	w->origin = FW_ORIGIN_FRAME_POINTER;
	return FW_GO;
}

#endif
