// SPDX-License-Identifier: GPL-2.0
/*
 * cvmtune_timer - time a guest's timers, and torture them
 *
 * debugfs, folder cvmtune_timer/:
 *
 * run (write only, root)
 *	One line, the kind and its keys, each once, in any order:
 *
 *		kind=oneshot cpu=CPU n=COUNT interval_us=MICROSECONDS
 *		kind=periodic cpu=CPU n=COUNT interval_us=MICROSECONDS
 *		kind=irqoff cpu=CPU n=COUNT off_us=US gap_us=US [work=ROUNDS]
 *		kind=torture seconds=SECONDS seed=NUMBER
 *
 *	runs it and returns when it is over. n: 1 to 100000. interval_us: 20 to
 *	1000000. off_us: 1 to 100000. gap_us: 0 to 1000000. work: 1 to
 *	1000000000. seconds: 1 to 86400. seed: any 32-bit number.
 *
 *	Violations that torture finds are no error of the write: read `result`.
 *	After these `samples` is what it was before, and `result` tells what was
 *	found until then:
 *	-EINVAL     the line is malformed, or the CPU is not online
 *	-EBUSY      another run is in progress
 *	-EINTR      a signal ended the run
 *	-ETIMEDOUT  oneshot, periodic, irqoff: a timer did not fire within 2 s of
 *		    its expiry (it is cancelled; another run may follow). Or a
 *		    thread hangs, `hung` in `result`, and the module stays loaded
 *	-EIO	    a thread hung in an earlier run
 *	-EAGAIN	    irqoff: in 1000 attempts in a row, no timer expired with
 *		    interrupts off
 *	-ENODEV	    irqoff, torture: this kernel's timer is not the virtual one;
 *		    a kernel that was started in EL2 uses another
 *	-ENOMEM
 *	CPUs may go and come during torture only; the other kinds hold
 *	cpus_read_lock(). Write from another CPU than the one measured: the
 *	writer waits with timeouts, whose timers would be on it too.
 *
 * samples (read only)
 *	The last complete run's samples in the order in which they were taken,
 *	each a decimal number of nanoseconds on a line of its own; none after
 *	torture. A reader goes on seeing the run that was the last when it
 *	opened the file.
 *
 * result (read only)
 *	Lines "key value", decimal, of the last run or the one in progress. Those
 *	that the kinds have in common:
 *
 *	lost	not fired 2 s after the expiry
 *	early	handler ran before the expiry
 *	twice	handler ran more often than it was asked to, or the timer was
 *		queued although it had fired
 *	hung	threads that hang; the module then stays loaded
 *	late_mean_ns, late_max_ns, late_over_1ms
 *		from the expiry to the handler, both by CLOCK_MONOTONIC; if the
 *		timer was armed later than its expiry, or interrupts were kept
 *		off beyond it on purpose, from then
 *
 * All timers are pinned hrtimers that expire in the interrupt itself
 * (HRTIMER_MODE_ABS_PINNED_HARD). The kinds:
 *
 * oneshot, periodic
 *	n timers one after another on that CPU; a sample is the lateness. The
 *	handler arms the next one itself, so that the CPU does nothing else and
 *	may idle between: for interval_us after it ran (oneshot), or for the next
 *	point not yet passed of an absolute grid of interval_us (periodic).
 *
 *	started, fired	timers armed, and handlers that ran: equal at the end
 *	missed		grid's points that passed before the handler ran
 *
 * irqoff
 *	A thread bound to that CPU, n times: sleeps gap_us (the CPU may idle);
 *	arms a timer that expires in 5 us; turns interrupts off; spins until it
 *	has expired; does a fixed amount of work; turns interrupts on. A sample
 *	is what the work took: beyond what it takes undisturbed, time stolen from
 *	the guest while its timer was expired and its interrupt masked. The work
 *	is `work` rounds of an empty loop; without work= as many as take off_us
 *	in the shortest of 200 trials of 20 us each, with interrupts off, on that
 *	CPU, before the first section. With work=, off_us is not used.
 *
 *	An attempt counts only if, once interrupts are off, the hardware timer is
 *	programmed for this very timer and has not yet expired. Else it is made
 *	again, after the timer was cancelled; with twice the time, up to 1280 us,
 *	if that was too short (a host may take the CPU away meanwhile).
 *
 *	sections	that were measured
 *	fired		of those, timers that fired after the section
 *	work		rounds of the loop
 *	section_ns_total
 *			the samples' sum
 *	wait_ns_total	from the expiry to the start of the work, summed
 *	unexpired	sections after whose work CNTV_CTL_EL0 did not tell that
 *			the timer had expired
 *	retries		attempts that did not count
 *	arm_us		the time until expiry that was used last
 *	late_...	from the end of the section to the handler
 *
 * torture
 *	On each online CPU a thread does random operations until the time is
 *	over. CPUs may go offline and come back: the thread ends its operation
 *	before its CPU goes, and goes on when it is back.
 *
 *	oneshot	   a timer in 0 to 2000 us
 *	periodic   1 to 20 periods of 50 to 1000 us, each of which counts
 *	cancel	   cancelled before or after its expiry
 *	restart	   a pending timer is started again: earlier, later, or for a
 *		   time that has passed, 1 to 3 times; must fire once
 *	irqs_off   expires while interrupts are off, for up to 300 us
 *	masked	   CNTV_CTL_EL0.IMASK is set behind the kernel's back for up to
 *		   200 us with interrupts on, while a timer may expire
 *	registers  CNTV_CTL_EL0 and CNTV_CVAL_EL0 must read as written, while
 *		   a timer may expire; interrupts are off for up to 400 us
 *	background a timer in 0 to 500 ms that no operation waits for, one for
 *		   each CPU all the time; moves to another CPU if its own goes
 *
 *	started_KIND, fired_KIND
 *		must be equal at the end, but for cancel
 *	overruns
 *		periods that were handled together with a later one
 *	cancelled
 *		started_cancel = fired_cancel + cancelled
 *	cancelled_fired
 *		handlers that ran although hrtimer_cancel() had told that it took
 *		the timer from the queue: a violation
 *	while_masked
 *		timer interrupts taken with IMASK set. The first in a masked
 *		section may have been signalled before IMASK was written.
 *	masked_repeat
 *		masked sections with more than one: a violation. An interrupt
 *		whose handler finds the timer expired lets the kernel program it
 *		anew, which clears IMASK; those that follow are not counted.
 *	masked_undone
 *		masked sections at whose end IMASK was clear for that reason or
 *		because another interrupt armed a timer; no violation
 *	tainted	registers that did not read as they must: a violation
 *	istatus_lag
 *		ISTATUS clear although the counter had passed CVAL since CVAL
 *		was written; tainted counts it if CVAL had passed before. A real
 *		timer has no lag. QEMU's own sets ISTATUS by a host's timer.
 *	operations, cpus, seconds
 *		how many were done, on how many CPUs, in how many whole seconds
 *
 *	The masked operation needs the tracepoint irq:irq_handler_entry to see
 *	the interrupts. Without it started_masked stays 0, with a line in the
 *	kernel's log.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/prandom.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/smpboot.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <linux/vmalloc.h>
#include <asm/arch_timer.h>
#include <asm/barrier.h>
#include <asm/sysreg.h>

#include "cvmtune_run.h"
#include "cvmtune_samples.h"

#define MAX_LINE	256
#define MAX_SAMPLES	100000
#define MAX_WORK	1000000000
#define LOST_AFTER_MS	2000
#define HUNG_AFTER_S	60	/* > an operation that loses its timer */
#define SPIN_MAX_NS	(3 * NSEC_PER_MSEC)

#define ARM_US		5
#define ARM_US_MAX	1280
#define MAX_ATTEMPTS	1000

#define MODE		HRTIMER_MODE_ABS_PINNED_HARD

#define CTL_ENABLE	ARCH_TIMER_CTRL_ENABLE
#define CTL_IMASK	ARCH_TIMER_CTRL_IT_MASK
#define CTL_ISTATUS	ARCH_TIMER_CTRL_IT_STAT

enum kind {
	KIND_ONESHOT,
	KIND_PERIODIC,
	KIND_CANCEL,
	KIND_RESTART,
	KIND_IRQS_OFF,
	KIND_REGISTERS,
	KIND_MASKED,		/* the last operation, see one_operation() */
	NR_OPERATIONS,
	KIND_BACKGROUND = NR_OPERATIONS,
	NR_KINDS,
};

static const char * const kind_names[NR_KINDS] = {
	[KIND_ONESHOT] = "oneshot",
	[KIND_PERIODIC] = "periodic",
	[KIND_CANCEL] = "cancel",
	[KIND_RESTART] = "restart",
	[KIND_IRQS_OFF] = "irqs_off",
	[KIND_REGISTERS] = "registers",
	[KIND_MASKED] = "masked",
	[KIND_BACKGROUND] = "background",
};

/* Of the run in progress or the last one; nothing but atomic64_t. */
static struct {
	/* A run of one kind counts under that kind, irqoff under irqs_off. */
	atomic64_t started[NR_KINDS];
	atomic64_t fired[NR_KINDS];
	atomic64_t lost;
	atomic64_t early;
	atomic64_t twice;
	atomic64_t hung;
	atomic64_t late_count;
	atomic64_t late_total;
	atomic64_t late_max;
	atomic64_t late_over_1ms;

	atomic64_t missed;

	atomic64_t sections;
	atomic64_t section_fired;
	atomic64_t work;
	atomic64_t section_ns_total;
	atomic64_t wait_ns_total;
	atomic64_t unexpired;
	atomic64_t retries;
	atomic64_t arm_us;

	atomic64_t overruns;
	atomic64_t cancelled;
	atomic64_t cancelled_fired;
	atomic64_t while_masked;
	atomic64_t masked_repeat;
	atomic64_t masked_undone;
	atomic64_t tainted;
	atomic64_t istatus_lag;
	atomic64_t operations;
	atomic64_t cpus;
	atomic64_t seconds;
} stats;

/* The numbers of a line, by key. */
enum number { CPU, N, INTERVAL_US, OFF_US, GAP_US, WORK, SECONDS, SEED, NR_NUMBERS };

static const struct cvmtune_number numbers[NR_NUMBERS] = {
	[CPU] = { "cpu", 0, U32_MAX },
	[N] = { "n", 1, MAX_SAMPLES },
	[INTERVAL_US] = { "interval_us", 20, USEC_PER_SEC },
	[OFF_US] = { "off_us", 1, 100000 },
	[GAP_US] = { "gap_us", 0, USEC_PER_SEC },
	[WORK] = { "work", 1, MAX_WORK },
	[SECONDS] = { "seconds", 1, 86400 },
	[SEED] = { "seed", 0, U32_MAX },
};

struct request {
	const struct run_kind *kind;
	u32 number[NR_NUMBERS];	/* 0 if not given */
};

/**
 * struct shot - one timer, armed again and again, each time accounted for
 * @timer:	its handler is shot_fires()
 * @changed:	completed when it has fired as often as wanted, and by
 *		shot_watch()
 * @kind:	what it is armed for this time
 * @interval:	of a periodic one, else 0
 * @wanted:	how often it must fire; 0: it is not in use
 * @fired:	how often it did
 * @due:	lateness counts from here if this is later than the expiry
 * @untimed:	no lateness at all
 * @limit:	when whoever sleeps in shot_await() should give up; 0: nobody does
 */
struct shot {
	struct hrtimer timer;
	struct completion changed;
	enum kind kind;
	ktime_t interval;
	u32 wanted;
	u32 fired;
	ktime_t due;
	bool untimed;
	ktime_t limit;
};

/* A run of any kind but torture. vmalloc()ed; left allocated if it hangs. */
struct run {
	struct request req;
	struct sample_set *samples;
	struct completion finished;
	bool stop;

	/* oneshot, periodic */
	struct hrtimer timer;
	enum kind kind;
	ktime_t interval;
	ktime_t expires;
	u32 taken;

	/* irqoff */
	struct shot shot;
	u32 work;
	u32 arm_us;
	u32 progress;
};

/**
 * struct run_kind - what a line may ask for
 * @name:	the word after kind=
 * @required:	its keys, a mask of BIT(enum number)
 * @optional:	more keys
 * @run:	the run proper; fills in @samples, of which it has n
 * @show:	its part of `result`
 */
struct run_kind {
	const char *name;
	u32 required;
	u32 optional;
	int (*run)(const struct request *req, struct sample_set **samples);
	void (*show)(struct seq_file *m);
};

/**
 * struct worker - torture on one CPU
 * @lock:	held over each operation; nobody else takes it while running
 * @shot:	of the operation in progress
 * @background:	the timer that no operation waits for
 * @rnd:	what all choices are drawn from
 * @operations:	done in this run
 * @masked:	the CPU is in a masked section: see probe_irq()
 * @masked_irqs:
 *		timer interrupts taken in it with IMASK set
 */
struct worker {
	struct mutex lock;	/* held over each operation */
	struct shot shot;
	struct shot background;
	struct rnd_state rnd;
	u64 operations;
	bool masked;
	u32 masked_irqs;
};

static DEFINE_PER_CPU(struct worker, workers);
static DEFINE_PER_CPU(struct task_struct *, worker_tasks);
static bool torturing;

static const struct run_kind *last_kind;
static bool dead;			/* a thread hangs; under run_mutex */
static struct dentry *folder;
static u32 counter_hz;
static struct tracepoint *irq_entry;	/* under run_mutex */

/* Time, and the timer's registers */

static __always_inline u64 counter(void)
{
	return __arch_counter_get_cntvct();
}

static u64 ns_to_ticks(u64 ns)
{
	return mul_u64_u32_div(ns, counter_hz, NSEC_PER_SEC);
}

static u64 ticks_to_ns(u64 ticks)
{
	return mul_u64_u32_div(ticks, NSEC_PER_SEC, counter_hz);
}

static void spin_ns(u64 ns)
{
	u64 ticks = ns_to_ticks(ns);
	u64 start = counter();

	while (counter() - start < ticks)
		cpu_relax();
}

static u64 read_ctl(void)
{
	return read_sysreg(cntv_ctl_el0);
}

static u64 read_cval(void)
{
	return read_sysreg(cntv_cval_el0);
}

static void write_ctl(u64 ctl)
{
	write_sysreg(ctl, cntv_ctl_el0);
	/*
	 * Without it the interrupts that follow may be turned on, or the counter
	 * be read, before the timer acts on what was written.
	 */
	isb();
}

static void write_cval(u64 cval)
{
	write_sysreg(cval, cntv_cval_el0);
	/*
	 * Without it a write of CTL that enables the timer may take effect first
	 * and signal the old CVAL's expiry.
	 */
	isb();
}

/* Accounts */

static void count_late(ktime_t now, ktime_t due)
{
	s64 late = max(ktime_to_ns(ktime_sub(now, due)), 0);
	s64 highest = atomic64_read(&stats.late_max);

	atomic64_inc(&stats.late_count);
	atomic64_add(late, &stats.late_total);
	if (late > NSEC_PER_MSEC)
		atomic64_inc(&stats.late_over_1ms);
	while (late > highest &&
	       !atomic64_try_cmpxchg(&stats.late_max, &highest, late))
		;
}

static void reset_stats(void)
{
	atomic64_t *each = (atomic64_t *)&stats;
	size_t i;

	for (i = 0; i < sizeof(stats) / sizeof(*each); i++)
		atomic64_set(&each[i], 0);
}

/* Shots */

static enum hrtimer_restart shot_fires(struct hrtimer *timer)
{
	ktime_t now = ktime_get();
	struct shot *shot = container_of(timer, struct shot, timer);
	ktime_t expires = hrtimer_get_expires(timer);
	u32 fired = READ_ONCE(shot->fired);
	u32 left = shot->wanted - fired;
	u32 periods = 1;

	if (ktime_before(now, expires))
		atomic64_inc(&stats.early);
	if (!left) {
		atomic64_inc(&stats.twice);
		return HRTIMER_NORESTART;
	}
	if (!shot->untimed)
		count_late(now, max(expires, shot->due));
	if (shot->interval) {
		/* 0 periods if it is early, for which it is made no worse. */
		periods = clamp(hrtimer_forward(timer, now, shot->interval),
				1, left);
		atomic64_add(periods - 1, &stats.overruns);
	}
	atomic64_add(periods, &stats.fired[shot->kind]);
	fired += periods;
	left -= periods;
	/*
	 * Release pairs with the acquire in shot_done(). Without it who waits
	 * for a timer that moved to another CPU could see that it has fired and
	 * end the run, while `result` does not yet count it.
	 */
	smp_store_release(&shot->fired, fired);
	if (left)
		return HRTIMER_RESTART;
	complete(&shot->changed);
	return HRTIMER_NORESTART;
}

static void shot_init(struct shot *shot)
{
	hrtimer_init(&shot->timer, CLOCK_MONOTONIC, MODE);
	shot->timer.function = shot_fires;
	init_completion(&shot->changed);
}

/* Only after shot_finish() or hrtimer_cancel(): no handler runs. */
static void shot_prepare(struct shot *shot, enum kind kind, u32 wanted,
			 u64 interval_ns)
{
	reinit_completion(&shot->changed);
	shot->kind = kind;
	shot->interval = ns_to_ktime(interval_ns);
	shot->wanted = wanted;
	WRITE_ONCE(shot->fired, 0);
	shot->untimed = false;
	atomic64_add(wanted, &stats.started[kind]);
}

/* On the CPU that it is for. A second time only with interrupts off. */
static void shot_arm(struct shot *shot, ktime_t expires)
{
	shot->due = max(expires, ktime_get());
	hrtimer_start(&shot->timer, expires, MODE);
}

static bool shot_done(struct shot *shot)
{
	/* Acquire: see shot_fires(). */
	return smp_load_acquire(&shot->fired) >= shot->wanted;
}

static ktime_t shot_limit(const struct shot *shot)
{
	ktime_t all = ktime_add_ns(shot->due, shot->wanted * shot->interval);

	return ktime_add_ms(all, LOST_AFTER_MS);
}

/* It has fired, or should have; returns which. No handler runs any more. */
static bool shot_finish(struct shot *shot)
{
	bool queued = hrtimer_cancel(&shot->timer);
	u32 left = shot->wanted - READ_ONCE(shot->fired);

	if (left) {
		atomic64_add(left, &stats.lost);
		pr_err("%s: %u of %u not fired, %squeued\n",
		       kind_names[shot->kind], left, shot->wanted,
		       queued ? "" : "not ");
	} else if (queued) {
		atomic64_inc(&stats.twice);
	}
	return !left;
}

/* Waits until it has fired or is lost, for a while without sleeping if @spin. */
static bool shot_await(struct shot *shot, bool spin)
{
	ktime_t limit = shot_limit(shot);

	if (spin) {
		ktime_t end = ktime_add_ns(ktime_get(), SPIN_MAX_NS);

		while (!shot_done(shot) && ktime_before(ktime_get(), end))
			cpu_relax();
	}
	WRITE_ONCE(shot->limit, limit);
	while (!shot_done(shot) && !ktime_after(ktime_get(), limit))
		wait_for_completion_timeout(&shot->changed,
					    msecs_to_jiffies(LOST_AFTER_MS));
	WRITE_ONCE(shot->limit, 0);
	/*
	 * The limit may have passed while a host did not let this CPU run, in
	 * which case the interrupt may need some instructions yet to come.
	 */
	if (!shot_done(shot))
		spin_ns(NSEC_PER_MSEC);
	return shot_finish(shot);
}

/*
 * Wakes who sleeps for a shot that is overdue. On another CPU than the shot's:
 * one that lost its timer interrupt has lost that of the sleep's timeout, too.
 */
static void shot_watch(struct shot *shot)
{
	ktime_t limit = READ_ONCE(shot->limit);

	if (limit && ktime_after(ktime_get(), limit))
		complete(&shot->changed);
}

/* Is the virtual timer the one that the kernel programs? */

#define CHECK_TRIES	50

struct timer_check {
	struct shot shot;
	bool is_virtual;
};

static void check_timer(void *info)
{
	const u64 tolerance = ns_to_ticks(20 * NSEC_PER_MSEC);
	struct timer_check *check = info;
	u64 before, after, ctl, cval;

	/* Interrupts are off: what hrtimer_start() programs is still there. */
	before = counter();
	shot_arm(&check->shot, ktime_add_ns(ktime_get(), NSEC_PER_MSEC));
	ctl = read_ctl();
	cval = read_cval();
	after = counter();

	/*
	 * This timer's expiry, or that of another one that comes first or has
	 * come. A timer that the kernel leaves alone is off.
	 */
	check->is_virtual =
		(ctl & (CTL_ENABLE | CTL_IMASK)) == CTL_ENABLE &&
		cval + tolerance - before <= after - before + 2 * tolerance;
}

/* Under cpus_read_lock(), @cpu is online. */
static int require_virtual_timer(u32 cpu)
{
	struct timer_check *check = kzalloc(sizeof(*check), GFP_KERNEL);
	int tries = CHECK_TRIES;
	int err;

	if (!check)
		return -ENOMEM;
	shot_init(&check->shot);
	check->shot.wanted = 1;
	check->shot.untimed = true;
	/* A vCPU that does not get to run finds a timer that is long overdue. */
	do {
		err = smp_call_function_single(cpu, check_timer, check, 1);
		hrtimer_cancel(&check->shot.timer);
		if (err || check->is_virtual)
			break;
		err = -ENODEV;
		msleep(20);
	} while (--tries);
	kfree(check);
	/* It may have fired under a kind that is not this run's. */
	reset_stats();
	return err;
}

/* Runs */

static struct run *run_alloc(const struct request *req)
{
	struct run *run = vzalloc(sizeof(*run));

	if (!run)
		return NULL;
	run->samples = sample_set_alloc(req->number[N], 1);
	if (!run->samples) {
		vfree(run);
		return NULL;
	}
	run->req = *req;
	init_completion(&run->finished);
	return run;
}

/* No handler runs any more, no thread; not after a hang. */
static void run_free(struct run *run)
{
	sample_set_put(run->samples);
	vfree(run);
}

static struct sample_set *run_take_samples(struct run *run)
{
	struct sample_set *samples = run->samples;

	run->samples = NULL;
	return samples;
}

static bool cpu_usable(u32 cpu)
{
	return cpu < nr_cpu_ids && cpu_online(cpu);
}

/* A thread or more do not come back: nothing they may touch can be freed. */
static int give_up(unsigned int hung)
{
	pr_err("%u threads hang\n", hung);
	atomic64_set(&stats.hung, hung);
	__module_get(THIS_MODULE);
	dead = true;
	return -ETIMEDOUT;
}

/* oneshot, periodic */

static enum hrtimer_restart series_fires(struct hrtimer *timer)
{
	ktime_t now = ktime_get();
	struct run *run = container_of(timer, struct run, timer);
	ktime_t expires = hrtimer_get_expires(timer);
	u32 taken = READ_ONCE(run->taken);

	if (taken >= run->req.number[N]) {
		atomic64_inc(&stats.twice);
		return HRTIMER_NORESTART;
	}
	if (ktime_before(now, expires))
		atomic64_inc(&stats.early);
	count_late(now, expires);
	run->samples->ns[taken] = max(ktime_to_ns(ktime_sub(now, expires)), 0);
	atomic64_inc(&stats.fired[run->kind]);
	WRITE_ONCE(run->taken, ++taken);

	if (taken == run->req.number[N] || READ_ONCE(run->stop)) {
		complete(&run->finished);
		return HRTIMER_NORESTART;
	}
	if (run->kind == KIND_PERIODIC) {
		u64 points = hrtimer_forward(timer, now, run->interval);

		if (points)	/* 0 if it was early */
			atomic64_add(points - 1, &stats.missed);
	} else {
		hrtimer_set_expires(timer, ktime_add(now, run->interval));
	}
	WRITE_ONCE(run->expires, hrtimer_get_expires(timer));
	atomic64_inc(&stats.started[run->kind]);
	return HRTIMER_RESTART;
}

static void series_start(void *info)
{
	struct run *run = info;

	WRITE_ONCE(run->expires, ktime_add(ktime_get(), run->interval));
	atomic64_inc(&stats.started[run->kind]);
	hrtimer_start(&run->timer, run->expires, MODE);
}

static int series_await(struct run *run)
{
	ktime_t limit;
	long left;

	for (;;) {
		left = wait_for_completion_interruptible_timeout(&run->finished,
								 HZ / 2);
		if (left > 0)
			return 0;
		if (left < 0) {
			WRITE_ONCE(run->stop, true);
			return -EINTR;
		}
		limit = ktime_add_ms(READ_ONCE(run->expires), LOST_AFTER_MS);
		if (ktime_after(ktime_get(), limit))
			return -ETIMEDOUT;
	}
}

/* Under cpus_read_lock(), the CPU is online. */
static int series(struct run *run)
{
	u32 n = run->req.number[N];
	int err;

	run->interval = ns_to_ktime((u64)run->req.number[INTERVAL_US] *
				    NSEC_PER_USEC);
	hrtimer_init(&run->timer, CLOCK_MONOTONIC, MODE);
	run->timer.function = series_fires;

	err = smp_call_function_single(run->req.number[CPU], series_start, run, 1);
	if (err)
		return err;
	err = series_await(run);
	/* Waits for a handler in progress, which may be the last one. */
	if (hrtimer_cancel(&run->timer) && READ_ONCE(run->taken) == n)
		atomic64_inc(&stats.twice);
	if (err == -ETIMEDOUT) {
		pr_err("%s: timer %u of %u not fired within %u ms\n",
		       kind_names[run->kind], run->taken + 1, n, LOST_AFTER_MS);
		atomic64_inc(&stats.lost);
	}
	return err;
}

static int run_series(const struct request *req, enum kind kind,
		      struct sample_set **samples)
{
	struct run *run = run_alloc(req);
	int err;

	if (!run)
		return -ENOMEM;
	run->kind = kind;
	cpus_read_lock();
	err = cpu_usable(req->number[CPU]) ? series(run) : -EINVAL;
	cpus_read_unlock();
	if (!err)
		*samples = run_take_samples(run);
	run_free(run);
	return err;
}

static int run_oneshot(const struct request *req, struct sample_set **samples)
{
	return run_series(req, KIND_ONESHOT, samples);
}

static int run_periodic(const struct request *req, struct sample_set **samples)
{
	return run_series(req, KIND_PERIODIC, samples);
}

/* irqoff */

/*
 * In assembly, and one copy for trials and sections: the same instructions at
 * the same place, whatever the compiler. @rounds is at least 1.
 */
static noinline notrace void do_work(u64 rounds)
{
	asm volatile("1:	subs	%0, %0, #1\n"
		     "	b.ne	1b\n"
		     : "+r" (rounds) : : "cc");
}

static u64 shortest_work(u64 rounds, u32 trials)
{
	u64 shortest = U64_MAX;

	while (trials--) {
		unsigned long flags;
		u64 start, ticks;

		local_irq_save(flags);
		start = counter();
		do_work(rounds);
		ticks = counter() - start;
		local_irq_restore(flags);
		shortest = min(shortest, ticks);
		cond_resched();
	}
	return shortest;
}

/*
 * How many rounds take off_us. Trials are short, so that few meet the expiry of
 * a timer, and the shortest has met none: no disturbance makes one shorter.
 */
static u32 calibrate(u32 off_us)
{
	const u64 enough = ns_to_ticks(20 * NSEC_PER_USEC);
	u64 rounds = 64;
	u64 ticks, work;

	while (shortest_work(rounds, 16) < enough && rounds < MAX_WORK / 2)
		rounds *= 2;
	ticks = max(shortest_work(rounds, 200), 1);
	work = div64_u64(ns_to_ticks((u64)off_us * NSEC_PER_USEC) * rounds, ticks);
	return clamp(work, 1, MAX_WORK);
}

enum attempt { GOOD, TOO_LATE, NOT_NEXT };

/*
 * Interrupts are off. Is the hardware timer programmed for the shot that was
 * armed after @armed to expire in @ticks, and does it expire from now on?
 */
static enum attempt judge_attempt(struct shot *shot, u64 armed, u64 ticks,
				  u64 *cval)
{
	const u64 slack = ticks / 1000 + 16;	/* clock's rate, rounding */
	u64 ctl = read_ctl();
	u64 now;

	*cval = read_cval();
	now = counter();
	if (shot_done(shot))
		return TOO_LATE;
	/*
	 * The kernel writes the time that is left at some moment since to the
	 * counter's value at a later one: between @armed and now, plus @ticks.
	 * Earlier is another timer, later is none that was programmed for this.
	 */
	if ((ctl & (CTL_ENABLE | CTL_IMASK)) != CTL_ENABLE ||
	    *cval + slack < armed + ticks || *cval > now + ticks + slack)
		return NOT_NEXT;
	return now < *cval ? GOOD : TOO_LATE;
}

/* The section proper: interrupts are off, the timer expires at @cval. */
static void do_section(struct run *run, ktime_t expires, u64 cval, u64 *ns)
{
	u64 start, end;

	/* The clock is checked, too, lest rounding let it be behind @cval. */
	while (counter() < cval || ktime_before(ktime_get(), expires))
		cpu_relax();
	start = counter();
	do_work(run->work);
	end = counter();

	*ns = ticks_to_ns(end - start);
	atomic64_inc(&stats.sections);
	atomic64_add(*ns, &stats.section_ns_total);
	atomic64_add(ticks_to_ns(start - cval), &stats.wait_ns_total);
	if (!(read_ctl() & CTL_ISTATUS))
		atomic64_inc(&stats.unexpired);
}

static int one_section(struct run *run, u64 *ns)
{
	struct shot *shot = &run->shot;
	unsigned int attempt;

	for (attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
		u64 arm_ns = (u64)run->arm_us * NSEC_PER_USEC;
		enum attempt verdict;
		ktime_t expires;
		u64 armed, cval;

		shot_prepare(shot, KIND_IRQS_OFF, 1, 0);
		shot->untimed = true;
		armed = counter();
		expires = ktime_add_ns(ktime_get(), arm_ns);
		shot_arm(shot, expires);
		local_irq_disable();
		verdict = judge_attempt(shot, armed, ns_to_ticks(arm_ns), &cval);
		if (verdict == GOOD) {
			do_section(run, expires, cval, ns);
			shot->due = ktime_get();
			shot->untimed = false;
			local_irq_enable();
			if (!shot_await(shot, true))
				return -ETIMEDOUT;
			atomic64_inc(&stats.section_fired);
			return 0;
		}
		local_irq_enable();
		hrtimer_cancel(&shot->timer);
		atomic64_inc(&stats.retries);
		if (verdict == TOO_LATE && run->arm_us < ARM_US_MAX)
			atomic64_set(&stats.arm_us, run->arm_us *= 2);
		/* What comes first is over soon; let it, if it is a thread. */
		spin_ns(10 * NSEC_PER_USEC);
		cond_resched();
	}
	pr_err("no timer expired with interrupts off in %u attempts\n", attempt);
	return -EAGAIN;
}

/* The thread on the CPU; its result is kthread_stop()'s. */
static int section_thread(void *data)
{
	struct run *run = data;
	u32 gap_us = run->req.number[GAP_US];
	int err = 0;
	u32 i;

	run->work = run->req.number[WORK] ?:
		    calibrate(run->req.number[OFF_US]);
	run->arm_us = ARM_US;
	atomic64_set(&stats.work, run->work);
	atomic64_set(&stats.arm_us, run->arm_us);
	for (i = 0; i < run->req.number[N]; i++) {
		if (READ_ONCE(run->stop)) {
			err = -EINTR;
			break;
		}
		if (gap_us)
			usleep_range(gap_us, gap_us + gap_us / 8 + 1);
		cond_resched();
		err = one_section(run, &run->samples->ns[i]);
		if (err)
			break;
		WRITE_ONCE(run->progress, i + 1);
	}
	complete(&run->finished);
	return err;
}

/* Returns false if the thread makes no progress. */
static bool sections_await(struct run *run)
{
	unsigned int still = 0;
	u32 progress, seen = 0;
	long left;

	while (still < HUNG_AFTER_S) {
		if (run->stop)
			left = wait_for_completion_timeout(&run->finished, HZ);
		else
			left = wait_for_completion_interruptible_timeout(&run->finished,
									 HZ);
		if (left > 0)
			return true;
		if (left < 0)
			WRITE_ONCE(run->stop, true);
		shot_watch(&run->shot);
		progress = READ_ONCE(run->progress);
		still = progress == seen ? still + 1 : 0;
		seen = progress;
	}
	return false;
}

/* Under cpus_read_lock(), the CPU is online. Frees @run, unless it hangs. */
static int sections(struct run *run, struct sample_set **samples)
{
	u32 cpu = run->req.number[CPU];
	struct task_struct *task;
	int err;

	shot_init(&run->shot);
	task = kthread_create(section_thread, run, "cvmtune_timer/%u", cpu);
	if (IS_ERR(task)) {
		err = PTR_ERR(task);
		goto free;
	}
	/* kthread_stop() must find the task even if it returns before. */
	get_task_struct(task);
	kthread_bind(task, cpu);
	wake_up_process(task);
	if (!sections_await(run))
		return give_up(1);
	err = kthread_stop(task);
	put_task_struct(task);
	if (!err)
		*samples = run_take_samples(run);
free:
	run_free(run);
	return err;
}

static int run_irqoff(const struct request *req, struct sample_set **samples)
{
	struct run *run = run_alloc(req);
	int err = -EINVAL;

	if (!run)
		return -ENOMEM;
	cpus_read_lock();
	if (cpu_usable(req->number[CPU]))
		err = require_virtual_timer(req->number[CPU]);
	if (err)
		run_free(run);
	else
		err = sections(run, samples);
	cpus_read_unlock();
	return err;
}

/* torture: the operations, each on the worker's CPU */

static u32 pick(struct worker *w, u32 below)
{
	return prandom_u32_state(&w->rnd) % below;
}

static u64 pick_ns(struct worker *w, u32 below_us)
{
	return pick(w, below_us * NSEC_PER_USEC);
}

static ktime_t from_now(s64 ns)
{
	return ktime_add_ns(ktime_get(), ns);
}

static void op_oneshot(struct worker *w)
{
	shot_prepare(&w->shot, KIND_ONESHOT, 1, 0);
	shot_arm(&w->shot, from_now(pick_ns(w, 2000)));
	shot_await(&w->shot, pick(w, 2));
}

static void op_periodic(struct worker *w)
{
	u64 interval = 50 * NSEC_PER_USEC + pick_ns(w, 950);

	shot_prepare(&w->shot, KIND_PERIODIC, 1 + pick(w, 20), interval);
	shot_arm(&w->shot, from_now(interval));
	shot_await(&w->shot, pick(w, 2));
}

static void op_cancel(struct worker *w)
{
	u64 delay = pick_ns(w, 2000);
	struct shot *shot = &w->shot;
	ktime_t expires = from_now(delay);
	ktime_t past;

	shot_prepare(shot, KIND_CANCEL, 1, 0);
	shot_arm(shot, expires);
	/* One time in five after its expiry, and often about then. */
	spin_ns(pick(w, 2) ? pick(w, delay + delay / 4 + 1) : delay);
	if (!hrtimer_cancel(&shot->timer)) {
		if (!shot_done(shot)) {
			atomic64_inc(&stats.lost);
			pr_err("cancel: neither queued nor fired\n");
		}
		return;
	}
	atomic64_inc(&stats.cancelled);
	/* The hardware may be programmed for it still: see it pass, or not. */
	past = ktime_add_us(expires, 50);
	if (pick(w, 4))
		while (ktime_before(ktime_get(), past))
			cpu_relax();
	if (shot_done(shot))
		atomic64_inc(&stats.cancelled_fired);
}

static void restart_once(struct worker *w)
{
	ktime_t old = hrtimer_get_expires(&w->shot.timer);
	ktime_t now = ktime_get();
	ktime_t expires = now;

	switch (pick(w, 3)) {
	case 0:
		if (ktime_after(old, now))
			expires = ktime_add_ns(now, pick(w, ktime_sub(old, now)));
		break;
	case 1:
		expires = ktime_add_ns(old, pick_ns(w, 1000));
		break;
	case 2:
		expires = ktime_sub_ns(now, 1 + pick_ns(w, 1000));
		break;
	}
	shot_arm(&w->shot, expires);
}

static void op_restart(struct worker *w)
{
	unsigned int n = 1 + pick(w, 3);
	struct shot *shot = &w->shot;
	unsigned long flags;

	shot_prepare(shot, KIND_RESTART, 1, 0);
	shot_arm(shot, from_now(pick_ns(w, 2000)));
	while (n--) {
		spin_ns(pick_ns(w, 300));
		/* Off: or it might fire after the look and before the restart. */
		local_irq_save(flags);
		if (!shot_done(shot))
			restart_once(w);
		local_irq_restore(flags);
	}
	shot_await(shot, pick(w, 2));
}

static void op_irqs_off(struct worker *w)
{
	u32 length = 1 + pick_ns(w, 300);
	unsigned long flags;
	ktime_t end;

	shot_prepare(&w->shot, KIND_IRQS_OFF, 1, 0);
	local_irq_save(flags);
	end = from_now(length);
	shot_arm(&w->shot, from_now(pick(w, length)));
	while (ktime_before(ktime_get(), end))
		cpu_relax();
	w->shot.due = ktime_get();
	local_irq_restore(flags);
	shot_await(&w->shot, pick(w, 2));
}

/*
 * IMASK set, interrupts on: for how long the caller says. Called and returns
 * with interrupts off.
 */
static void masked_section(struct worker *w, u64 ns)
{
	const u64 masked = CTL_ENABLE | CTL_IMASK;
	u32 irqs;

	WRITE_ONCE(w->masked_irqs, 0);
	WRITE_ONCE(w->masked, true);
	write_ctl(masked);
	local_irq_enable();
	spin_ns(ns);
	local_irq_disable();
	WRITE_ONCE(w->masked, false);

	/*
	 * An interrupt that programmed the timer has cleared IMASK. If it is
	 * set, CVAL is what it was, and clearing it takes nothing from what the
	 * kernel has programmed: an expiry meanwhile is signalled now.
	 */
	if ((read_ctl() & masked) == masked)
		write_ctl(CTL_ENABLE);
	else
		atomic64_inc(&stats.masked_undone);

	irqs = READ_ONCE(w->masked_irqs);
	atomic64_add(irqs, &stats.while_masked);
	if (irqs > 1) {
		atomic64_inc(&stats.masked_repeat);
		pr_err_ratelimited("%u interrupts while the timer was masked\n",
				   irqs);
	}
}

/* Each interrupt, before its handler. */
static void probe_irq(void *data, int irq, struct irqaction *action)
{
	struct worker *w = this_cpu_ptr(&workers);

	/* The timer's handler, too, sets IMASK, but has not run yet. */
	if (READ_ONCE(w->masked) && read_ctl() & CTL_IMASK &&
	    action->name && !strcmp(action->name, "arch_timer"))
		WRITE_ONCE(w->masked_irqs, w->masked_irqs + 1);
}

static void op_masked(struct worker *w)
{
	u64 before = pick(w, 2) ? pick_ns(w, 50) : 0;
	u64 length = pick_ns(w, 200);
	u64 delay = pick_ns(w, 200);

	shot_prepare(&w->shot, KIND_MASKED, 1, 0);
	/* No other task may meet a timer that does not work. */
	preempt_disable();
	local_irq_disable();
	shot_arm(&w->shot, from_now(delay));
	/* At times it has expired, and is signalled, before it is masked. */
	spin_ns(before);
	if ((read_ctl() & (CTL_ENABLE | CTL_IMASK)) == CTL_ENABLE)
		masked_section(w, length);
	if (!shot_done(&w->shot))
		w->shot.due = max(w->shot.due, ktime_get());
	local_irq_enable();
	preempt_enable();
	shot_await(&w->shot, pick(w, 2));
}

static void check_registers(u64 ctl, u64 cval, bool past)
{
	u64 before, after, got, got_cval;
	bool bad;

	/*
	 * The barriers keep the reads in this order. Without them CTL might be
	 * of a time before the first or after the second reading of the counter.
	 */
	before = counter();
	isb();
	got = read_ctl();
	isb();
	after = counter();
	got_cval = read_cval();

	/* ISTATUS means nothing while ENABLE is clear. */
	bad = (got & ~CTL_ISTATUS) != ctl || got_cval != cval;
	if (ctl & CTL_ENABLE) {
		if (got & CTL_ISTATUS)
			bad |= after < cval;
		else if (past)
			bad = true;
		else if (before >= cval)
			atomic64_inc(&stats.istatus_lag);
	}
	if (!bad)
		return;
	atomic64_inc(&stats.tainted);
	pr_err_ratelimited("wrote CTL %#llx CVAL %#llx, read %#llx %#llx, counter %#llx to %#llx\n",
			   ctl, cval, got, got_cval, before, after);
}

/* Interrupts are off, and whoever calls puts the registers back. */
static void write_and_check(struct worker *w)
{
	static const u64 ctls[] = {
		0, CTL_IMASK, CTL_ENABLE, CTL_ENABLE, CTL_ENABLE | CTL_IMASK,
	};
	u64 ctl = ctls[pick(w, ARRAY_SIZE(ctls))];
	u64 wait = pick_ns(w, 50);
	u64 cval = counter();
	bool past = false;

	switch (pick(w, 3)) {
	case 0:
		cval -= 1 + pick(w, BIT(20));
		past = true;
		/* What a host does about an expired timer takes its time. */
		if (ctl == CTL_ENABLE)
			wait = pick_ns(w, 100);
		break;
	case 1:
		cval += ns_to_ticks(pick_ns(w, 50));
		break;
	case 2:
		cval += BIT(30 + pick(w, 10));
		break;
	}
	write_cval(cval);
	write_ctl(ctl);
	check_registers(ctl, cval, past);
	spin_ns(wait);
	check_registers(ctl, cval, past);
}

static void op_registers(struct worker *w)
{
	unsigned int n = 1 + pick(w, 4);
	unsigned long flags;
	u64 ctl, cval;

	shot_prepare(&w->shot, KIND_REGISTERS, 1, 0);
	local_irq_save(flags);
	shot_arm(&w->shot, from_now(pick_ns(w, 300)));
	ctl = read_ctl() & ~CTL_ISTATUS;
	cval = read_cval();
	while (n--)
		write_and_check(w);
	/*
	 * Off first, lest the old CTL signal a CVAL that is not its own. If the
	 * timer has expired meanwhile, it is signalled once both are back; what
	 * was signalled for a CVAL of ours may still come, and finds nothing
	 * expired, which the kernel's handler can cope with.
	 */
	write_ctl(0);
	write_cval(cval);
	write_ctl(ctl);
	w->shot.due = max(w->shot.due, ktime_get());
	local_irq_restore(flags);
	shot_await(&w->shot, pick(w, 2));
}

static void (* const operations[NR_OPERATIONS])(struct worker *w) = {
	[KIND_ONESHOT] = op_oneshot,
	[KIND_PERIODIC] = op_periodic,
	[KIND_CANCEL] = op_cancel,
	[KIND_RESTART] = op_restart,
	[KIND_IRQS_OFF] = op_irqs_off,
	[KIND_REGISTERS] = op_registers,
	[KIND_MASKED] = op_masked,
};

/* torture: the workers */

static void look_after_background(struct worker *w)
{
	struct shot *shot = &w->background;

	if (shot->wanted) {
		if (!shot_done(shot) &&
		    !ktime_after(ktime_get(), shot_limit(shot)))
			return;
		shot_finish(shot);
	}
	shot_prepare(shot, KIND_BACKGROUND, 1, 0);
	shot_arm(shot, from_now(pick_ns(w, 500 * USEC_PER_MSEC)));
}

static void watch_workers(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		shot_watch(&per_cpu(workers, cpu).shot);
}

static void one_operation(struct worker *w)
{
	unsigned int n = NR_OPERATIONS;

	if (!irq_entry)
		n = KIND_MASKED;
	look_after_background(w);
	operations[pick(w, n)](w);
	w->operations++;
	/*
	 * A CPU that lost its timer interrupt gets no timeout either. The one
	 * that the writer waits on may be the very one: so all look at all.
	 */
	watch_workers();
}

static int worker_should_run(unsigned int cpu)
{
	return READ_ONCE(torturing);
}

static void worker_run(unsigned int cpu)
{
	struct worker *w = &per_cpu(workers, cpu);

	mutex_lock(&w->lock);
	/* Under the lock: see workers_stop(). */
	if (READ_ONCE(torturing))
		one_operation(w);
	mutex_unlock(&w->lock);
	cond_resched();
}

/* A thread for each CPU, parked while its CPU is offline. */
static struct smp_hotplug_thread worker_threads = {
	.store = &worker_tasks,
	.thread_should_run = worker_should_run,
	.thread_fn = worker_run,
	.thread_comm = "cvmtune_timer/%u",
};

static void workers_start(u32 seed)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		struct worker *w = &per_cpu(workers, cpu);

		/* Whoever sees `torturing` under the lock sees this. */
		mutex_lock(&w->lock);
		prandom_seed_state(&w->rnd, ((u64)seed << 32) + cpu);
		w->operations = 0;
		mutex_unlock(&w->lock);
	}
	WRITE_ONCE(torturing, true);
	/* A thread that is parked looks when its CPU is back. */
	for_each_online_cpu(cpu)
		wake_up_process(per_cpu(worker_tasks, cpu));
}

/* Once each lock has been free, no operation is going on; else that one hangs. */
static unsigned int workers_stop(void)
{
	ktime_t limit = ktime_add_ms(ktime_get(), HUNG_AFTER_S * MSEC_PER_SEC);
	unsigned int cpu, hung = 0;

	WRITE_ONCE(torturing, false);
	for_each_possible_cpu(cpu) {
		struct worker *w = &per_cpu(workers, cpu);
		bool locked;

		while (!(locked = mutex_trylock(&w->lock)) &&
		       ktime_before(ktime_get(), limit)) {
			watch_workers();
			usleep_range(1000, 2000);
		}
		if (!locked) {
			hung++;
			continue;
		}
		atomic64_add(w->operations, &stats.operations);
		if (w->operations)
			atomic64_inc(&stats.cpus);
		mutex_unlock(&w->lock);
	}
	return hung;
}

/* All workers have stopped. */
static void settle_backgrounds(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		struct shot *shot = &per_cpu(workers, cpu).background;

		if (!shot->wanted)
			continue;
		while (!shot_done(shot) &&
		       !ktime_after(ktime_get(), shot_limit(shot)))
			usleep_range(1000, 2000);
		shot_finish(shot);
		shot->wanted = 0;
	}
}

static int torture(u32 seconds, u32 seed)
{
	ktime_t start = ktime_get();
	ktime_t end = ktime_add_ms(start, (u64)seconds * MSEC_PER_SEC);
	unsigned int hung;
	int err = 0;

	workers_start(seed);
	while (ktime_before(ktime_get(), end)) {
		schedule_timeout_interruptible(HZ / 10);
		if (signal_pending(current)) {
			err = -EINTR;
			break;
		}
		watch_workers();
	}
	hung = workers_stop();
	atomic64_set(&stats.seconds,
		     ktime_divns(ktime_sub(ktime_get(), start), NSEC_PER_SEC));
	if (hung)
		return give_up(hung);
	settle_backgrounds();
	return err;
}

static void find_irq_entry(struct tracepoint *tp, void *data)
{
	if (!strcmp(tp->name, "irq_handler_entry"))
		irq_entry = tp;
}

static int run_torture(const struct request *req, struct sample_set **samples)
{
	int err;

	if (!irq_entry)
		for_each_kernel_tracepoint(find_irq_entry, NULL);
	if (!irq_entry)
		pr_err("no tracepoint irq_handler_entry: no operation masked\n");

	*samples = sample_set_alloc(0, 1);
	if (!*samples)
		return -ENOMEM;
	cpus_read_lock();
	err = require_virtual_timer(cpumask_first(cpu_online_mask));
	cpus_read_unlock();
	if (err)
		return err;
	if (irq_entry) {
		err = tracepoint_probe_register(irq_entry, probe_irq, NULL);
		if (err)
			return err;
	}
	err = torture(req->number[SECONDS], req->number[SEED]);
	if (irq_entry) {
		tracepoint_probe_unregister(irq_entry, probe_irq, NULL);
		tracepoint_synchronize_unregister();
	}
	return err;
}

/* `result` */

static void show_oneshot(struct seq_file *m)
{
	cvmtune_show(m, "started", "", &stats.started[KIND_ONESHOT]);
	cvmtune_show(m, "fired", "", &stats.fired[KIND_ONESHOT]);
}

static void show_periodic(struct seq_file *m)
{
	cvmtune_show(m, "started", "", &stats.started[KIND_PERIODIC]);
	cvmtune_show(m, "fired", "", &stats.fired[KIND_PERIODIC]);
	cvmtune_show(m, "missed", "", &stats.missed);
}

static void show_irqoff(struct seq_file *m)
{
	cvmtune_show(m, "sections", "", &stats.sections);
	cvmtune_show(m, "fired", "", &stats.section_fired);
	cvmtune_show(m, "work", "", &stats.work);
	cvmtune_show(m, "section_ns_total", "", &stats.section_ns_total);
	cvmtune_show(m, "wait_ns_total", "", &stats.wait_ns_total);
	cvmtune_show(m, "unexpired", "", &stats.unexpired);
	cvmtune_show(m, "retries", "", &stats.retries);
	cvmtune_show(m, "arm_us", "", &stats.arm_us);
}

static void show_torture(struct seq_file *m)
{
	int kind;

	for (kind = 0; kind < NR_KINDS; kind++) {
		cvmtune_show(m, "started_", kind_names[kind], &stats.started[kind]);
		cvmtune_show(m, "fired_", kind_names[kind], &stats.fired[kind]);
	}
	cvmtune_show(m, "overruns", "", &stats.overruns);
	cvmtune_show(m, "cancelled", "", &stats.cancelled);
	cvmtune_show(m, "cancelled_fired", "", &stats.cancelled_fired);
	cvmtune_show(m, "while_masked", "", &stats.while_masked);
	cvmtune_show(m, "masked_repeat", "", &stats.masked_repeat);
	cvmtune_show(m, "masked_undone", "", &stats.masked_undone);
	cvmtune_show(m, "tainted", "", &stats.tainted);
	cvmtune_show(m, "istatus_lag", "", &stats.istatus_lag);
	cvmtune_show(m, "operations", "", &stats.operations);
	cvmtune_show(m, "cpus", "", &stats.cpus);
	cvmtune_show(m, "seconds", "", &stats.seconds);
}

static int result_show(struct seq_file *m, void *v)
{
	/* Acquire: see run_locked(). */
	const struct run_kind *kind = smp_load_acquire(&last_kind);
	s64 count = atomic64_read(&stats.late_count);
	s64 total = atomic64_read(&stats.late_total);

	if (!kind)
		return 0;
	kind->show(m);
	cvmtune_show(m, "lost", "", &stats.lost);
	cvmtune_show(m, "early", "", &stats.early);
	cvmtune_show(m, "twice", "", &stats.twice);
	cvmtune_show(m, "hung", "", &stats.hung);
	seq_printf(m, "late_mean_ns %lld\n", count ? div64_s64(total, count) : 0);
	cvmtune_show(m, "late_max_ns", "", &stats.late_max);
	cvmtune_show(m, "late_over_1ms", "", &stats.late_over_1ms);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(result);

/* `run` */

static const struct run_kind run_kinds[] = {
	{
		.name = "oneshot",
		.required = BIT(CPU) | BIT(N) | BIT(INTERVAL_US),
		.run = run_oneshot,
		.show = show_oneshot,
	}, {
		.name = "periodic",
		.required = BIT(CPU) | BIT(N) | BIT(INTERVAL_US),
		.run = run_periodic,
		.show = show_periodic,
	}, {
		.name = "irqoff",
		.required = BIT(CPU) | BIT(N) | BIT(OFF_US) | BIT(GAP_US),
		.optional = BIT(WORK),
		.run = run_irqoff,
		.show = show_irqoff,
	}, {
		.name = "torture",
		.required = BIT(SECONDS) | BIT(SEED),
		.run = run_torture,
		.show = show_torture,
	},
};

static int run_locked(const void *request)
{
	const struct request *req = request;
	struct sample_set *samples = NULL;
	int err;

	if (dead)
		return -EIO;
	reset_stats();
	/*
	 * Release: without it a reader could show the old run's counts under the
	 * new run's keys.
	 */
	smp_store_release(&last_kind, req->kind);
	err = req->kind->run(req, &samples);
	if (err)
		sample_set_put(samples);
	else
		sample_set_publish(samples);
	return err;
}

static const struct run_kind *find_kind(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(run_kinds); i++)
		if (!strcmp(run_kinds[i].name, name))
			return &run_kinds[i];
	return NULL;
}

static int parse_request(char *line, void *request)
{
	struct request *req = request;
	unsigned int given = 0;
	char *key, *value;
	int more;

	while ((more = cvmtune_next_pair(&line, &key, &value)) > 0) {
		if (!strcmp(key, "kind")) {
			if (req->kind)
				return -EINVAL;
			req->kind = find_kind(value);
			if (!req->kind)
				return -EINVAL;
		} else if (!cvmtune_take_number(numbers, NR_NUMBERS, key, value,
						req->number, &given)) {
			return -EINVAL;
		}
	}
	if (more || !req->kind ||
	    (given & ~req->kind->optional) != req->kind->required)
		return -EINVAL;
	return 0;
}

static const struct cvmtune_run_ops run_ops = {
	.line_max = MAX_LINE,
	.request_size = sizeof(struct request),
	.parse = parse_request,
	.run = run_locked,
};

static int __init cvmtune_timer_init(void)
{
	unsigned int cpu;
	int err;

	counter_hz = arch_timer_get_cntfrq();
	for_each_possible_cpu(cpu) {
		struct worker *w = &per_cpu(workers, cpu);

		mutex_init(&w->lock);
		shot_init(&w->shot);
		shot_init(&w->background);
	}
	err = smpboot_register_percpu_thread(&worker_threads);
	if (err)
		return err;
	folder = debugfs_create_dir("cvmtune_timer", NULL);
	if (IS_ERR(folder)) {
		smpboot_unregister_percpu_thread(&worker_threads);
		return PTR_ERR(folder);
	}
	debugfs_create_file("run", 0200, folder, (void *)&run_ops,
			    &cvmtune_run_fops);
	debugfs_create_file("samples", 0400, folder, NULL, &samples_fops);
	debugfs_create_file("result", 0400, folder, NULL, &result_fops);
	return 0;
}

static void __exit cvmtune_timer_exit(void)
{
	/* Waits for a write or read in progress, hence for a run. */
	debugfs_remove(folder);
	smpboot_unregister_percpu_thread(&worker_threads);
	sample_set_put(last_samples);
}

module_init(cvmtune_timer_init);
module_exit(cvmtune_timer_exit);

MODULE_DESCRIPTION("Time and torture a guest's timers, for cvmtune's lab");
MODULE_LICENSE("GPL");
