/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the test modules have in common: `run`, a file in debugfs that takes a
 * line of key=value pairs and returns from write() when the run that the line
 * asks for is over, and `result`, lines of a key and a count.
 *
 * `samples` is in cvmtune_samples.h.
 */
#ifndef CVMTUNE_RUN_H
#define CVMTUNE_RUN_H

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

/**
 * struct cvmtune_number - a number that a line may give
 * @key:	the word before "="
 * @min:	the least that is taken
 * @max:	the most that is taken
 * @otherwise:	for the module's own use: what holds if it is not given
 */
struct cvmtune_number {
	const char *key;
	u32 min;
	u32 max;
	u32 otherwise;
};

/**
 * cvmtune_line_get - copy a line from user space
 * @user:	where it is
 * @count:	its length, the newline that may end it included
 * @pos:	where in the file it is written, which must be 0
 * @most:	the longest that is taken
 *
 * Return: the line without spaces around it, for kfree(); -EINVAL if it is
 * empty, too long, several lines or has a NUL in it, -ENOMEM or -EFAULT.
 */
static inline char *cvmtune_line_get(const char __user *user, size_t count,
				     loff_t pos, size_t most)
{
	char *line, *text;

	if (pos || !count || count > most)
		return ERR_PTR(-EINVAL);
	line = memdup_user_nul(user, count);
	if (IS_ERR(line))
		return line;
	if (strlen(line) != count)
		goto invalid;
	text = strim(line);
	if (strchr(text, '\n'))	/* kstrtou32() would take it as an end */
		goto invalid;
	memmove(line, text, strlen(text) + 1);
	return line;

invalid:
	kfree(line);
	return ERR_PTR(-EINVAL);
}

/**
 * cvmtune_next_pair - split the next pair from a line
 * @rest:	what is left of the line; moves on
 * @key:	set to the word before "="
 * @value:	set to what comes after it, which may be empty
 *
 * Return: 1 if there was a pair, 0 at the end of the line, -EINVAL if a word
 * has no "=".
 */
static inline int cvmtune_next_pair(char **rest, char **key, char **value)
{
	char *word;

	do {
		word = strsep(rest, " \t");
		if (!word)
			return 0;
	} while (!*word);

	*key = strsep(&word, "=");
	*value = word;
	return word ? 1 : -EINVAL;
}

/**
 * cvmtune_take_number - take a pair, if it is a number that may be given
 * @numbers:	those that may be given, at most 32
 * @count:	how many these are
 * @key:	of the pair
 * @value:	of the pair
 * @taken:	where the numbers go, as many as @numbers has
 * @given:	has the bit of each number that was given before; gets this one's
 *
 * Return: false if @numbers has no such key, if it was given before, or if
 * @value is no number within the limits.
 */
static inline bool cvmtune_take_number(const struct cvmtune_number *numbers,
				       unsigned int count, const char *key,
				       const char *value, u32 *taken,
				       unsigned int *given)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		if (!strcmp(numbers[i].key, key))
			break;
	if (i == count || *given & BIT(i) || kstrtou32(value, 10, &taken[i]))
		return false;
	*given |= BIT(i);
	return taken[i] >= numbers[i].min && taken[i] <= numbers[i].max;
}

/**
 * cvmtune_show - show a count in `result`
 * @m:		the file
 * @key:	what is counted
 * @of:		of which kind, the key's second half; may be empty
 * @value:	the count
 */
static inline void cvmtune_show(struct seq_file *m, const char *key,
				const char *of, const atomic64_t *value)
{
	seq_printf(m, "%s%s %lld\n", key, of, (long long)atomic64_read(value));
}

/**
 * struct cvmtune_run_ops - what a module's `run` does, the file's private data
 * @line_max:	the longest line that is taken, in bytes
 * @request_size:	of the structure that says what a line asks for
 * @parse:	makes that structure, which is all zeros before, from a line,
 *		which it may cut up; returns 0 or an error
 * @run:	the run; returns 0 or an error. Called under run_mutex.
 */
struct cvmtune_run_ops {
	size_t line_max;
	size_t request_size;
	int (*parse)(char *line, void *request);
	int (*run)(const void *request);
};

static DEFINE_MUTEX(run_mutex);	/* one run at a time */

/* Does not wait for a run that is going on, but returns -EBUSY. */
static ssize_t cvmtune_run_write(struct file *file, const char __user *user,
				 size_t count, loff_t *pos)
{
	const struct cvmtune_run_ops *ops = file_inode(file)->i_private;
	void *request;
	char *line;
	int err;

	line = cvmtune_line_get(user, count, *pos, ops->line_max);
	if (IS_ERR(line))
		return PTR_ERR(line);
	request = kzalloc(ops->request_size, GFP_KERNEL);
	err = request ? ops->parse(line, request) : -ENOMEM;
	kfree(line);
	if (!err) {
		if (mutex_trylock(&run_mutex)) {
			err = ops->run(request);
			mutex_unlock(&run_mutex);
		} else {
			err = -EBUSY;
		}
	}
	kfree(request);
	return err ?: count;
}

/* The file's private data is its struct cvmtune_run_ops. */
static const struct file_operations cvmtune_run_fops = {
	.owner = THIS_MODULE,
	.open = nonseekable_open,
	.write = cvmtune_run_write,
};

#endif /* CVMTUNE_RUN_H */
