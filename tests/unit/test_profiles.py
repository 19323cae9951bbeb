# SPDX-License-Identifier: Apache-2.0
"""Profiles: the files' form, how they build on each other, and what they come to on machines."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cvmtune
from cvmtune.core.cpumask import MAX_CPUS, CpuMask
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.tuning.profile import Profile, Requirements
from cvmtune.tuning.profile_files import Profiles
from cvmtune.tuning.setting import Facts
from tests.fakes.bound import (
    KNOBS,
    SETTINGS,
    SHIPPED,
    available,
    check_value,
    resolve,
    resolve_setting,
    unmet,
)
from tests.fakes.bound import load_profile as load

GUEST_CONTROLS = frozenset({"ipi-poll-us", "ipi", "cq-idle-us", "cq-poll"})
HOST_CONTROLS = frozenset({"wfx-guard", "wfx"})
NO_CONTROL = "this kernel has no such control"


def first(count: int) -> CpuMask:
    return CpuMask(frozenset(range(count)))


def guest(cpus: int = 4, present: frozenset[str] = GUEST_CONTROLS, own_cpus: bool | None = True) -> Facts:
    return Facts("guest", first(cpus), first(cpus), present, own_cpus)


def host(cpus: int = 4, present: frozenset[str] = HOST_CONTROLS, own_cpus: bool | None = True) -> Facts:
    return Facts("host", first(cpus), first(cpus), present, own_cpus)


class Layers:
    """Two directories of profiles, as the operator's and ours."""

    def __init__(self, top: Path) -> None:
        self.upper = top / "upper"
        self.lower = top / "lower"
        self.directories = [self.upper, self.lower]
        for directory in self.directories:
            directory.mkdir()

    def add_upper(self, name: str, text: str) -> Path:
        return self._add(self.upper, name, text)

    def add_lower(self, name: str, text: str) -> Path:
        return self._add(self.lower, name, text)

    def load(self, name: str) -> Profile:
        return load(name, self.directories)

    def _add(self, directory: Path, name: str, text: str) -> Path:
        path = directory / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Layers]:
    # What a group may write is not trusted.
    before = os.umask(0o022)
    yield Layers(tmp_path)
    os.umask(before)


def test_settings_are_the_knobs_in_their_order() -> None:
    assert list(SETTINGS) == list(KNOBS)


# What is shipped.


def test_shipped_profiles_are_found_and_described() -> None:
    found = available([SHIPPED])
    assert [profile.name for profile in found if isinstance(profile, Profile)] == [
        "database",
        "latency-host",
        "nfs-client",
        "off",
    ]
    for profile in found:
        assert isinstance(profile, Profile)
        assert profile.description
        (source,) = profile.sources
        assert Path(source).parent in SHIPPED
        assert Path(source).name == f"{profile.name}.toml"


def test_shipped_profiles_are_packaged() -> None:
    top = Path(__file__).resolve().parents[2]
    project = tomllib.loads((top / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = project["tool"]["setuptools"]["package-data"]["cvmtune"]
    package = Path(cvmtune.__file__).parent
    for directory in SHIPPED:
        assert any(file.match(glob) for file in directory.glob("*.toml") for glob in packaged)
        assert package in directory.parents


@pytest.mark.parametrize(
    ("cpus", "ipi", "last"), [(2, "2", "1"), (4, "e", "3"), (64, "ffffffff,fffffffe", "63")]
)
def test_database(cpus: int, ipi: str, last: str) -> None:
    profile = load("database", [SHIPPED])
    facts = guest(cpus)
    assert unmet(profile, facts) == []
    resolved = resolve(profile, facts)
    assert resolved.settings == {"ipi-poll-us": "200", "ipi": ipi, "cq-poll": last}
    assert resolved.left_out == {}

    vendor = resolve(profile, guest(cpus, frozenset({"ipi"})))
    assert vendor.settings == {"ipi": ipi}
    assert vendor.left_out == {"ipi-poll-us": NO_CONTROL, "cq-poll": NO_CONTROL}

    assert len(unmet(profile, guest(1, frozenset(), own_cpus=False))) == 3
    assert unmet(profile, host(present=frozenset(KNOBS))) == ["wants a guest, and this is a host"]


@pytest.mark.parametrize(("cpus", "last"), [(2, "1"), (4, "3"), (64, "63")])
def test_nfs_client(cpus: int, last: str) -> None:
    profile = load("nfs-client", [SHIPPED])
    facts = guest(cpus)
    assert unmet(profile, facts) == []
    assert resolve(profile, facts).settings == {"cq-idle-us": "1000", "cq-poll": last}

    vendor = resolve(profile, guest(cpus, frozenset({"cq-poll"})))
    assert vendor.settings == {"cq-poll": last}
    assert vendor.left_out == {"cq-idle-us": NO_CONTROL}

    assert len(unmet(profile, guest(1, frozenset(), own_cpus=False))) == 3
    assert unmet(profile, host(present=frozenset(KNOBS))) == ["wants a guest, and this is a host"]


@pytest.mark.parametrize(("cpus", "wfx"), [(2, "3"), (4, "f"), (64, "ffffffff,ffffffff")])
def test_latency_host(cpus: int, wfx: str) -> None:
    profile = load("latency-host", [SHIPPED])
    facts = host(cpus)
    assert unmet(profile, facts) == []
    assert resolve(profile, facts).settings == {"wfx-guard": "Y", "wfx": wfx}

    vendor = resolve(profile, host(cpus, frozenset({"wfx"})))
    assert vendor.settings == {"wfx": wfx}
    assert vendor.left_out == {"wfx-guard": NO_CONTROL}

    assert len(unmet(profile, host(cpus, frozenset(), own_cpus=False))) == 2
    assert unmet(profile, guest(present=frozenset(KNOBS))) == ["wants a host, and this is a guest"]


@pytest.mark.parametrize("cpus", [1, 2, 4, 64])
def test_off_is_for_any_machine(cpus: int) -> None:
    profile = load("off", [SHIPPED])
    none = frozenset[str]()
    for facts in (guest(cpus, own_cpus=None), host(cpus, own_cpus=False), guest(cpus, none)):
        assert unmet(profile, facts) == []
    assert resolve(profile, guest(cpus)).settings == {"ipi": "0", "cq-poll": "-1"}
    assert resolve(profile, guest(cpus)).left_out == {"wfx": NO_CONTROL, "wfx-guard": NO_CONTROL}
    assert resolve(profile, host(cpus)).settings == {"wfx-guard": "N", "wfx": "0"}
    assert resolve(profile, guest(cpus, none)).settings == {}


# One file.


def test_all_that_a_file_may_say(layers: Layers) -> None:
    path = layers.add_upper(
        "mine",
        """
        description = "µs matter"
        [require]
        role = "guest"
        cpus = 2
        features = ["ipi", "cq-poll"]
        own_cpus = true
        [set]
        ipi = "2-3"
        cq-poll = 3
        [set-if-present]
        cq-idle-us = 0
        ipi-poll-us = "200"
        wfx-guard = true
        wfx = "off"
        """,
    )
    assert layers.load("mine") == Profile(
        name="mine",
        description="µs matter",
        sources=(str(path),),
        require=Requirements("guest", 2, ("ipi", "cq-poll"), True),
        settings={"ipi": "2-3", "cq-poll": "3"},
        optional={"cq-idle-us": "0", "ipi-poll-us": "200", "wfx-guard": "Y", "wfx": "off"},
    )


def test_nothing_is_required_of_a_file(layers: Layers) -> None:
    layers.add_upper("empty", "")
    profile = layers.load("empty")
    assert (profile.require, profile.settings, profile.optional) == (Requirements(), {}, {})
    assert unmet(profile, guest(1, frozenset(), own_cpus=None)) == []


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("unknown = 1", "unknown", "description, extends, retry, require, set, set-if-present"),
        ("[sets]\nipi = 'c'", "sets", "set-if-present"),
        ("description = 1", "description", "string"),
        ("extends = ['database']", "extends", "string"),
        ("require = 'guest'", "require", "table"),
        ("set = 'ipi'", "set", "table"),
        ("set-if-present = []", "set-if-present", "table"),
        ("[require]\nrole = 'monitor'", "role", "guest or host"),
        ("[require]\nrole = true", "role", "string"),
        ("[require]\ncpus = 0", "cpus", "1 or more"),
        ("[require]\ncpus = true", "cpus", "integer"),
        ("[require]\ncpus = 2.0", "cpus", "integer"),
        ("[require]\nfeatures = 'ipi'", "features", "list"),
        ("[require]\nfeatures = ['ipi', 'ipc']", "features", "ipi-poll-us, ipi,"),
        ("[require]\nfeatures = [['ipi']]", "features", "ipi-poll-us, ipi,"),
        ("[require]\nown_cpus = 1", "own_cpus", "true or false"),
        ("[require]\nmemory = 1", "memory", "role, cpus, features, own_cpus"),
        ("[set]\nhalt = 1", "halt", "ipi-poll-us, ipi,"),
        ("[set-if-present]\nhalt = 1", "halt", "ipi-poll-us, ipi,"),
        ("[set]\nipi = 3", "ipi", "hex mask"),
        ("[set]\nipi = 0x0c", "ipi", "all-but-first"),
        ("[set]\nipi = true", "ipi", "hex mask"),
        ("[set]\nipi = 'some'", "ipi", "all-but-first"),
        ("[set]\nipi = ''", "ipi", "all-but-first"),
        ("[set]\nipi = ['c']", "ipi", "hex mask"),
        ("[set-if-present]\nwfx = 'last'", "wfx", "hex mask"),
        ("[set]\nipi-poll-us = -1", "ipi-poll-us", "microseconds"),
        ("[set]\nipi-poll-us = 4294967296", "ipi-poll-us", "2^32"),
        ("[set]\nipi-poll-us = 0.2", "ipi-poll-us", "microseconds"),
        ("[set]\nipi-poll-us = true", "ipi-poll-us", "microseconds"),
        ("[set]\ncq-idle-us = '1ms'", "cq-idle-us", "microseconds"),
        ("[set]\ncq-idle-us = 'off'", "cq-idle-us", "microseconds"),
        ("[set]\ncq-poll = -2", "cq-poll", "'off' or 'last'"),
        ("[set]\ncq-poll = true", "cq-poll", "'off' or 'last'"),
        ("[set]\ncq-poll = 'all'", "cq-poll", "'off' or 'last'"),
        (f"[set]\ncq-poll = {MAX_CPUS}", "cq-poll", "'off' or 'last'"),
        ("[set]\nwfx-guard = 1", "wfx-guard", "true"),
        ("[set]\nwfx-guard = 'maybe'", "wfx-guard", "true"),
        ("[set]\nipi = 'c'\n[set-if-present]\nipi = 'c'", "ipi", "one of them"),
        ("[set]\nipi = 'c'\nipi = 'c'", "not TOML", "correct"),
        ("ipi", "not TOML", "correct"),
        (f"[set]\ncq-idle-us = {'9' * 5000}", "not TOML", "correct"),
    ],
)
def test_mistakes_are_named(layers: Layers, text: str, key: str, allowed: str) -> None:
    path = layers.add_upper("wrong", text)
    with pytest.raises(UsageError) as caught:
        layers.load("wrong")
    assert caught.value.where == str(path)
    assert key in caught.value.what
    assert allowed in caught.value.next_step


def test_booleans_are_no_integers(layers: Layers) -> None:
    layers.add_upper("wrong", "[set]\ncq-poll = true")
    with pytest.raises(UsageError, match="True is not an integer or a string"):
        layers.load("wrong")


# Several files.


def test_first_directory_counts(layers: Layers) -> None:
    upper = layers.add_upper("one", "[set]\nipi = 'c'")
    layers.add_lower("one", "[set]\nipi = '3'\ncq-poll = 1")
    other = layers.add_lower("other", "")
    assert layers.load("one").settings == {"ipi": "c"}
    assert layers.load("one").sources == (str(upper),)
    assert layers.load("other").sources == (str(other),)


def test_directory_that_does_not_exist_is_skipped(layers: Layers) -> None:
    layers.upper.rmdir()
    layers.add_lower("one", "")
    assert layers.load("one").name == "one"
    assert len(available(layers.directories)) == 1


def test_file_in_a_directorys_place_is_skipped(layers: Layers) -> None:
    layers.upper.rmdir()
    layers.upper.touch()
    layers.add_lower("one", "")
    assert layers.load("one").name == "one"


def test_childs_keys_hold_before_its_parents(layers: Layers) -> None:
    parent = layers.add_lower(
        "parent",
        """
        description = "parent's"
        [require]
        role = "guest"
        cpus = 2
        features = ["ipi"]
        own_cpus = true
        [set]
        ipi = "c"
        cq-poll = 1
        [set-if-present]
        ipi-poll-us = 200
        cq-idle-us = 50
        """,
    )
    child = layers.add_upper(
        "child",
        """
        extends = "parent"
        [require]
        cpus = 4
        features = []
        own_cpus = false
        [set]
        ipi = "all"
        ipi-poll-us = 100
        [set-if-present]
        cq-poll = "last"
        """,
    )
    assert layers.load("child") == Profile(
        name="child",
        description="parent's",
        sources=(str(child), str(parent)),
        require=Requirements("guest", 4, (), False),
        settings={"ipi": "all", "ipi-poll-us": "100"},
        optional={"cq-poll": "last", "cq-idle-us": "50"},
    )


def test_a_generation_does_not_bring_back_what_the_next_replaced(layers: Layers) -> None:
    layers.add_lower("a", "description = 'a'\n[set]\nipi = '1'\nwfx = '1'")
    layers.add_lower("b", "extends = 'a'\ndescription = 'b'\n[set-if-present]\nipi = '2'")
    layers.add_lower("c", "extends = 'b'\n[set]\nipi = '4'")
    profile = layers.load("c")
    assert profile.description == "b"
    assert profile.settings == {"ipi": "4", "wfx": "1"}
    assert profile.optional == {}
    assert [Path(source).stem for source in profile.sources] == ["c", "b", "a"]


def test_own_name_means_the_next_directorys(layers: Layers) -> None:
    upper = layers.add_upper("one", "extends = 'one'\n[set]\nipi = 'c'")
    lower = layers.add_lower("one", "[set]\nipi = '3'\ncq-poll = 1")
    profile = layers.load("one")
    assert profile.settings == {"ipi": "c", "cq-poll": "1"}
    assert profile.sources == (str(upper), str(lower))
    assert load(str(upper), layers.directories) == profile


def test_own_name_by_a_relative_path(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    upper = layers.add_upper("one", "extends = 'one'")
    lower = layers.add_lower("one", "")
    monkeypatch.chdir(layers.upper)
    assert layers.load("./one.toml").sources == (str(upper), str(lower))


def test_own_name_in_the_last_directory_is_an_error(layers: Layers) -> None:
    path = layers.add_lower("one", "extends = 'one'")
    layers.add_upper("other", "")
    with pytest.raises(UsageError, match="extends: no profile 'one'") as caught:
        layers.load("one")
    assert caught.value.where == str(path)


def test_another_name_is_looked_up_from_the_top(layers: Layers) -> None:
    layers.add_upper("base", "[set]\nipi = 'c'")
    layers.add_lower("base", "[set]\nipi = '3'")
    layers.add_lower("one", "extends = 'base'")
    assert layers.load("one").settings == {"ipi": "c"}


def test_own_name_of_a_file_elsewhere_is_looked_up_from_the_top(layers: Layers, tmp_path: Path) -> None:
    layers.add_upper("one", "[set]\nipi = 'c'")
    path = tmp_path / "one.toml"
    path.write_text("extends = 'one'\n[set]\ncq-poll = 1")
    assert layers.load(str(path)).settings == {"ipi": "c", "cq-poll": "1"}


def test_shipped_profile_is_adjusted_under_its_name(layers: Layers) -> None:
    layers.add_upper("database", "extends = 'database'\n[set]\nipi-poll-us = 50")
    profile = load("database", [layers.upper, SHIPPED])
    assert resolve(profile, guest(4)).settings == {"ipi-poll-us": "50", "ipi": "e", "cq-poll": "3"}
    assert profile.require == load("database", [SHIPPED]).require


@pytest.mark.parametrize(
    ("parents", "chain"),
    [({"a": "b", "b": "a"}, "aba"), ({"a": "b", "b": "c", "c": "b"}, "abcb")],
)
def test_circles_are_errors(layers: Layers, parents: dict[str, str], chain: str) -> None:
    for name, parent in parents.items():
        layers.add_upper(name, f"extends = '{parent}'")
        layers.add_lower(name, "")
    with pytest.raises(UsageError, match="extends itself") as caught:
        layers.load("a")
    assert caught.value.where == " -> ".join(str(layers.upper / f"{name}.toml") for name in chain)


@pytest.mark.parametrize("parent", ["nowhere", "../upper/base", "./base", "base.toml", "", "a\\u0000b"])
def test_extends_takes_names_that_there_are(layers: Layers, parent: str) -> None:
    layers.add_upper("base", "")
    path = layers.add_upper("one", f'extends = "{parent}"')
    with pytest.raises(UsageError, match="extends: no profile") as caught:
        layers.load("one")
    assert caught.value.where == str(path)
    assert caught.value.next_step == "choose from base, one"


@pytest.mark.parametrize("name", ["nowhere", "", "..", ".hidden"])
def test_unknown_name(layers: Layers, name: str) -> None:
    layers.add_upper("one", "")
    layers.add_lower("two", "")
    layers.add_lower(".hidden", "")
    with pytest.raises(UsageError, match=f"no profile '{name}'") as caught:
        layers.load(name)
    assert caught.value.where == f"{layers.upper}, {layers.lower}"
    assert caught.value.next_step == "choose from one, two"


@pytest.mark.parametrize("name", ["./one", "one.toml", "./one.toml", "sub/../one.toml"])
def test_path(layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    layers.add_upper("one", "description = 'not this'")
    (tmp_path / "sub").mkdir()
    for file in ("one", "one.toml"):
        (tmp_path / file).write_text(f"description = '{file}'")
    monkeypatch.chdir(tmp_path)
    profile = layers.load(name)
    assert (profile.name, profile.description) == ("one", Path(name).name)


@pytest.mark.parametrize("path", ["/nowhere/at/all.toml", str(SHIPPED[0] / "nowhere.toml")])
def test_path_to_nothing(layers: Layers, path: str) -> None:
    with pytest.raises(CvmtuneError, match="No such file") as caught:
        layers.load(path)
    assert caught.value.where == path


@pytest.mark.parametrize("by_path", [False, True])
def test_only_trusted_files_are_read(layers: Layers, by_path: bool) -> None:
    path = layers.add_upper("one", "[set]\nipi = 'c'")
    layers.add_lower("one", "")
    path.chmod(0o666)
    with pytest.raises(CvmtuneError, match="may write"):
        layers.load(str(path) if by_path else "one")


def test_what_is_shipped_is_as_good_as_the_code(layers: Layers) -> None:
    layers.add_lower("one", "description = 'shipped'").chmod(0o666)
    profiles = Profiles(tuple(layers.directories), (layers.lower,), SETTINGS)
    assert profiles.load("one").description == "shipped"


def test_untrusted_parent_is_not_read(layers: Layers) -> None:
    layers.add_upper("one", "extends = 'one'")
    layers.add_lower("one", "").chmod(0o666)
    with pytest.raises(CvmtuneError, match="may write"):
        layers.load("one")


def test_link_to_nowhere_does_not_uncover_the_next_directory(layers: Layers) -> None:
    layers.add_lower("one", "")
    (layers.upper / "one.toml").symlink_to("nowhere")
    with pytest.raises(CvmtuneError, match="No such file"):
        layers.load("one")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look anywhere")
def test_closed_directory_does_not_uncover_the_next(layers: Layers) -> None:
    layers.add_lower("one", "")
    layers.upper.chmod(0)
    with pytest.raises(CvmtuneError, match="cannot look") as caught:
        layers.load("one")
    assert caught.value.where == str(layers.upper)


def test_available_has_the_errors_in_the_place_of_broken_profiles(layers: Layers) -> None:
    layers.add_upper("b", "wrong = 1")
    layers.add_upper("a", "")
    layers.add_upper(".#a", "")  # as editors make
    layers.add_lower("c", "").chmod(0o666)
    layers.add_lower("a", "description = 'covered'")
    layers.add_lower("d", "")
    found = available(layers.directories)
    assert [entry.name if isinstance(entry, Profile) else Path(entry.where).stem for entry in found] == [
        "a",
        "b",
        "c",
        "d",
    ]
    assert [isinstance(entry, Profile) for entry in found] == [True, False, False, True]
    assert isinstance(found[0], Profile)
    assert found[0].description == ""


# On machines.


def profile_with(
    require: Requirements | None = None,
    settings: dict[str, str] | None = None,
    optional: dict[str, str] | None = None,
) -> Profile:
    return Profile("p", "", (), require or Requirements(), settings or {}, optional or {})


def test_role_is_a_precondition() -> None:
    profile = profile_with(Requirements(role="host"))
    assert unmet(profile, guest()) == ["wants a host, and this is a guest"]
    assert unmet(profile, host()) == []
    # Whether CPUs are its own was found out for a host, which says nothing about a guest.
    profile = profile_with(Requirements(role="guest", own_cpus=True))
    assert unmet(profile, host(own_cpus=False)) == ["wants a guest, and this is a host"]


def test_cpus_that_are_online_count() -> None:
    profile = profile_with(Requirements(cpus=3))
    facts = Facts("guest", CpuMask.from_list("0,2"), first(8), GUEST_CONTROLS, True)
    assert unmet(profile, facts) == ["wants 3 CPUs online, and this machine has 2"]
    assert unmet(profile, guest(3)) == []


def test_controls_are_preconditions_but_for_optional_ones() -> None:
    profile = profile_with(
        Requirements(features=("wfx", "ipi")),
        {"ipi": "c", "cq-poll": "last"},
        {"ipi-poll-us": "1"},
    )
    assert unmet(profile, guest(present=frozenset())) == [
        "wants the control ipi, and this kernel has none",
        "wants the control cq-poll, and this kernel has none, or ib_core_cq_poll is not loaded: modprobe it",
        "wants the control wfx, and this kernel has none",
    ]
    assert unmet(profile, guest(present=frozenset({"ipi", "cq-poll", "wfx"}))) == []


@pytest.mark.parametrize(
    ("facts", "own_cpus", "wanted", "finding", "place"),
    [
        (guest, False, "lose no time", "it is not so", "/proc/stat"),
        (guest, None, "lose no time", "cannot be told", "/proc/stat"),
        (host, False, "pinned", "it is not so", "Cpus_allowed_list"),
        (host, None, "pinned", "cannot be told", "Cpus_allowed_list"),
    ],
)
def test_own_cpus_must_be_known(
    facts: Callable[..., Facts], own_cpus: bool | None, wanted: str, finding: str, place: str
) -> None:
    profile = profile_with(Requirements(own_cpus=True))
    (clause,) = unmet(profile, facts(own_cpus=own_cpus))
    assert wanted in clause
    assert finding in clause
    assert place in clause
    assert unmet(profile, facts(own_cpus=True)) == []
    assert unmet(profile_with(), facts(own_cpus=own_cpus)) == []


def test_settings_come_in_the_order_of_the_knobs() -> None:
    profile = profile_with(
        settings={"wfx": "c", "ipi": "c", "cq-poll": "1"},
        optional={"wfx-guard": "Y", "cq-idle-us": "9", "ipi-poll-us": "9"},
    )
    resolved = resolve(profile, guest(present=frozenset(KNOBS)))
    assert list(resolved.settings) == list(KNOBS)


def test_what_is_set_is_not_left_out() -> None:
    resolved = resolve(profile_with(settings={"ipi": "c"}, optional={"wfx": "c"}), guest(present=frozenset()))
    assert resolved.settings == {"ipi": "c"}
    assert resolved.left_out == {"wfx": NO_CONTROL}


# Of CPUs 0 to 7 the first, the last and some between are offline.
GAPS = Facts("guest", CpuMask.from_list("2,4-6"), first(8), GUEST_CONTROLS, None)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ipi-poll-us", "0", "0"),
        ("ipi-poll-us", "200", "200"),
        ("cq-idle-us", "0200", "200"),
        ("cq-idle-us", "4294967295", "4294967295"),
        ("ipi", "off", "0"),
        ("ipi", "all", "74"),
        ("ipi", "all-but-first", "70"),
        ("ipi", "2-3", "c"),
        ("ipi", "0x0000000C", "c"),
        ("ipi", "3", "3"),
        ("ipi", "0,9", "201"),  # that there is no such CPU is for the knob to say
        ("wfx", "off", "0"),
        ("wfx", "all", "ff"),
        ("wfx", "all-but-first", "fe"),
        ("wfx", "1,00000000", "1,00000000"),
        ("cq-poll", "off", "-1"),
        ("cq-poll", "-1", "-1"),
        ("cq-poll", "last", "6"),
        ("cq-poll", "3", "3"),
        ("cq-poll", "03", "3"),
        ("wfx-guard", "on", "Y"),
        ("wfx-guard", "Y", "Y"),
        ("wfx-guard", "off", "N"),
        ("wfx-guard", "N", "N"),
    ],
)
def test_resolve_setting(name: str, text: str, value: str) -> None:
    assert resolve_setting(name, text, GAPS) == value


def test_words_name_no_more_vcpus_than_kvm_has_ids() -> None:
    facts = host(1024)
    assert CpuMask.from_hex(resolve_setting("wfx", "all", facts)) == first(512)


def test_vcpus_are_counted_by_what_cpus_are_possible() -> None:
    facts = Facts("host", first(2), CpuMask.from_list("0-1,8-9"), HOST_CONTROLS, True)
    assert resolve_setting("wfx", "all", facts) == "f"


def test_all_but_first_of_one_is_none() -> None:
    assert resolve_setting("ipi", "all-but-first", guest(1)) == "0"


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("ipi", "last", "all-but-first"),
        ("ipi", "c,0", "all-but-first"),
        ("wfx", "", "all-but-first"),
        ("cq-poll", "-2", "'last'"),
        ("cq-poll", "2-3", "'last'"),
        ("cq-poll", str(MAX_CPUS), "'last'"),
        ("cq-poll", "\N{ARABIC-INDIC DIGIT THREE}", "'last'"),
        ("ipi-poll-us", "4294967296", "microseconds"),
        ("ipi-poll-us", "9" * 5000, "microseconds"),
        ("ipi-poll-us", "1_000", "microseconds"),
        ("ipi-poll-us", " 1", "microseconds"),
        ("cq-idle-us", "", "microseconds"),
        ("wfx-guard", "true", "on"),
        ("halt", "1", "ipi-poll-us, ipi,"),
    ],
)
def test_resolve_setting_refuses(name: str, text: str, allowed: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_setting(name, text, GAPS)
    assert name in caught.value.what
    assert allowed in caught.value.next_step


values = (
    st.text(alphabet="0123456789abcdefx,-", max_size=12)
    | st.sampled_from(["off", "on", "all", "all-but-first", "last", "Y", "N"])
    | st.integers()
    | st.booleans()
    | st.floats()
    | st.lists(st.text())
)


@given(st.sampled_from(list(KNOBS)), values, st.frozensets(st.integers(0, 70), min_size=1))
def test_value_that_passes_means_something_on_every_machine(
    name: str, value: object, online: frozenset[int]
) -> None:
    facts = Facts("guest", CpuMask(online), first(71), frozenset(), None)
    try:
        text = check_value(name, value)
    except UsageError:
        return
    assert resolve_setting(name, text, facts)
