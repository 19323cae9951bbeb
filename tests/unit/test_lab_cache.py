# SPDX-License-Identifier: Apache-2.0
"""The store: filled once, never half, and never removing what is not its own."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from cvmtune.lab.cache import Cache, default_root
from cvmtune.lab.errors import NoSpace

KEY = {"source": "6.12", "patch 1": "abc"}


def write_result(directory: Path) -> None:
    (directory / "result").write_text("made")


def must_not_fill(directory: Path) -> None:
    raise AssertionError(f"{directory} was filled though the result is there")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_result_is_made_once(cache: Cache) -> None:
    made = cache.get_or_fill("kernel", KEY, write_result)
    assert (made / "result").read_text() == "made"
    assert cache.get_or_fill("kernel", dict(reversed(KEY.items())), must_not_fill) == made
    assert cache.find("kernel", KEY) == made


def test_the_key_is_kept_with_the_result(cache: Cache) -> None:
    made = cache.get_or_fill("kernel", KEY, write_result)
    assert json.loads((made / "key.json").read_text()) == KEY


def test_other_material_is_another_result(cache: Cache) -> None:
    made = cache.get_or_fill("kernel", KEY, write_result)
    assert cache.find("kernel", KEY | {"patch 1": "abd"}) is None
    assert cache.get_or_fill("kernel", KEY | {"patch 1": "abd"}, write_result) != made


def test_a_failed_fill_leaves_no_result_but_its_log(cache: Cache) -> None:
    kept: list[Path] = []

    def fail(directory: Path) -> None:
        (directory / "build.log").write_text("the cause")
        kept.append(directory)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        cache.get_or_fill("kernel", KEY, fail)
    assert cache.find("kernel", KEY) is None
    assert (kept[0] / "build.log").read_text() == "the cause"

    cache.get_or_fill("kernel", {"other": "key"}, write_result)
    assert not kept[0].exists(), "what a crash left is removed by the next fill of its kind"
    assert (cache.get_or_fill("kernel", KEY, write_result) / "result").exists()


def test_two_at_a_time_make_it_once(cache: Cache) -> None:
    fills: list[Path] = []
    inside = threading.Event()
    go_on = threading.Event()

    def slow_fill(directory: Path) -> None:
        fills.append(directory)
        inside.set()
        assert go_on.wait(10)

    threads = [threading.Thread(target=cache.get_or_fill, args=("kernel", KEY, slow_fill)) for _ in range(2)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(fills) == 1


def test_no_fill_without_room(cache: Cache) -> None:
    with pytest.raises(NoSpace, match=r"1000000000\.0 GB needed") as error:
        cache.get_or_fill("kernel", KEY, must_not_fill, needs=10**18)
    assert error.value.needed == 10**18
    assert 0 < error.value.available < 10**18
    assert str(cache.root) in str(error.value)
    assert "CVMTUNE_CACHE" in error.value.next_step


def test_clean_removes_what_is_asked_and_only_our_own(cache: Cache) -> None:
    cache.get_or_fill("kernel", KEY, write_result)
    rootfs = cache.get_or_fill("rootfs", KEY, write_result)
    work = cache.directory("work")
    foreign = cache.root / "somebody's"
    foreign.mkdir()

    cache.clean("kernel")
    assert cache.find("kernel", KEY) is None
    assert rootfs.exists()
    cache.clean("somebody's")
    cache.clean()
    assert not rootfs.exists()
    assert not work.exists()
    assert foreign.exists()


def test_sizes_count_blocks(cache: Cache) -> None:
    def sparse(directory: Path) -> None:
        with (directory / "disk").open("wb") as file:
            file.truncate(1_000_000_000)

    cache.get_or_fill("rootfs", KEY, sparse)
    (cache.directory("work") / "full").write_bytes(bytes(100_000))
    sizes = cache.sizes()
    assert sizes["rootfs"] < 100_000
    assert 100_000 <= sizes["work"] < 200_000


def test_what_two_parts_share_is_counted_once(cache: Cache) -> None:
    shared = cache.directory("work") / "full"
    shared.write_bytes(bytes(100_000))
    (cache.directory("check-tree") / "link").hardlink_to(shared)
    assert 100_000 <= sum(cache.sizes().values()) < 200_000


def test_sizes_of_a_cache_that_is_not_there(tmp_path: Path) -> None:
    assert Cache(tmp_path / "none").sizes() == {}


@pytest.mark.parametrize(
    ("chosen", "xdg", "expected"),
    [
        ("/big/disk", "/xdg", "/big/disk"),
        (None, "/xdg", "/xdg/cvmtune"),
        (None, "relative", "/home/me/.cache/cvmtune"),
        (None, None, "/home/me/.cache/cvmtune"),
        ("", "", "/home/me/.cache/cvmtune"),
    ],
)
def test_default_root(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, xdg: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("CVMTUNE_CACHE", chosen), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert default_root() == Path(expected)
