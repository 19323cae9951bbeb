// SPDX-License-Identifier: GPL-2.0
/*
 * cvmtune_cq - work on kernel completion queues, each completion accounted for
 *
 * Connects an RDMA device to itself (rdma_cm: RoCE, InfiniBand and iWARP alike)
 * and sends messages of eight bytes from one end to the other. All the sends of
 * a connection complete on one CQ, all the receives on another. Meanwhile
 * anybody may switch how completions are handled: by a workqueue, or by a thread
 * that polls. Whatever is switched when, each work request has one completion,
 * in order, and its callback may sleep. For a device to connect to:
 *
 *	ip link add d0 type dummy
 *	ip addr add 192.0.2.1/24 dev d0
 *	ip link set d0 up
 *	rdma link add rxe0 type rxe netdev d0	(or: siw0 type siw)
 *
 * The CQs' owner is "cvmtune_cq" (rdma resource show cq).
 *
 * debugfs, folder cvmtune_cq/:
 *
 * run (write only, root)
 *	One line of key=value, each key at most once, in any order; returns when
 *	the load is over and all that was made for it is gone.
 *
 *	kind=KIND	what to do (below); must be given, as must dev and addr
 *	dev=NAME	the RDMA device
 *	addr=IPV4	an address of the device's interface. One interface with
 *			two RDMA devices is none to test on: the address does
 *			not tell which is meant
 *	queues=N	connections at a time, 1 to 64; default 1. Each has two
 *			CQs and a thread that posts, cvmtune_cq/INDEX
 *	ctx=CONTEXT	workqueue (default: IB_POLL_WORKQUEUE) or unbound
 *	cq=own|pool	own (default): CQs of the connection's own. pool: from
 *			ib_cq_pool_get(), shared, made by ib_core (their owner)
 *			and not freed before the device is
 *	n=N		messages per connection, 1 to 1000000000
 *	seconds=N	for how long, 1 to 86400
 *	depth=N		messages outstanding at most, 1 to 1024; default 16
 *	gap_us=N	mean pause after each message, 0 to 1000000, default 0;
 *			each is drawn evenly from -12.5 % to +12.5 %
 *	sleep_us=N	each callback sleeps for so long, 0 to 100000; default 0
 *	seed=N		of all that is drawn; default 1
 *	cpu=N		the threads run on this CPU; default: anywhere
 *
 *	KIND is one of
 *	pingpong   n, [seconds], [gap_us]: one message at a time. Its receive is
 *		   posted, then its send; the thread sleeps until the receive's
 *		   callback has run. queues * n: at most 1000000
 *	event_path n: times calls of the CQ's completion handler, that is what an
 *		   interrupt does. On an emulator that advances its clock by one
 *		   ns an instruction (QEMU -icount shift=0) these are counts of
 *		   instructions, the loop's included
 *	flood	   n or seconds or both, [depth]: keep depth outstanding
 *	churn	   seconds, [depth]: connect, send up to 4 * depth messages,
 *		   post receives that nothing will match, disconnect or not,
 *		   while messages are on their way or not, ib_drain_qp(), free
 *		   all, and again
 *
 *	Errors: -EINVAL bad line or CPU not online; -EBUSY another run is in
 *	progress; -EINTR a signal ended the run; -ENODEV the address is not that
 *	of the device; -ENOMEM, -ECONNREFUSED, -ETIMEDOUT and what else RDMA may
 *	have against a connection. `result` holds what was found until then.
 *	Violations are no error of the write: read `result`. But if a thread does
 *	not come back from freeing a CQ or the like, there is -ETIMEDOUT, the
 *	module stays loaded for good, and further writes give -EIO.
 *
 * samples, wake_samples (read only)
 *	For event_path, `samples` has the nanoseconds of 1000 calls, with
 *	interrupts off so that their work stays queued, `wake_samples` zeros. Of
 *	the last pingpong that ended without error, one decimal number of
 *	nanoseconds a line: from right before ib_post_send() to the first
 *	instruction of the receive's callback; to when the thread that had posted
 *	runs again. In the order in which they were taken, the same in both. A
 *	reader goes on seeing the run that was the last when it opened the file.
 *
 * result (read only)
 *	Lines "name value", decimal, of the last run or the one in progress.
 *
 *	posted_send, posted_recv, handled_send, handled_recv
 *		work requests posted, and those whose callback ran (flushed ones
 *		too). At the end each handled must be equal to its posted
 *
 *	Violations; 0 if all is well:
 *	lost	posted and not handled when the connection's CQs were freed
 *	duplicates
 *		callbacks of a work request that was not posted
 *	out_of_order
 *		callbacks in another order than the work requests were posted in
 *	wrong_payload
 *		receives that did not hold the message of their number
 *	errors	completions with another status than success and flushed
 *	early_flushes
 *		completions flushed while the connection should still be up
 *	post_errors
 *		work requests that the device refused
 *	concurrent
 *		callbacks entered while another one of the same CQ was running
 *	wrong_context
 *		callbacks not in process context, or with interrupts off, or (if
 *		the kernel can tell: CONFIG_PREEMPT_COUNT) with preemption off
 *	hung	waits that were given up after 10 s without any progress: for an
 *		event of the connection, a completion, the end of ib_drain_qp(),
 *		a thread (60 s). The connection's CQs are then polled from here,
 *		so that the drain ends, and the connection's load is over
 *	stranded
 *		callbacks that only this polling ran: completions that were there
 *		and that nobody handled (a drain's own are not counted)
 *
 *	Else:
 *	flushed	completions with status "flushed", expected of a kind=churn
 *	slept	callbacks that slept
 *	handled_by_worker, handled_by_poller, handled_by_other
 *		callbacks that ran in a kworker, in a thread ib_cq_poll/CPU, in
 *		any other thread (stranded ones are none of these)
 *	switches
 *		callbacks that ran in another of these than the one before on the
 *		same CQ: how often a switch met this load
 *	connections
 *		how many were made
 *	max_ns	the longest time from ib_post_send() to the receive's callback,
 *		in any kind of load
 *	ms	how long the run took
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/cpu.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/inet.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/net_namespace.h>
#include <rdma/ib_verbs.h>
#include <rdma/rdma_cm.h>

#include "cvmtune_run.h"
#include "cvmtune_samples.h"

#define MAX_LINE	512
#define MAX_SAMPLES	1000000
/* With a clock of 16 ns, a call is known to 0.016 ns. */
#define EVENTS_PER_SAMPLE	1000
#define RESOLVE_MS	5000
#define DEADLINE	(10 * HZ)	/* without progress: hung */
#define STUCK_AFTER	(60 * HZ)	/* not even its deadline ended it */
#define LOOK_EVERY	(HZ / 4)	/* for a deadline that has passed */
#define SPARE		4		/* places for the drains' work requests */

#define POLLER_PREFIX	"ib_cq_poll/"

/* Of the run in progress or the last one. */
enum cq_stat {
	STAT_POSTED_SEND,
	STAT_POSTED_RECV,
	STAT_HANDLED_SEND,
	STAT_HANDLED_RECV,
	STAT_LOST,
	STAT_DUPLICATES,
	STAT_OUT_OF_ORDER,
	STAT_WRONG_PAYLOAD,
	STAT_ERRORS,
	STAT_EARLY_FLUSHES,
	STAT_POST_ERRORS,
	STAT_CONCURRENT,
	STAT_WRONG_CONTEXT,
	STAT_HUNG,
	STAT_STRANDED,
	STAT_FLUSHED,
	STAT_SLEPT,
	STAT_HANDLED_BY_WORKER,
	STAT_HANDLED_BY_POLLER,
	STAT_HANDLED_BY_OTHER,
	STAT_SWITCHES,
	STAT_CONNECTIONS,
	STAT_MAX_NS,
	STAT_MS,
	NR_CQ_STATS,
};

static const char * const stat_names[NR_CQ_STATS] = {
	[STAT_POSTED_SEND] = "posted_send",
	[STAT_POSTED_RECV] = "posted_recv",
	[STAT_HANDLED_SEND] = "handled_send",
	[STAT_HANDLED_RECV] = "handled_recv",
	[STAT_LOST] = "lost",
	[STAT_DUPLICATES] = "duplicates",
	[STAT_OUT_OF_ORDER] = "out_of_order",
	[STAT_WRONG_PAYLOAD] = "wrong_payload",
	[STAT_ERRORS] = "errors",
	[STAT_EARLY_FLUSHES] = "early_flushes",
	[STAT_POST_ERRORS] = "post_errors",
	[STAT_CONCURRENT] = "concurrent",
	[STAT_WRONG_CONTEXT] = "wrong_context",
	[STAT_HUNG] = "hung",
	[STAT_STRANDED] = "stranded",
	[STAT_FLUSHED] = "flushed",
	[STAT_SLEPT] = "slept",
	[STAT_HANDLED_BY_WORKER] = "handled_by_worker",
	[STAT_HANDLED_BY_POLLER] = "handled_by_poller",
	[STAT_HANDLED_BY_OTHER] = "handled_by_other",
	[STAT_SWITCHES] = "switches",
	[STAT_CONNECTIONS] = "connections",
	[STAT_MAX_NS] = "max_ns",
	[STAT_MS] = "ms",
};

static atomic64_t stats[NR_CQ_STATS];

enum number { QUEUES, N, SECONDS, DEPTH, GAP_US, SLEEP_US, SEED, CPU, NR_NUMBERS };

static const struct cvmtune_number numbers[NR_NUMBERS] = {
	[QUEUES] = { "queues", 1, 64, 1 },
	[N] = { "n", 1, 1000000000, 0 },
	[SECONDS] = { "seconds", 1, 86400, 0 },
	[DEPTH] = { "depth", 1, 1024, 16 },
	[GAP_US] = { "gap_us", 0, 1000000, 0 },
	[SLEEP_US] = { "sleep_us", 0, 100000, 0 },
	[SEED] = { "seed", 0, U32_MAX, 1 },
	[CPU] = { "cpu", 0, U32_MAX - 1, U32_MAX },
};

/* What the line in `run` says. */
struct request {
	const struct kind *kind;
	char dev[IB_DEVICE_NAME_MAX];
	__be32 addr;
	enum ib_poll_context ctx;
	bool pool;
	u32 number[NR_NUMBERS];
};

/* The columns of a sample. */
enum column { CALLBACK_NS, WAKE_NS, NR_COLUMNS };

/* The run in progress. */
struct run {
	struct request req;
	unsigned long ends_at;	/* jiffies, if number[SECONDS] */
	bool stop;
	atomic_t active;	/* workers that have not finished */
	atomic_t sampled;
	struct sample_set *samples;	/* NULL if the kind takes none */
	struct worker *workers;
};

/* A thread that makes connections, one at a time, and posts. */
struct worker {
	struct run *run;
	struct task_struct *task;
	struct rnd_state rnd;
	unsigned long alive_at;	/* jiffies of the last progress */
	bool finished;
	int err;
};

/* Who runs callbacks. */
enum handler { NOBODY, WORKER, POLLER, OTHER, RESCUER };

enum slot_state { FREE, POSTED };

/**
 * struct slot - a work request, used again and again
 * @cqe:	its callback
 * @queue:	where it is posted
 * @state:	enum slot_state
 * @seq:	its number in that queue
 * @at:		when a send was posted, when a receive's callback began; ns
 */
struct slot {
	struct ib_cqe cqe;
	struct queue *queue;
	atomic_t state;
	u64 seq;
	u64 at;
};

/**
 * struct queue - one direction's work requests, which complete on one CQ
 * @conn:	whose it is
 * @cq:		where they complete
 * @slots:	depth of them; number seq takes slot seq modulo depth
 * @messages:	the slots' buffers
 * @dma:	where the device finds these
 * @posted:	how many were posted, by the worker
 * @handled:	how many callbacks were run
 * @outstanding: posted less handled; falls as the last thing of a callback
 * @inside:	callbacks that are running
 * @last_by:	enum handler of the last callback
 */
struct queue {
	struct conn *conn;
	struct ib_cq *cq;
	struct slot *slots;
	u64 *messages;
	u64 dma;
	u64 posted;
	atomic64_t handled;
	atomic_t outstanding;
	atomic_t inside;
	atomic_t last_by;
};

/* What has happened to a connection: bits of struct conn's events. */
enum event {
	EVENT_ADDR,
	EVENT_ROUTE,
	EVENT_REQUEST,
	EVENT_CLIENT_UP,
	EVENT_SERVER_UP,
	EVENT_FAILED,
};

/**
 * struct conn - a connection of the device to itself
 * @worker:	whose it is
 * @listener:	until the connection is there
 * @client:	the end that sends
 * @server:	the end that receives; set by conn_event()
 * @events:	enum event
 * @err:	why EVENT_FAILED
 * @wait:	where the worker waits, for events and for completions
 * @pd:		protection domain of all that is posted
 * @send:	sends, of the client
 * @recv:	receives, of the server
 * @closing:	completions may be flushed from now on
 * @broken:	the load cannot go on
 * @abrupt:	close it without a word to the other end
 * @rescued:	a deadline has passed; the CQs are polled from here
 * @rescuer:	the thread that is doing so
 * @watchdog:	finds a drain that hangs
 */
struct conn {
	struct worker *worker;
	struct rdma_cm_id *listener;
	struct rdma_cm_id *client;
	struct rdma_cm_id *server;
	unsigned long events;
	int err;
	wait_queue_head_t wait;
	struct ib_pd *pd;
	struct queue send;
	struct queue recv;
	bool closing;
	bool broken;
	bool abrupt;
	bool rescued;
	struct task_struct *rescuer;
	struct delayed_work watchdog;
};

/**
 * struct kind - a kind of load
 * @name:	the word after kind=
 * @takes:	numbers that may be given, besides those that all take
 * @needs:	one of these must be given
 * @again:	makes connection after connection
 * @sampled:	takes samples
 * @load:	posts on a connection
 */
struct kind {
	const char *name;
	unsigned int takes;
	unsigned int needs;
	bool again;
	bool sampled;
	void (*load)(struct conn *conn);
};

static DECLARE_WAIT_QUEUE_HEAD(all_finished);
static bool dead;			/* a worker is stuck; under run_mutex */
static struct dentry *folder;

static void count(enum cq_stat stat)
{
	atomic64_inc(&stats[stat]);
}

static void alive(struct worker *worker)
{
	WRITE_ONCE(worker->alive_at, jiffies);
}

static bool silent_for(struct worker *worker, unsigned long span)
{
	return time_after(jiffies, READ_ONCE(worker->alive_at) + span);
}

static bool run_over(struct run *run)
{
	return READ_ONCE(run->stop) ||
	       (run->req.number[SECONDS] && time_after(jiffies, run->ends_at));
}

static u32 pick(struct worker *worker, u32 below)
{
	return prandom_u32_state(&worker->rnd) % below;
}

static u32 depth_of(const struct conn *conn)
{
	return conn->worker->run->req.number[DEPTH];
}

/* Callbacks */

static enum handler who_am_i(const struct conn *conn)
{
	if (READ_ONCE(conn->rescuer) == current)
		return RESCUER;
	if (current->flags & PF_WQ_WORKER)
		return WORKER;
	if (!strncmp(current->comm, POLLER_PREFIX, strlen(POLLER_PREFIX)))
		return POLLER;
	return OTHER;
}

static void note_handler(struct queue *queue)
{
	static const enum cq_stat stat_of[] = {
		[WORKER] = STAT_HANDLED_BY_WORKER,
		[POLLER] = STAT_HANDLED_BY_POLLER,
		[OTHER] = STAT_HANDLED_BY_OTHER,
		[RESCUER] = STAT_STRANDED,
	};
	enum handler by = who_am_i(queue->conn);
	enum handler last = atomic_xchg(&queue->last_by, by);

	count(stat_of[by]);
	if (last != NOBODY && last != by)
		count(STAT_SWITCHES);
}

/* What a callback may rely on: process context, and that it may sleep. */
static bool context_allows_sleep(void)
{
	if (!in_task() || irqs_disabled())
		return false;
	return !IS_ENABLED(CONFIG_PREEMPT_COUNT) || preemptible();
}

static void note_max(u64 ns)
{
	s64 old = atomic64_read(&stats[STAT_MAX_NS]);

	while ((s64)ns > old &&
	       !atomic64_try_cmpxchg(&stats[STAT_MAX_NS], &old, ns))
		;
}

static void check_message(struct queue *recv, const struct slot *slot,
			  const struct ib_wc *wc)
{
	u64 *message = &recv->messages[slot - recv->slots];

	ib_dma_sync_single_for_cpu(recv->cq->device,
				   recv->dma + (slot - recv->slots) * sizeof(u64),
				   sizeof(u64), DMA_FROM_DEVICE);
	if (wc->byte_len != sizeof(u64) || *message != slot->seq)
		count(STAT_WRONG_PAYLOAD);
}

static void check_status(struct conn *conn, const struct ib_wc *wc)
{
	if (wc->status == IB_WC_SUCCESS)
		return;
	if (wc->status == IB_WC_WR_FLUSH_ERR) {
		count(STAT_FLUSHED);
		if (!READ_ONCE(conn->closing))
			count(STAT_EARLY_FLUSHES);
	} else {
		count(STAT_ERRORS);
	}
	WRITE_ONCE(conn->broken, true);
}

static void callback_sleep(const struct conn *conn, bool allowed)
{
	u32 us = conn->worker->run->req.number[SLEEP_US];

	if (us && allowed) {
		usleep_range_state(us, us + us / 8, TASK_IDLE);
		count(STAT_SLEPT);
	}
}

/* The part that sends and receives share; @handled is this kind's count. */
static void handle(struct slot *slot, const struct ib_wc *wc, enum cq_stat handled)
{
	struct queue *queue = slot->queue;
	struct conn *conn = queue->conn;
	bool may_sleep = context_allows_sleep();

	/* Once hung, callbacks run from here and perhaps elsewhere, too. */
	if (atomic_inc_return(&queue->inside) > 1 && !READ_ONCE(conn->rescued))
		count(STAT_CONCURRENT);
	if (!may_sleep)
		count(STAT_WRONG_CONTEXT);
	note_handler(queue);
	alive(conn->worker);

	if (atomic_cmpxchg(&slot->state, POSTED, FREE) != POSTED) {
		count(STAT_DUPLICATES);
		atomic_dec(&queue->inside);
		return;
	}
	if (atomic64_inc_return(&queue->handled) - 1 != slot->seq)
		count(STAT_OUT_OF_ORDER);
	check_status(conn, wc);
	callback_sleep(conn, may_sleep);
	count(handled);
	atomic_dec(&queue->inside);
	/*
	 * Release: all the above is over before the worker uses the slot anew.
	 * Pairs with the acquire in at_most().
	 */
	atomic_fetch_dec_release(&queue->outstanding);
	if (wq_has_sleeper(&conn->wait))
		wake_up(&conn->wait);
}

static void send_done(struct ib_cq *cq, struct ib_wc *wc)
{
	struct slot *slot = container_of(wc->wr_cqe, struct slot, cqe);

	handle(slot, wc, STAT_HANDLED_SEND);
}

static void recv_done(struct ib_cq *cq, struct ib_wc *wc)
{
	u64 at = ktime_get_ns();
	struct slot *slot = container_of(wc->wr_cqe, struct slot, cqe);
	struct queue *recv = slot->queue;

	if (wc->status == IB_WC_SUCCESS &&
	    atomic_read(&slot->state) == POSTED) {
		/* The send's slot is not used anew before this one is free. */
		u64 sent = recv->conn->send.slots[slot - recv->slots].at;

		slot->at = at;
		note_max(at - sent);
		check_message(recv, slot, wc);
	}
	handle(slot, wc, STAT_HANDLED_RECV);
}

/* Waiting, and what is done when it was in vain */

/* Polls the CQs, whoever else should. */
static void rescue(struct conn *conn)
{
	int budget = 2 * (depth_of(conn) + SPARE);

	WRITE_ONCE(conn->rescued, true);
	WRITE_ONCE(conn->rescuer, current);
	ib_process_cq_direct(conn->send.cq, budget);
	ib_process_cq_direct(conn->recv.cq, budget);
	WRITE_ONCE(conn->rescuer, NULL);
}

static bool at_most(struct queue *queue, int limit)
{
	/* Acquire: see handle(). */
	return atomic_read_acquire(&queue->outstanding) <= limit;
}

/*
 * Waits until not more than @limit are outstanding. Returns false if the load
 * is over: they do not complete, or not as they should.
 */
static bool queue_wait(struct queue *queue, int limit)
{
	struct conn *conn = queue->conn;

	alive(conn->worker);
	while (!wait_event_idle_timeout(conn->wait, at_most(queue, limit),
					LOOK_EVERY)) {
		if (silent_for(conn->worker, DEADLINE)) {
			count(STAT_HUNG);
			rescue(conn);
			return false;
		}
	}
	return !READ_ONCE(conn->broken);
}

/* ib_drain_qp() has no deadline; this has. */
static void watch_drain(struct work_struct *work)
{
	struct conn *conn = container_of(work, struct conn, watchdog.work);

	bool rescued = READ_ONCE(conn->rescued);

	if (!rescued && silent_for(conn->worker, DEADLINE)) {
		count(STAT_HUNG);
		rescued = true;
	}
	if (rescued)
		rescue(conn);
	schedule_delayed_work(&conn->watchdog, LOOK_EVERY);
}

static void drain(struct conn *conn)
{
	alive(conn->worker);
	schedule_delayed_work(&conn->watchdog, LOOK_EVERY);
	ib_drain_qp(conn->client->qp);
	ib_drain_qp(conn->server->qp);
	cancel_delayed_work_sync(&conn->watchdog);
}

/* Connecting */

static void note_event(struct conn *conn, enum event event)
{
	/* Release: what came before it is seen by await_event(). */
	smp_mb__before_atomic();
	set_bit(event, &conn->events);
	wake_up(&conn->wait);
}

static void note_failure(struct conn *conn, int err)
{
	WRITE_ONCE(conn->err, err);
	note_event(conn, EVENT_FAILED);
}

static int conn_event(struct rdma_cm_id *id, struct rdma_cm_event *event)
{
	struct conn *conn = id->context;

	switch (event->event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		note_event(conn, EVENT_ADDR);
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		note_event(conn, EVENT_ROUTE);
		break;
	case RDMA_CM_EVENT_CONNECT_REQUEST:
		/* Of a new id. An error has it rejected and destroyed. */
		if (conn->server)
			return -EBUSY;
		conn->server = id;
		note_event(conn, EVENT_REQUEST);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		note_event(conn, id == conn->client ? EVENT_CLIENT_UP :
						      EVENT_SERVER_UP);
		break;
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_CONNECT_ERROR:
		note_failure(conn, event->status < 0 ? event->status :
						       -ENETUNREACH);
		break;
	case RDMA_CM_EVENT_REJECTED:
		note_failure(conn, -ECONNREFUSED);
		break;
	default:
		/* Disconnected, timewait over: the worker knows. */
		break;
	}
	return 0;
}

static bool event_there(struct conn *conn, enum event event)
{
	/* Acquire: see note_event(). */
	unsigned long events = smp_load_acquire(&conn->events);

	return events & (BIT(event) | BIT(EVENT_FAILED));
}

static int await_event(struct conn *conn, enum event event)
{
	alive(conn->worker);
	while (!wait_event_idle_timeout(conn->wait, event_there(conn, event),
					LOOK_EVERY)) {
		if (silent_for(conn->worker, DEADLINE)) {
			count(STAT_HUNG);
			return -ETIMEDOUT;
		}
	}
	alive(conn->worker);
	return test_bit(EVENT_FAILED, &conn->events) ? READ_ONCE(conn->err) : 0;
}

static struct rdma_cm_id *id_create(struct conn *conn)
{
	return rdma_create_id(&init_net, conn_event, conn, RDMA_PS_TCP, IB_QPT_RC);
}

/* Both ends' addresses; the client is bound to the device. */
static int conn_resolve(struct conn *conn)
{
	const struct request *req = &conn->worker->run->req;
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = req->addr,
	};
	struct rdma_cm_id *id;
	int err;

	id = id_create(conn);
	if (IS_ERR(id))
		return PTR_ERR(id);
	conn->listener = id;
	err = rdma_bind_addr(id, (struct sockaddr *)&addr);
	if (err)
		return err;
	if (!id->device || strcmp(dev_name(&id->device->dev), req->dev))
		return -ENODEV;
	err = rdma_listen(id, 1);
	if (err)
		return err;
	addr.sin_port = ((struct sockaddr_in *)&id->route.addr.src_addr)->sin_port;

	id = id_create(conn);
	if (IS_ERR(id))
		return PTR_ERR(id);
	conn->client = id;
	err = rdma_resolve_addr(id, NULL, (struct sockaddr *)&addr, RESOLVE_MS);
	if (!err)
		err = await_event(conn, EVENT_ADDR);
	if (err)
		return err;
	if (strcmp(dev_name(&id->device->dev), req->dev))
		return -ENODEV;
	err = rdma_resolve_route(id, RESOLVE_MS);
	return err ?: await_event(conn, EVENT_ROUTE);
}

static struct ib_cq *cq_get(struct conn *conn, struct queue *queue)
{
	const struct request *req = &conn->worker->run->req;
	struct ib_device *device = conn->client->device;
	int n = depth_of(conn) + SPARE;

	if (req->pool)
		return ib_cq_pool_get(device, n, -1, req->ctx);
	return ib_alloc_cq_any(device, queue, n, req->ctx);
}

static int queue_create(struct queue *queue, struct conn *conn,
			void (*done)(struct ib_cq *cq, struct ib_wc *wc),
			enum dma_data_direction direction)
{
	struct ib_device *device = conn->client->device;
	u32 i, n = depth_of(conn);
	struct ib_cq *cq;

	queue->conn = conn;
	queue->slots = kvcalloc(n, sizeof(*queue->slots), GFP_KERNEL);
	if (!queue->slots)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		queue->slots[i].cqe.done = done;
		queue->slots[i].queue = queue;
	}
	queue->messages = kcalloc(n, sizeof(*queue->messages), GFP_KERNEL);
	if (!queue->messages)
		return -ENOMEM;
	queue->dma = ib_dma_map_single(device, queue->messages,
				       n * sizeof(*queue->messages), direction);
	if (ib_dma_mapping_error(device, queue->dma)) {
		kfree(queue->messages);
		queue->messages = NULL;
		return -ENOMEM;
	}
	cq = cq_get(conn, queue);
	if (IS_ERR(cq))
		return PTR_ERR(cq);
	queue->cq = cq;
	return 0;
}

/* After it no callback runs, nor will. */
static void queue_destroy(struct queue *queue, struct conn *conn,
			  enum dma_data_direction direction)
{
	u32 n = depth_of(conn);

	if (queue->cq) {
		if (conn->worker->run->req.pool)
			ib_cq_pool_put(queue->cq, n + SPARE);
		else
			ib_free_cq(queue->cq);
	}
	atomic64_add(atomic_read(&queue->outstanding), &stats[STAT_LOST]);
	if (queue->messages)
		ib_dma_unmap_single(conn->client->device, queue->dma,
				    n * sizeof(*queue->messages), direction);
	kfree(queue->messages);
	kvfree(queue->slots);
}

static int conn_allocate(struct conn *conn)
{
	struct ib_pd *pd = ib_alloc_pd(conn->client->device, 0);
	int err;

	if (IS_ERR(pd))
		return PTR_ERR(pd);
	conn->pd = pd;
	err = queue_create(&conn->send, conn, send_done, DMA_TO_DEVICE);
	return err ?: queue_create(&conn->recv, conn, recv_done, DMA_FROM_DEVICE);
}

static int qp_create(struct conn *conn, struct rdma_cm_id *id, u32 sends,
		     u32 recvs)
{
	struct ib_qp_init_attr attr = {
		.send_cq = conn->send.cq,
		.recv_cq = conn->recv.cq,
		.cap = {
			.max_send_wr = sends + SPARE,
			.max_recv_wr = recvs + SPARE,
			.max_send_sge = 1,
			.max_recv_sge = 1,
		},
		.sq_sig_type = IB_SIGNAL_REQ_WR,
		.qp_type = IB_QPT_RC,
	};

	return rdma_create_qp(id, conn->pd, &attr);
}

static int conn_connect(struct conn *conn)
{
	/* No retry if no receive is there: it is posted before the send. */
	struct rdma_conn_param param = {
		.responder_resources = 1,
		.initiator_depth = 1,
		.retry_count = 7,
		.rnr_retry_count = 0,
	};
	u32 depth = depth_of(conn);
	int err;

	err = qp_create(conn, conn->client, depth, 0);
	if (err)
		return err;
	err = rdma_connect(conn->client, &param);
	if (!err)
		err = await_event(conn, EVENT_REQUEST);
	if (err)
		return err;

	err = qp_create(conn, conn->server, 0, depth);
	if (err)
		return err;
	rdma_lock_handler(conn->server);
	err = rdma_accept(conn->server, &param);
	rdma_unlock_handler(conn->server);
	if (!err)
		err = await_event(conn, EVENT_CLIENT_UP);
	if (!err)
		err = await_event(conn, EVENT_SERVER_UP);
	return err;
}

static void id_destroy(struct rdma_cm_id *id)
{
	if (id)
		rdma_destroy_id(id);
}

static void qp_destroy(struct rdma_cm_id *id)
{
	if (id && id->qp)
		rdma_destroy_qp(id);
}

/* Of a connection that is up, or of as much of one as was made. */
static void conn_close(struct conn *conn, bool up)
{
	WRITE_ONCE(conn->closing, true);
	if (up) {
		if (!conn->abrupt)
			rdma_disconnect(conn->client);
		drain(conn);
	}
	/* First: afterwards conn_event() sets no server. */
	id_destroy(conn->listener);
	alive(conn->worker);
	qp_destroy(conn->client);
	qp_destroy(conn->server);
	alive(conn->worker);
	queue_destroy(&conn->send, conn, DMA_TO_DEVICE);
	queue_destroy(&conn->recv, conn, DMA_FROM_DEVICE);
	if (conn->pd)
		ib_dealloc_pd(conn->pd);
	alive(conn->worker);
	/* The ids last: while they are there, the device is. */
	id_destroy(conn->server);
	id_destroy(conn->client);
	alive(conn->worker);
	kfree(conn);
}

static struct conn *conn_open(struct worker *worker)
{
	struct conn *conn = kzalloc(sizeof(*conn), GFP_KERNEL);
	int err;

	if (!conn)
		return ERR_PTR(-ENOMEM);
	conn->worker = worker;
	init_waitqueue_head(&conn->wait);
	INIT_DELAYED_WORK(&conn->watchdog, watch_drain);
	err = conn_resolve(conn);
	if (!err)
		err = conn_allocate(conn);
	if (!err)
		err = conn_connect(conn);
	if (err) {
		conn_close(conn, false);
		return ERR_PTR(err);
	}
	count(STAT_CONNECTIONS);
	return conn;
}

/* Posting: by the worker only. Each returns false if the load is over. */

static struct slot *slot_take(struct queue *queue)
{
	struct slot *slot = &queue->slots[queue->posted % depth_of(queue->conn)];

	/* Not free only if completions came in another order. */
	if (atomic_read(&slot->state) != FREE)
		return NULL;
	slot->seq = queue->posted++;
	atomic_set(&slot->state, POSTED);
	atomic_inc(&queue->outstanding);
	return slot;
}

/* The device did not take it. */
static void slot_return(struct queue *queue, struct slot *slot)
{
	count(STAT_POST_ERRORS);
	queue->posted--;
	atomic_set(&slot->state, FREE);
	atomic_dec(&queue->outstanding);
}

static struct ib_sge slot_sge(struct queue *queue, const struct slot *slot)
{
	size_t i = slot - queue->slots;

	return (struct ib_sge) {
		.addr = queue->dma + i * sizeof(*queue->messages),
		.length = sizeof(*queue->messages),
		.lkey = queue->conn->pd->local_dma_lkey,
	};
}

static bool post_recv(struct conn *conn)
{
	struct slot *slot = slot_take(&conn->recv);
	struct ib_recv_wr wr = { .num_sge = 1 };
	struct ib_sge sge;

	if (!slot)
		return false;
	sge = slot_sge(&conn->recv, slot);
	wr.wr_cqe = &slot->cqe;
	wr.sg_list = &sge;
	conn->recv.messages[slot - conn->recv.slots] = ~slot->seq;
	ib_dma_sync_single_for_device(conn->client->device, sge.addr, sge.length,
				      DMA_FROM_DEVICE);
	/* Counted before: its completion may come at once. */
	count(STAT_POSTED_RECV);
	if (ib_post_recv(conn->server->qp, &wr, NULL)) {
		atomic64_dec(&stats[STAT_POSTED_RECV]);
		slot_return(&conn->recv, slot);
		return false;
	}
	return true;
}

static bool post_send(struct conn *conn)
{
	struct slot *slot = slot_take(&conn->send);
	struct ib_send_wr wr = {
		.num_sge = 1,
		.opcode = IB_WR_SEND,
		.send_flags = IB_SEND_SIGNALED,
	};
	struct ib_sge sge;

	if (!slot)
		return false;
	sge = slot_sge(&conn->send, slot);
	wr.wr_cqe = &slot->cqe;
	wr.sg_list = &sge;
	conn->send.messages[slot - conn->send.slots] = slot->seq;
	ib_dma_sync_single_for_device(conn->client->device, sge.addr, sge.length,
				      DMA_TO_DEVICE);
	count(STAT_POSTED_SEND);
	slot->at = ktime_get_ns();
	if (ib_post_send(conn->client->qp, &wr, NULL)) {
		atomic64_dec(&stats[STAT_POSTED_SEND]);
		slot_return(&conn->send, slot);
		return false;
	}
	return true;
}

/* A message, as soon as fewer than depth are outstanding. */
static bool post_message(struct conn *conn)
{
	int limit = depth_of(conn) - 1;

	return queue_wait(&conn->send, limit) && queue_wait(&conn->recv, limit) &&
	       post_recv(conn) && post_send(conn);
}

static bool wait_for_all(struct conn *conn)
{
	return queue_wait(&conn->recv, 0) && queue_wait(&conn->send, 0);
}

/* Loads */

static void pause_between(struct worker *worker)
{
	u32 gap = worker->run->req.number[GAP_US];
	u32 us = gap - gap / 8 + pick(worker, gap / 4 + 1);

	if (us)
		usleep_range_state(us, us, TASK_IDLE);
}

/* Returns where the numbers of one more sample go. */
static u64 *next_sample(struct run *run)
{
	return &run->samples->ns[atomic_fetch_inc(&run->sampled) * NR_COLUMNS];
}

/* The message that was posted last, which has been received. */
static void take_sample(struct conn *conn, u64 woken)
{
	struct run *run = conn->worker->run;
	u64 i = (conn->send.posted - 1) % depth_of(conn);
	u64 sent = conn->send.slots[i].at;
	u64 *ns = next_sample(run);

	ns[CALLBACK_NS] = conn->recv.slots[i].at - sent;
	ns[WAKE_NS] = woken - sent;
}

static void load_pingpong(struct conn *conn)
{
	struct run *run = conn->worker->run;
	u32 i;

	for (i = 0; i < run->req.number[N] && !run_over(run); i++) {
		bool arrived;
		u64 woken;

		if (!post_message(conn))
			return;
		arrived = queue_wait(&conn->recv, 0);
		woken = ktime_get_ns();
		if (!arrived || !queue_wait(&conn->send, 0))
			return;
		take_sample(conn, woken);
		pause_between(conn->worker);
	}
}

/* What a driver does when a CQ that has asked for an interrupt gets one. */
static void load_event_path(struct conn *conn)
{
	struct run *run = conn->worker->run;
	struct ib_cq *cq = conn->recv.cq;
	u32 i, call;

	for (i = 0; i < run->req.number[N] && !run_over(run); i++) {
		u64 *ns = next_sample(run);
		unsigned long flags;
		u64 start;

		local_irq_save(flags);
		start = ktime_get_ns();
		for (call = 0; call < EVENTS_PER_SAMPLE; call++)
			cq->comp_handler(cq, cq->cq_context);
		ns[CALLBACK_NS] = ktime_get_ns() - start;
		local_irq_restore(flags);
		ns[WAKE_NS] = 0;
		cond_resched();
	}
}

static void load_flood(struct conn *conn)
{
	struct run *run = conn->worker->run;
	u32 n = run->req.number[N];
	u32 i;

	for (i = 0; (!n || i < n) && !run_over(run); i++)
		if (!post_message(conn))
			return;
	wait_for_all(conn);
}

static void load_churn(struct conn *conn)
{
	struct worker *worker = conn->worker;
	u32 depth = depth_of(conn);
	u32 n = pick(worker, 4 * depth + 1);
	u32 unmatched = pick(worker, depth + 1);

	conn->abrupt = pick(worker, 2);
	while (n--)
		if (!post_message(conn))
			return;
	if (pick(worker, 2) && !wait_for_all(conn))
		return;
	while (unmatched-- && at_most(&conn->recv, depth - 1))
		if (!post_recv(conn))
			return;
}

static const struct kind kinds[] = {
	{ .name = "pingpong", .load = load_pingpong, .needs = BIT(N),
	  .takes = BIT(N) | BIT(SECONDS) | BIT(GAP_US), .sampled = true },
	{ .name = "event_path", .load = load_event_path, .needs = BIT(N),
	  .takes = BIT(N), .sampled = true },
	{ .name = "flood", .load = load_flood, .needs = BIT(N) | BIT(SECONDS),
	  .takes = BIT(N) | BIT(SECONDS) | BIT(DEPTH) },
	{ .name = "churn", .load = load_churn, .needs = BIT(SECONDS),
	  .takes = BIT(SECONDS) | BIT(DEPTH), .again = true },
};

#define ALL_TAKE	(BIT(QUEUES) | BIT(SLEEP_US) | BIT(SEED) | BIT(CPU))

/* The run */

static int work(struct worker *worker)
{
	const struct kind *kind = worker->run->req.kind;

	do {
		struct conn *conn = conn_open(worker);

		if (IS_ERR(conn))
			return PTR_ERR(conn);
		kind->load(conn);
		conn_close(conn, true);
	} while (kind->again && !run_over(worker->run));
	return 0;
}

static int worker_thread(void *data)
{
	struct worker *worker = data;
	struct run *run = worker->run;

	worker->err = work(worker);
	/* Release: err is final for who sees finished. */
	smp_store_release(&worker->finished, true);
	if (atomic_dec_and_test(&run->active))
		wake_up(&all_finished);
	return 0;
}

static bool worker_finished(const struct worker *worker)
{
	/* Acquire: see worker_thread(). */
	return smp_load_acquire(&worker->finished);
}

/* Starts it not. */
static int worker_create(struct worker *worker, struct run *run, u32 index)
{
	u32 cpu = run->req.number[CPU];
	struct task_struct *task;

	worker->run = run;
	prandom_seed_state(&worker->rnd,
			   ((u64)run->req.number[SEED] << 32) + index);
	alive(worker);
	task = kthread_create(worker_thread, worker, "cvmtune_cq/%u", index);
	if (IS_ERR(task))
		return PTR_ERR(task);
	if (cpu != numbers[CPU].otherwise)
		kthread_bind(task, cpu);
	/* kthread_stop() must find the task even after it has returned. */
	worker->task = get_task_struct(task);
	return 0;
}

/* Only one that has finished, or was never woken. */
static void worker_destroy(struct worker *worker)
{
	kthread_stop(worker->task);
	put_task_struct(worker->task);
}

/* Creates all workers or none. */
static int workers_create(struct run *run)
{
	u32 i, n = run->req.number[QUEUES];
	int err;

	run->workers = kcalloc(n, sizeof(*run->workers), GFP_KERNEL);
	if (!run->workers)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		err = worker_create(&run->workers[i], run, i);
		if (err)
			goto undo;
	}
	return 0;
undo:
	while (i--)
		worker_destroy(&run->workers[i]);
	kfree(run->workers);
	return err;
}

/*
 * Are some stuck, and (@all) are all stuck that have not finished? Who is stuck
 * is in a call that does not return.
 */
static bool workers_stuck(struct run *run, bool *all)
{
	bool some = false;
	u32 i;

	*all = true;
	for (i = 0; i < run->req.number[QUEUES]; i++) {
		if (worker_finished(&run->workers[i]))
			continue;
		if (silent_for(&run->workers[i], STUCK_AFTER))
			some = true;
		else
			*all = false;
	}
	return some;
}

/* As wait_event_timeout(); negative if there is a signal. */
static long wait_for_workers(struct run *run, bool interruptible)
{
	atomic_t *active = &run->active;

	if (!interruptible)
		return wait_event_timeout(all_finished, !atomic_read(active), HZ);
	return wait_event_interruptible_timeout(all_finished,
						!atomic_read(active), HZ);
}

/* Lets them work until they have finished, or a signal, or all are stuck. */
static int workers_run(struct run *run)
{
	u32 i, n = run->req.number[QUEUES];
	int err = 0;

	atomic_set(&run->active, n);
	for (i = 0; i < n; i++) {
		alive(&run->workers[i]);
		wake_up_process(run->workers[i].task);
	}
	for (;;) {
		bool all_stuck;
		long left;

		left = wait_for_workers(run, !err);
		if (left > 0)
			return err;
		if (left < 0)
			err = -EINTR;
		if (workers_stuck(run, &all_stuck)) {
			if (!err)
				err = -ETIMEDOUT;
			if (all_stuck)
				return err;
		}
		if (err)
			WRITE_ONCE(run->stop, true);
	}
}

/* Destroys those that have finished; returns how many have not. */
static u32 workers_destroy(struct run *run, int *err)
{
	u32 i, stuck = 0;

	for (i = 0; i < run->req.number[QUEUES]; i++) {
		struct worker *worker = &run->workers[i];

		if (!worker_finished(worker)) {
			stuck++;
			continue;
		}
		if (!*err)
			*err = worker->err;
		worker_destroy(worker);
	}
	return stuck;
}

static struct run *run_alloc(const struct request *req)
{
	struct run *run = kzalloc(sizeof(*run), GFP_KERNEL);

	if (!run)
		return NULL;
	run->req = *req;
	run->ends_at = jiffies + req->number[SECONDS] * HZ;
	if (req->kind->sampled) {
		u32 most = req->number[QUEUES] * req->number[N];

		run->samples = sample_set_alloc(most, NR_COLUMNS);
		if (!run->samples) {
			kfree(run);
			return NULL;
		}
	}
	return run;
}

/* The run proper. Leaves *run allocated, and says so, if workers are stuck. */
static int run_workers(struct run *run, bool *stuck)
{
	u32 still_there;
	int err;

	*stuck = false;
	err = workers_create(run);
	if (err)
		return err;
	err = workers_run(run);
	still_there = workers_destroy(run, &err);
	if (still_there) {
		pr_err("%u threads do not return\n", still_there);
		atomic64_add(still_there, &stats[STAT_HUNG]);
		*stuck = true;
		return -ETIMEDOUT;
	}
	kfree(run->workers);
	return err;
}

static int run_locked(const void *request)
{
	const struct request *req = request;
	ktime_t start = ktime_get();
	struct run *run;
	bool stuck;
	int err, i;

	if (dead)
		return -EIO;
	for (i = 0; i < NR_CQ_STATS; i++)
		atomic64_set(&stats[i], 0);
	run = run_alloc(req);
	if (!run)
		return -ENOMEM;

	err = run_workers(run, &stuck);
	atomic64_set(&stats[STAT_MS], ktime_ms_delta(ktime_get(), start));
	if (stuck) {
		__module_get(THIS_MODULE);
		dead = true;
		return err;
	}
	if (!err && run->samples) {
		run->samples->count = atomic_read(&run->sampled);
		sample_set_publish(run->samples);
		run->samples = NULL;
	}
	sample_set_put(run->samples);
	kfree(run);
	return err;
}

/* The line in `run` */

static bool parse_kind(const char *text, struct request *req)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, text))
			req->kind = &kinds[i];
	return req->kind;
}

static bool parse_dev(const char *text, struct request *req)
{
	return *text && strscpy(req->dev, text, sizeof(req->dev)) > 0;
}

static bool parse_addr(const char *text, struct request *req)
{
	const char *end;

	return in4_pton(text, -1, (u8 *)&req->addr, -1, &end) && !*end;
}

static bool parse_ctx(const char *text, struct request *req)
{
	if (!strcmp(text, "unbound"))
		req->ctx = IB_POLL_UNBOUND_WORKQUEUE;
	else if (strcmp(text, "workqueue"))
		return false;
	return true;
}

static bool parse_cq(const char *text, struct request *req)
{
	req->pool = !strcmp(text, "pool");
	return req->pool || !strcmp(text, "own");
}

enum word { KIND, DEV, ADDR, CTX, CQ, NR_WORDS };

static const struct {
	const char *key;
	bool (*parse)(const char *text, struct request *req);
} words[NR_WORDS] = {
	[KIND] = { "kind", parse_kind },
	[DEV] = { "dev", parse_dev },
	[ADDR] = { "addr", parse_addr },
	[CTX] = { "ctx", parse_ctx },
	[CQ] = { "cq", parse_cq },
};

/* One key=value. Sets its bit in @given, words after the numbers. */
static bool parse_pair(const char *key, const char *value,
		       unsigned int *given, struct request *req)
{
	int i;

	for (i = 0; i < NR_WORDS; i++) {
		if (strcmp(words[i].key, key))
			continue;
		if (*given & BIT(NR_NUMBERS + i))
			return false;
		*given |= BIT(NR_NUMBERS + i);
		return words[i].parse(value, req);
	}
	return cvmtune_take_number(numbers, NR_NUMBERS, key, value, req->number,
				   given);
}

/* Does it make sense as a whole? */
static bool request_valid(const struct request *req, unsigned int given)
{
	const unsigned int must = BIT(KIND) | BIT(DEV) | BIT(ADDR);
	unsigned int numbers_given = given & (BIT(NR_NUMBERS) - 1);
	u32 cpu = req->number[CPU];

	if ((given >> NR_NUMBERS & must) != must)
		return false;
	if (numbers_given & ~(req->kind->takes | ALL_TAKE) ||
	    !(numbers_given & req->kind->needs))
		return false;
	if (req->kind->sampled &&
	    req->number[N] > MAX_SAMPLES / req->number[QUEUES])
		return false;
	return cpu == numbers[CPU].otherwise ||
	       (cpu < nr_cpu_ids && cpu_online(cpu));
}

static int parse_request(char *line, void *request)
{
	struct request *req = request;
	unsigned int given = 0;
	char *key, *value;
	int i, more;

	req->ctx = IB_POLL_WORKQUEUE;
	for (i = 0; i < NR_NUMBERS; i++)
		req->number[i] = numbers[i].otherwise;

	while ((more = cvmtune_next_pair(&line, &key, &value)) > 0)
		if (!parse_pair(key, value, &given, req))
			return -EINVAL;
	return !more && request_valid(req, given) ? 0 : -EINVAL;
}

static const struct cvmtune_run_ops run_ops = {
	.line_max = MAX_LINE,
	.request_size = sizeof(struct request),
	.parse = parse_request,
	.run = run_locked,
};

static int result_show(struct seq_file *m, void *v)
{
	int i;

	for (i = 0; i < NR_CQ_STATS; i++)
		cvmtune_show(m, stat_names[i], "", &stats[i]);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(result);

static int __init cvmtune_cq_init(void)
{
	folder = debugfs_create_dir("cvmtune_cq", NULL);
	if (IS_ERR(folder))
		return PTR_ERR(folder);
	debugfs_create_file("run", 0200, folder, (void *)&run_ops,
			    &cvmtune_run_fops);
	debugfs_create_file("result", 0400, folder, NULL, &result_fops);
	debugfs_create_file("samples", 0400, folder, (void *)CALLBACK_NS,
			    &samples_fops);
	debugfs_create_file("wake_samples", 0400, folder, (void *)WAKE_NS,
			    &samples_fops);
	return 0;
}

static void __exit cvmtune_cq_exit(void)
{
	/* Waits for a write or read in progress, hence for a run. */
	debugfs_remove(folder);
	sample_set_put(last_samples);
}

module_init(cvmtune_cq_init);
module_exit(cvmtune_cq_exit);

MODULE_DESCRIPTION("Work on completion queues, all of it accounted for, for cvmtune's lab");
MODULE_LICENSE("GPL");
