/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Soft IPI passthrough: the protocol between IPI senders and a polling idle CPU.
 *
 * What stands for what
 *
 *   here                      kernel
 *   target, "poll", "leave"   soft_ipi_idle(), arch/arm64/kernel/soft_ipi.c, called by cpu_do_idle()
 *   deliver(false)            arm64_idle_interrupt(), arch/arm64/kernel/entry-common.c: the bits that leave has collected
 *   deliver(true)             the SGI handlers of arch/arm64/kernel/smp.c
 *   target, idle_loop         do_idle() and what runs once it unmasks interrupts
 *   sender, its cmpxchg loop  soft_ipi_inject(), arch/arm64/kernel/soft_ipi.c
 *   sender, "sgi = ..."       smp_cross_call(), arch/arm64/kernel/smp.c: the targets that were not taken
 *   sender, "named = ..."     the write to /sys/kernel/soft_ipi_passthrough
 *   target, "online = ..."    CPU hotplug: stop_machine(), smpcfd_dying_cpu(), and the CPU's return
 *   word                      the target's atomic word: POLLING and one pending bit per IPI type
 *   sgi                       SGIs latched in the interrupt controller, as seen in ISR_EL1
 *
 * IPI types. CALL: the handler takes every payload it can see (call function queue, irq_work list).
 * RESCHED: the payload is need_resched, which the idle loop consumes, not the handler. Payloads are kept
 * per type as a bit set of senders. As under csd_lock(), a sender's next payload of a type waits for its
 * last to be handled; so bits and SGIs coalesce between senders, and spurious ones occur.
 *
 * Weak ordering. A payload goes to its sender's store buffer (buf) and reaches memory (mem) at any later
 * time, unless a release, or the DSB ahead of an SGI, pushes it out first. Loads behind a leave that does
 * not acquire may have been satisfied when the poll began (early).
 *
 * The static key is patched into each CPU's text at a time of its own. Here each test of it may come out
 * either way at any time, which allows more than the kernel does: correctness rests neither on the key
 * nor on its order with the mask.
 *
 * Waiting is a blocking guard, so that nothing but what the protocol names ends it. Senders and mask
 * writer may stop for good: no later IPI may be needed to make up for a lost one. Sender 0 stands for
 * both senders, which send alike. Liveness is under weak fairness, pan -f.
 *
 * Properties
 *   no_lost_ipi       (a) when a send is complete, its payload is handled sooner or later
 *   invariants        (b) no pending bit without POLLING, and word == 0 outside of poll and leave;
 *                     (f) word == 0 while offline
 *   unnamed_released  (c) a CPU that is named no more stops polling, even if nobody sends any more
 *   sender_ends       the cmpxchg loop ends, whatever the target does, once the other sender has stopped
 *   assertions        (e) a handler sees the payload of every IPI that its pending bit stands for;
 *                     word == 0 when the target begins to poll
 *   (d), no IPI goes both ways, holds by construction: a set bit or an SGI ends the sender's loop.
 *
 * Mutants, each of which must fail; -D one of
 *   NO_RELEASE                   cmpxchg is relaxed
 *   NO_ACQUIRE                   xchg is relaxed
 *   SENDER_TEST_THEN_SET         POLLING is tested, then the bit set by an atomic OR
 *   SENDER_SKIP_IF_SET           a sender that finds the bit set leaves it at that
 *   LEAVE_WITHOUT_COLLECT        the word is read, then cleared by a plain store
 *   NO_FINAL_COLLECT_BEFORE_WFI  bits collected when the time bound ran out are dropped
 *   NO_NAMED_RECHECK             the poll does not look at named
 *   NO_ISR_CHECK                 the poll does not look at latched SGIs
 *   OFFLINE_WHILE_POLLING        the target goes offline out of a poll
 */

#define CALL		0
#define RESCHED		1

#define POLLING		1
#define PENDING(t)	(2 << (t))
#define ME		(1 << _pid)	/* senders are processes 0 and 1 */

byte word, sgi;
byte mem[2], buf[2];
bool named, online = true;

/* For the properties only; stop_machine() does wait for senders, which have preemption off. */
byte sending;		/* senders within a send */
byte stopped;		/* senders that send no more */
byte covers[2];		/* senders whose present payload a pending bit stands for */
bool in_poll;		/* target is between setting POLLING and the end of leave */

#ifdef NO_ACQUIRE
byte early[2];
#endif

#define unhandled(t)	(mem[t] | buf[t])

inline drain(type, who)
{
	mem[type] = mem[type] | (buf[type] & (who));
	buf[type] = buf[type] & ~(who)
}

inline release()
{
	drain(CALL, ME);
	drain(RESCHED, ME)
}

inline begin_send(type)
{
	t = type;
	sending = sending | ME;
	covers[t] = covers[t] & ~ME;
	buf[t] = buf[t] | ME
}

inline end_send()
{
	sending = sending & ~ME;
	t = 0;
	old = 0
}

active [2] proctype sender()
{
	byte t, old;

idle:	do
	:: atomic { online && !(unhandled(CALL) & ME) -> begin_send(CALL); break }
	:: atomic { online && !(unhandled(RESCHED) & ME) -> begin_send(RESCHED); break }
	:: atomic { _pid == 1 -> named = !named }	/* it writes the mask as well */
	:: atomic { stopped = stopped | ME; goto done }
	od;

	if
	:: old = word		/* the key looks on */
	:: old = 0		/* the key looks off */
	fi;
	do
	:: atomic { !(old & POLLING) -> release(); sgi = sgi | PENDING(t); end_send(); goto idle }
#ifdef SENDER_SKIP_IF_SET	/* but another sender's bit does not release our payload */
	:: atomic { old & PENDING(t) -> end_send(); goto idle }
#endif
	:: atomic {
		old & POLLING ->
		if
#ifdef SENDER_TEST_THEN_SET
		:: true ->
#else
		:: word == old ->
#endif
#ifndef NO_RELEASE
			release();
#endif
			word = word | PENDING(t);
			covers[t] = covers[t] | ME;
			end_send();
			goto idle
		:: else -> old = word
		fi
	   }
	od;
done:	skip
}

/* A CPU's stores reach memory in any order, however late, but they do. */
active proctype store_buffer()
{
end:	do
	:: atomic { buf[CALL] & 1 -> drain(CALL, 1) }
	:: atomic { buf[CALL] & 2 -> drain(CALL, 2) }
	:: atomic { buf[RESCHED] & 1 -> drain(RESCHED, 1) }
	:: atomic { buf[RESCHED] & 2 -> drain(RESCHED, 2) }
	od
}

/* The handler of one type, if its bit is in got. Not @acquired: its loads may predate the leave. */
inline handle(type, acquired)
{
	if
	:: got & PENDING(type) ->
		seen = mem[type];
#ifdef NO_ACQUIRE
		if
		:: !acquired -> seen = early[type]
		:: true
		fi;
#endif
		assert(!(covers[type] & unhandled(type) & ~seen));
		covers[type] = 0;
		if
		:: type == CALL -> mem[CALL] = mem[CALL] & ~seen
		:: else			/* need_resched is the idle loop's */
		fi;
		seen = 0
	:: else
	fi
}

inline deliver(acquired)
{
	atomic { handle(CALL, acquired); handle(RESCHED, acquired); got = 0 }
}

active proctype target()
{
	byte got, seen;
	bool bounded;

idle_loop:
	/*
	 * Interrupts unmasked: SGIs are acknowledged, then handled. To poll again without this would find
	 * the same SGI latched, for ever.
	 */
	atomic { got = sgi; sgi = 0 }
	deliver(true);

	/* Interrupts masked from here on. */
	if
	:: atomic { mem[RESCHED] -> mem[RESCHED] = 0; goto idle_loop }
	:: !mem[RESCHED]
	:: atomic {			/* a dying CPU takes what is queued; its latched SGIs are lost */
		!sending ->
		online = false; mem[CALL] = 0; mem[RESCHED] = 0; sgi = 0
	   }
	   if
	   :: atomic { online = true; goto idle_loop }
	   :: goto dead
	   fi
	fi;

	if
	:: named			/* and the key looks on */
	:: goto wfi			/* not named, or the key looks off */
	fi;

	/* poll */
	atomic {
		assert(!word);
		word = POLLING; in_poll = true;
#ifdef NO_ACQUIRE
		early[CALL] = mem[CALL]; early[RESCHED] = mem[RESCHED];
#endif
		if
		:: bounded = true
		:: bounded = false	/* poll_us=0 */
		fi
	}

end_poll:
	if
	:: atomic { word != POLLING -> bounded = false }
#ifndef NO_ISR_CHECK
	:: atomic { sgi -> bounded = false }
#endif
#ifndef NO_NAMED_RECHECK
	:: atomic { !named -> bounded = false }
#endif
	:: atomic { mem[RESCHED] -> bounded = false }
	:: bounded			/* the time bound ran out */
#ifdef OFFLINE_WHILE_POLLING
	:: atomic { !sending -> online = false; goto dead }
#endif
	fi;

	/* leave */
#ifdef LEAVE_WITHOUT_COLLECT
	got = word & ~POLLING;
	atomic { word = 0; in_poll = false }
#else
	atomic { got = word & ~POLLING; word = 0; in_poll = false }
#endif
	if
#ifdef NO_FINAL_COLLECT_BEFORE_WFI
	:: atomic { bounded -> got = 0; bounded = false }
#else
	:: atomic { bounded && !got -> bounded = false }
#endif
	:: atomic { else -> bounded = false }
	   deliver(false);
	   goto idle_loop
	fi;

wfi:
	if
	:: goto idle_loop		/* some other interrupt ends it; or ended the poll */
	:: true
	fi;
end_wfi:
	sgi;
	goto idle_loop;

dead:	skip
}

/*
 * The claims made of these must be able to stay in an accepting state: pan -f overlooks a run that ends
 * with all processes blocked, if the claim has to leave and re-enter it, as for <> [] p && [] <> q.
 */
#define lost(t)		(unhandled(t) & 1 && !(sending & 1))

ltl no_lost_ipi {
	[] ((lost(CALL) -> <> !(unhandled(CALL) & 1)) && (lost(RESCHED) -> <> !(unhandled(RESCHED) & 1)))
}

ltl invariants {
	[] ((!word || word & POLLING) && (!word || in_poll) && (!word || online))
}

ltl unnamed_released { [] <> (named || !(word & POLLING)) }

ltl sender_ends { [] <> !(stopped & 2 && sending & 1) }
