# SPDX-License-Identifier: Apache-2.0
"""Counting trace events: the buffers' statistics are read right, and nothing of it stays in the guest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed
from cvmtune.experiments.tracing import counted, parse_stats

# Of a CPU's buffer, as the kernel prints it (tracing_stats_read() in kernel/trace/trace.c).
STATS = """\
entries: 12
overrun: 300
commit overrun: 7
bytes: 648
oldest event ts:    52.190317
now ts:    60.001946
dropped events: 5
read events: 40
"""
WAKEUP, WORK = "rdma_core/cq_schedule", "workqueue/workqueue_execute_start"
TRACEFS = "/sys/kernel/tracing"


# Statistics


def test_events_in_the_buffer_and_those_that_are_not_any_more() -> None:
    assert parse_stats(STATS) == 12 + 300 + 5 + 40


def test_events_of_all_cpus() -> None:
    assert parse_stats(STATS + STATS.replace("12", "13")) == 2 * 357 + 1


def buffers(numbers: Sequence[tuple[int, int, int, int]]) -> str:
    return "".join(
        f"entries: {entries}\noverrun: {overrun}\ncommit overrun: 9\nbytes: 99\noldest event ts:   1.0009\n"
        f"now ts:     9.000009\ndropped events: {dropped}\nread events: {read}\n"
        for entries, overrun, dropped, read in numbers
    )


numbers = st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 4), min_size=1, max_size=9)


@given(numbers)
def test_events_of_any_buffers(found: list[tuple[int, int, int, int]]) -> None:
    assert parse_stats(buffers(found)) == sum(map(sum, found))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "entries\noverrun\ndropped events\nread events\n",
        STATS.replace("entries: 12\n", ""),
        STATS.replace("read events: 40\n", ""),
        STATS.replace("read events", "read"),
        STATS + "entries: 1\n",
        # Of four fields in four buffers one less each: the number of lines is still one that four divides.
        STATS.replace("dropped events: 5\n", "") * 4,
        STATS.partition("overrun")[0] * 4,
    ],
)
def test_statistics_that_lack_a_field(text: str) -> None:
    with pytest.raises(CvmtuneError, match=r"lack a field .*\(?per_cpu/\*/stats"):
        parse_stats(text)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "0x10", "12 13", "many", "\N{SUPERSCRIPT TWO}"])
def test_statistics_with_something_else_than_a_number(value: str) -> None:
    with pytest.raises(CvmtuneError, match="cannot read 'entries:"):
        parse_stats(STATS.replace("12", value))


@given(st.text())
def test_any_text_for_statistics(text: str) -> None:
    with pytest.raises(CvmtuneError):
        parse_stats(text)


@given(numbers, st.data())
def test_statistics_without_any_one_of_their_lines(
    found: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    lines = buffers(found).splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    counts = lines.pop(at).partition(":")[0] in ("entries", "overrun", "dropped events", "read events")
    text = "\n".join(lines)
    if counts:
        with pytest.raises(CvmtuneError, match="lack a field"):
            parse_stats(text)
    else:
        assert parse_stats(text) == sum(map(sum, found))


# A guest with tracefs


class Guest:
    """A guest with two CPUs whose command number `fails` fails; events count in instances that want them."""

    def __init__(self, *, mounted: bool = True, fails: int | None = None) -> None:
        self.mounted = mounted
        self.instances: dict[str, dict[str, int]] = {}
        self.commands: list[list[str]] = []
        self.unwritable = ""
        self.stats = STATS
        self._fails = fails

    def fire(self, event: str, times: int = 1) -> None:
        for counts in self.instances.values():
            if event in counts:
                counts[event] += times

    def read_text(self, path: str) -> str:
        raise AssertionError(f"read {path}")

    def write_text(self, path: str, text: str) -> None:
        instance, events, event = path.removesuffix("/enable").partition("/events/")
        assert path.endswith("/enable")
        assert events
        assert text == "1\n"
        if event == self.unwritable:
            raise OSError(22, "Invalid argument", path)
        self.instances[instance][event] = 0

    def exists(self, path: str) -> bool:
        assert path.startswith(TRACEFS)
        return self.mounted

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        argv = list(argv)
        self.commands.append(argv)
        if len(self.commands) - 1 == self._fails:
            return Completed(tuple(argv), 1, "", "refused", 0.1)
        return Completed(tuple(argv), 0, self._do(argv), "", 0.1)

    def _do(self, argv: list[str]) -> str:
        match argv:
            case ["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"]:
                assert not self.mounted
                self.mounted = True
            case ["umount", "/sys/kernel/tracing"]:
                assert not self.instances
                self.mounted = False
            case ["mkdir", path]:
                assert self.mounted
                assert path.rpartition("/")[0] == f"{TRACEFS}/instances"
                assert path not in self.instances
                self.instances[path] = {}
            case ["rmdir", path]:
                del self.instances[path]
            case ["sh", "-c", script]:
                command, _, path = script.partition(" ")
                assert command == "cat"
                counts = self.instances[path.removesuffix("/per_cpu/cpu*/stats")]
                return self.stats.replace("12", str(sum(counts.values()))) + STATS
            case _:
                pytest.fail(f"no such command in a guest: {argv}")
        return ""


# What the fake's buffers hold besides: all of one CPU's, and of the other's what is not in it any more.
OTHERS = 357 + 345


def test_events_are_counted_each_by_itself() -> None:
    guest = Guest()
    with counted(guest, (WAKEUP, WORK)) as events:
        assert events.read() == {WAKEUP: OTHERS, WORK: OTHERS}
        guest.fire(WAKEUP, 3)
        guest.fire(WORK, 5)
        assert events.read() == {WAKEUP: OTHERS + 3, WORK: OTHERS + 5}
        assert [list(wanted) for wanted in guest.instances.values()] == [[WAKEUP], [WORK]]
    assert guest.instances == {}


def test_reading_takes_one_process_an_event() -> None:
    guest = Guest()
    with counted(guest, (WAKEUP, WORK)) as events:
        before = len(guest.commands)
        events.read()
        assert len(guest.commands) - before == 2


def test_no_events() -> None:
    guest = Guest()
    with counted(guest, ()) as events:
        assert events.read() == {}


def test_events_may_be_counted_again() -> None:
    guest = Guest()
    for _ in range(2):
        with counted(guest, (WAKEUP,)) as events:
            guest.fire(WAKEUP)
            assert events.read() == {WAKEUP: OTHERS + 1}
    assert guest.instances == {}


@pytest.mark.parametrize("mounted", [True, False])
def test_tracefs_is_mounted_if_it_is_not(mounted: bool) -> None:
    guest = Guest(mounted=mounted)
    with counted(guest, (WAKEUP,)):
        assert guest.mounted
    assert ("mount" in [argv[0] for argv in guest.commands]) == (not mounted)
    assert guest.mounted == mounted


def test_tracefs_that_cannot_be_mounted_is_an_error() -> None:
    guest = Guest(mounted=False, fails=0)
    with pytest.raises(CvmtuneError, match="mount -t tracefs"), counted(guest, (WAKEUP,)):
        raise AssertionError("counts in spite of it")
    assert len(guest.commands) == 1


@pytest.mark.parametrize("fails", [0, 1])
def test_instance_that_cannot_be_made_leaves_none(fails: int) -> None:
    guest = Guest(fails=fails)
    with pytest.raises(CvmtuneError, match=r"mkdir .* ended with status 1"), counted(guest, (WAKEUP, WORK)):
        raise AssertionError("counts in spite of it")
    assert guest.instances == {}


@pytest.mark.parametrize("event", [WAKEUP, WORK])
def test_event_that_the_kernel_lacks_leaves_no_instance(event: str) -> None:
    guest = Guest()
    guest.unwritable = event
    with pytest.raises(OSError, match="Invalid argument") as caught, counted(guest, (WAKEUP, WORK)):
        raise AssertionError("counts in spite of it")
    assert event in str(caught.value)
    assert guest.instances == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt, CvmtuneError("lost")])
def test_failing_block_leaves_no_instance(error: BaseException | type[BaseException]) -> None:
    guest = Guest()
    with pytest.raises((KeyboardInterrupt, CvmtuneError)), counted(guest, (WAKEUP, WORK)):
        raise error
    assert guest.instances == {}


def test_statistics_that_cannot_be_read_leave_no_instance() -> None:
    guest = Guest()
    guest.stats = "entries: none\n"
    with pytest.raises(CvmtuneError, match="cannot read"), counted(guest, (WAKEUP,)) as events:
        events.read()
    assert guest.instances == {}


def test_buffers_that_cannot_be_asked_leave_no_instance() -> None:
    guest = Guest(fails=1)
    with pytest.raises(CvmtuneError, match="sh -c"), counted(guest, (WAKEUP,)) as events:
        events.read()
    assert guest.instances == {}


def test_instance_that_stays_is_an_error_and_does_not_keep_the_others() -> None:
    guest = Guest(fails=2)  # after two mkdir
    with pytest.raises(CvmtuneError, match="rmdir"), counted(guest, (WAKEUP, WORK)):
        pass
    assert list(guest.instances) == [f"{TRACEFS}/instances/cvmtune-workqueue-workqueue_execute_start"]
