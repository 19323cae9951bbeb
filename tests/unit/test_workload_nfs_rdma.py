# SPDX-License-Identifier: Apache-2.0
"""NFS over RDMA: what the kernel and fio print is read right, and whatever fails, all is taken down again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed
from cvmtune.observe.nfs import OpStatistics
from cvmtune.workloads.nfs_rdma import (
    DataDamaged,
    FioReport,
    Mount,
    WriteLoad,
    mounted,
    parse_fio,
    parse_latency_log,
    parse_mountstats,
    verify,
    write,
    write_command,
)

# Of a guest of the lab after 12 writes of 4 KiB, cut short.
MOUNTSTATS = """\
device tmpfs mounted on /export with fstype tmpfs
device 192.0.2.1:/ mounted on /mnt with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2,rsize=131072,wsize=131072,namlen=255,hard,proto=rdma,port=20049,timeo=600,retrans=2
\tage:\t2
\timpl_id:\tname='',domain='',date='0,0'
\tsec:\tflavor=1,pseudoflavor=1
\tevents:\t1 5 0 2 0 1 10 256 0 0 0 1 0 1 2 1 0 2 0 0 0 0 0 0 0 0 0 
\tbytes:\t0 1048576 0 49152 0 1097728 0 256 
\tRPC iostats version: 1.1  p/v: 100003/4 (nfs)
\txprt:\trdma 0 0 1 0 0 44 44 0 74 0 20 0 4 18540 876 0 0 24020 0 0 0 0 0 11 0 0 0
\tper-op statistics
\t        NULL: 1 1 0 40 24 193 29 242 0
\t       WRITE: 20 20 0 1101456 2816 45 575 622 0
\t      COMMIT: 1 1 0 160 104 0 0 1 0
\tSETCLIENTID_CONFIRM: 0 0 0 0 0 0 0 0 0
\t      LOOKUP: 1 1 0 172 96 0 1 1 1

"""
WRITES = OpStatistics(
    ops=20,
    transmissions=20,
    timeouts=0,
    bytes_sent=1101456,
    bytes_received=2816,
    queue_ms=45,
    rtt_ms=575,
    execute_ms=622,
    errors=0,
)
# fio 3.33, cut short.
FIO = """\
{
  "fio version" : "fio-3.33",
  "jobs" : [
    {
      "jobname" : "write",
      "error" : 0,
      "read" : {
        "total_ios" : 0,
        "iops" : 0.000000
      },
      "write" : {
        "total_ios" : 4,
        "short_ios" : 0,
        "iops" : 116.504854
      }
    }
  ]
}
"""
LOG = """\
59, 11904412, 1, 4096, 0
64, 6220775, 1, 4096, 0
65, 6566274, 1, 4096, 0
65, 843387, 1, 4096, 0
"""


# Parsers


def test_mountstats_by_operation() -> None:
    found = parse_mountstats(MOUNTSTATS, "/mnt")
    assert found["WRITE"] == WRITES
    assert found["LOOKUP"].errors == 1
    assert found.keys() == {"NULL", "WRITE", "COMMIT", "SETCLIENTID_CONFIRM", "LOOKUP"}


def test_mountstats_of_the_mount_asked_for() -> None:
    other = MOUNTSTATS.replace("/mnt", "/other").replace("20 20", "7 8")
    assert parse_mountstats(MOUNTSTATS + other, "/mnt")["WRITE"].ops == 20
    assert parse_mountstats(MOUNTSTATS + other, "/other")["WRITE"].ops == 7


def test_mountstats_of_the_uppermost_mount() -> None:
    upper = MOUNTSTATS.replace("WRITE: 20 20", "WRITE: 3 3")
    assert parse_mountstats(MOUNTSTATS + upper, "/mnt")["WRITE"].ops == 3


@pytest.mark.parametrize("path", ["/export", "/m", "/", ""])
def test_mountstats_without_the_mount(path: str) -> None:
    with pytest.raises(CvmtuneError, match=r"no statistics of an NFS mount .*\(/proc/self/mountstats\)"):
        parse_mountstats(MOUNTSTATS, path)


def test_what_was_counted_between_two_readings() -> None:
    assert parse_mountstats(MOUNTSTATS, "/mnt")["WRITE"] - WRITES == OpStatistics(*[0] * 9)


def test_fio_report() -> None:
    assert parse_fio(FIO) == FioReport(reads=0, writes=4)


def test_fio_report_after_a_note() -> None:
    assert parse_fio("note: {something}\n" + FIO).writes == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{\n",
        "{\n}",
        '{\n"jobs": []}',
        '{\n"jobs": [{}, {}]}',
        '{\n"jobs": [null]}',
        FIO.replace('"total_ios" : 4', '"total_ios" : null'),
        FIO.replace('"total_ios" : 4', '"total_ios" : NaN'),
        FIO.replace('"total_ios" : 4', '"total_ios" : "4"'),
        FIO.replace('"total_ios" : 4', '"total_ios" : true'),
        FIO[:200],
    ],
)
def test_malformed_fio_report(text: str) -> None:
    with pytest.raises(CvmtuneError, match=r"\(fio\)"):
        parse_fio(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["jobs", "read", "write", "total_ios", "iops"]), inner)
    ),
)


@given(JSON)
def test_any_json_for_a_fio_report(data: object) -> None:
    with suppress(CvmtuneError):
        parse_fio("{\n" + json.dumps(data).removeprefix("{"))


@given(JSON)
def test_any_job_in_a_fio_report(job: object) -> None:
    try:
        report = parse_fio(json.dumps({"jobs": [job]}, indent=1))
    except CvmtuneError:
        return
    assert isinstance(report.reads, int)
    assert isinstance(report.writes, int)


def test_latencies_in_their_order() -> None:
    assert parse_latency_log(LOG) == (11904412, 6220775, 6566274, 843387)
    assert parse_latency_log("") == ()


@given(st.text())
def test_any_text_for_a_latency_log(text: str) -> None:
    try:
        assert len(parse_latency_log(text)) == len(text.splitlines())
    except CvmtuneError as error:
        assert "latency log, line " in str(error)  # noqa: PT017


@given(st.text())
def test_any_text_for_mountstats(text: str) -> None:
    with pytest.raises(CvmtuneError):
        parse_mountstats(text, "/mnt")


@given(st.integers(0, len(MOUNTSTATS)))
def test_mountstats_cut_off_anywhere(end: int) -> None:
    try:
        found = parse_mountstats(MOUNTSTATS[:end], "/mnt")
    except CvmtuneError:
        return
    # Only the last line may be wrong, in its last number.
    assert found["NULL"].ops == 1


# fio's command lines


def test_a_closed_loop_has_no_rate() -> None:
    argv = write_command("/mnt", WriteLoad(writes=5, depth=3), "/logs")
    assert {"--iodepth=3", "--io_size=20480", "--write_lat_log=/logs/write", "--direct=1"} <= set(argv)
    assert not any(word.startswith(("--rate", "--cpus")) for word in argv)


def test_a_rate_and_a_cpu() -> None:
    argv = write_command("/mnt", WriteLoad(rate=50, cpu=1), "/logs")
    assert {"--rate_iops=50", "--rate_process=poisson", "--cpus_allowed=1"} <= set(argv)


# Against a guest


class Guest:
    """A guest that keeps account of what has been made in it, and whose command number `fails` fails."""

    def __init__(self, fails: int | None = None, log: str = LOG, fio_says: str = "") -> None:
        self.there: list[str] = []
        self.commands: list[list[str]] = []
        self.log = log
        self._fails = fails
        self._fio_says = fio_says

    def read_text(self, path: str) -> str:
        if path == "/proc/mounts":
            mounts = [thing.removeprefix("mount ") for thing in self.there if thing.startswith("mount ")]
            return "".join(f"x {path} x rw 0 0\n" for path in mounts)
        if path == "/proc/self/mountstats":
            return MOUNTSTATS
        assert path == "/tmp/logs/write_lat.1.log"
        return self.log

    def write_text(self, path: str, text: str) -> None:
        assert (path, text) == ("/proc/fs/nfsd/portlist", "rdma 20049\n")

    def exists(self, path: str) -> bool:
        return path.startswith("/sys/class/infiniband/") and f"rdma {path.rpartition('/')[2]}" in self.there

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        argv = list(argv)
        self.commands.append(argv)
        if len(self.commands) - 1 == self._fails:
            return Completed(tuple(argv), 1, "", "refused", 0.1)
        if argv[0] == "fio" and self._fio_says:
            return Completed(tuple(argv), 1, "", self._fio_says, 0.1)
        return Completed(tuple(argv), 0, self._do(argv), "", 0.1)

    def _do(self, argv: list[str]) -> str:
        match argv:
            case ["ip", "link", "add", name, *_]:
                self.there.append(f"ip {name}")
            case ["ip", "link", "delete", name]:
                self.there.remove(f"ip {name}")
            case ["rdma", "link", "add", name, *_]:
                self.there.append(f"rdma {name}")
            case ["rdma", "link", "delete", name]:
                self.there.remove(f"rdma {name}")
            case ["mount", "-t", _, _, path] | ["mount.nfs4", _, path, *_]:
                self.there.append(f"mount {path}")
            case ["umount", path] | ["timeout", _, "umount", *_, path]:
                self.there.remove(f"mount {path}")
            case ["exportfs", "-o", *_]:
                self.there.append("export")
            case ["exportfs", "-u", _]:
                self.there.remove("export")
            case ["rpc.nfsd", "0"]:
                self.there.remove("nfsd")
            case ["rpc.nfsd", *_]:
                self.there.append("nfsd")
            case ["nfsdcld"] | ["rpc.mountd", *_]:
                self.there.append(argv[0])
            case ["pkill", "-x", name]:
                self.there.remove(name)
            case ["mktemp", "-d"]:
                self.there.append("/tmp/logs")
                return "/tmp/logs\n"
            case ["rm", "-r", path]:
                self.there.remove(path)
            case ["fio", *_]:
                return FIO
            case ["mkdir" | "ip" | "pidwait" | "dd", *_]:
                pass
            case _:
                raise AssertionError(f"unknown command {argv}")
        return ""


@pytest.mark.parametrize("provider", ["rxe", "siw"])
def test_what_is_mounted_is_taken_down(provider: str) -> None:
    guest = Guest()
    with mounted(guest, provider) as mount:
        assert {"ip d0", f"rdma {provider}0", "mount /mnt", "mount /export", "nfsd"} <= set(guest.there)
        assert mount.statistics()["WRITE"] == WRITES
    assert guest.there == []


def commands_of_bring_up() -> int:
    guest = Guest()
    with mounted(guest):
        return len(guest.commands)


@pytest.mark.parametrize("fails", range(commands_of_bring_up()))
def test_whichever_step_fails_the_others_are_undone(fails: int) -> None:
    guest = Guest(fails)
    with pytest.raises(CvmtuneError, match="refused") as caught, mounted(guest):
        raise AssertionError("mounted in spite of it")
    assert " ".join(guest.commands[fails][:2]) in str(caught.value)
    assert guest.there == []


def test_a_failing_block_is_cleaned_up_after() -> None:
    guest = Guest()
    with pytest.raises(KeyboardInterrupt), mounted(guest):
        raise KeyboardInterrupt
    assert guest.there == []


def test_a_step_of_taking_down_that_fails_does_not_keep_the_next_from_being_taken() -> None:
    guest = Guest()
    with pytest.raises(CvmtuneError, match=r"rpc\.nfsd 0 ended"), mounted(guest):
        guest._fails = len(guest.commands) + 1  # after umount
    assert guest.there == ["nfsd"]


def test_umount_is_forced_if_it_must_be() -> None:
    guest = Guest()
    with mounted(guest):
        guest._fails = len(guest.commands)
    assert guest.there == []
    assert ["umount", "-f", "/mnt"] in [argv[2:] for argv in guest.commands if argv[0] == "timeout"]


def test_the_block_may_unmount_and_delete_the_link() -> None:
    guest = Guest()
    with mounted(guest):
        guest.run(["umount", "/mnt"])
        guest.run(["rdma", "link", "delete", "rxe0"])
    assert guest.there == []


def test_latencies_of_a_load() -> None:
    guest = Guest()
    written = write(Mount(guest, "rxe", "/mnt"), WriteLoad(writes=4))
    assert written.latencies_ns == (11904412, 6220775, 6566274, 843387)
    assert written.rpc.ops == 0  # the fake's counters stand still
    assert guest.there == []


def test_a_load_that_was_not_done_in_full_is_an_error() -> None:
    guest = Guest(log=LOG.splitlines()[0])
    with pytest.raises(CvmtuneError, match="of 4 writes it did 4 and logged 1"):
        write(Mount(guest, "rxe", "/mnt"), WriteLoad(writes=4))
    assert guest.there == []


def test_blocks_that_were_not_read_back_are_not_verified() -> None:
    with pytest.raises(CvmtuneError, match="of 4 blocks written it has verified 0"):
        verify(Mount(Guest(), "rxe", "/mnt"))


@pytest.mark.parametrize(
    "says",
    [
        "verify: bad header rand_seed 1, wanted 2 at file /mnt/verify offset 0, length 4096",
        "crc32c: verify failed at file /mnt/verify offset 4096, length 4096",
    ],
)
def test_damaged_data_are_told_from_other_failures(says: str) -> None:
    with pytest.raises(DataDamaged, match="not what was written"):
        verify(Mount(Guest(fio_says=says), "rxe", "/mnt"))
    with pytest.raises(CvmtuneError, match="No space left") as caught:
        verify(Mount(Guest(fio_says="fio: No space left on device"), "rxe", "/mnt"))
    assert not isinstance(caught.value, DataDamaged)
