// SPDX-License-Identifier: GPL-2.0
/*
 * cvmtune_storm - IPIs of every type at random, each one accounted for
 *
 * debugfs, folder cvmtune_storm/:
 *
 * run (write only, root)
 *	One line: seconds=N seed=N (both keys, each once; seconds 1 to 86400,
 *	seed any 32-bit number). Starts one sender for each CPU that is online,
 *	returns when the time is over and every call has been reckoned up. CPUs
 *	may go offline and come back meanwhile. Errors: -EINVAL bad line,
 *	-EBUSY another run is in progress, -EINTR a signal ended the run early
 *	(`result` holds what was found until then), -ETIMEDOUT a sender hangs in
 *	a call that never returns, -EIO after such a hang, -ENOMEM. Violations
 *	are no error of the write: read `result`.
 *
 * result (read only)
 *	Lines "key value", decimal, of the last run or the one in progress:
 *
 *	requested_KIND, handled_KIND
 *		must be equal at the end, but for CPUs that went offline (below)
 *	forgiven_KIND (reschedule, tick, wake only)
 *		requests to a CPU that went offline before it saw them, which is
 *		no fault: requested = handled + forgiven. 0 without hotplug.
 *	lost	calls not handled within 10 s, and calls that returned although
 *		their handler had not run
 *	wrong_context
 *		handler entered with interrupts on or without RCU watching, or
 *		IPI entered outside of the hardirq context
 *	wrong_cpu
 *		handler ran on a CPU that was not asked
 *	wrong_payload
 *		handler did not read what was written before the call
 *	outside_hardirq
 *		call or irq_work handlers that ran outside of the hardirq
 *		context; no violation, see check_handler()
 *	send_errors
 *		sending functions that refused
 *	hung	senders that hang; the module then stays loaded
 *	senders, seconds
 *		how many there were and how long it took, whole seconds
 *
 * Kinds:
 *	single_wait	smp_call_function_single(wait=1)
 *	single_async	smp_call_function_single_async()
 *	many		smp_call_function_many(wait=1), counted per target
 *	irq_work	irq_work_queue_on() another CPU
 *	irq_work_self	irq_work_queue() (an IPI to oneself)
 *	wake		wake_up_process() of a thread bound to the target
 *	reschedule	a bare reschedule IPI
 *	tick		tick_broadcast() to a random set, counted per target
 *
 * Reschedule and timer IPIs carry nothing, the kernel's own handlers take them,
 * and several sent before one is taken are taken as one. So each request draws
 * a ticket from a count that its target has, and is handled by the first IPI of
 * its type that the target enters afterwards (tracepoint ipi:ipi_entry) and
 * sees that ticket. The same goes for wake-ups, with the thread in the place of
 * the tracepoint. What the kernel lacks (a function, the tracepoint) is not
 * sent: requested_KIND stays 0, with a line in the kernel's log.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/hardirq.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/prandom.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/smpboot.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#include "cvmtune_lookup.h"
#include "cvmtune_run.h"

#define MAX_LINE	128
#define BATCH		4	/* calls that a sender has in flight */
#define LOST_AFTER_MS	10000
#define HUNG_AFTER_MS	60000	/* > a batch of losses, which are no hang */

/* The kinds with tickets come first: they index struct ticket_box. */
enum kind {
	KIND_WAKE,
	KIND_RESCHEDULE,
	KIND_TICK,
	NR_TICKET_KINDS,
	KIND_SINGLE_WAIT = NR_TICKET_KINDS,
	KIND_SINGLE_ASYNC,
	KIND_MANY,
	KIND_IRQ_WORK,
	KIND_IRQ_WORK_SELF,
	NR_KINDS,
};

static const char * const kind_names[NR_KINDS] = {
	[KIND_WAKE] = "wake",
	[KIND_RESCHEDULE] = "reschedule",
	[KIND_TICK] = "tick",
	[KIND_SINGLE_WAIT] = "single_wait",
	[KIND_SINGLE_ASYNC] = "single_async",
	[KIND_MANY] = "many",
	[KIND_IRQ_WORK] = "irq_work",
	[KIND_IRQ_WORK_SELF] = "irq_work_self",
};

/* As in arch/arm64/kernel/smp.c, the reasons that ipi:ipi_entry tells. */
#define REASON_RESCHEDULE	"Rescheduling interrupts"
#define REASON_TICK		"Timer broadcast interrupts"

/* Of the run in progress or the last one; nothing but atomic64_t. */
static struct {
	atomic64_t requested[NR_KINDS];
	atomic64_t handled[NR_KINDS];
	atomic64_t forgiven[NR_TICKET_KINDS];
	atomic64_t lost;
	atomic64_t wrong_context;
	atomic64_t wrong_cpu;
	atomic64_t wrong_payload;
	atomic64_t outside_hardirq;
	atomic64_t send_errors;
	atomic64_t hung;
	atomic64_t senders;
	atomic64_t seconds;
} stats;

/**
 * struct ticket_box - tickets of one CPU; they go on counting across runs
 * @drawn:	the last ticket drawn, by any sender
 * @seen:	the last ticket that this CPU saw; written by this CPU only, or
 *		by settle_tickets() while it is offline
 */
struct ticket_box {
	atomic_t drawn[NR_TICKET_KINDS];
	u32 seen[NR_TICKET_KINDS];
};

static DEFINE_PER_CPU(struct ticket_box, ticket_boxes);
static DEFINE_PER_CPU(struct task_struct *, wake_tasks);

/**
 * struct message - one call in flight, to one CPU or several
 * @csd:	for KIND_SINGLE_ASYNC
 * @work:	for the irq_work kinds
 * @kind:	what kind it is this time
 * @payload:	written before the call, never the same twice in a row
 * @targets:	CPUs that were asked
 * @left:	how many of them have yet to handle it
 * @read:	what the handler on each CPU read from @payload
 * @ticket:	for the kinds with tickets, what was drawn from each target
 */
struct message {
	call_single_data_t csd;
	struct irq_work work;
	enum kind kind;
	u32 payload;
	struct cpumask targets;
	atomic_t left;
	u32 read[NR_CPUS];
	u32 ticket[NR_CPUS];
};

/* vmalloc()ed; left allocated if a handler may still come. */
struct sender {
	struct message batch[BATCH];
	struct rnd_state rnd;
	u32 payload;
	struct task_struct *task;
	bool finished;
	bool lost;
};

static DECLARE_WAIT_QUEUE_HEAD(all_finished);
static atomic_t senders_active;
static bool stop_sending;
static bool dead;			/* a sender hangs; under run_mutex */
static struct dentry *folder;
static int hotplug_state;

/* What this kernel has, found at the first run. Under run_mutex. */
static bool looked_up;
static void (*send_reschedule)(int cpu);
static void (*send_tick)(const struct cpumask *mask);
static bool (*queue_irq_work)(struct irq_work *work, int cpu);
static struct tracepoint *ipi_entry;
static enum kind kinds[NR_KINDS];	/* those that can be sent */
static unsigned int nr_kinds;

static u32 pick(struct sender *s, u32 below)
{
	return prandom_u32_state(&s->rnd) % below;
}

/* Handlers */

/*
 * The context of a call's or irq_work's handler. Interrupts off and RCU
 * watching hold wherever generic code runs one. The hardirq context does not:
 *  - the idle task, on its way to schedule(), and the migration thread flush
 *    the queue of calls in task context (flush_smp_call_function_queue()), so
 *    whoever avoids an IPI to a polling idle CPU has its handlers run there;
 *  - a CPU that goes offline flushes it from the stopper thread.
 * Those are counted apart.
 */
static void check_handler(const struct message *m, int cpu)
{
	if (!irqs_disabled() || !rcu_is_watching())
		atomic64_inc(&stats.wrong_context);
	if (!in_hardirq())
		atomic64_inc(&stats.outside_hardirq);
	if (!cpumask_test_cpu(cpu, &m->targets))
		atomic64_inc(&stats.wrong_cpu);
}

static void handle(struct message *m)
{
	int cpu = smp_processor_id();

	check_handler(m, cpu);
	atomic64_inc(&stats.handled[m->kind]);
	WRITE_ONCE(m->read[cpu], READ_ONCE(m->payload));
	/*
	 * Release pairs with the acquire in message_done(): the sender must not
	 * find left at zero and yet an old read[], nor may it fill in the next
	 * call while this one is still reading.
	 */
	atomic_fetch_dec_release(&m->left);
}

static void handle_call(void *info)
{
	handle(info);
}

static void handle_work(struct irq_work *work)
{
	handle(container_of(work, struct message, work));
}

/* Tickets */

static u32 draw_ticket(enum kind kind, int cpu)
{
	/*
	 * Fully ordered: the ticket is there before anything that the sending
	 * functions do, or the target could enter the IPI and not see it.
	 */
	return atomic_inc_return(&per_cpu(ticket_boxes, cpu).drawn[kind]);
}

/* All tickets of @cpu go to @count; returns whether there were any. */
static void take_tickets(enum kind kind, int cpu, atomic64_t *count)
{
	struct ticket_box *box = &per_cpu(ticket_boxes, cpu);
	u32 drawn = atomic_read(&box->drawn[kind]);

	atomic64_add((u32)(drawn - READ_ONCE(box->seen[kind])), count);
	WRITE_ONCE(box->seen[kind], drawn);
}

static bool ticket_seen(enum kind kind, int cpu, u32 ticket)
{
	u32 seen = READ_ONCE(per_cpu(ticket_boxes, cpu).seen[kind]);

	return (s32)(seen - ticket) >= 0;
}

static void probe_ipi_entry(void *data, const char *reason)
{
	int cpu = smp_processor_id();

	if (!in_hardirq() || !irqs_disabled() || !rcu_is_watching())
		atomic64_inc(&stats.wrong_context);
	if (!strcmp(reason, REASON_RESCHEDULE))
		take_tickets(KIND_RESCHEDULE, cpu, &stats.handled[KIND_RESCHEDULE]);
	else if (!strcmp(reason, REASON_TICK))
		take_tickets(KIND_TICK, cpu, &stats.handled[KIND_TICK]);
}

static int wake_should_run(unsigned int cpu)
{
	struct ticket_box *box = &per_cpu(ticket_boxes, cpu);

	return atomic_read(&box->drawn[KIND_WAKE]) != box->seen[KIND_WAKE];
}

static void wake_run(unsigned int cpu)
{
	if (cpu != smp_processor_id())
		atomic64_inc(&stats.wrong_cpu);
	if (irqs_disabled() || !rcu_is_watching())
		atomic64_inc(&stats.wrong_context);
	take_tickets(KIND_WAKE, cpu, &stats.handled[KIND_WAKE]);
}

/* A thread for each CPU, parked while its CPU is offline. */
static struct smp_hotplug_thread wake_threads = {
	.store = &wake_tasks,
	.thread_should_run = wake_should_run,
	.thread_fn = wake_run,
	.thread_comm = "cvmtune_wake/%u",
};

/*
 * A CPU comes online, on that CPU. Reschedule and timer IPIs that it had not
 * taken when it went are gone, and nobody promised them. Wake-ups are not
 * gone: the thread finds the ticket when it is unparked.
 */
static int cpu_came_online(unsigned int cpu)
{
	unsigned long flags;

	local_irq_save(flags);	/* against probe_ipi_entry() */
	take_tickets(KIND_RESCHEDULE, cpu, &stats.forgiven[KIND_RESCHEDULE]);
	take_tickets(KIND_TICK, cpu, &stats.forgiven[KIND_TICK]);
	local_irq_restore(flags);
	return 0;
}

/*
 * The end of a run, all senders gone. Their last wake-ups to a CPU that was
 * between offline and online may yet be on their way; what CPUs have not seen
 * that are offline now is forgiven.
 */
static void settle_tickets(void)
{
	ktime_t limit = ktime_add_ms(ktime_get(), LOST_AFTER_MS);
	unsigned int cpu;
	int kind;

	cpus_read_lock();
	for_each_possible_cpu(cpu) {
		struct ticket_box *box = &per_cpu(ticket_boxes, cpu);

		for (kind = 0; kind < NR_TICKET_KINDS; kind++) {
			if (!cpu_online(cpu)) {
				take_tickets(kind, cpu, &stats.forgiven[kind]);
				continue;
			}
			while (!ticket_seen(kind, cpu, atomic_read(&box->drawn[kind])) &&
			       ktime_before(ktime_get(), limit))
				usleep_range(100, 200);
		}
	}
	cpus_read_unlock();
}

/* Sending */

/*
 * Random target or targets, none of them this CPU. Preemption is off, hence
 * whoever is online stays so until it is on again: a CPU goes down through
 * stop_machine(), which has to run here first. Bit by bit, since a copy of
 * cpu_online_mask would race with CPUs that come.
 */
static void pick_targets(struct sender *s, struct message *m)
{
	unsigned int self = smp_processor_id();
	unsigned int cpu, others;

	cpumask_clear(&m->targets);
	if (m->kind == KIND_IRQ_WORK_SELF) {
		cpumask_set_cpu(self, &m->targets);
		return;
	}
	for_each_possible_cpu(cpu)
		if (cpu != self && cpu_online(cpu))
			cpumask_set_cpu(cpu, &m->targets);
	others = cpumask_weight(&m->targets);
	if (!others)
		return;

	cpu = cpumask_nth(pick(s, others), &m->targets);
	if (m->kind == KIND_MANY || m->kind == KIND_TICK) {
		unsigned int c;

		/* Each other CPU with a chance of 3/4; the picked one always. */
		for_each_cpu(c, &m->targets)
			if (c != cpu && !pick(s, 4))
				cpumask_clear_cpu(c, &m->targets);
		return;
	}
	cpumask_clear(&m->targets);
	cpumask_set_cpu(cpu, &m->targets);
}

static bool has_tickets(enum kind kind)
{
	return kind < NR_TICKET_KINDS;
}

/* Does the sending function itself wait for the handlers? */
static bool is_synchronous(enum kind kind)
{
	return kind == KIND_SINGLE_WAIT || kind == KIND_MANY;
}

/* Before the call: what a handler reads, and what is asked for. */
static void fill_in(struct sender *s, struct message *m)
{
	unsigned int cpu;

	WRITE_ONCE(m->payload, ++s->payload);
	atomic_set(&m->left, cpumask_weight(&m->targets));
	atomic64_add(cpumask_weight(&m->targets), &stats.requested[m->kind]);
	if (has_tickets(m->kind))
		for_each_cpu(cpu, &m->targets)
			m->ticket[cpu] = draw_ticket(m->kind, cpu);
}

/* The call proper. An error stands for a call that will not be handled. */
static int transmit(struct message *m)
{
	int cpu = cpumask_first(&m->targets);

	switch (m->kind) {
	case KIND_WAKE:
		wake_up_process(per_cpu(wake_tasks, cpu));
		return 0;
	case KIND_RESCHEDULE:
		/* Wants the target online. One without need is harmless. */
		send_reschedule(cpu);
		return 0;
	case KIND_TICK:
		/*
		 * Wants the targets online. The tick's handlers of a kernel
		 * with TICK_ONESHOT look at the time, so that a call too early
		 * is harmless.
		 */
		send_tick(&m->targets);
		return 0;
	case KIND_SINGLE_WAIT:
		return smp_call_function_single(cpu, handle_call, m, 1);
	case KIND_SINGLE_ASYNC:
		return smp_call_function_single_async(cpu, &m->csd);
	case KIND_MANY:
		smp_call_function_many(&m->targets, handle_call, m, true);
		return 0;
	case KIND_IRQ_WORK:
		/* Wants the target online. */
		return queue_irq_work(&m->work, cpu) ? 0 : -EBUSY;
	case KIND_IRQ_WORK_SELF:
		return irq_work_queue(&m->work) ? 0 : -EBUSY;
	default:
		return -EINVAL;
	}
}

/* Returns false if there was nothing to send it to. */
static bool send(struct sender *s, struct message *m)
{
	unsigned long flags = 0;
	bool irqs_off;

	m->kind = kinds[pick(s, nr_kinds)];
	/* Senders hold locks as often as not: some calls with interrupts off. */
	irqs_off = !is_synchronous(m->kind) && !pick(s, 4);

	preempt_disable();
	pick_targets(s, m);
	if (cpumask_empty(&m->targets)) {
		preempt_enable();
		return false;
	}
	fill_in(s, m);
	if (irqs_off)
		local_irq_save(flags);
	if (transmit(m))
		atomic64_inc(&stats.send_errors);
	if (irqs_off)
		local_irq_restore(flags);
	preempt_enable();
	return true;
}

/* Waiting */

/* How many targets have not handled the message. */
static int message_left(struct message *m)
{
	unsigned int cpu;
	int left = 0;

	/* Acquire: see handle(). Negative if a handler ran twice. */
	if (!has_tickets(m->kind))
		return max(atomic_read_acquire(&m->left), 0);
	for_each_cpu(cpu, &m->targets)
		if (!ticket_seen(m->kind, cpu, m->ticket[cpu]) && cpu_online(cpu))
			left++;
	return left;
}

static bool await(struct message *m)
{
	ktime_t limit = ktime_get();
	unsigned int tries = 0;
	int left;

	if (!is_synchronous(m->kind))
		limit = ktime_add_ms(limit, LOST_AFTER_MS);
	while (message_left(m) && ktime_before(ktime_get(), limit)) {
		if (tries++ < 100)
			cpu_relax();
		else
			usleep_range(20, 100);
	}
	/* Again: the time may have run out while not running. */
	left = message_left(m);
	if (left) {
		atomic64_add(left, &stats.lost);
		pr_err("%s: %d of %u not handled, targets %*pbl\n",
		       kind_names[m->kind], left, cpumask_weight(&m->targets),
		       cpumask_pr_args(&m->targets));
	}
	return !left;
}

static void check_payload(const struct message *m)
{
	unsigned int cpu;

	if (has_tickets(m->kind))
		return;
	for_each_cpu(cpu, &m->targets)
		if (READ_ONCE(m->read[cpu]) != m->payload)
			atomic64_inc(&stats.wrong_payload);
}

/*
 * Between batches: nothing; about as long as it takes a target to get from its
 * handler into idle, so that the next call meets it on the way in; a while; or
 * asleep, so that this CPU gets idle and becomes a target worth meeting.
 */
static void take_breath(struct sender *s)
{
	unsigned long us;

	switch (pick(s, 4)) {
	case 0:
		break;
	case 1:
		ndelay(pick(s, 20000));
		break;
	case 2:
		udelay(pick(s, 200));
		break;
	case 3:
		us = 1 + pick(s, 3000);
		usleep_range(us, us + 50);
		break;
	}
	cond_resched();
}

static int sender_thread(void *data)
{
	struct sender *s = data;

	while (!READ_ONCE(stop_sending) && !s->lost) {
		unsigned int n = 1 + pick(s, BATCH);
		unsigned int i, sent = 0;

		for (i = 0; i < n; i++)
			sent += send(s, &s->batch[sent]);
		for (i = 0; i < sent; i++) {
			if (await(&s->batch[i]))
				check_payload(&s->batch[i]);
			else
				s->lost = true;
		}
		take_breath(s);
	}
	/* Release: lost is final once the run sees finished. */
	smp_store_release(&s->finished, true);
	if (atomic_dec_and_test(&senders_active))
		wake_up(&all_finished);
	return 0;
}

/* A run */

static struct sender *sender_create(u32 seed, unsigned int index)
{
	struct sender *s = vzalloc(sizeof(*s));
	unsigned int i;

	if (!s)
		return NULL;
	prandom_seed_state(&s->rnd, ((u64)seed << 32) + index);
	for (i = 0; i < BATCH; i++) {
		INIT_CSD(&s->batch[i].csd, handle_call, &s->batch[i]);
		/* HARD: in the interrupt itself on PREEMPT_RT, too. */
		s->batch[i].work = IRQ_WORK_INIT_HARD(handle_work);
	}
	s->task = kthread_create(sender_thread, s, "cvmtune_storm/%u", index);
	if (IS_ERR(s->task)) {
		vfree(s);
		return NULL;
	}
	/* kthread_stop() must find the task even after it has returned. */
	get_task_struct(s->task);
	return s;
}

/* Only a sender that is not in a call any more, or that was never woken. */
static void sender_destroy(struct sender *s)
{
	unsigned int i;

	kthread_stop(s->task);
	put_task_struct(s->task);
	if (s->lost) {
		/* A late handler may touch *s and runs this module's code. */
		__module_get(THIS_MODULE);
		return;
	}
	/* The generic code touches a work once more after its handler. */
	for (i = 0; i < BATCH; i++)
		irq_work_sync(&s->batch[i].work);
	vfree(s);
}

/* Creates @n senders or none; starts none. */
static struct sender **senders_create(u32 seed, unsigned int n)
{
	struct sender **senders;
	unsigned int i;

	senders = kcalloc(n, sizeof(*senders), GFP_KERNEL);
	if (!senders)
		return NULL;
	for (i = 0; i < n; i++) {
		senders[i] = sender_create(seed, i);
		if (!senders[i])
			goto undo;
	}
	return senders;
undo:
	while (i--)
		sender_destroy(senders[i]);
	kfree(senders);
	return NULL;
}

/* Lets @n senders run for @seconds or until a signal. */
static int senders_run(struct sender **senders, unsigned int n, u32 seconds)
{
	unsigned int i;
	long left;

	WRITE_ONCE(stop_sending, false);
	atomic_set(&senders_active, n);
	for (i = 0; i < n; i++)
		wake_up_process(senders[i]->task);
	left = wait_event_interruptible_timeout(all_finished,
						!atomic_read(&senders_active),
						(long)seconds * HZ);
	WRITE_ONCE(stop_sending, true);
	wait_event_timeout(all_finished, !atomic_read(&senders_active),
			   msecs_to_jiffies(HUNG_AFTER_MS));
	return left < 0 ? -EINTR : 0;
}

/* Frees what may be freed; returns how many hang. */
static unsigned int senders_destroy(struct sender **senders, unsigned int n)
{
	unsigned int i, hung = 0;

	for (i = 0; i < n; i++) {
		/* Acquire: see sender_thread(). */
		if (smp_load_acquire(&senders[i]->finished))
			sender_destroy(senders[i]);
		else
			hung++;
	}
	kfree(senders);
	return hung;
}

static void find_ipi_entry(struct tracepoint *tp, void *data)
{
	if (!strcmp(tp->name, "ipi_entry"))
		ipi_entry = tp;
}

/* What can be sent here? Once; sleeps. */
static void look_up(void)
{
	if (looked_up)
		return;
	looked_up = true;

	queue_irq_work = cvmtune_lookup("irq_work_queue_on");
	send_reschedule = cvmtune_lookup("arch_smp_send_reschedule");
	if (!send_reschedule)	/* its name before 6.4 */
		send_reschedule = cvmtune_lookup("smp_send_reschedule");
	if (IS_ENABLED(CONFIG_GENERIC_CLOCKEVENTS_BROADCAST) &&
	    IS_ENABLED(CONFIG_TICK_ONESHOT))
		send_tick = cvmtune_lookup("tick_broadcast");
	for_each_kernel_tracepoint(find_ipi_entry, NULL);
	if (!ipi_entry)
		pr_err("no tracepoint ipi_entry: no reschedule and tick IPIs\n");

	kinds[nr_kinds++] = KIND_WAKE;
	kinds[nr_kinds++] = KIND_SINGLE_WAIT;
	kinds[nr_kinds++] = KIND_SINGLE_ASYNC;
	kinds[nr_kinds++] = KIND_MANY;
	kinds[nr_kinds++] = KIND_IRQ_WORK_SELF;
	if (queue_irq_work)
		kinds[nr_kinds++] = KIND_IRQ_WORK;
	if (send_reschedule && ipi_entry)
		kinds[nr_kinds++] = KIND_RESCHEDULE;
	if (send_tick && ipi_entry)
		kinds[nr_kinds++] = KIND_TICK;
}

static void reset_stats(void)
{
	atomic64_t *each = (atomic64_t *)&stats;
	size_t i;

	for (i = 0; i < sizeof(stats) / sizeof(*each); i++)
		atomic64_set(&each[i], 0);
}

/* The run proper, with what it needs in place. */
static int storm(u32 seconds, u32 seed)
{
	unsigned int n = num_online_cpus();
	struct sender **senders;
	unsigned int hung;
	ktime_t start;
	int err;

	senders = senders_create(seed, n);
	if (!senders)
		return -ENOMEM;

	atomic64_set(&stats.senders, n);
	start = ktime_get();
	err = senders_run(senders, n, seconds);
	settle_tickets();
	atomic64_set(&stats.seconds,
		     ktime_divns(ktime_sub(ktime_get(), start), NSEC_PER_SEC));

	hung = senders_destroy(senders, n);
	if (hung) {
		pr_err("%u senders hang in a call\n", hung);
		atomic64_set(&stats.hung, hung);
		atomic64_add(hung, &stats.lost);
		__module_get(THIS_MODULE);
		dead = true;
		return -ETIMEDOUT;
	}
	return err;
}

/* The line in `run` */

enum number { SECONDS, SEED, NR_NUMBERS };

static const struct cvmtune_number numbers[NR_NUMBERS] = {
	[SECONDS] = { "seconds", 1, 86400 },
	[SEED] = { "seed", 0, U32_MAX },
};

struct request {
	u32 number[NR_NUMBERS];
};

static int run_locked(const void *request)
{
	const struct request *req = request;
	int err;

	if (dead)
		return -EIO;
	look_up();
	reset_stats();
	if (ipi_entry) {
		err = tracepoint_probe_register(ipi_entry, probe_ipi_entry, NULL);
		if (err)
			return err;
	}
	err = storm(req->number[SECONDS], req->number[SEED]);
	if (ipi_entry) {
		tracepoint_probe_unregister(ipi_entry, probe_ipi_entry, NULL);
		tracepoint_synchronize_unregister();
	}
	return err;
}

static int parse_request(char *line, void *request)
{
	struct request *req = request;
	unsigned int given = 0;
	char *key, *value;
	int more;

	while ((more = cvmtune_next_pair(&line, &key, &value)) > 0)
		if (!cvmtune_take_number(numbers, NR_NUMBERS, key, value,
					 req->number, &given))
			return -EINVAL;
	return !more && given == BIT(NR_NUMBERS) - 1 ? 0 : -EINVAL;
}

static const struct cvmtune_run_ops run_ops = {
	.line_max = MAX_LINE,
	.request_size = sizeof(struct request),
	.parse = parse_request,
	.run = run_locked,
};

static int result_show(struct seq_file *m, void *v)
{
	int kind;

	for (kind = 0; kind < NR_KINDS; kind++) {
		cvmtune_show(m, "requested_", kind_names[kind], &stats.requested[kind]);
		cvmtune_show(m, "handled_", kind_names[kind], &stats.handled[kind]);
	}
	for (kind = 0; kind < NR_TICKET_KINDS; kind++)
		cvmtune_show(m, "forgiven_", kind_names[kind], &stats.forgiven[kind]);
	cvmtune_show(m, "lost", "", &stats.lost);
	cvmtune_show(m, "wrong_context", "", &stats.wrong_context);
	cvmtune_show(m, "wrong_cpu", "", &stats.wrong_cpu);
	cvmtune_show(m, "wrong_payload", "", &stats.wrong_payload);
	cvmtune_show(m, "outside_hardirq", "", &stats.outside_hardirq);
	cvmtune_show(m, "send_errors", "", &stats.send_errors);
	cvmtune_show(m, "hung", "", &stats.hung);
	cvmtune_show(m, "senders", "", &stats.senders);
	cvmtune_show(m, "seconds", "", &stats.seconds);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(result);

static int __init cvmtune_storm_init(void)
{
	int err;

	err = smpboot_register_percpu_thread(&wake_threads);
	if (err)
		return err;
	hotplug_state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN,
					  "cvmtune/storm:online",
					  cpu_came_online, NULL);
	if (hotplug_state < 0) {
		err = hotplug_state;
		goto threads;
	}
	folder = debugfs_create_dir("cvmtune_storm", NULL);
	if (IS_ERR(folder)) {
		err = PTR_ERR(folder);
		goto hotplug;
	}
	debugfs_create_file("run", 0200, folder, (void *)&run_ops,
			    &cvmtune_run_fops);
	debugfs_create_file("result", 0400, folder, NULL, &result_fops);
	return 0;

hotplug:
	cpuhp_remove_state(hotplug_state);
threads:
	smpboot_unregister_percpu_thread(&wake_threads);
	return err;
}

static void __exit cvmtune_storm_exit(void)
{
	/* Waits for a write or read in progress, hence for a run. */
	debugfs_remove(folder);
	cpuhp_remove_state(hotplug_state);
	smpboot_unregister_percpu_thread(&wake_threads);
	/* The last run's last handler may not have returned from this code. */
	synchronize_rcu();
}

module_init(cvmtune_storm_init);
module_exit(cvmtune_storm_exit);

MODULE_DESCRIPTION("IPIs of every type at random, for cvmtune's lab");
MODULE_LICENSE("GPL");
