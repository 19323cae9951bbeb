# SPDX-License-Identifier: Apache-2.0
"""The payload disk: what changes from boot to boot, as a tar file that init unpacks over the root file
system.

So a change of the package or of a test module needs no new root file system, and `cvmtune` in a guest is
always the one that booted it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cvmtune

_PACKAGE = "usr/lib/python3/dist-packages/cvmtune"
_SECTOR = 512
_COMMAND = """\
#!/usr/bin/python3
import sys
from cvmtune.cli import main
sys.exit(main())
"""


def write_payload(target: Path, tools: Sequence[Path], files: Mapping[str, str]) -> None:
    """Write the tar file: the package, its command, test tools under /opt/cvmtune, and `files` (path:
    content).

    `tools` are directories of kernel modules and programs, which keep their directories below these.
    """
    with tarfile.open(target, "w") as tar:
        source = Path(cvmtune.__file__).parent
        for path in sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                tar.add(path, f"{_PACKAGE}/{path.relative_to(source)}", filter=_owned_by_root)
        for directory in tools:
            for path in sorted(directory.iterdir()):
                tar.add(path, f"opt/cvmtune/{path.name}", filter=_owned_by_root)
        _add_text(tar, "usr/local/bin/cvmtune", _COMMAND, 0o755)
        for name, text in files.items():
            _add_text(tar, name.lstrip("/"), text, 0o644)
    with target.open("ab") as file:
        # A disk has whole sectors.
        file.write(bytes(-file.tell() % _SECTOR))


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _add_text(tar: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = mode
    tar.addfile(member, io.BytesIO(data))
