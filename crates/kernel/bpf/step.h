/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One step: from a frame to its caller. Compute, check, read, and only then commit. The rules are
 * those of the reference walker (crates/walk); every number from the process is an allegation. */
#ifndef FRAMEWALK_STEP_H
#define FRAMEWALK_STEP_H

/* What a step answers: go on, or a stop (enum in reasons.h) plus one. */
#define FW_GO 0
#define FW_STOP(reason) ((reason) + 1)
/* Or: what is at w->miss is needed first. */
#define FW_MISS (-3)
/* How the caller is to be found: by w->rule, or by guess. */
enum { FW_BY_RULE = -1, FW_BY_GUESS = -2 };

/* Fetches the word at w->miss, and a window of stack around it. One large read serves many frames, so
 * the window begins at the stack pointer where that is near enough. The word itself is kept apart, for
 * the words of one frame may be too far apart for one window. */
static __always_inline bool fw_fetch(struct fw_walk *w, bool sleepable)
{
	u64 address = w->miss, from = address - w->sp < FW_WINDOW - 512 ? w->sp & ~7ull : address, rest;
	u32 slot = w->num_kept++ & (FW_KEPT - 1);

	w->kept[slot].address = address;
	w->kept[slot].unreadable = 0;
	/* Code goes past the window, and where it cannot be read it says nothing. */
	if (w->miss_code) {
		if (!fw_read_user(&w->kept[slot].word, 8, address, sleepable))
			return true;
		w->kept[slot].word = 0;
		return false;
	}
	/* Unaligned words are no compiler's doing; the window serves aligned ones only. */
	if (!(address & 7)) {
		w->window_at = from;
		w->window_len = FW_WINDOW;
		if (!fw_read_user(w->window, FW_WINDOW, from, sleepable)) {
			w->kept[slot].word = w->window[(address - from) / 8 & (FW_WINDOW / 8 - 1)];
			return true;
		}
		/* It reaches into a page that is not there: up to the page's end then. */
		rest = 4096 - (from & 4095);
		w->window_len = rest < FW_WINDOW ? rest : 0;
		if (w->window_len && fw_read_user(w->window, w->window_len & (FW_WINDOW - 1), from, sleepable))
			w->window_len = 0;
	}
	w->kept[slot].unreadable = !!fw_read_user(&w->kept[slot].word, 8, address, sleepable);
	return !w->kept[slot].unreadable;
}

/* The word at `address`, if it has been fetched; else FW_MISS, to come again when it has. */
static __always_inline int fw_word_at(struct fw_walk *w, u64 address, u64 *word)
{
	u64 inside = address - w->window_at;

	if (address > FW_USER_END - 8)
		return FW_STOP(FW_STOP_READ_FAULT);
	if (!(address & 7) && inside < w->window_len && w->window_len - inside >= 8) {
		*word = w->window[inside / 8 & (FW_WINDOW / 8 - 1)];
		return FW_GO;
	}
	for (u32 i = 0; i < FW_KEPT && i < w->num_kept; i++) {
		if (w->kept[i].address == address) {
			*word = w->kept[i].word;
			return w->kept[i].unreadable ? FW_STOP(FW_STOP_READ_FAULT) : FW_GO;
		}
	}
	w->miss = address;
	w->miss_code = 0;
	return FW_MISS;
}

/* A register of the current thread's user mode, by its DWARF number (AMD64 psABI, figure 3.36).
 * A function of its own: loads from pt_regs and from the walk's state must not be merged. */
__noinline u64 fw_thread_register(u32 number)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());

	switch (number) {
	case 0: return regs->ax;
	case 1: return regs->dx;
	case 2: return regs->cx;
	case 3: return regs->bx;
	case 4: return regs->si;
	case 5: return regs->di;
	case 6: return regs->bp;
	case 7: return regs->sp;
	case 8: return regs->r8;
	case 9: return regs->r9;
	case 10: return regs->r10;
	case 11: return regs->r11;
	case 12: return regs->r12;
	case 13: return regs->r13;
	case 14: return regs->r14;
	case 15: return regs->r15;
	}
	return 0;
}

/* The value of a register in the frame reached: others than SP and FP only in the topmost frame. */
static __always_inline bool fw_register(const struct fw_walk *w, u32 number, u64 *value)
{
	if (number == FW_REG_SP) {
		*value = w->sp;
		return true;
	}
	if (number == FW_REG_FP) {
		*value = w->fp;
		return true;
	}
	if (!w->top || number > 15)
		return false;
	*value = fw_thread_register(number);
	return true;
}

/* Executes one RA or FP rule. */
static __always_inline int fw_apply(struct fw_walk *w, u64 cfa, u32 kind, u32 reg, s32 off, u64 same, u64 *value)
{
	u64 base = cfa;

	if (kind == FW_RULE_SAME) {
		*value = same;
		return FW_GO;
	}
	if (kind != FW_RULE_AT_CFA && !fw_register(w, reg, &base))
		return FW_STOP(FW_STOP_REGISTER_UNKNOWN);
	if (!fw_add(base, off, &base))
		return kind == FW_RULE_VALUE_REG ? FW_STOP(FW_STOP_BAD_ROW) : FW_STOP(FW_STOP_READ_FAULT);
	if (kind == FW_RULE_VALUE_REG) {
		*value = base;
		return FW_GO;
	}
	return fw_word_at(w, base, value);
}

/* Whether the word at CFA + `off` lies in the red zone of the topmost frame: an epilogue popped it just now, and the register
 * holds it again. The page below may not be there. */
static __always_inline bool fw_is_popped(const struct fw_walk *w, u64 cfa, s32 off)
{
	u64 at;

	return w->top && fw_add(cfa, off, &at) && at < w->sp && w->sp - at <= FW_RED_ZONE;
}

/* A CFA on the same stack: aligned, above the stack pointer, and not too far. */
static __always_inline int fw_check_cfa(u64 sp, u64 cfa)
{
	if (cfa & 7)
		return FW_STOP(FW_STOP_CFA_BAD);
	if (cfa <= sp)
		return FW_STOP(FW_STOP_CFA_NOT_ABOVE);
	return cfa - sp > FW_MAX_FRAME_SIZE ? FW_STOP(FW_STOP_CFA_BAD) : FW_GO;
}

/* A signal frame, or one that says so, leaves the stack: only so often, and never twice the same way. */
__noinline int fw_switch_stack(struct fw_walk *w, u64 ra, u64 cfa)
{
	if (!w)
		return FW_STOP(FW_STOP_LOOP);
	/* Counting down from a number that the verifier does not know. */
	for (u32 i = w->num_switches; i && can_loop; i--) {
		u32 at = (i - 1) & (FW_MAX_SWITCHES - 1);

		if (w->switches[at].ra == ra && w->switches[at].cfa == cfa)
			return FW_STOP(FW_STOP_LOOP);
	}
	if (w->num_switches >= FW_MAX_SWITCHES)
		return FW_STOP(FW_STOP_CFA_NOT_ABOVE);
	w->switches[w->num_switches & (FW_MAX_SWITCHES - 1)].ra = ra;
	w->switches[w->num_switches & (FW_MAX_SWITCHES - 1)].cfa = cfa;
	w->num_switches++;
	return FW_GO;
}

/* By w->rule. Begun again after a miss: nothing is committed before everything is known. */
static __always_inline int fw_step_rule(struct fw_walk *w)
{
	const struct fw_rule *rule = &w->rule;
	u64 cfa, ra, fp;
	int stop, off_stack;

	if (rule->outermost)
		return FW_STOP(FW_STOP_OUTERMOST);
	if (!fw_register(w, rule->cfa_reg, &cfa))
		return FW_STOP(FW_STOP_REGISTER_UNKNOWN);
	if (!fw_add(cfa, rule->cfa_off, &cfa))
		return rule->cfa_deref ? FW_STOP(FW_STOP_READ_FAULT) : FW_STOP(FW_STOP_CFA_BAD);
	if (rule->cfa_deref) {
		stop = fw_word_at(w, cfa, &cfa);
		if (stop)
			return stop;
	}
	if (!fw_add(cfa, rule->cfa_add, &cfa))
		return FW_STOP(FW_STOP_CFA_BAD);
	off_stack = fw_check_cfa(w->sp, cfa);
	/* Nothing of the topmost frame is on the stack where its return address is in a register:
	 * vfork(3) keeps it there across the system call. */
	if (w->top && cfa == w->sp && !(cfa & 7) && rule->ra_kind == FW_RULE_VALUE_REG)
		off_stack = FW_GO;
	if (off_stack && (!(rule->signal || rule->switches) || cfa & 7 || cfa >= FW_USER_END))
		return off_stack;
	stop = fw_apply(w, cfa, rule->ra_kind, rule->ra_reg, rule->ra_off, 0, &ra);
	if (stop)
		return stop;
	stop = fw_apply(w, cfa, rule->fp_kind, rule->fp_reg, rule->fp_off, w->fp, &fp);
	if (stop == FW_STOP(FW_STOP_READ_FAULT) && rule->fp_kind == FW_RULE_AT_CFA && fw_is_popped(w, cfa, rule->fp_off))
		fp = w->fp;
	else if (stop)
		return stop;
	if (!ra)
		return FW_STOP(FW_STOP_ZERO_RETURN);
	if (off_stack) {
		stop = fw_switch_stack(w, ra, cfa);
		if (stop)
			return stop;
	}

	w->pc = ra;
	w->sp = cfa;
	w->fp = fp;
	w->is_return = !rule->signal;
	w->top = 0;
	w->origin = w->rule_origin;
	return FW_GO;
}

#endif
