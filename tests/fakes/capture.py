# SPDX-License-Identifier: Apache-2.0
"""What capture() would read of a guest and of a host, both with our kernel, for tests to change."""

from __future__ import annotations

from collections.abc import Mapping

from cvmtune.observe.capture import CPUS, KVM, Capture

SOFT_STATS = "/sys/kernel/debug/soft_ipi_passthrough/stats"
CQS = "/sys/kernel/debug/ib_core_cq_poll/cqs"
CQ_TOTALS = "/sys/kernel/debug/ib_core_cq_poll/totals"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MOUNTSTATS = "/proc/self/mountstats"
RDMA_PORT = "/sys/class/infiniband/rxe0/ports/1"

_EVERYWHERE = {
    "/proc/sys/kernel/osrelease": "6.12.57-cvmtune\n",
    BOOT_ID: "0c2e3f9c-4f4c-4c43-9d0d-5d2f1f6a3a01\n",
    "/proc/cmdline": "root=/dev/vda console=ttyAMA0\n",
    "/proc/mounts": "/dev/vda / ext4 rw,relatime 0 0\n",
    f"{CPUS}/isolated": "\n",
    f"{CPUS}/nohz_full": "(null)\n",
    f"{CPUS}/hotplug/states": "  0: offline\n154: hypervisor/arm/pvtime:online\n",
    "/sys/kernel/soft_ipi_passthrough": "0\n",
    "/sys/module/soft_ipi/parameters/poll_us": "0\n",
    SOFT_STATS: "cpu sent reschedule call_function timer irq_work polls poll_ns fallbacks limit_ns\n",
    "/sys/module/kvm/parameters/wfx_guard": "N\n",
}

# Two CPUs, both modules loaded.
GUEST: Mapping[str, str] = {
    **_EVERYWHERE,
    "/proc/device-tree/compatible": "linux,dummy-virt\0",
    f"{CPUS}/online": "0-1\n",
    f"{CPUS}/possible": "0-1\n",
    "/proc/uptime": "1000.00 1990.00\n",
    "/proc/stat": (
        "cpu  700 10 400 197000 600 100 200 50 0 0\n"
        "cpu0 300 5 200 99000 300 50 100 20 0 0\n"
        "cpu1 400 5 200 98000 300 50 100 30 0 0\n"
        "intr 190423 0 2514 33 0\nctxt 381204\n"
    ),
    "/proc/interrupts": (
        "           CPU0       CPU1\n"
        " 10:       2514       1893     GICv3  27 Level     arch_timer\n"
        " 46:       1041          0  virtio-mmio  78 Edge      virtio0\n"
        "IPI0:        60         78       Rescheduling interrupts\n"
        "IPI1:      1523       1204       Function call interrupts\n"
        "IPI2:         9          9       CPU stop interrupts\n"
        "IPI4:         7          0       Timer broadcast interrupts\n"
        "IPI5:        12          4       IRQ work interrupts\n"
        "SIPI:         0        500       Soft IPIs, taken from memory\n"
        "Err:          0\n"
    ),
    "/proc/softirqs": "          CPU0       CPU1\n  TIMER:    100   200\n    RCU:     50    60\n",
    SOFT_STATS: (
        "cpu sent reschedule call_function timer irq_work polls poll_ns fallbacks limit_ns\n"
        "0 500 0 0 0 0 3 1500000000 2 0\n"
        "1 0 300 180 15 5 600 2000000000 7 10000\n"
    ),
    "/sys/kernel/ib_core_poll_cpu": "-1\n",
    "/sys/module/ib_core_cq_poll/parameters/idle_us": "1000\n",
    "/sys/module/ib_core_cq_poll/parameters/owners": "rpcrdma\n",
    CQS: (
        "device cq owner polled polls completions empty max_batch ns\n"
        "rxe0 2 rpcrdma 1 900 700 200 16 5000000\n"
        "rxe0 3 rpcrdma 1 90 70 20 8 500000\n"
        "rxe0 4 nvme_rdma 0 0 0 0 0 0\n"
    ),
    CQ_TOTALS: "taken 2\ngiven_back 0\nsleeps 12\nwakeups 12\nawake_ns 2500000000\n",
    MOUNTSTATS: (
        "device /dev/vda mounted on / with fstype ext4\n"
        "device 10.0.0.1:/export mounted on /mnt with fstype nfs4 statvers=1.1\n"
        "\topts:\trw,vers=4.2,proto=rdma,port=20049\n"
        "\tage:\t900\n"
        "\txprt:\trdma 0 0 1 0 0 40 40 0 40 0 0 0 0 0 0 0 0 0 0 0 0\n"
        "\tper-op statistics\n"
        "\t        NULL: 1 1 0 44 24 0 0 0 0\n"
        "\t       WRITE: 1000 1001 0 200000 90000 4 500 600 0\n"
    ),
    "/proc/net/rpc/nfsd": "rc 0 0 0\nrpc 100 0 0 0 0\n",
    "/proc/fs/nfsd/portlist": "tcp 2049\n",
    f"{RDMA_PORT}/hw_counters/rcvd_pkts": "5000\n",
}


def thread(
    vmm: int, number: int, name: str, allowed: str, *, ran: int = 10**9, waited: int = 10**6, group: str = "/"
) -> dict[str, str]:
    """The files of a thread that may run on the CPUs `allowed`, which ran and waited for so many ns."""
    folder = f"/proc/{vmm}/task/{number}"
    return {
        f"{folder}/comm": f"{name}\n",
        f"{folder}/schedstat": f"{ran} {waited} 77\n",
        f"{folder}/status": (
            f"Name:\t{name}\nPid:\t{number}\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n"
            "voluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t9\n"
        ),
        f"{folder}/cgroup": f"0::{group}\n",
    }


def vm(folder: str, *, mask: str = "system", wfi: tuple[int, ...] = (1000, 50)) -> dict[str, str]:
    """The files of a VM in KVM's debugfs. `wfi` are its vCPUs' exits for WFI; half as many are for WFE."""
    rows = "".join(f"{vcpu} 0 9000 30 4 {count} {count // 2}\n" for vcpu, count in enumerate(wfi))
    timers = "".join(f"{vcpu} 9000 100 40 {vcpu}\n" for vcpu in range(len(wfi)))
    return {
        f"{KVM}/{folder}/exits": "5000\n",
        f"{KVM}/{folder}/wfi_exit_stat": f"{sum(wfi)}\n",
        f"{KVM}/{folder}/wfe_exit_stat": f"{sum(count // 2 for count in wfi)}\n",
        f"{KVM}/{folder}/wfx_trap_config": f"{mask}\n",
        f"{KVM}/{folder}/wfx_trap_stats": (
            f"vcpu named entries untrapped guarded wfi_exits wfe_exits\n{rows}"
        ),
        f"{KVM}/{folder}/vtimer_mode": "masked\n",
        f"{KVM}/{folder}/vtimer_stats": f"vcpu entries masked_entries timer_exits redundant_exits\n{timers}",
    }


# Four CPUs behind pKVM, and two VMs, `db` on CPUs 2 and 3, and a nameless one that is not pinned.
HOST: Mapping[str, str] = {
    **_EVERYWHERE,
    "/proc/cmdline": "root=/dev/vda kvm-arm.mode=protected\n",
    "/sys/class/misc/kvm/dev": "10:232\n",
    f"{CPUS}/online": "0-3\n",
    f"{CPUS}/possible": "0-3\n",
    "/proc/uptime": "1000.00 3500.00\n",
    "/proc/stat": "".join(f"cpu{cpu} 50000 0 0 50000 0 0 0 0 0 0\n" for cpu in range(4)) + "ctxt 5000\n",
    "/proc/interrupts": "     CPU0  CPU1  CPU2  CPU3\n 11:  1     2     3     4  GICv3 27 Level  timer\n",
    "/proc/softirqs": "       CPU0  CPU1  CPU2  CPU3\nTIMER:    1     2     3     4\n",
    "/sys/kernel/cvm_wfx_trap_config": "00000000\n",
    **vm("1200-13"),
    **thread(1200, 1203, "CPU 0/KVM", "2"),
    **thread(1200, 1204, "CPU 1/KVM", "3"),
    "/run/libvirt/qemu/db.pid": "1200\n",
    **vm("1300-9", wfi=(70,)),
    **thread(1300, 1304, "CPU 0/KVM", "0-1"),
}


def changed(files: Mapping[str, str], changes: Mapping[str, str | None]) -> Capture:
    """A capture of these files with some of them changed; None is for one that is not there."""
    merged = {**files, **changes}
    return Capture({path: text for path, text in merged.items() if text is not None})
