// SPDX-License-Identifier: GPL-2.0
/*
 * auditlog - several producers, one writer, each record durable before the answer
 *
 *	auditlog write FILE PRODUCERS RECORDS RATE CPU_WRITER CPU_PRODUCERS SEED
 *	auditlog check FILE
 *
 * write: each of PRODUCERS threads has RECORDS records to log. It hands one to
 * the writer's thread and sleeps until that has answered; the writer appends
 * the record, 4 KiB, to FILE (new) by one O_DSYNC write, and answers. Together
 * they have RATE records a second, at random (a Poisson process, the same with
 * the same SEED); with 0 each has its next record as soon as it has the answer.
 * Each record is a line on standard output, in the order of the file, with
 * four times in nanoseconds of CLOCK_MONOTONIC that follow upon each other:
 *
 *	late    from when it was due till it was handed over: the producer's
 *		own timer, and the wait for its record before
 *	handoff till the writer had it
 *	write   till it was durable
 *	answer  till the producer ran again
 *
 * check: every record of FILE is whole and what its producer logged, and each
 * producer's come in order, none left out; prints their number.
 *
 * Exit status: 0, 1 when a call fails or the file is damaged, 2 for wrong usage.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RECORD		4096
#define MAGIC		0x6376616c6f670001ULL
#define MAX_PRODUCERS	64
#define MAX_RECORDS	1000000
#define MAX_RATE	1000000
#define MAX_SEED	1000000
#define NS_PER_S	1000000000ULL

struct record {
	__u64 magic;
	__u32 producer;
	__u32 number;
	__u64 words[RECORD / 8 - 2];
};

static_assert(sizeof(struct record) == RECORD, "a record is one block");

struct times {
	__u64 due, offered, taken, written, answered;
};

struct log;

struct producer {
	struct log *log;
	pthread_t thread;
	pthread_cond_t answer;
	__u32 id;
	bool answered;
	__u64 random;
	struct times *times;	/* of each record, in order */
	struct record record;
};

struct log {
	pthread_mutex_t lock;	/* queue, answered */
	pthread_cond_t work;
	__u32 queue[MAX_PRODUCERS];	/* who waits for the writer, a ring */
	__u32 head, queued;
	unsigned int producers, records, rate, seed;
	int writer_cpu, producer_cpu;
	__u64 start;
	struct producer producer[MAX_PRODUCERS];
};

static noreturn void die(int error, const char *what)
{
	fprintf(stderr, "auditlog: %s: %s\n", what, strerror(error));
	/* Not exit(): other threads run. */
	_exit(1);
}

static noreturn void damaged(unsigned long position, const char *what)
{
	fprintf(stderr, "auditlog: record %lu of the file: %s\n", position, what);
	exit(1);
}

static noreturn void wrong_usage(const char *problem)
{
	fprintf(stderr,
		"auditlog: %s\n"
		"usage: auditlog write FILE PRODUCERS RECORDS RATE CPU_WRITER CPU_PRODUCERS SEED\n"
		"       auditlog check FILE\n"
		"  PRODUCERS  1 to %d; RECORDS  1 to %d; RATE  0 to %d\n",
		problem, MAX_PRODUCERS, MAX_RECORDS, MAX_RATE);
	exit(2);
}

static __u64 now_ns(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_MONOTONIC, &t) < 0)
		die(errno, "clock_gettime");
	return (__u64)t.tv_sec * NS_PER_S + (__u64)t.tv_nsec;
}

static void sleep_until(__u64 ns)
{
	struct timespec t = {
		.tv_sec = (time_t)(ns / NS_PER_S),
		.tv_nsec = (long)(ns % NS_PER_S),
	};
	int err;

	do {
		err = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	} while (err == EINTR);
	if (err)
		die(err, "clock_nanosleep");
}

static void bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die(errno, "binding a thread to its CPU");
}

/* splitmix64 (Steele, Lea, Flood, 2014) */
static __u64 next_random(__u64 *state)
{
	__u64 z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static void fill(struct record *record, __u32 producer, __u32 number)
{
	__u64 state = (__u64)producer << 32 | number;
	size_t i;

	record->magic = MAGIC;
	record->producer = producer;
	record->number = number;
	for (i = 0; i < RECORD / 8 - 2; i++)
		record->words[i] = next_random(&state);
}

/* Exponentially distributed, so that the arrivals are a Poisson process. */
static __u64 gap_ns(struct producer *self)
{
	double mean = (double)NS_PER_S * self->log->producers / self->log->rate;
	double uniform = ldexp((double)(next_random(&self->random) >> 11), -53);

	return (__u64)(-mean * log1p(-uniform));
}

static void *produce(void *data)
{
	struct producer *self = data;
	struct log *log = self->log;
	__u64 due = log->start;
	__u32 number;

	bind_to(log->producer_cpu);
	for (number = 0; number < log->records; number++) {
		struct times *times = &self->times[number];

		if (log->rate) {
			due += gap_ns(self);
			if (now_ns() < due)
				sleep_until(due);
		} else {
			due = now_ns();
		}
		fill(&self->record, self->id, number);
		pthread_mutex_lock(&log->lock);
		times->due = due;
		times->offered = now_ns();
		self->answered = false;
		log->queue[(log->head + log->queued++) % log->producers] = self->id;
		pthread_cond_signal(&log->work);
		while (!self->answered)
			pthread_cond_wait(&self->answer, &log->lock);
		times->answered = now_ns();
		pthread_mutex_unlock(&log->lock);
	}
	return NULL;
}

/* Appends all records, and leaves in @order which they were. */
static void write_log(struct log *log, int file, struct times **order)
{
	unsigned int i, total = log->producers * log->records;
	__u32 next[MAX_PRODUCERS] = { 0 };

	for (i = 0; i < total; i++) {
		struct producer *from;
		struct times *times;
		ssize_t done;

		pthread_mutex_lock(&log->lock);
		while (!log->queued)
			pthread_cond_wait(&log->work, &log->lock);
		from = &log->producer[log->queue[log->head]];
		log->head = (log->head + 1) % log->producers;
		log->queued--;
		times = &from->times[next[from->id]++];
		times->taken = now_ns();
		pthread_mutex_unlock(&log->lock);

		/* The producer does not touch it before it has the answer. */
		done = write(file, &from->record, RECORD);
		if (done != RECORD)
			die(done < 0 ? errno : EIO, "write to the log");
		times->written = now_ns();

		pthread_mutex_lock(&log->lock);
		from->answered = true;
		pthread_cond_signal(&from->answer);
		pthread_mutex_unlock(&log->lock);
		order[i] = times;
	}
}

static void *allocate(size_t count, size_t size)
{
	void *memory = malloc(count * size);

	if (!memory)
		die(ENOMEM, "memory for the samples");
	/* Written to, so that no page is first touched while times are taken. */
	memset(memory, 0xff, count * size);
	return memory;
}

static void print_times(struct times **order, unsigned int total)
{
	unsigned int i;

	for (i = 0; i < total; i++) {
		const struct times *t = order[i];

		if (printf("%llu %llu %llu %llu\n",
			   t->offered - t->due, t->taken - t->offered,
			   t->written - t->taken, t->answered - t->written) < 0)
			die(errno, "standard output");
	}
	if (fflush(stdout) == EOF)
		die(errno, "standard output");
}

static void run(struct log *log, const char *path)
{
	unsigned int i, total = log->producers * log->records;
	struct times **order = allocate(total, sizeof(*order));
	int err, file;

	file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_DSYNC, 0600);
	if (file < 0)
		die(errno, path);
	bind_to(log->writer_cpu);
	pthread_mutex_init(&log->lock, NULL);
	pthread_cond_init(&log->work, NULL);
	log->start = now_ns();
	for (i = 0; i < log->producers; i++) {
		struct producer *one = &log->producer[i];

		one->log = log;
		one->id = i;
		one->random = (__u64)log->seed << 32 | i;
		one->times = allocate(log->records, sizeof(*one->times));
		pthread_cond_init(&one->answer, NULL);
		err = pthread_create(&one->thread, NULL, produce, one);
		if (err)
			die(err, "pthread_create");
	}
	write_log(log, file, order);
	for (i = 0; i < log->producers; i++) {
		err = pthread_join(log->producer[i].thread, NULL);
		if (err)
			die(err, "pthread_join");
	}
	if (close(file) < 0)
		die(errno, "closing the log");
	print_times(order, total);
}

static void check(const char *path)
{
	__u32 next[MAX_PRODUCERS] = { 0 };
	struct record found, expected;
	unsigned long position;
	FILE *file = fopen(path, "rb");
	size_t size;
	int err;

	if (!file)
		die(errno, path);
	/* As it is kept, not as it was written: past the cache. */
	err = posix_fadvise(fileno(file), 0, 0, POSIX_FADV_DONTNEED);
	if (err)
		die(err, "dropping the log from the cache");
	for (position = 0; (size = fread(&found, 1, RECORD, file)); position++) {
		if (size != RECORD)
			damaged(position, "cut short");
		if (found.magic != MAGIC || found.producer >= MAX_PRODUCERS)
			damaged(position, "no record");
		if (found.number != next[found.producer]++)
			damaged(position, "not its producer's next");
		fill(&expected, found.producer, found.number);
		if (memcmp(&found, &expected, RECORD))
			damaged(position, "not what was logged");
	}
	if (ferror(file))
		die(EIO, path);
	printf("%lu\n", position);
}

static unsigned int number(const char *text, long low, long high, const char *problem)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < low || value > high)
		wrong_usage(problem);
	return (unsigned int)value;
}

int main(int argc, char **argv)
{
	static struct log log;

	if (argc == 3 && !strcmp(argv[1], "check")) {
		check(argv[2]);
	} else if (argc == 9 && !strcmp(argv[1], "write")) {
		log.producers = number(argv[3], 1, MAX_PRODUCERS, "bad PRODUCERS");
		log.records = number(argv[4], 1, MAX_RECORDS, "bad RECORDS");
		log.rate = number(argv[5], 0, MAX_RATE, "bad RATE");
		log.writer_cpu = (int)number(argv[6], 0, CPU_SETSIZE - 1, "bad CPU_WRITER");
		log.producer_cpu = (int)number(argv[7], 0, CPU_SETSIZE - 1, "bad CPU_PRODUCERS");
		log.seed = number(argv[8], 0, MAX_SEED, "bad SEED");
		run(&log, argv[2]);
	} else {
		wrong_usage("write or check, with its words");
	}
	return 0;
}
