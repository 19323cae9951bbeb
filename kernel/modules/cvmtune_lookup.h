/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Address of a kernel function that is not exported to modules.
 *
 * The tests time and provoke functions below the exported interface: sending
 * a bare reschedule IPI, the idle instruction itself, a timer broadcast,
 * irq_work on another CPU. A module proper must not reach past what is
 * exported: those functions may change or vanish, and their callers must keep
 * rules that only the core kernel knows. These modules may, because they are
 * no part of any system: they are built against one kernel, run in a guest
 * that lives for one experiment, keep the rules of the functions that they
 * call (each call's comment says which), and cope with an absent function.
 *
 * register_kprobe() resolves a symbol's name and leaves the address in the
 * probe. Only kallsyms_lookup_name() is found that way; the others are then
 * asked from it, since cpu_do_idle() lies in the section that must not be
 * probed (.cpuidle.text), for which register_kprobe() fails.
 */
#ifndef CVMTUNE_LOOKUP_H
#define CVMTUNE_LOOKUP_H

#include <linux/kprobes.h>
#include <linux/printk.h>

/*
 * Returns NULL, with a line in the kernel's log, if there is no such function.
 * May sleep; must not be called under cpus_read_lock(), which
 * register_kprobe() takes itself.
 */
static inline void *cvmtune_lookup(const char *name)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	unsigned long (*lookup)(const char *symbol);
	void *address;
	int err;

	err = register_kprobe(&probe);
	if (err) {
		pr_err("no address for %s: register_kprobe(%s) gave %d\n",
		       name, probe.symbol_name, err);
		return NULL;
	}
	lookup = (void *)probe.addr;
	unregister_kprobe(&probe);

	address = (void *)lookup(name);
	if (!address)
		pr_err("no address for %s: not in this kernel\n", name);
	return address;
}

#endif /* CVMTUNE_LOOKUP_H */
