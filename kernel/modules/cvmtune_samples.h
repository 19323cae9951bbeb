/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `samples`, a file in debugfs with the samples of a module's last complete
 * run, one number a line. A file that is open stays as it was when another
 * run completes.
 */
#ifndef CVMTUNE_SAMPLES_H
#define CVMTUNE_SAMPLES_H

#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/seq_file.h>
#include <linux/vmalloc.h>

/**
 * struct sample_set - the samples of one run
 * @ref:	held by the run, by open files, and for the last complete run
 * @count:	how many samples there are
 * @columns:	how many numbers make a sample; each has a file of its own
 * @ns:		the numbers, sample by sample
 */
struct sample_set {
	struct kref ref;
	u32 count;
	u32 columns;
	u64 ns[];
};

/* A seq_file's private part: holds a reference to @set, which may be NULL. */
struct samples_reader {
	struct sample_set *set;
	u32 column;
};

static DEFINE_MUTEX(samples_mutex);	/* protects last_samples */
static struct sample_set *last_samples;

/* Returns NULL if there is no memory. */
static struct sample_set *sample_set_alloc(u32 count, u32 columns)
{
	struct sample_set *set;

	set = vzalloc(struct_size(set, ns, size_mul(count, columns)));
	if (set) {
		kref_init(&set->ref);
		set->count = count;
		set->columns = columns;
	}
	return set;
}

static void sample_set_free(struct kref *ref)
{
	vfree(container_of(ref, struct sample_set, ref));
}

/* @set may be NULL. */
static void sample_set_put(struct sample_set *set)
{
	if (set)
		kref_put(&set->ref, sample_set_free);
}

/*
 * A run is complete: its samples take the place of the last one's. Takes over
 * the caller's reference; @set may be NULL, which leaves the files empty.
 */
static void sample_set_publish(struct sample_set *set)
{
	mutex_lock(&samples_mutex);
	swap(last_samples, set);
	mutex_unlock(&samples_mutex);
	sample_set_put(set);
}

static void *samples_at(struct seq_file *m, loff_t pos)
{
	struct samples_reader *reader = m->private;
	struct sample_set *set = reader->set;

	if (!set || pos >= set->count)
		return NULL;
	return &set->ns[pos * set->columns + reader->column];
}

static void *samples_start(struct seq_file *m, loff_t *pos)
{
	return samples_at(m, *pos);
}

static void *samples_next(struct seq_file *m, void *v, loff_t *pos)
{
	return samples_at(m, ++*pos);
}

static void samples_stop(struct seq_file *m, void *v)
{
}

static int samples_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%llu\n", *(u64 *)v);
	return 0;
}

static const struct seq_operations samples_ops = {
	.start = samples_start,
	.next = samples_next,
	.stop = samples_stop,
	.show = samples_show,
};

static int samples_open(struct inode *inode, struct file *file)
{
	struct samples_reader *reader;

	reader = __seq_open_private(file, &samples_ops, sizeof(*reader));
	if (!reader)
		return -ENOMEM;
	reader->column = (uintptr_t)inode->i_private;
	mutex_lock(&samples_mutex);
	reader->set = last_samples;
	if (reader->set)
		kref_get(&reader->set->ref);
	mutex_unlock(&samples_mutex);
	return 0;
}

static int samples_release(struct inode *inode, struct file *file)
{
	struct seq_file *m = file->private_data;
	struct samples_reader *reader = m->private;

	sample_set_put(reader->set);
	return seq_release_private(inode, file);
}

/* The file's private data is its column, NULL for the first. */
static const struct file_operations samples_fops = {
	.owner = THIS_MODULE,
	.open = samples_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = samples_release,
};

#endif /* CVMTUNE_SAMPLES_H */
