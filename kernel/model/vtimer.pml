/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtual timer of a confidential VM: when its physical interrupt is masked, and why no interrupt is lost.
 *
 * What stands for what
 *
 *   here                        system
 *   guest                       one vCPU's kernel, which may do anything in any order
 *   hyp, "end_guest", "decide"  monitor; kvm_vtimer_output() and kvm_vtimer_mask(), asm/kvm_vtimer.h
 *   hyp, the rest               host. It looks at no hardware, only at what the monitor has reported, and its clock
 *   line                        the physical timer interrupt: it comes at any time after the timer's output has risen
 *   counter                     CNTVCT_EL0: it reaches the compare value at any time, wherever the vCPU is
 *   ctl                         CNTV_CTL_EL0: in the register while the guest runs, in the monitor's memory otherwise
 *   met                         the timer condition, CNTVCT_EL0 >= CNTV_CVAL_EL0
 *   lr                          State of ICH_LR<n>_EL2 with the virtual interrupt; its HW bit is clear, EOI is set
 *   in_vgic                     the guest has the interrupt enabled in its GIC, which the host emulates
 *   irqs                        the guest can take interrupts: PSTATE.I, priority mask and group do not prevent it
 *   told                        the monitor's one bit per vCPU: the output when the vCPU was last shown to the host
 *   masked                      the physical interrupt is kept from the CPU while the guest runs
 *
 * 0 in CNTV_CTL_EL0 stands for all values without ENABLE. A mask is seen by nobody but the line, except where a mutant
 * says so. With one vCPU, of guest, monitor and host only one runs at a time.
 *
 * Exits. The guest leaves for the physical interrupt, when it deactivates the virtual one, to enable or disable that,
 * and for trapped WFI. All others come only if the guest likes, so that nothing which must happen can depend on one;
 * the host sees them, or the monitor handles them alone (aside). A virtual interrupt that can be taken is taken before
 * anything else: one that is late is the same as one with irqs off. A physical one that is late lets the guest go on,
 * but not exit aside, which it might do for ever: a timer that expires during such an exit is the same. WFI may go on
 * after an exit. Beside an active interrupt the host may list a pending one or not; KVM does not.
 *
 * Properties. Liveness is under weak fairness, pan -f.
 *   no_lost    (a) an interrupt that the guest can take is taken, if the guest leaves the timer alone
 *   once       (b) no expiry that the host has been told of, or has listed, is let through: one timer exit at most
 *   untouched  (c) CNTV_CTL_EL0 is what the guest wrote
 *   retracted  (d) the host lists nothing, and leaves nothing listed, for a timer that the guest has masked, disabled
 *                  or set anew. What is listed while it does so may be taken until the next exit to the host
 *   wakes      (e) WFI, trapped or not, ends when the timer has expired, also with irqs off
 *
 * Mutants, each of which must fail; -D one of
 *   NEVER_MASK            no masking
 *   NO_UNMASK             once masked, the interrupt stays so
 *   MASK_ON_OUTPUT_ALONE  masked although the host does not know: the timer expired after its last look
 *   NO_LISTED             the monitor does not look at the list register
 *   NO_TOLD               the monitor does not remember what it has told
 *   TOLD_WITHOUT_HOST     the monitor remembers as told what it saw on an exit that it handled alone
 *   STATE_REPLACED        the monitor goes by what it told of registers that somebody has replaced since, as a VMM does
 *                         that goes back to a snapshot
 *   NO_EOI_EXIT           to deactivate the interrupt is no exit
 *   HOST_LEAVES_OUT       the host may not list what it was told of: its clock is behind, or it has no list register
 *                         left and does not ask for an exit when there is one
 *   MASK_BY_IMASK         the monitor masks by CNTV_CTL_EL0.IMASK, and clears it on exit if it had set it
 *   HOST_READS_MASK       the same, but it is not cleared, and so part of what the host is told
 */

#define ENABLE		1
#define IMASK		2

#define PENDING		1
#define ACTIVE		2

byte ctl, lr;
bool met, in_vgic, irqs;
bool told, masked;
bool in_guest;		/* else monitor or host run, or the host sleeps */
bool waiting;		/* in WFI that is not trapped */
bool wfi;		/* in WFI that is trapped */
bool aside;		/* this exit is handled by the monitor alone */

/* For the properties only */
byte wrote;		/* ctl as the guest wrote it */
bool known;		/* host has been told of this expiry, or has listed it */

#define asserted(c)	((c) == ENABLE && met)
#define output		asserted(wrote)
#define pending		((lr & (PENDING | ACTIVE)) == PENDING)
#define takes		(in_guest && pending && irqs)
#define wakes_up	(in_guest && pending && waiting)
#define fires		(in_guest && asserted(ctl) && !masked)
#define runs		(in_guest && !takes && !waiting)

#ifndef NO_TOLD
#define TOLD		told
#else
#define TOLD		false
#endif
#ifndef NO_LISTED
#define LISTED		(lr != 0)
#else
#define LISTED		false
#endif

inline write_ctl(value)
{
	ctl = value;
	wrote = value;
	known = known && output
}

active proctype guest()
{
end:	do
	:: atomic { takes -> lr = (lr & ~PENDING) | ACTIVE; irqs = false; waiting = false }
	:: atomic { wakes_up && !irqs -> waiting = false }

	:: atomic { runs -> met = false; write_ctl(ENABLE) }
	:: atomic { runs -> met = true; write_ctl(ENABLE) }
	:: atomic { runs -> write_ctl(ENABLE) }
	:: atomic { runs -> write_ctl(ENABLE | IMASK) }
	:: atomic { runs -> write_ctl(0) }
	:: runs -> skip

	:: atomic { runs && !(lr & ACTIVE) -> irqs = !irqs }
	:: atomic { runs && !(lr & ACTIVE) && !pending -> waiting = true }
	:: atomic { runs && !(lr & ACTIVE) -> wfi = true; in_guest = false }
	:: atomic {
		runs && (lr & ACTIVE) ->
		irqs = true;
		lr = lr & ~ACTIVE;
#ifndef NO_EOI_EXIT
		if
		:: !lr -> in_guest = false
		:: else
		fi
#endif
	   }
	:: atomic { runs -> in_vgic = !in_vgic; in_guest = false }
	:: atomic { in_guest && !takes && !wakes_up -> in_guest = false }
	:: atomic { in_guest && !takes && !wakes_up && !fires -> aside = true; in_guest = false }
	od
}

active proctype counter()
{
end:	do
	:: atomic { !met -> met = true }
	od
}

active proctype line()
{
end:	do
	:: atomic {
		fires ->
		in_guest = false;
		if
		:: waiting = false
		:: true
		fi
	   }
	od
}

active proctype hyp()
{
look:	atomic {
		if
		:: !(lr & ACTIVE) && asserted(ctl) && in_vgic -> lr = PENDING
		:: (lr & ACTIVE) && asserted(ctl) && in_vgic -> lr = ACTIVE | PENDING
		:: (lr & ACTIVE) -> lr = ACTIVE
		:: !(lr & ACTIVE) && !(asserted(ctl) && in_vgic) -> lr = 0
#ifdef HOST_LEAVES_OUT
		:: !(lr & ACTIVE) -> lr = 0
#endif
		fi;
		known = known || (lr && output)
	}
handed:	skip;			/* now it may expire unseen by the host */

decide:	atomic {
#ifdef NEVER_MASK
		masked = false;
#else
#ifdef MASK_ON_OUTPUT_ALONE
		masked = asserted(ctl);
#else
#ifdef NO_UNMASK
		masked = masked || (asserted(ctl) && (TOLD || LISTED));
#else
		masked = asserted(ctl) && (TOLD || LISTED);
#endif
#endif
#endif
#ifdef MASK_BY_IMASK
		ctl = (masked -> ENABLE | IMASK : ctl);
#endif
#ifdef HOST_READS_MASK
		ctl = (masked -> ENABLE | IMASK : ctl);
#endif
		in_guest = true
	}

end_guest:
	atomic {
		!in_guest ->
#ifdef MASK_BY_IMASK
		ctl = (masked && ctl == (ENABLE | IMASK) -> ENABLE : ctl);
#endif
#ifndef NO_UNMASK
		masked = false;
#endif
#ifdef TOLD_WITHOUT_HOST
		told = asserted(ctl);
#endif
		if
		:: aside -> aside = false; goto decide
		:: else -> told = asserted(ctl); known = known || told
		fi
	}
#ifdef STATE_REPLACED
	if
	:: true
	:: atomic { met = false; write_ctl(ENABLE) }
	fi;
#endif
	if
	:: !wfi
	:: atomic { wfi -> wfi = false }	/* some other interrupt ends it */
	:: wfi ->
end_sleep:	atomic { asserted(ctl) && in_vgic -> wfi = false }	/* by the host's own timer */
	fi;
	goto look
}

/*
 * Claims of liveness must be able to stay in an accepting state: pan -f overlooks a run that ends with all
 * processes blocked, if the claim has to leave and re-enter it.
 */
ltl no_lost { [] <> !(output && in_vgic && irqs && !(lr & ACTIVE)) }

ltl once { [] !(fires && known) }

ltl untouched { [] (ctl == wrote) }

ltl retracted { [] !(hyp@handed && (lr & PENDING) && !output) }

ltl wakes { [] <> !((waiting || wfi) && output && in_vgic) }
