// SPDX-License-Identifier: GPL-2.0
/*
 * pingpong - round trips between two threads that are bound to CPUs
 *
 *	pingpong futex|pipe CPU_A CPU_B ROUNDS
 *
 * The thread on CPU_A wakes the one on CPU_B and sleeps until that has woken it
 * in turn. Each such round trip, in nanoseconds of CLOCK_MONOTONIC, is a line
 * on standard output, in order; all are written after the last round. One
 * round before them, in which the thread on CPU_B may still be starting, is
 * not told. Exit status: 0, 1 when a call fails, 2 for wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_ROUNDS 10000000

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

struct game;

/* How one side hands the ball over, and waits for ball number @ball. */
struct method {
	const char *name;
	void (*prepare)(struct game *game);
	void (*give)(struct game *game, int to, unsigned int ball);
	void (*await)(struct game *game, int at, unsigned int ball);
};

/* A cache line for each word: a waiter must not slow the other's store. */
struct word {
	alignas(64) atomic_uint ball;
};

struct game {
	const struct method *method;
	int cpu[2];
	unsigned int rounds;
	struct word word[2];	/* futex: the last ball given to that side */
	int pipe[2][2];		/* pipe: what that side reads from */
};

static noreturn void die(int error, const char *what)
{
	fprintf(stderr, "pingpong: %s: %s\n", what, strerror(error));
	/* Not exit(): the other thread runs, and half a result is none. */
	_exit(1);
}

static noreturn void wrong_usage(const char *problem)
{
	fprintf(stderr,
		"pingpong: %s\n"
		"usage: pingpong futex|pipe CPU_A CPU_B ROUNDS\n"
		"  CPU_A, CPU_B  0 to %d; ROUNDS  1 to %d\n",
		problem, CPU_SETSIZE - 1, MAX_ROUNDS);
	exit(2);
}

/* futex */

static void futex_prepare(struct game *game)
{
	atomic_store(&game->word[0].ball, 0);
	atomic_store(&game->word[1].ball, 0);
}

static void futex_give(struct game *game, int to, unsigned int ball)
{
	atomic_uint *word = &game->word[to].ball;

	atomic_store_explicit(word, ball, memory_order_release);
	if (syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) < 0)
		die(errno, "futex wake");
}

static void futex_await(struct game *game, int at, unsigned int ball)
{
	atomic_uint *word = &game->word[at].ball;
	unsigned int seen;

	for (;;) {
		seen = atomic_load_explicit(word, memory_order_acquire);
		if (seen == ball)
			return;
		/* EAGAIN: the ball came before the sleep. EINTR: look again. */
		if (syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL,
			    NULL, 0) < 0 && errno != EAGAIN && errno != EINTR)
			die(errno, "futex wait");
	}
}

/* pipe */

static void pipe_prepare(struct game *game)
{
	int i;

	for (i = 0; i < 2; i++)
		if (pipe(game->pipe[i]) < 0)
			die(errno, "pipe");
}

static void pipe_give(struct game *game, int to, unsigned int ball)
{
	ssize_t done;

	/* Less than PIPE_BUF: written whole or not at all. */
	do {
		done = write(game->pipe[to][1], &ball, sizeof(ball));
	} while (done < 0 && errno == EINTR);
	if (done != sizeof(ball))
		die(done < 0 ? errno : EIO, "write to pipe");
}

static void pipe_await(struct game *game, int at, unsigned int ball)
{
	unsigned int got;
	ssize_t done;

	do {
		done = read(game->pipe[at][0], &got, sizeof(got));
	} while (done < 0 && errno == EINTR);
	if (done != sizeof(got) || got != ball)
		die(done < 0 ? errno : EIO, "read from pipe");
}

static const struct method methods[] = {
	{ "futex", futex_prepare, futex_give, futex_await },
	{ "pipe", pipe_prepare, pipe_give, pipe_await },
};

static void bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die(errno, "binding a thread to its CPU");
}

static unsigned long long now_ns(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_MONOTONIC, &t) < 0)
		die(errno, "clock_gettime");
	return (unsigned long long)t.tv_sec * 1000000000 + (unsigned long long)t.tv_nsec;
}

/* Ball 1 is the round that is not told, balls 2 to rounds + 1 are. */
static void *side_b(void *data)
{
	struct game *game = data;
	unsigned int ball;

	bind_to(game->cpu[1]);
	for (ball = 1; ball <= game->rounds + 1; ball++) {
		game->method->await(game, 1, ball);
		game->method->give(game, 0, ball);
	}
	return NULL;
}

static void side_a(struct game *game, unsigned long long *ns)
{
	unsigned int ball;

	bind_to(game->cpu[0]);
	for (ball = 1; ball <= game->rounds + 1; ball++) {
		unsigned long long start = now_ns();

		game->method->give(game, 1, ball);
		game->method->await(game, 0, ball);
		if (ball > 1)
			ns[ball - 2] = now_ns() - start;
	}
}

static void play(struct game *game, unsigned long long *ns)
{
	pthread_t other;
	int err;

	game->method->prepare(game);
	err = pthread_create(&other, NULL, side_b, game);
	if (err)
		die(err, "pthread_create");
	side_a(game, ns);
	err = pthread_join(other, NULL);
	if (err)
		die(err, "pthread_join");
}

static void write_out(const unsigned long long *ns, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		if (printf("%llu\n", ns[i]) < 0)
			die(errno, "standard output");
	if (fflush(stdout) == EOF)
		die(errno, "standard output");
}

static const struct method *find_method(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(methods); i++)
		if (!strcmp(methods[i].name, name))
			return &methods[i];
	wrong_usage("the first word is futex or pipe");
}

static long number(const char *text, long low, long high, const char *problem)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < low || value > high)
		wrong_usage(problem);
	return value;
}

int main(int argc, char **argv)
{
	struct game game = { 0 };
	unsigned long long *ns;

	if (argc != 5)
		wrong_usage("four words wanted");
	game.method = find_method(argv[1]);
	game.cpu[0] = (int)number(argv[2], 0, CPU_SETSIZE - 1, "bad CPU_A");
	game.cpu[1] = (int)number(argv[3], 0, CPU_SETSIZE - 1, "bad CPU_B");
	game.rounds = (unsigned int)number(argv[4], 1, MAX_ROUNDS, "bad ROUNDS");

	/* Written to, so that no page is first touched within a round. */
	ns = malloc(game.rounds * sizeof(*ns));
	if (!ns)
		die(ENOMEM, "memory for the samples");
	memset(ns, 0xff, game.rounds * sizeof(*ns));

	play(&game, ns);
	write_out(ns, game.rounds);
	free(ns);
	return 0;
}
