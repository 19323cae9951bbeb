// SPDX-License-Identifier: GPL-2.0
/*
 * cvmtune_ipi - time inter-processor interrupts, one at a time
 *
 * debugfs, folder cvmtune_ipi/:
 *
 * run (write only, root)
 *	One line, all five keys, each once, in any order:
 *
 *		kind=KIND src=CPU dst=CPU n=COUNT gap_us=MICROSECONDS
 *
 *	runs the measurement on CPU src, against CPU dst, and returns when it is
 *	over. n: 1 to 100000. gap_us: 0 to 1000000, the mean pause after each
 *	sample, spent busy on src so that dst gets idle; each pause is drawn
 *	evenly from gap_us -12.5 % to +12.5 %, lest the samples fall in step
 *	with the tick. The draw is the same in every run.
 *
 *	Errors, after each of which `samples` is what it was before:
 *	-EINVAL     the line is malformed, a CPU is not online, src equals dst
 *		    though the kind has a target, or kind=many on one CPU
 *	-EBUSY      another run is in progress
 *	-EINTR      a signal ended the run
 *	-ETIMEDOUT  an IPI was not handled within 5 s: it is lost. As it may
 *		    still arrive, the memory that it would touch stays
 *		    allocated and the module stays loaded for good
 *	-ENOENT     the kernel lacks a function that the kind needs
 *	-ERANGE     the handler's time lies before the sender's: the CPUs'
 *		    counters disagree, one-way times have no meaning here
 *	-ENOMEM
 *	No CPU can come or go during a run (cpus_read_lock() is held).
 *
 * samples (read only)
 *	The last complete run's samples in the order in which they were taken,
 *	each a decimal number of nanoseconds on a line of its own. A reader goes
 *	on seeing the run that was the last when it opened the file.
 *
 * Kinds. "One way" is from right before the sender's call, interrupts off, to
 * the first instruction of the handler; both ends read the virtual counter
 * (CNTVCT_EL0), which is one clock for all CPUs of a machine. No cost of
 * reading the counter is subtracted anywhere; kind=clock_path tells it.
 *
 *	notify	   smp_call_function_single_async(), one way
 *	irq_work   irq_work_queue_on(), one way (the generic code sends it as a
 *		   function call IPI, as it does for all work for another CPU)
 *	wake	   wake_up_process() of a thread bound to dst that sleeps, to
 *		   that thread's first instruction: IPI and scheduling
 *	sync	   duration of smp_call_function_single(wait=1) in the sender
 *	many	   duration of smp_call_function_many(wait=1) to all other online
 *		   CPUs; dst is not used
 *	none	   no IPI and no samples: the same pauses, hence about n * gap_us,
 *		   for the background to subtract from counts taken from outside.
 *		   For an equally long span add notify's mean to gap_us
 *
 * Path kinds time a piece of code rather than an IPI. They are meant for an
 * emulator that advances its clock by one ns an instruction (QEMU -icount
 * shift=0), where the times are instruction counts. The counter of such a
 * machine is coarser (62.5 MHz: 16 ns), so that one sample is a multiple of
 * 16; but each timed section starts after a random delay of 1 to 16 times 3
 * instructions, which meets every phase of a tick equally often, and so the
 * mean of many samples is good to a fraction of an instruction.
 *
 *	clock_path reading the counter twice with nothing between
 *	send_path  arch_smp_send_reschedule(dst), interrupts off; between two of
 *		   them a synchronous call makes sure that dst has taken it, and
 *		   gap_us lets dst get idle again
 *	idle_path  cpu_do_idle() with interrupts off while one is pending, so
 *		   that it returns at once: the way into idle and out of it; dst
 *		   is not used
 *	exit_path  a hypercall that does next to nothing (SMCCC_VERSION), with
 *		   interrupts off: in a virtual machine an exit to its host and
 *		   the entry after it, if they count there too; dst is not used
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/arm-smccc.h>
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <asm/arch_timer.h>

#include "cvmtune_lookup.h"
#include "cvmtune_run.h"
#include "cvmtune_samples.h"

#define MAX_SAMPLES	100000
#define MAX_GAP_US	USEC_PER_SEC
#define MAX_LINE	256
#define LOST_AFTER_S	5

struct request {
	const struct ipi_kind *kind;
	u32 src;
	u32 dst;
	u32 n;
	u32 gap_us;
};

/*
 * A run in progress. vmalloc()ed: on loss of an IPI it is left allocated for
 * ever, since a handler may still come and touch it.
 */
struct run {
	call_single_data_t csd;
	struct irq_work work;
	struct request req;
	struct rnd_state rnd;
	u32 counter_hz;

	/* One message at a time, see arm_message() and await_message(). */
	bool done;
	u64 handled_at;

	bool stop;
	bool lost;
	struct completion finished;
	struct task_struct *sleeper;
	u32 wakeups;
	struct sample_set *samples;
};

/**
 * struct ipi_kind - how one kind of sample is taken
 * @name:	the word after kind=
 * @has_target:	dst is used, and must differ from src
 * @once:	takes one sample, in counter ticks, on CPU src; NULL: none
 * @prepare:	looks up what the kind needs, before the run; may be NULL
 */
struct ipi_kind {
	const char *name;
	bool has_target;
	int (*once)(struct run *run, u64 *ticks);
	int (*prepare)(void);
};

static struct dentry *folder;

/* Functions that are not exported; looked up when a kind first needs them. */
static void (*send_reschedule)(int cpu);
static void (*do_idle)(void);
static bool (*queue_irq_work)(struct irq_work *work, int cpu);

static __always_inline u64 now(void)
{
	return __arch_counter_get_cntvct();
}

static void arm_message(struct run *run)
{
	WRITE_ONCE(run->done, false);
}

static void message_arrived(struct run *run, u64 at)
{
	run->handled_at = at;
	/*
	 * Pairs with the acquire in await_message(). Without it the sender
	 * could see done and read the previous message's handled_at.
	 */
	smp_store_release(&run->done, true);
}

/* One-way time since @sent in ticks, or -ETIMEDOUT or -ERANGE. */
static int await_message(struct run *run, u64 sent, u64 *ticks)
{
	const u64 patience = (u64)LOST_AFTER_S * run->counter_hz;

	/* Acquire: see message_arrived(). */
	while (!smp_load_acquire(&run->done)) {
		if (now() - sent > patience) {
			/* The patience may have run out while not running. */
			if (smp_load_acquire(&run->done))
				break;
			run->lost = true;
			pr_err("%s: no answer from CPU %u in %u s\n",
			       run->req.kind->name, run->req.dst, LOST_AFTER_S);
			return -ETIMEDOUT;
		}
		cpu_relax();
		cond_resched();
	}
	if (run->handled_at < sent) {
		pr_err("%s: CPU %u's counter is behind CPU %u's by %llu ticks\n",
		       run->req.kind->name, run->req.dst, run->req.src,
		       sent - run->handled_at);
		return -ERANGE;
	}
	*ticks = run->handled_at - sent;
	return 0;
}

/* Handlers */

static void handle_notify(void *info)
{
	u64 at = now();

	message_arrived(info, at);
}

static void handle_irq_work(struct irq_work *work)
{
	u64 at = now();

	message_arrived(container_of(work, struct run, work), at);
}

static void handle_nothing(void *info)
{
}

static void handle_no_work(struct irq_work *work)
{
}

/* The thread that kind=wake wakes. */
static int sleep_and_tell(void *data)
{
	struct run *run = data;
	u32 seen = 0;

	while (!kthread_should_stop()) {
		u32 wakeups;
		u64 at;

		/*
		 * TASK_IDLE: the thread is no load. The barrier in
		 * set_current_state() orders it before the read of wakeups, so
		 * that a sender who found this thread running has its wake-up
		 * seen here instead of slept through.
		 */
		set_current_state(TASK_IDLE);
		if (READ_ONCE(run->wakeups) == seen && !kthread_should_stop())
			schedule();
		at = now();
		__set_current_state(TASK_RUNNING);

		wakeups = READ_ONCE(run->wakeups);
		if (wakeups != seen) {
			seen = wakeups;
			message_arrived(run, at);
		}
	}
	return 0;
}

/* Samples, one function a kind. All run in a thread that is bound to CPU src. */

static int once_notify(struct run *run, u64 *ticks)
{
	unsigned long flags;
	u64 sent;
	int err;

	arm_message(run);
	/* Interrupts off: none must fall between the time and the call. */
	local_irq_save(flags);
	sent = now();
	err = smp_call_function_single_async(run->req.dst, &run->csd);
	local_irq_restore(flags);
	if (err)
		return err;
	return await_message(run, sent, ticks);
}

static int once_irq_work(struct run *run, u64 *ticks)
{
	unsigned long flags;
	bool queued;
	u64 sent;

	arm_message(run);
	local_irq_save(flags);
	sent = now();
	queued = queue_irq_work(&run->work, run->req.dst);
	local_irq_restore(flags);
	if (!queued)
		return -EBUSY;
	return await_message(run, sent, ticks);
}

static int once_wake(struct run *run, u64 *ticks)
{
	unsigned long flags;
	u64 sent;

	arm_message(run);
	local_irq_save(flags);
	WRITE_ONCE(run->wakeups, run->wakeups + 1);
	sent = now();
	wake_up_process(run->sleeper);
	local_irq_restore(flags);
	return await_message(run, sent, ticks);
}

static int once_sync(struct run *run, u64 *ticks)
{
	u64 start;
	int err;

	preempt_disable();
	start = now();
	err = smp_call_function_single(run->req.dst, handle_nothing, NULL, 1);
	*ticks = now() - start;
	preempt_enable();
	return err;
}

static int once_many(struct run *run, u64 *ticks)
{
	u64 start;

	/* smp_call_function_many() wants preemption off; it skips this CPU. */
	preempt_disable();
	start = now();
	smp_call_function_many(cpu_online_mask, handle_nothing, NULL, true);
	*ticks = now() - start;
	preempt_enable();
	return 0;
}

/*
 * 1 to 16 rounds of three instructions, in assembly lest the compiler make it
 * four. Three and sixteen have no common divisor: over the 16 lengths the timed
 * section that follows starts once in every phase of a 16-instruction tick.
 */
static __always_inline void shift_phase(u32 random)
{
	u32 rounds = random % 16 + 1;

	asm volatile("1:	nop\n"
		     "	subs	%w0, %w0, #1\n"
		     "	b.ne	1b\n"
		     : "+r" (rounds) : : "cc");
}

static int once_clock_path(struct run *run, u64 *ticks)
{
	u32 random = prandom_u32_state(&run->rnd);
	unsigned long flags;
	u64 start;

	local_irq_save(flags);
	shift_phase(random);
	start = now();
	*ticks = now() - start;
	local_irq_restore(flags);
	return 0;
}

static int once_send_path(struct run *run, u64 *ticks)
{
	void (*send)(int cpu) = send_reschedule;
	u32 random = prandom_u32_state(&run->rnd);
	int dst = run->req.dst;
	unsigned long flags;
	u64 start, end;

	/*
	 * Rule of arch_smp_send_reschedule(): the target is online, which
	 * cpus_read_lock() grants. A reschedule IPI without need is harmless.
	 */
	local_irq_save(flags);
	shift_phase(random);
	start = now();
	send(dst);
	end = now();
	local_irq_restore(flags);
	*ticks = end - start;

	/* Once dst has answered, it has left idle and taken its interrupts. */
	return smp_call_function_single(dst, handle_nothing, NULL, 1);
}

static int once_idle_path(struct run *run, u64 *ticks)
{
	void (*idle)(void) = do_idle;
	u32 random = prandom_u32_state(&run->rnd);
	unsigned long flags;
	u64 start, end;

	/*
	 * Rules of cpu_do_idle(): interrupts are off, and something will end
	 * the wait. The irq_work raised on this very CPU does: its IPI stays
	 * pending until interrupts are on again, and a pending interrupt ends
	 * WFI, masked or not. (Should it be taken for lost, the tick ends the
	 * wait: it is not stopped while a task runs.)
	 *
	 * A kernel may treat the idle task's call unlike others' and tell it by
	 * PF_IDLE (is_idle_task()). Idle injection, play_idle_precise(), lends
	 * that flag to the thread that idles in the idle task's stead; so does
	 * this. The flag goes up and down with interrupts off, so that neither
	 * an interrupt nor the scheduler ever finds it on this thread.
	 */
	local_irq_save(flags);
	irq_work_queue(&run->work);
	current->flags |= PF_IDLE;
	shift_phase(random);
	start = now();
	idle();
	end = now();
	current->flags &= ~PF_IDLE;
	local_irq_restore(flags);

	*ticks = end - start;
	irq_work_sync(&run->work);
	return 0;
}

static int once_exit_path(struct run *run, u64 *ticks)
{
	u32 random = prandom_u32_state(&run->rnd);
	unsigned long flags;
	u64 start, end;

	local_irq_save(flags);
	shift_phase(random);
	start = now();
	arm_smccc_1_1_invoke(ARM_SMCCC_VERSION_FUNC_ID, NULL);
	end = now();
	local_irq_restore(flags);

	*ticks = end - start;
	return 0;
}

/* What the kinds need that is not exported. Under run_mutex. */

static int prepare_irq_work(void)
{
	if (!queue_irq_work)
		queue_irq_work = cvmtune_lookup("irq_work_queue_on");
	return queue_irq_work ? 0 : -ENOENT;
}

static int prepare_send_path(void)
{
	if (!send_reschedule)
		send_reschedule = cvmtune_lookup("arch_smp_send_reschedule");
	if (!send_reschedule)	/* its name before 6.4 */
		send_reschedule = cvmtune_lookup("smp_send_reschedule");
	return send_reschedule ? 0 : -ENOENT;
}

static int prepare_idle_path(void)
{
	if (!do_idle)
		do_idle = cvmtune_lookup("cpu_do_idle");
	return do_idle ? 0 : -ENOENT;
}

static const struct ipi_kind kinds[] = {
	{ .name = "notify", .has_target = true, .once = once_notify },
	{ .name = "irq_work", .has_target = true, .once = once_irq_work,
	  .prepare = prepare_irq_work },
	{ .name = "wake", .has_target = true, .once = once_wake },
	{ .name = "sync", .has_target = true, .once = once_sync },
	{ .name = "many", .once = once_many },
	{ .name = "none" },
	{ .name = "clock_path", .once = once_clock_path },
	{ .name = "send_path", .has_target = true, .once = once_send_path,
	  .prepare = prepare_send_path },
	{ .name = "idle_path", .once = once_idle_path,
	  .prepare = prepare_idle_path },
	{ .name = "exit_path", .once = once_exit_path },
};

/* The run */

/* Busy, so that src itself never gets idle; yet lets others run here. */
static void pause_between(struct run *run)
{
	u64 gap = div_u64((u64)run->req.gap_us * run->counter_hz, USEC_PER_SEC);
	u64 start = now();
	u32 width;

	/* A gap of at most 1 s at 32 bits of Hz: the width fits. */
	width = gap / 4 + 1;
	gap = gap - gap / 8 + prandom_u32_state(&run->rnd) % width;
	while (now() - start < gap && !READ_ONCE(run->stop)) {
		cpu_relax();
		cond_resched();
	}
}

static u64 ticks_to_ns(const struct run *run, u64 ticks)
{
	return mul_u64_u32_div(ticks, NSEC_PER_SEC, run->counter_hz);
}

/* The thread on CPU src; its result is kthread_stop()'s. */
static int take_samples(void *data)
{
	struct run *run = data;
	const struct ipi_kind *kind = run->req.kind;
	int err = 0;
	u32 i;

	for (i = 0; i < run->req.n; i++) {
		u64 ticks;

		if (READ_ONCE(run->stop)) {
			err = -EINTR;
			break;
		}
		if (kind->once) {
			err = kind->once(run, &ticks);
			if (err)
				break;
			run->samples->ns[i] = ticks_to_ns(run, ticks);
		}
		pause_between(run);
	}
	complete(&run->finished);
	return err;
}

static struct task_struct *thread_start(int (*fn)(void *data), struct run *run,
					u32 cpu)
{
	struct task_struct *task;

	task = kthread_create(fn, run, "cvmtune_ipi/%u", cpu);
	if (IS_ERR(task))
		return task;
	/* kthread_stop() must find the task even if fn returns before. */
	get_task_struct(task);
	kthread_bind(task, cpu);
	wake_up_process(task);
	return task;
}

static int thread_stop(struct task_struct *task)
{
	int err = kthread_stop(task);

	put_task_struct(task);
	return err;
}

/* Under cpus_read_lock(): the CPUs stay. */
static int measure(struct run *run)
{
	struct task_struct *sender;
	int err;

	if (run->req.kind->once == once_wake) {
		run->sleeper = thread_start(sleep_and_tell, run, run->req.dst);
		if (IS_ERR(run->sleeper))
			return PTR_ERR(run->sleeper);
	}
	sender = thread_start(take_samples, run, run->req.src);
	if (IS_ERR(sender)) {
		err = PTR_ERR(sender);
	} else {
		if (wait_for_completion_interruptible(&run->finished)) {
			WRITE_ONCE(run->stop, true);
			wait_for_completion(&run->finished);
		}
		err = thread_stop(sender);
	}
	/* A sleeper that did not wake is left alone: stopping it may hang. */
	if (run->sleeper && !run->lost)
		thread_stop(run->sleeper);
	return err;
}

static bool cpus_usable(const struct request *req)
{
	if (req->src >= nr_cpu_ids || !cpu_online(req->src))
		return false;
	if (req->kind->once == once_many && num_online_cpus() < 2)
		return false;
	if (!req->kind->has_target)
		return true;
	return req->dst != req->src && req->dst < nr_cpu_ids &&
	       cpu_online(req->dst);
}

static struct run *run_alloc(const struct request *req)
{
	struct run *run = vzalloc(sizeof(*run));

	if (!run)
		return NULL;
	run->samples = sample_set_alloc(req->kind->once ? req->n : 0, 1);
	if (!run->samples) {
		vfree(run);
		return NULL;
	}
	run->req = *req;
	run->counter_hz = arch_timer_get_cntfrq();
	prandom_seed_state(&run->rnd, 1);	/* any, but the same */
	init_completion(&run->finished);
	INIT_CSD(&run->csd, handle_notify, run);
	/* HARD: in the interrupt itself on a PREEMPT_RT kernel, too. */
	run->work = IRQ_WORK_INIT_HARD(req->kind->once == once_irq_work ?
				       handle_irq_work : handle_no_work);
	return run;
}

static void run_free(struct run *run)
{
	sample_set_put(run->samples);
	if (run->lost) {
		/* A late handler may touch *run and runs this module's code. */
		__module_get(THIS_MODULE);
		return;
	}
	/*
	 * The generic code touches a work once more after its handler; of a
	 * csd it lets go before the handler.
	 */
	irq_work_sync(&run->work);
	vfree(run);
}

static int run_locked(const void *request)
{
	const struct request *req = request;
	struct run *run;
	int err;

	if (req->kind->prepare) {
		err = req->kind->prepare();
		if (err)
			return err;
	}
	run = run_alloc(req);
	if (!run)
		return -ENOMEM;

	cpus_read_lock();
	err = cpus_usable(req) ? measure(run) : -EINVAL;
	cpus_read_unlock();

	if (!err) {
		sample_set_publish(run->samples);
		run->samples = NULL;
	}
	run_free(run);
	return err;
}

/* The line in `run` */

static const struct ipi_kind *find_kind(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

static int parse_request(char *line, void *request)
{
	enum { SRC, DST, N, GAP_US, NR_NUMBERS };
	static const struct cvmtune_number numbers[NR_NUMBERS] = {
		[SRC] = { "src", 0, U32_MAX },
		[DST] = { "dst", 0, U32_MAX },
		[N] = { "n", 1, MAX_SAMPLES },
		[GAP_US] = { "gap_us", 0, MAX_GAP_US },
	};
	struct request *req = request;
	u32 number[NR_NUMBERS];
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
						number, &given)) {
			return -EINVAL;
		}
	}
	if (more || !req->kind || given != BIT(NR_NUMBERS) - 1)
		return -EINVAL;
	req->src = number[SRC];
	req->dst = number[DST];
	req->n = number[N];
	req->gap_us = number[GAP_US];
	return 0;
}

static const struct cvmtune_run_ops run_ops = {
	.line_max = MAX_LINE,
	.request_size = sizeof(struct request),
	.parse = parse_request,
	.run = run_locked,
};

static int __init cvmtune_ipi_init(void)
{
	folder = debugfs_create_dir("cvmtune_ipi", NULL);
	if (IS_ERR(folder))
		return PTR_ERR(folder);
	debugfs_create_file("run", 0200, folder, (void *)&run_ops,
			    &cvmtune_run_fops);
	debugfs_create_file("samples", 0400, folder, NULL, &samples_fops);
	return 0;
}

static void __exit cvmtune_ipi_exit(void)
{
	/* Waits for a write or read in progress, hence for a run. */
	debugfs_remove(folder);
	sample_set_put(last_samples);
	/* The last run's last handler may not have returned from this code. */
	synchronize_rcu();
}

module_init(cvmtune_ipi_init);
module_exit(cvmtune_ipi_exit);

MODULE_DESCRIPTION("Time inter-processor interrupts, for cvmtune's lab");
MODULE_LICENSE("GPL");
