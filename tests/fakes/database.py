# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL on NFS over RDMA in a guest, and the guest's host, for tests of what runs a database there.

What programs print is as their manuals have it: those of PostgreSQL 15, exportfs(8), mount(8), taskset(1).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import pytest

from cvmtune.core.system import Completed
from cvmtune.features.cq_poll import knob as cq_poll
from cvmtune.features.soft_ipi import knob as soft_ipi
from cvmtune.features.wfx import knob as wfx
from tests.fakes import machine as fake_machine
from tests.fakes.kernel import FakeKernel, WfxKernel, When, os_error
from tests.fakes.machine import PID, THREADS, Recorded, RecordedHost

Value = TypeVar("Value")

BINARIES = "/usr/lib/postgresql/15/bin/"
SOCKETS = "/var/run/postgresql"
SCRIPT = f"{SOCKETS}/script.sql"
TRANSACTIONS = f"{SOCKETS}/transactions"
BALANCES = ("1200", "1200", "1200", "1200")
# A session's figures are there when it has ended; until it has, each look must be a new one.
WAIT = re.compile(
    r"\s*do \$\$ begin\s+while exists "
    r"\(select from pg_stat_activity where datname = 'postgres' and backend_type = 'client backend'\)"
    r"\s+loop\s+perform pg_sleep\([0-9.]+\), pg_stat_clear_snapshot\(\);\s+end loop;\s+end \$\$;"
    r"\s+select pg_stat_force_next_flush\(\);\s+select [^;]* from pg_stat_wal;\s*"
)

# What a transaction takes, in microseconds: the whole, with a rate and without, and to begin.
LATENCY_US, UNDELAYED_US, LAG_US = 21_000, 15_000, 6000
# Of it in milliseconds: the server's session, the log's write and sync, and a WRITE with its round trip.
ACTIVE_MS, LOG_WRITE_MS, LOG_SYNC_MS, EXECUTE_MS, RTT_MS = 10, 1, 5, 3, 2


class FakePostgres:
    """Programs of PostgreSQL, and a server. `works` is told of each script's transactions, `disturb` of all
    else that a server does.

    `loses` is how many transactions of each load are not there afterwards, `crash_loses` how many of a table
    are not when the server has ended without order, after which it may not start again
    (`does_not_recover`); `forgets` is how many pgbench does not log, `complaints` what pg_amcheck says, with
    its status, `bad` the number of damaged blocks.
    """

    def __init__(
        self,
        works: Callable[[str, int, int, int | None], None] = lambda script, number, clients, rate: None,
        disturb: Callable[[], None] = lambda: None,
    ) -> None:
        self.clusters: set[str] = set()
        self.running = ""
        self.refuses_to_start = False
        self.server_log = ""
        self.written: dict[str, str] = {}
        self.queries: list[tuple[str, str]] = []
        self.loads: list[dict[str, str]] = []
        self.rows = {"audit": 70, "pgbench_history": 500}
        self.loses = self.forgets = 0
        self.crash_loses: dict[str, int] = {}
        self.does_not_recover = False
        self.balances: tuple[str, ...] = BALANCES
        self.complaints: tuple[int, str] = (0, "")
        self.bad: int | None = 0  # None: it does not tell
        self._logs: list[str] = []
        self._counted = [5000.0, 5000.0, 300.25, 700.5, 90_000.125]
        self._works = works
        self._disturb = disturb

    def run(self, argv: Sequence[str], input: str | None) -> tuple[int, str, str] | None:
        """Do what a command does and return status, output, errors; None if it is no command of this kind."""
        match list(argv):
            case ["env", "--chdir=/", "setpriv", *rest]:
                at = next(n for n, word in enumerate(rest) if not word.startswith("--"))
                assert {"--reuid=postgres", "--regid=postgres", "--clear-groups"} <= set(rest[:at])
                program, *options = rest[at:]
                assert program.startswith(BINARIES)
                return self._program(program.removeprefix(BINARIES), options, input)
            case ["install", "-d", "-o", "postgres", "-g", "postgres", *_]:
                return 0, "", ""
            case ["cat", path] if path == f"{SOCKETS}/log":
                return 0, self.server_log, ""
            case ["sh", "-c", script] if script == f"cat >{SCRIPT} && rm -f {TRANSACTIONS}.* && sync":
                assert input
                self._disturb()
                self.written[SCRIPT] = input
                self._logs = []
                return 0, "", ""
            case ["sh", "-c", script] if script == f"cat {TRANSACTIONS}.*":
                self._disturb()
                return (0, "".join(self._logs), "") if self._logs else (1, "", "cat: No such file")
            case ["sh", "-c", script] if found := re.fullmatch(r"cat >>(\S+/postgresql\.conf)", script):
                assert input
                self.written[found[1]] = input
                return 0, "", ""
        # The server refuses to be root.
        assert not any(word.startswith(BINARIES) for word in argv)
        return None

    def _program(self, name: str, argv: list[str], input: str | None) -> tuple[int, str, str]:
        match name, argv:
            case "initdb", ["--pgdata", cluster, *options]:
                assert {"--data-checksums", "--auth=trust"} <= set(options)
                self.clusters.add(cluster)
            case "pg_ctl", ["--pgdata", cluster, "--wait", "--timeout=560", "--log", log, "start"]:
                assert log == f"{SOCKETS}/log"
                assert cluster in self.clusters
                if self.refuses_to_start:
                    return (
                        1,
                        "waiting for server to start.... stopped waiting\n",
                        "pg_ctl: could not start server",
                    )
                self.running = cluster
            case "pg_ctl", ["--pgdata", cluster, "--wait", "--timeout=560", "--mode=fast", "stop"]:
                if self.running != cluster:
                    return 1, "", "pg_ctl: PID file does not exist\nIs server running?"
                self.running = ""
            case "pg_ctl", ["--pgdata", cluster, "--wait", "--timeout=560", "--mode=immediate", "stop"]:
                if self.running != cluster:
                    return 1, "", "pg_ctl: PID file does not exist\nIs server running?"
                self._disturb()
                self.running = ""
                self.refuses_to_start = self.does_not_recover
                for table, number in self.crash_loses.items():
                    self.rows[table] -= number
            case "pg_checksums", ["--check", "--pgdata", cluster]:
                if self.running:
                    return 1, "", "pg_checksums: error: cluster must be shut down"
                if self.bad is None:
                    return 0, "", ""
                says = f"Files scanned:   1248\nBlocks scanned:  3456\nBad checksums:  {self.bad}\n"
                damaged = "pg_checksums: error: checksum verification failed in file\n" * self.bad
                says = f"Checksum operation completed\n{says}Data checksum version: 1\n"
                return int(self.bad > 0), says, damaged
            case "psql" | "pgbench" | "pg_amcheck", _ if not self.running:
                return 2, "", f"{name}: error: connection to server failed: No such file or directory"
            case "psql", options:
                assert input
                assert {"--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"} <= set(options)
                (database,) = (o.removeprefix("--dbname=") for o in options if o.startswith("--dbname="))
                return 0, self._query(database, input), ""
            case "pgbench", ["--initialize", "--quiet", "--scale=1"]:
                pass
            case "pgbench", options:
                self._load(dict(option.removeprefix("--").partition("=")[::2] for option in options))
            case "pg_amcheck", options:
                assert {"--all", "--heapallindexed"} <= set(options)
                self._disturb()
                return *self.complaints, "an error" if self.complaints[0] else ""
            case _:
                pytest.fail(f"no such program: {name} {argv}")
        return 0, "", ""

    def _query(self, database: str, sql: str) -> str:
        self.queries.append((database, sql))
        if "pg_stat_wal" in sql:
            # Else what was counted last might not be among it, and the question itself would be.
            assert database == "template1"
            assert WAIT.fullmatch(sql), sql
            return "\n" + "|".join(f"{value!r}" for value in self._counted) + "\n"
        assert database == "postgres"
        self._count(1, 1000.0)
        self._disturb()
        if found := re.search(r"select count\(\*\) from (\w+);", sql):
            return f"{self.rows[found[1]]}\n"
        if "sum(abalance)" in sql:
            return "|".join(self.balances) + "\n"
        if sql == "select id from audit;":
            return "".join(f"{number}\n" for number in range(1, self.rows["audit"] + 1))
        return "8\n16\n" if "pg_prewarm(" in sql else ""

    def _load(self, options: dict[str, str]) -> None:
        """Transactions, and their logs, one a thread (pgbench's manual, "Per-Transaction Logging")."""
        self.loads.append(options)
        # For a builtin pgbench would ask about its tables first.
        assert options["file"] == SCRIPT
        assert "builtin" not in options
        if re.fullmatch(r"insert into audit [^;]*;\n", self.written[SCRIPT]):
            script, table = "insert", "audit"
        else:
            assert "\ninsert into pgbench_history " in self.written[SCRIPT]
            script, table = "tpcb", "pgbench_history"
        clients, each = int(options["client"]), int(options["transactions"])
        # A thread each; without a vacuum that would add work of its own.
        assert options["jobs"] == options["client"]
        assert {"no-vacuum", "log"} <= options.keys()
        assert options["random-seed"].isdecimal()
        assert options["protocol"] == "prepared"
        assert options["log-prefix"] == TRANSACTIONS
        rate = int(options["rate"]) if "rate" in options else None
        lines = [
            [
                f"{client} {n} {UNDELAYED_US + n} 0 1412881037 912698"
                if rate is None
                else f"{client} {n} {LATENCY_US + n} 0 1412881037 912698 {LAG_US + n}"
                for n in range(each)
            ]
            for client in range(clients)
        ]
        del lines[0][: self.forgets]
        self._logs = ["".join(f"{line}\n" for line in thread) for thread in lines]
        number = clients * each
        self.rows[table] += number - self.loses
        self._count(number, ACTIVE_MS)
        self._works(script, number, clients, rate)

    def _count(self, number: int, active_ms: float) -> None:
        more = (1.0, 1.0, LOG_WRITE_MS, LOG_SYNC_MS, active_ms)
        self._counted = [value + number * each for value, each in zip(self._counted, more, strict=True)]


# A guest and its host

FOLDER = f"/sys/kernel/debug/kvm/{PID}-13"
MODE = f"{FOLDER}/vtimer_mode"
TRAVEL = "/sys/module/kvm/parameters/vtimer_travel_ns"
IDLE_US = "/sys/module/ib_core_cq_poll/parameters/idle_us"
TRACEFS = "/sys/kernel/tracing"
INSTANCE = f"{TRACEFS}/instances/cvmtune-rdma_core-cq_schedule"
HYPERCALLS = (1310, 1290, 90_000, 1300, 1200)  # one of them with an interrupt in it
EXIT_NS = 1300
PORT = ("/proc/fs/nfsd/portlist", "rdma 20049\n")
# All that may be there while an experiment runs, and is not there before.
THINGS = (
    *("module ib_core_cq_poll", "module cvmtune_ipi", "ip d0", "rdma rxe0", "export"),
    *("nfsdcld", "rpc.mountd", "nfsd", "tracefs", INSTANCE),
    *(
        f"mount /{path}"
        for path in (
            "mnt",
            "export",
            "proc/fs/nfsd",
            *(f"var/lib/nfs/{name}" for name in ("nfsdcld", "rpc_pipefs")),
        )
    ),
)
# What an experiment learns of by the end of a command alone.
BEGUN = {*THINGS, "server"} - {"mount /mnt"}


@dataclass(frozen=True)
class Cost:
    """What a transaction makes the machine do, beside a WRITE; a record of the audit log costs twice that.

    `start` is what each client or producer costs beside, of everything but WRITEs.
    """

    ipis: int = 3  # none with soft IPIs
    wakeups: int = 4  # none with polling
    switches: int = 7
    exits: int = 50
    timer_exits: int = 2  # ten times that unmasked
    redundant_exits: int = 6  # none if masked
    wfx_exits: int = 5  # none where WFx is not trapped
    start: int = 997


class Known(Recorded[Value]):
    """A kernel with more files than that of its knob; those of `allowed` may be written, with these texts."""

    allowed: dict[str, Sequence[str]]
    written_texts: list[tuple[str, str]]

    def content(self, path: str) -> str | None:
        """What such a file has; None if there is none."""
        raise NotImplementedError

    def take(self, path: str, text: str) -> None:
        """Have a text written to such a file."""
        raise NotImplementedError

    def read_text(self, path: str) -> str:
        if self.content(path) is None:
            return super().read_text(path)
        number = self._begin(f"read {path}")
        text = self.content(path)
        assert text is not None
        self._raise_if_due(number, "after")
        return text

    def write_text(self, path: str, text: str) -> None:
        self.written_texts.append((path, text))
        if path == self.path:
            super().write_text(path, text)
            return
        number = self._begin(f"write {path}")
        assert text in self.allowed[path], (path, text)
        if self.content(path) is None:
            raise os_error(errno.ENOENT)
        self.take(path, text)
        self._raise_if_due(number, "after")

    def exists(self, path: str) -> bool:
        self._begin(f"exists {path}")
        return self.content(path) is not None or self._local.exists(path)


class FakeGuest(Known[set[int]], FakeKernel):
    """Two CPUs, a database, and what the kernel counts."""

    machine: Machine

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(root, soft_ipi.PATH, width=2, possible="0-1")
        self.machine = machine
        self.parameters = {}
        self.written_texts = []
        self.there: list[str] = []
        self.database = FakePostgres(machine.transactions, machine.disturb)
        self.poll = "-1"
        self.idle_us = "1000"
        self.disk = ""  # what is exported, if it is no memory
        self.unpacked: list[tuple[str, bool]] = []  # where to, and whether the mount was there
        self.audit: list[tuple[str, ...]] = []
        self.audit_forgets = 0  # records that it does not tell of
        self.audit_intact: int | None = None  # what it finds; -1: damage; None: all
        self.failed: int | None = None
        self._records = 0
        self._status = 0
        self._errors = ""
        self._input: str | None = None
        self.allowed = {
            PORT[0]: (PORT[1],),
            IDLE_US: ("0\n", "700\n", "1000\n"),
            cq_poll.PATH: ("0\n", "1\n", "-1\n"),
            f"{INSTANCE}/events/rdma_core/cq_schedule/enable": ("1\n",),
            "/proc/sys/vm/drop_caches": ("3\n",),
        }

    def fail(self, operation: int, error: BaseException, when: When = "before") -> None:
        super().fail(operation, error, when)
        self.failed = len(self.operations) + operation

    @property
    def polled(self) -> bool:
        return self.poll != "-1"

    def content(self, path: str) -> str | None:
        counts = self.machine.counts
        module = "module ib_core_cq_poll" in self.there
        match path:
            case "/sys/devices/system/cpu/online":
                return "0-1\n"
            case "/proc/interrupts":
                ipis = counts["ipis"]
                return (
                    "        CPU0       CPU1\n"
                    f" 10: {7 * ipis} {8 * ipis} GICv3 27 Level arch_timer\n"
                    f"IPI0: {ipis // 3} {ipis // 4} Rescheduling interrupts\n"
                    f"IPI1: {ipis - ipis // 3 - ipis // 4} 77 Function call interrupts\n"
                    f"IPI2: {5 * ipis} {6 * ipis} CPU stop interrupts\n"
                    f"IPI4: 1 2 Timer broadcast interrupts\nIPI5: 3 4 IRQ work interrupts\nErr: {ipis}\n"
                )
            case "/proc/stat":
                return f"cpu0 1 0 2 3\nintr 99 1 2 3\nctxt {counts['switches']}\nbtime 1\n"
            case "/proc/uptime":
                return f"{self.machine.uptime:.2f} 12.34\n"
            case "/proc/90/schedstat":
                return f"{self.machine.poller_ns} 123456789 4321\n"
            case "/proc/mounts":
                mounts = (thing.removeprefix("mount ") for thing in self.there if thing.startswith("mount "))
                return "".join(f"x {path} x rw 0 0\n" for path in mounts)
            case "/proc/self/mountstats":
                ops = counts["writes"]
                times = f"7 {RTT_MS * ops} {EXECUTE_MS * ops}"
                return (
                    "device 192.0.2.1:/ mounted on /mnt with fstype nfs4 statvers=1.1\n\tper-op statistics\n"
                    f"\t        READ: {ops} {ops} 0 1 2 3 9999 99999 0\n"
                    f"\t       WRITE: {ops} {ops} 0 1 2 {times} 0\n"
                )
            case "/sys/kernel/debug/cvmtune_ipi/samples":
                assert "module cvmtune_ipi" in self.there
                return "".join(f"{ns}\n" for ns in HYPERCALLS)
            case "/sys/kernel/tracing/events":
                return "" if "tracefs" in self.there else None
            case "/sys/class/infiniband/rxe0":
                return "" if "rdma rxe0" in self.there else None
            case cq_poll.PATH:
                return f"{self.poll}\n" if module else None
            case _ if path == IDLE_US:
                return f"{self.idle_us}\n" if module else None
        return "" if path in self.allowed else None

    def take(self, path: str, text: str) -> None:
        self.machine.disturb()
        if path == cq_poll.PATH:
            self.poll = text.strip()
        if path == IDLE_US:
            self.idle_us = text.strip()

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        self._status, self._errors, self._input = 0, "", input
        done = super().run(argv, timeout=timeout, input=input)
        return done if done.status else replace(done, status=self._status, stderr=self._errors)

    def _do(self, argv: list[str]) -> str:
        if (said := self.database.run(argv, self._input)) is not None:
            self._status, out, self._errors = said
            return out
        match argv:
            case ["insmod", path]:
                self.there.append(f"module {path.removeprefix('/tools/').removesuffix('.ko')}")
                if path.endswith("/ib_core_cq_poll.ko"):
                    self.poll, self.idle_us = "-1", "1000"
            case ["rmmod", name]:
                self.there.remove(f"module {name}")
                if name == "ib_core_cq_poll":
                    self.poll, self.idle_us = "-1", "1000"
            case ["ip" | "rdma" as what, "link", "add", name, *_]:
                self.there.append(f"{what} {name}")
            case ["ip" | "rdma" as what, "link", "delete", name]:
                self.there.remove(f"{what} {name}")
            case ["mount", "-t", "tracefs", *_]:
                self.there.append("tracefs")
            case ["mount", "-t", _, device, path] | ["mount.nfs4", device, path, *_]:
                self.there.append(f"mount {path}")
                if path == "/export" and device != "tmpfs":
                    self.disk = device
                if path == "/mnt":
                    self.database.clusters.add("/mnt/database")
            case ["umount", path] if path == TRACEFS:
                self.there.remove("tracefs")
            case ["umount", path] | ["timeout", _, "umount", *_, path]:
                self.there.remove(f"mount {path}")
            case ["exportfs", "-o", *_]:
                self.there.append("export")
            case ["exportfs", "-u", _]:
                self.there.remove("export")
            case ["rpc.nfsd", "0"]:
                self.there.remove("nfsd")
            case ["nfsdcld"] | ["rpc.mountd", *_] | ["rpc.nfsd", *_]:
                self.there.append("nfsd" if argv[0] == "rpc.nfsd" else argv[0])
            case ["pkill", "-x", name]:
                self.there.remove(name)
            case ["mkdir", path] if path == INSTANCE:
                self.there.append(path)
            case ["rmdir", path]:
                self.there.remove(path)
            case ["pgrep", "^ib_cq_poll/"]:
                self._status = int(not self.polled)
                return "90\n" if self.polled else ""
            case ["sh", "-c", script] if script == f"cat {INSTANCE}/per_cpu/cpu*/stats":
                return "".join(
                    f"entries: {n}\noverrun: 0\nbytes: 1\ndropped events: 0\nread events: 0\n"
                    for n in (self.machine.counts["wakeups"], 1000)
                )
            case ["sh", "-c", script] if "kind=exit_path" in script:
                assert "module cvmtune_ipi" in self.there
                self.machine.called.append(self.machine.state())
            # Not by sh, which would not tell that the archive could not be read.
            case ["bash", "-o", "pipefail", "-c", script]:
                busybox = "/bin/busybox"
                unpack = rf"{busybox} zcat /tools/database\.tar\.gz \| {busybox} tar -x -C (\S+) && sync"
                found = re.fullmatch(unpack, script)
                assert found, script
                self.unpacked.append((found[1], "mount /mnt" in self.there))
            case ["/tools/auditlog", "write", "/mnt/audit.log", *numbers]:
                return self._log(tuple(numbers))
            case ["/tools/auditlog", "check", "/mnt/audit.log"]:
                self.machine.disturb()
                if self.audit_intact == -1:
                    self._status, self._errors = 1, "auditlog: record 3 of the file: not what was logged"
                    return ""
                return f"{self._records if self.audit_intact is None else self.audit_intact}\n"
            case ["rm", "-f", "/mnt/audit.log"] | ["mkdir" | "ip" | "pidwait", *_]:
                pass
            case _:
                pytest.fail(f"no such command in a guest: {argv}")
        return ""

    def _log(self, numbers: tuple[str, ...]) -> str:
        assert "mount /mnt" in self.there
        self.audit.append(numbers)
        producers, records, rate, *cpus, _seed = map(int, numbers)
        assert len(cpus) == 2
        self._records = producers * records
        self.machine.work("audit", self._records, 2, producers, rate or None)
        told = range(self._records - self.audit_forgets)
        return "".join(f"{1000 + n} {20_000} {EXECUTE_MS * 10**6 + 300_000} {40_000}\n" for n in told)


class FakeHost(RecordedHost[set[int]], Known[set[int]], WfxKernel):
    """The host: of a confidential VM, which has a file vtimer_mode, or of an ordinary one."""

    machine: Machine

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(root, wfx.PATH, width=2, possible="0-1")
        self.machine = machine
        self.parameters = {}
        self.written_texts = []
        self.affinity = dict.fromkeys(THREADS.values(), "0,1")
        self.mode = "hw"
        self.travel = "600"
        self.allowed = {
            MODE: ("hw\n", "masked\n", "unmasked\n"),
            TRAVEL: ("600\n", f"{EXIT_NS}\n"),
        }

    def content(self, path: str) -> str | None:
        counts = self.machine.counts
        match path:
            case "/sys/kernel/debug/kvm/exits":
                return f"{counts['exits']}\n"
            case _ if path == f"/proc/{PID}/stat":
                ticks = self.machine.ticks
                return f"{PID} (qemu) S 1 1 1 0 -1 4194560 9 8 7 6 {ticks - 9} 9 3 4 20 0 6 0\n"
            case _ if path == MODE:
                return f"{self.mode}\n" if self.machine.confidential else None
            case _ if path == TRAVEL:
                return f"{self.travel}\n"
        return None

    def take(self, path: str, text: str) -> None:
        self.machine.disturb()
        if path == MODE:
            self.mode = text.strip()
        else:
            self.travel = text.strip()

    def _do(self, argv: list[str]) -> str:
        match argv:
            case ["sh", "-c", script] if script == f"ls -d /sys/kernel/debug/kvm/{PID}-*":
                return f"{FOLDER}\n"
            case ["sh", "-c", script] if "cat wfx_trap_stats" in script:
                return self._statistics()
        return super()._do(argv)

    def _statistics(self) -> str:
        """Of two vCPUs: wfx_trap_stats, the host's /proc/interrupts, and vtimer_stats if confidential."""
        counts = self.machine.counts
        wfx_exits, timer = counts["wfx_exits"], counts["timer_exits"]
        by_vcpu = ((wfx_exits // 5, wfx_exits // 7), (1, wfx_exits - wfx_exits // 5 - wfx_exits // 7 - 1))
        shares = (timer // 3, timer - timer // 3)
        redundant = counts["redundant_exits"]
        redundants = (redundant // 4, redundant - redundant // 4)
        confidential = self.machine.confidential
        took = (8, 9) if confidential else shares
        texts = [
            "vcpu named entries untrapped guarded wfi_exits wfe_exits\n"
            + "".join(f"{vcpu} 0 9 3 4 {wfi} {wfe}\n" for vcpu, (wfi, wfe) in enumerate(by_vcpu)),
            "           CPU0       CPU1\n"
            f" 11: {took[0]:10} {took[1]:10}     GICv3  27 Level     kvm guest vtimer\n"
            f"IPI0: {9:10} {9:10}       Rescheduling interrupts\n",
            "vcpu entries masked_entries timer_exits redundant_exits\n"
            + "".join(f"{vcpu} 123 12 {shares[vcpu]} {redundants[vcpu]}\n" for vcpu in (0, 1))
            if confidential
            else "",
        ]
        return "\n".join(texts)


class Machine(fake_machine.Machine):
    """A guest with two vCPUs on its host, and what is counted of them.

    A transaction costs what `cost` says. Between what an experiment is to count, everything counts too.
    """

    def __init__(self, root: Path, confidential: bool = True) -> None:
        super().__init__()
        self.confidential = confidential
        self.cost = Cost()
        self.counts = dict.fromkeys(
            (*(one.name for one in fields(Cost) if one.name != "start"), "writes"), 10_000
        )
        self.uptime = 1000.0
        self.ticks = 5000
        self.poller_ns = 10**12
        self.writes_nothing = False
        self.called: list[dict[str, object]] = []
        self.seen: list[tuple[str, dict[str, object]]] = []  # a load, and how things were
        self.guest = FakeGuest(self, root / "guest")
        self.host = FakeHost(self, root / "host")
        self.first = self.state()

    def systems(self) -> tuple[FakeGuest, FakeHost]:
        return self.guest, self.host

    def state(self) -> dict[str, object]:
        guest, host = self.guest, self.host
        return {
            "soft IPIs": frozenset(guest.cpus),
            "WFx": frozenset(host.cpus),
            "mode": host.mode,
            "travel": host.travel,
            "poller": guest.poll,
            "idle_us": guest.idle_us,
            "CPUs of vCPU 0": host.affinity[THREADS[0]],
            "CPUs of vCPU 1": host.affinity[THREADS[1]],
            "server": guest.database.running,
            **{thing: thing in guest.there for thing in THINGS},
        }

    def transactions(self, script: str, number: int, clients: int, rate: int | None) -> None:
        self.work(script, number, 1, clients, rate)

    def work(self, what: str, number: int, factor: int, clients: int, rate: int | None) -> None:
        """Have so many clients do so many transactions, or records, of `factor` times the cost."""
        self.seen.append((what, self.state()))
        guest, host, cost = self.guest, self.host, self.cost
        untrapped = len(host.cpus & set(THREADS)) / len(THREADS)
        unmasked = self.confidential and host.mode == "unmasked"
        costs = {
            "ipis": 0 if guest.cpus else cost.ipis,
            "wakeups": 0 if guest.polled else cost.wakeups,
            "switches": cost.switches,
            "exits": cost.exits,
            "timer_exits": cost.timer_exits * (10 if unmasked else 1),
            "redundant_exits": cost.redundant_exits if unmasked else 0,
            "wfx_exits": round(cost.wfx_exits * (1 - untrapped)),
        }
        for name, each in costs.items():
            self.counts[name] += number * factor * each + clients * cost.start
        self.counts["writes"] += 0 if self.writes_nothing else number
        seconds = number / (rate or 100)
        self.uptime += seconds
        self.ticks += round(150 * seconds)
        self.poller_ns += int(0.75e9 * seconds) if guest.polled else 0

    def disturb(self) -> None:
        """Do what makes everything count that nobody should be counting now."""
        self.counts.update({name: value + 10_000_019 for name, value in self.counts.items()})
        self.uptime += 10_000.0
        self.ticks += 77_777
        self.poller_ns += 10**13
