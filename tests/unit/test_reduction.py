# SPDX-License-Identifier: Apache-2.0
"""A recording has what the rules read, so that it gives the same advice, and nothing beside it."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.observe.capture import Capture
from cvmtune.observe.recording import dump, parse
from cvmtune.observe.reduction import REDUCTIONS, contents, reduced
from tests.fakes.bound import advise, features, load, place, risks
from tests.fakes.capture import BOOT_ID, GUEST, HOST, MOUNTSTATS, changed
from tests.unit.test_risks import odd_texts

UPTIME, MOUNTINFO, NFSD, PORTLIST = (
    "/proc/uptime",
    "/proc/self/mountinfo",
    "/proc/net/rpc/nfsd",
    "/proc/fs/nfsd/portlist",
)
DOCS = Path(__file__).resolve().parents[2] / "docs/tool.md"

# What a machine of a stranger's has beside what is read. Each word of SECRETS would tell of it.
STRANGER: Mapping[str, str] = {
    "/proc/cmdline": "root=/dev/vda kvm-arm.mode=nvhe luks.key=hunter2 ip=192.0.2.7 nohlt\n",
    "/proc/mounts": (
        "//fs.example.test/share /mnt/s cifs rw,username=svc_backup,domain=CORP,addr=192.0.2.5 0 0\n"
        "nas.example.test:/secret-vol /data nfs4 rw,proto=rdma,clientaddr=192.0.2.9,sec=krb5p 0 0\n"
    ),
    MOUNTINFO: (
        "21 1 254:0 / / rw shared:1 - ext4 /dev/mapper/vg-customer rw\n"
        "30 21 0:44 / /mnt/s rw - cifs //fs.example.test/share rw,username=svc_backup\n"
        "31 21 0:45 /tenant-7 /data rw - nfs4 nas.example.test:/secret-vol rw,proto=rdma,addr=192.0.2.8\n"
        "32 21 0:45 /tenant-8 /more rw - nfs4 nas.example.test:/secret-vol rw,proto=rdma,addr=192.0.2.8\n"
    ),
    MOUNTSTATS: (
        "device /dev/mapper/vg-customer mounted on /home/jdoe with fstype ext4\n"
        "device //fs.example.test/share mounted on /mnt/s with fstype cifs\n"
        + "".join(
            f"device nas.example.test:/secret-vol mounted on {point} with fstype nfs4 statvers=1.1\n"
            "\topts:\trw,vers=4.2,proto=rdma,clientaddr=192.0.2.9,sec=krb5p\n\tage:\t900\n"
            "\timpl_id:\tname='nas-os',domain='CORP',date='0,0'\n\tsec:\tflavor=6,pseudoflavor=390003\n"
            "\txprt:\trdma 0 0 1 0 0 40 40\n\tper-op statistics\n"
            "\t       WRITE: {0} {0} 0 200000 90000 4 500 600 0\n"
            for point in ("/data", "/more")
        )
    ),
    NFSD: "rc 0 0 0\nfh 1 2 3\nnet {0} 0 0 1\nrpc {0} 0 0 0 0\nproc4ops 3 1 2 3\n",
    PORTLIST: "rdma 20049\ntcp 2049\n",
    "/sys/devices/system/cpu/hotplug/states": "1: private-driver:online\n154: hypervisor/arm/pvtime:online\n",
    "/proc/interrupts": GUEST["/proc/interrupts"].replace("virtio0", "mlx5_comp0@pci:0000:3b:00.0"),
    "/proc/1/cgroup": "0::/acme/init.scope\n",
    "/sys/bus/auxiliary/devices/arm_cca_guest.x/uevent": "DRIVER=oem7\n",
}
SECRETS = (
    *("hunter2", "luks", "192.0.2", "svc_backup", "CORP", "example.test", "secret-vol", "tenant", "customer"),
    *(
        "jdoe",
        "krb5",
        "nas-os",
        "impl_id",
        "private-driver",
        "mlx5_comp",
        "cifs",
        "/mnt/s",
        "proc4ops",
        "acme",
        "oem7",
        "vda",
    ),
)


def stranger(ops: int, uptime: int) -> Capture:
    texts = {path: text.replace("{0}", str(ops)) for path, text in STRANGER.items()}
    return changed(GUEST, {**texts, UPTIME: f"{uptime}.00 1\n"})


def judged(before: Capture, after: Capture) -> object:
    """All that is said of two captures."""
    where = place(after)
    known = features(after, where)
    found = load(before, after)
    return (
        where,
        known,
        risks(after, where, known),
        advise(found),
        found.cpus,
        found.rdma,
        [(one.points, one.transport, one.rpcs, one.rtt_ms) for one in found.mounts],
        (found.server_rpcs, found.server_over_rdma),
        [(vm.now.name, vm.vcpus) for vm in found.vms],
    )


def test_nothing_private_is_recorded() -> None:
    before, after = stranger(1000, 1000), stranger(9000, 1010)
    text = dump(before, after)
    assert [secret for secret in SECRETS if secret in text] == []
    # It was there, and what is read is there still.
    assert all(any(secret in one for one in before.files.values()) for secret in SECRETS)
    again = parse(text, "")
    assert judged(*again) == judged(before, after)
    mount = load(*again).mounts[0]
    assert (mount.points, mount.rpcs) == (("/data", "/more"), 800)


@pytest.mark.parametrize(
    ("path", "text", "kept"),
    [
        ("/proc/1/cgroup", "5:cpuset:/kubepods/pod-acme\n0::/\n", "0::/kubepods\n"),
        ("/run/systemd/container", "lxc\nacme\n", "lxc\n"),
        (
            "/proc/cmdline",
            "virtcca_cvm_guest=acme nohlt=acme cvm-guest=1",
            "virtcca_cvm_guest=- nohlt cvm_guest=1\n",
        ),
        ("/proc/cmdline", "a -- nohlt", "-\n"),
    ],
)
def test_no_more_than_what_is_read(path: str, text: str, kept: str) -> None:
    assert reduced(Capture({path: text})).files[path] == kept


def test_only_numbers_tell_servers_apart() -> None:
    text = "".join(
        f"device {server}:/e mounted on {point} with fstype nfs4 statvers=1.1\n\tper-op statistics\n"
        "\t       WRITE: 1 1 0 2 3 4 5 6 0\n"
        for server, point in (("alpha", "/a"), ("beta", "/b"), ("alpha", "/c"))
    )
    kept = reduced(Capture({MOUNTSTATS: text})).files[MOUNTSTATS]
    assert [line.split()[1] for line in kept.splitlines() if line.startswith("device s")] == [
        *("server1:/", "server2:/", "server1:/")
    ]


@st.composite
def odd_pairs(draw: st.DrawFn) -> tuple[Capture, Capture]:
    """Two captures of a machine, each made odd in its way."""
    files = draw(st.sampled_from([GUEST, HOST, stranger(1000, 1000).files]))
    paths = sorted(files.keys() - {UPTIME, BOOT_ID})
    seen = []
    for uptime in (1000, 1010):
        odd = {
            path: draw(odd_texts(files[path])) for path in draw(st.lists(st.sampled_from(paths), max_size=4))
        }
        hidden = dict.fromkeys(draw(st.lists(st.sampled_from(paths), max_size=1)), errno.EACCES)
        found = changed(files, {**odd, UPTIME: f"{uptime}.00 1\n", **dict.fromkeys(hidden)})
        seen.append(replace(found, unreadable=hidden))
    return seen[0], seen[1]


@given(odd_pairs())
def test_a_recording_says_what_the_machine_says(captures: tuple[Capture, Capture]) -> None:
    again = parse(dump(*captures), "a.json")
    assert judged(*again) == judged(*captures)


@pytest.mark.parametrize(
    "name", sorted(path.name for path in Path(__file__).parent.glob("recordings/*.json"))
)
def test_older_recordings_say_the_same_when_reduced(name: str) -> None:
    text = (Path(__file__).parent / "recordings" / name).read_text(encoding="utf-8")
    captures = parse(text, name)
    again = parse(dump(*captures), name)
    assert judged(*again) == judged(*captures)


def test_contents_are_told() -> None:
    told = dict(contents(Capture({**GUEST, **HOST, **STRANGER})))
    assert told["/proc/mounts"] == "of NFS mounts: place and transport"
    assert told["/proc/uptime"] == "whole"
    assert told["/sys/kernel/debug/kvm/*/wfx_trap_stats"] == "whole"
    assert told["/sys/class/infiniband/*/ports/*/hw_counters/*"] == "whole"
    assert told["/run/libvirt/qemu/*.pid"] == "whole"
    assert told["/proc/*/task/*/comm"] == "whole"
    # Many alike are one line.
    assert len(told) < 50


def test_the_page_says_what_is_kept() -> None:
    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    for one in REDUCTIONS:
        assert f"| `{one.paths}` | {one.kept} |" in text


def test_reduced_text_keeps_its_form() -> None:
    files = json.loads(dump(stranger(1, 1), stranger(2, 2)))["after"]["files"]
    assert files["/proc/cmdline"] == "kvm_arm.mode=nvhe nohlt\n"
    assert files["/proc/mounts"] == "- /data nfs4 proto=rdma 0 0\n"
    assert files[NFSD] == "net 2 0 0 1\nrpc 2 0 0 0 0\n"
