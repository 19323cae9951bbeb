# SPDX-License-Identifier: Apache-2.0
"""Whole machines as trees of files, for tests that run commands: guests and hosts, of several kernels.

What their files look like is taken from the kernel's documentation, docs/kernel-abi.md and, where nothing
documents it, the kernel functions named beside it. The features' controls behave (kernel.py), all
counters go on together with the uptime, and any operation can be made to fail.
"""

from __future__ import annotations

import functools
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn
from unittest.mock import patch

import pytest

from cvmtune import cli
from cvmtune.commands import site
from cvmtune.core.system import LocalSystem
from cvmtune.features import REGISTRY
from cvmtune.observe.timer import Visitor
from cvmtune.tuning.journal import Journal
from tests.fakes.controls import (
    BOOT_ID,
    CQ_IDLE_US,
    CQ_POLL,
    IPI,
    IPI_POLL_US,
    RELEASE,
    WFX,
    WFX_GUARD,
    BoolKernel,
    UintKernel,
)
from tests.fakes.kernel import CqPollKernel, FakeKernel, FakeSystem, WfxKernel, When

Operation = Literal["read", "list", "exists", "write"]

CPUS = "/sys/devices/system/cpu"
DEBUG = "/sys/kernel/debug"
CMDLINE = "/proc/cmdline"
MOUNTS = "/proc/mounts"
STAT = "/proc/stat"
UPTIME = "/proc/uptime"
RDMA = "/sys/class/infiniband"
# The device of the driver by which a guest of virtCCA's talks to the TMM.
TSI = "/sys/class/misc/tsi/dev"
SOFT_STATS = f"{DEBUG}/soft_ipi_passthrough/stats"
CQS = f"{DEBUG}/ib_core_cq_poll/cqs"

OUR_RELEASE = "6.12.57-cvmtune"
VENDOR_RELEASE = "6.6.0-72.0.0.76.oe2403.aarch64"
DEBIAN_RELEASE = "6.1.0-37-arm64"

_TICKS_PER_S = 100

# To make it takes longer than most commands.
_PARSER = functools.cache(cli.parser)


@dataclass(frozen=True)
class FakeLocalSystem(LocalSystem):
    """The files below `root`, of which only `controls` may be written. `operations` counts what is done."""

    controls: Mapping[str, FakeSystem[Any]] = field(default_factory=dict)
    operations: Counter[tuple[Operation, str]] = field(default_factory=Counter)
    broken: dict[tuple[Operation, str], int] = field(default_factory=dict)
    _events: dict[tuple[Operation, str, int, When], Callable[[], None]] = field(default_factory=dict)

    # What tests arrange

    def at(
        self,
        operation: Operation,
        path: str,
        event: Callable[[], None],
        *,
        nth: int = 1,
        when: When = "before",
    ) -> None:
        """Let something happen just before, or after, the nth operation of a kind on a file from now on."""
        self._events[operation, path, self.operations[operation, path] + nth, when] = event

    def fail(
        self,
        operation: Operation,
        path: str,
        error: BaseException,
        *,
        nth: int = 1,
        when: When = "before",
    ) -> None:
        """Raise `error` just before, or after, the nth operation of a kind on a file from now on."""

        def event() -> None:
            raise error

        self.at(operation, path, event, nth=nth, when=when)

    def break_(self, operation: Operation, path: str, number: int) -> None:
        """Have all operations of a kind on a file fail, with the error of that number."""
        self.broken[operation, path] = number

    @property
    def written(self) -> set[str]:
        """The files that were written, or were to be."""
        return {path for operation, path in self.operations if operation == "write"}

    # What LocalSystem offers

    def read_text(self, path: str) -> str:
        with self._operation("read", path):
            return super().read_text(path)

    def write_text(self, path: str, text: str) -> None:
        if path not in self.controls:
            pytest.fail(f"wrote {path}, which is no control")
        with self._operation("write", path):
            # To open it as the real one does: a symlink must be refused.
            super().write_text(path, "")
            self.controls[path].write_text(path, text)

    def exists(self, path: str) -> bool:
        with self._operation("exists", path):
            return super().exists(path)

    def list(self, path: str) -> list[str]:
        with self._operation("list", path):
            return super().list(path)

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> NoReturn:
        pytest.fail(f"ran {argv}")

    @contextmanager
    def _operation(self, operation: Operation, path: str) -> Iterator[None]:
        self.operations[operation, path] += 1
        count = self.operations[operation, path]
        if number := self.broken.get((operation, path)):
            raise OSError(number, os.strerror(number), path)
        self._events.pop((operation, path, count, "before"), lambda: None)()
        yield
        self._events.pop((operation, path, count, "after"), lambda: None)()


class VendorCqPoll(CqPollKernel):
    """The vendor's polling, which fails the test on any change, from CPU to CPU too, under an RDMA mount."""

    def __init__(self, root: Path, path: str) -> None:
        super().__init__(root, path, vendor=True)

    def _parse(self, text: str) -> int:
        cpu = super()._parse(text)
        if self.rdma_mounts and cpu != self.cpu:
            pytest.fail(f"polling changes from {self.cpu} to {cpu}: I/O hangs on {self.rdma_mounts}")
        return cpu


@dataclass
class Cpu:
    """What a CPU does all the time: IPIs a second by hardware and softly, and shares of its time.

    `steal` is the share that others take, `idle` that of the rest in which it idles.
    """

    ipis: int = 20
    soft_ipis: int = 0
    idle: float = 0.9
    steal: float = 0.0


@dataclass
class Mount:
    """A mount of NFS, its RPCs a second and their time on the way in ms; of superblock `device`, else its
    own."""

    point: str = "/mnt"
    rpcs: int = 3000
    rtt_ms: float = 0.25
    proto: str = "rdma"
    device: int = 0


@dataclass
class Vcpu:
    """A vCPU's thread: the CPUs that it may run on, its shares of time, its exits for WFI a second."""

    allowed: str
    ran: float = 0.3
    waited: float = 0.0
    wfi: int = 2000


@dataclass
class Vm:
    """A VM of QEMU's."""

    name: str
    pid: int
    vcpus: Sequence[Vcpu]
    own_mask: str = "system"

    @property
    def folder(self) -> str:
        return f"{DEBUG}/kvm/{self.pid}-13"


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Machine:
    """A machine below `root`. What it does is in `cpus`, `mounts` and `vms`; go_on() lets time pass."""

    def __init__(self, root: Path, release: str, cpus: int, words: str = "") -> None:
        self.root = root
        self.registry = REGISTRY
        self.cpus = [Cpu() for _ in range(cpus)]
        self.mounts: list[Mount] = []
        self.vms: list[Vm] = []
        self.controls: dict[str, FakeSystem[Any]] = {}
        self.system = FakeLocalSystem(root, self.controls)
        self.uptime = 1000
        # What becomes of the machine while a command sleeps, and who runs on its CPUs.
        self.sleep: Callable[[float], None] = lambda seconds: None
        self.visitor: Visitor | None = None
        (root / "var/lib").mkdir(parents=True)
        self.restart("0c2e3f9c-4f4c-4c43-9d0d-5d2f1f6a3a01", release)
        everyone = f"0-{cpus - 1}\n"
        for name, text in {"online": everyone, "possible": everyone, "isolated": "\n"}.items():
            self.put(f"{CPUS}/{name}", text)
        self.put(f"{CPUS}/nohz_full", "(null)\n")
        self.put(f"{CPUS}/hotplug/states", "  0: offline\n154: hypervisor/arm/pvtime:online\n")
        self.put(CMDLINE, f"root=/dev/vda {words}".rstrip() + "\n")
        self.put(MOUNTS, "/dev/vda / ext4 rw,relatime 0 0\n")
        self.put(f"{DEBUG}/sleep_time", "")

    # Files

    def file(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def put(self, path: str, text: str) -> None:
        """Make a file read as `text`."""
        self.file(path).parent.mkdir(parents=True, exist_ok=True)
        self.file(path).write_text(text)

    def get(self, path: str) -> str:
        return self.file(path).read_text()

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Return all that is in the tree: modes, contents and where symlinks lead."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            info = path.lstat()
            content = b""
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path).encode()
            elif stat.S_ISREG(info.st_mode):
                content = path.read_bytes()
            found[str(path.relative_to(self.root))] = (info.st_mode, content)
        return found

    @property
    def journal(self) -> Journal:
        return Journal(self.root / "var/lib/cvmtune")

    def user_file(self, path: str, text: str) -> Path:
        """Make a file that a user would; whatever the umask, it and its folders are to be trusted."""
        self.put(path, text)
        file = self.file(path)
        file.chmod(0o644)
        for folder in file.parents[: len(file.relative_to(self.root).parents)]:
            folder.chmod(0o755)
        return file

    def profile(self, name: str, text: str) -> Path:
        """Make a profile of the user's."""
        return self.user_file(f"/etc/cvmtune/profiles/{name}.toml", text)

    # The kernel

    def add(self, control: FakeSystem[Any]) -> None:
        self.controls[control.path] = control

    def echo(self, text: str, path: str) -> None:
        """Set a control as somebody else would, by a shell."""
        self.controls[path].write_text(path, f"{text}\n")

    def settings(self) -> dict[str, str]:
        """What each control that is there reads as."""
        return {path: self.get(path).strip() for path in self.controls if self.file(path).exists()}

    def restart(self, boot_id: str, release: str) -> None:
        """Begin another boot, of which only the names are others."""
        self.put(BOOT_ID, f"{boot_id}\n")
        self.put(RELEASE, f"{release}\n")

    def mount(self, mount: Mount) -> None:
        """Mount NFS; the controls of polling learn of it."""
        self.mounts.append(mount)
        polling = self.controls.get(CQ_POLL)
        if isinstance(polling, CqPollKernel):
            polling.mount(mount.point, mount.proto)
        else:
            options = f"rw,relatime,vers=4.2,hard,proto={mount.proto},port=20049,addr=10.0.0.1"
            self.put(MOUNTS, f"{self.get(MOUNTS)}10.0.0.1:/export {mount.point} nfs4 {options} 0 0\n")

    def unmount(self) -> None:
        """Unmount all NFS."""
        self.mounts.clear()
        lines = self.get(MOUNTS).splitlines(keepends=True)
        self.put(MOUNTS, "".join(line for line in lines if " nfs4 " not in line))
        polling = self.controls.get(CQ_POLL)
        if isinstance(polling, CqPollKernel):
            polling.rdma_mounts.clear()

    # The tool

    def run(self, *argv: str) -> Outcome:
        """Run a command of the tool on this machine, as on a terminal too wide to wrap what it prints."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.object(site, "local", self._site),
            patch.object(cli, "parser", _PARSER),
            patch.dict(os.environ, {"COLUMNS": "10000"}),
            # That all is synced is for test_journal.py to see. Here it would only take a busy disk's time.
            patch.object(os, "fsync", lambda _: None),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                status = cli.main(argv, self.registry)
            except SystemExit as end:
                status = int(end.code or 0)
        if "Traceback" in err.getvalue():
            pytest.fail(f"{argv}: {err.getvalue()}")
        return Outcome(status, out.getvalue(), err.getvalue())

    def _site(self) -> site.Site:
        return site.Site(self.system, self.root, sleep=self.sleep, visitor=self.visitor)

    def watch(self, *argv: str, seconds: int = 10) -> Outcome:
        """Run `recommend`, which sees `seconds` pass in a moment."""
        # What it reads first, at both times.
        self.system.at("read", UPTIME, lambda: self.go_on(seconds), nth=2)
        return self.run("recommend", "--seconds", "0.01", *argv)

    # What goes on

    def go_on(self, seconds: int = 0) -> None:
        """Let time pass: all counters count from boot what is done all the time."""
        self.uptime += seconds
        self.put(UPTIME, f"{self.uptime}.00 {self.uptime * len(self.cpus)}.00\n")
        self.put(STAT, self._stat())
        self.put("/proc/interrupts", self._interrupts())
        self.put("/proc/softirqs", _rows(["TIMER:", "RCU:"], [[self.uptime * 9] * len(self.cpus)] * 2))
        self.put("/proc/self/mountstats", "".join(self._mountstats()))
        self.put("/proc/self/mountinfo", "".join(self._mountinfo()))
        if self.file(SOFT_STATS).parent.exists():
            self.put(SOFT_STATS, self._soft_stats())
        if self.file(RDMA).exists():
            self.put(f"{RDMA}/rxe0/ports/1/hw_counters/rcvd_pkts", f"{self.uptime * 4000}\n")
        for vm in self.vms:
            self._show_vm(vm)

    def _stat(self) -> str:
        """As show_stat() in fs/proc/stat.c."""
        ticks = self.uptime * _TICKS_PER_S
        lines = []
        for number, cpu in enumerate(self.cpus):
            steal = round(ticks * cpu.steal)
            idle = round((ticks - steal) * cpu.idle)
            lines.append(f"cpu{number} {ticks - idle - steal} 0 0 {idle} 0 0 0 {steal} 0 0")
        return "\n".join(["cpu  0 0 0 0 0 0 0 0 0 0", *lines, "intr 5 5", f"ctxt {self.uptime * 700}", ""])

    def _interrupts(self) -> str:
        """As arch_show_interrupts() of arm64."""
        hardware = [self.uptime * cpu.ipis for cpu in self.cpus]
        none = [0 for _ in self.cpus]
        rows = {
            "13:": ([self.uptime * 100] * len(self.cpus), "GICv3  27 Level     arch_timer"),
            "IPI0:": ([count * 3 // 4 for count in hardware], "Rescheduling interrupts"),
            "IPI1:": ([count - count * 3 // 4 for count in hardware], "Function call interrupts"),
            "IPI2:": (none, "CPU stop interrupts"),
            "IPI4:": (none, "Timer broadcast interrupts"),
            "IPI5:": (none, "IRQ work interrupts"),
        }
        if IPI_POLL_US in self.controls:
            soft = [self.uptime * cpu.soft_ipis for cpu in self.cpus]
            rows["SIPI:"] = (soft, "Soft IPIs, taken from memory")
        counts = [counts for counts, _ in rows.values()]
        return _rows(list(rows), counts, [what for _, what in rows.values()]) + f"{'Err:':>5} {0:10}\n"

    def _soft_stats(self) -> str:
        lines = ["cpu sent reschedule call_function timer irq_work polls poll_ns fallbacks limit_ns"]
        for number, cpu in enumerate(self.cpus):
            soft = self.uptime * cpu.soft_ipis
            polled_ns = round(self.uptime * cpu.idle * 1e9) if soft else 0
            lines.append(f"{number} {soft} {soft} 0 0 0 {soft} {polled_ns} {soft // 10} 10000")
        return "\n".join(lines) + "\n"

    def _mountstats(self) -> Iterator[str]:
        """As nfs_show_stats() in fs/nfs/super.c and rpc_clnt_show_stats() in net/sunrpc/stats.c."""
        yield "device /dev/vda mounted on / with fstype ext4\n"
        for mount in self.mounts:
            ops = self.uptime * mount.rpcs
            yield f"device 10.0.0.1:/export mounted on {mount.point} with fstype nfs4 statvers=1.1\n"
            yield f"\topts:\trw,vers=4.2,proto={mount.proto},port=20049\n\tage:\t{self.uptime}\n"
            yield "\tRPC iostats version: 1.1  p/v: 100003/4 (nfs)\n"
            yield f"\txprt:\t{mount.proto} 0 0 1 0 0 {ops} {ops} 0 {ops} 0 0 0 0 0 0 0 0 0 0 0 0\n"
            yield "\tper-op statistics\n"
            yield "\t        NULL: 1 1 0 44 24 0 0 0 0\n"
            rtt_ms = round(ops * mount.rtt_ms)
            yield f"\t       WRITE: {ops} {ops} 0 {ops * 200} {ops * 90} 0 {rtt_ms} {rtt_ms} 0\n"

    def _mountinfo(self) -> Iterator[str]:
        """As show_mountinfo() in fs/proc_namespace.c."""
        yield "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        for number, mount in enumerate(self.mounts, start=31):
            superblock = f"nfs4 10.0.0.1:/export rw,vers=4.2,proto={mount.proto},addr=10.0.0.1"
            device = f"0:{mount.device or number}"
            yield f"{number} 21 {device} / {mount.point} rw,relatime shared:9 - {superblock}\n"

    def _show_vm(self, vm: Vm) -> None:
        """A VM in KVM's debugfs, the threads of its VMM, and that VMM's number as libvirt keeps it."""
        wfi = {vcpu: self.uptime * one.wfi for vcpu, one in enumerate(vm.vcpus)}
        self.put(f"{vm.folder}/exits", f"{2 * sum(wfi.values())}\n")
        self.put(f"{vm.folder}/wfi_exit_stat", f"{sum(wfi.values())}\n")
        self.put(f"{vm.folder}/wfe_exit_stat", "0\n")
        self.put(f"{DEBUG}/kvm/exits", "77\n")
        if WFX_GUARD in self.controls:
            self.put(f"{vm.folder}/wfx_trap_config", f"{vm.own_mask}\n")
            header = "vcpu named entries untrapped guarded wfi_exits wfe_exits\n"
            lines = (f"{vcpu} 0 {2 * count} 0 0 {count} 0\n" for vcpu, count in wfi.items())
            self.put(f"{vm.folder}/wfx_trap_stats", header + "".join(lines))
            self.put(f"{vm.folder}/vtimer_mode", "masked\n")
            header = "vcpu entries masked_entries timer_exits redundant_exits\n"
            lines = (f"{vcpu} {2 * count} 0 {count // 2} 0\n" for vcpu, count in wfi.items())
            self.put(f"{vm.folder}/vtimer_stats", header + "".join(lines))
        self._show_thread(vm, vm.pid, "qemu-system-aar", Vcpu(f"0-{len(self.cpus) - 1}", 0.01))
        for number, vcpu in enumerate(vm.vcpus):
            self._show_thread(vm, vm.pid + 3 + number, f"CPU {number}/KVM", vcpu)
        self.put(f"/run/libvirt/qemu/{vm.name}.pid", f"{vm.pid}\n")

    def _show_thread(self, vm: Vm, thread: int, name: str, vcpu: Vcpu) -> None:
        folder = f"/proc/{vm.pid}/task/{thread}"
        ran, waited = (round(self.uptime * share * 1e9) for share in (vcpu.ran, vcpu.waited))
        self.put(f"{folder}/comm", f"{name}\n")
        self.put(f"{folder}/schedstat", f"{ran} {waited} 4711\n")
        self.put(
            f"{folder}/status",
            f"Name:\t{name}\nCpus_allowed_list:\t{vcpu.allowed}\n"
            f"voluntary_ctxt_switches:\t{self.uptime * vcpu.wfi}\nnonvoluntary_ctxt_switches:\t9\n",
        )
        self.put(f"{folder}/cgroup", f"0::/machine.slice/machine-qemu-{vm.name}.scope/libvirt\n")
        self.put("/sys/fs/cgroup/machine.slice/cpuset.cpus.partition", "member\n")


def _rows(names: Sequence[str], counts: Sequence[Sequence[int]], ends: Sequence[str] = ()) -> str:
    """Lines as of /proc/interrupts, one count a CPU, under a header of the CPUs."""
    header = " " * 5 + "".join(f"{f'CPU{cpu}':>11}" for cpu in range(len(counts[0])))
    lines = [header]
    for row, (name, numbers) in enumerate(zip(names, counts, strict=True)):
        end = f"   {ends[row]}" if ends else ""
        lines.append(f"{name:>5}" + "".join(f" {number:10}" for number in numbers) + end)
    return "\n".join(lines) + "\n"


# The machines

Boot = Callable[[Path], Machine]


def our_guest(root: Path) -> Machine:
    """Our kernel in a guest of pKVM's, which nothing shows; ib_core_cq_poll is loaded, NFS mounted."""
    machine = _our_kernel(root, 4)
    machine.put("/proc/device-tree/compatible", "linux,dummy-virt\0")
    machine.add(CqPollKernel(root, CQ_POLL, vendor=False))
    machine.add(UintKernel(root, CQ_IDLE_US, 1000))
    machine.put("/sys/module/ib_core_cq_poll/parameters/owners", "rpcrdma\n")
    machine.put(
        CQS,
        "device cq owner polled polls completions empty max_batch ns\n"
        "rxe0 2 rpcrdma 1 900 700 200 16 5000000\n"
        "rxe0 3 rpcrdma 1 90 70 20 8 500000\n"
        "rxe0 4 nvme_rdma 0 0 0 0 0 0\n",
    )
    machine.put(
        f"{DEBUG}/ib_core_cq_poll/totals",
        "taken 2\ngiven_back 0\nsleeps 12\nwakeups 12\nawake_ns 2500000000\n",
    )
    machine.file(RDMA).mkdir(parents=True)
    machine.mount(Mount())
    for cpu in machine.cpus[2:]:
        cpu.ipis, cpu.idle = 2000, 0.7
    machine.go_on()
    return machine


def our_host(root: Path) -> Machine:
    """Our kernel as the host of two VMs behind pKVM, each of their vCPUs pinned to a CPU of its own."""
    machine = _our_kernel(root, 8, "kvm-arm.mode=protected kvm-arm.cvm_vtimer=masked")
    _hypervisor(machine)
    machine.add(WfxKernel(root, WFX, 8, "0-7"))
    machine.go_on()
    return machine


def our_host_unpinned(root: Path) -> Machine:
    """The same, with the VM `web` not pinned, but kept from the CPUs of the other."""
    machine = our_host(root)
    for vcpu in machine.vms[1].vcpus:
        vcpu.allowed = "4-7"
    machine.go_on()
    return machine


def vendor_guest(root: Path) -> Machine:
    """The vendor's kernel in a confidential VM of virtCCA's; nothing is mounted."""
    machine = Machine(root, VENDOR_RELEASE, 4, "virtcca_cvm_guest=1")
    machine.put("/sys/class/dmi/id/sys_vendor", "QEMU\n")
    machine.put(TSI, "10:123\n")
    machine.add(FakeKernel(root, IPI, 4, "0-3"))
    machine.add(VendorCqPoll(root, CQ_POLL))
    machine.put("/sys/kernel/ib_core_poll_stat", "0\n")
    machine.file(RDMA).mkdir(parents=True)
    for cpu in machine.cpus[2:]:
        cpu.ipis, cpu.idle = 2000, 0.7
    machine.go_on()
    return machine


def vendor_host(root: Path) -> Machine:
    """The vendor's kernel as the host of virtCCA's confidential VMs."""
    machine = Machine(root, VENDOR_RELEASE, 8, "virtcca_cvm_host=1")
    _hypervisor(machine)
    machine.add(FakeKernel(root, WFX, 8, "0-7"))
    machine.go_on()
    return machine


def plain_guest(root: Path) -> Machine:
    """A kernel without the features in a guest."""
    machine = Machine(root, DEBIAN_RELEASE, 4)
    machine.put("/sys/class/dmi/id/product_name", "KVM Virtual Machine\n")
    machine.mount(Mount())
    machine.cpus[3].ipis = 2000
    machine.go_on()
    return machine


def plain_host(root: Path) -> Machine:
    """A kernel without the features as a host."""
    machine = Machine(root, DEBIAN_RELEASE, 8)
    _hypervisor(machine)
    machine.go_on()
    return machine


def bare_machine(root: Path) -> Machine:
    """Our kernel on a machine that is neither, a client of NFS over RDMA."""
    machine = our_guest(root)
    machine.file("/proc/device-tree/compatible").unlink()
    machine.put("/sys/class/dmi/id/sys_vendor", "Ampere(R)\n")
    machine.put(f"{CPUS}/hotplug/states", "  0: offline\n")
    return machine


MACHINES: Mapping[str, Boot] = {
    boot.__name__: boot
    for boot in (
        our_guest,
        our_host,
        our_host_unpinned,
        vendor_guest,
        vendor_host,
        plain_guest,
        plain_host,
        bare_machine,
    )
}


def _our_kernel(root: Path, cpus: int, words: str = "") -> Machine:
    """What our kernel has wherever it runs: one image is for guests and hosts."""
    machine = Machine(root, OUR_RELEASE, cpus, words)
    machine.add(FakeKernel(root, IPI, cpus, f"0-{cpus - 1}"))
    machine.add(UintKernel(root, IPI_POLL_US, 0))
    machine.add(BoolKernel(root, WFX_GUARD, False))
    machine.file(SOFT_STATS).parent.mkdir(parents=True)
    return machine


def _hypervisor(machine: Machine) -> None:
    machine.put("/sys/class/misc/kvm/dev", "10:232\n")
    machine.vms = [
        Vm("db", 1200, [Vcpu("2"), Vcpu("3")]),
        Vm("web", 1300, [Vcpu("4"), Vcpu("5")]),
    ]
    for cpu in machine.cpus[2:6]:
        cpu.idle = 0.69
