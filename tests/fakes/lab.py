# SPDX-License-Identifier: Apache-2.0
"""A lab of this machine: nothing is built or booted, commands run here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cvmtune.core.system import LocalSystem
from cvmtune.lab.cache import Cache
from cvmtune.lab.machine import PLAIN_BOOT, BootOptions
from cvmtune.lab.progress import SilentProgress
from cvmtune.lab.specs import MACHINES


@dataclass
class FakeLab:
    """Records how machines were booted; guest and host are this computer."""

    root: Path
    booted: list[tuple[str, str, BootOptions]] = field(default_factory=list)
    tools: list[tuple[Path, ...]] = field(default_factory=list)
    running: int = 0

    def __post_init__(self) -> None:
        self.cache = Cache(self.root)
        self.progress = SilentProgress()

    def build(self, flavour: str, *, host: bool) -> tuple[Any, Path, dict[str, Path]]:
        image, modules = Path(f"/cache/{flavour}/Image"), Path(f"/cache/{flavour}/modules")
        built = SimpleNamespace(image=image, modules=modules, release="6.12.1-cvmtune")
        names = ("guest", "host") if host else ("guest",)
        return built, Path("/cache/tools"), {name: Path(f"/cache/{name}.img") for name in names}

    @contextmanager
    def boot(
        self,
        machine: str,
        *,
        flavour: str = "default",
        options: BootOptions = PLAIN_BOOT,
        tools: Sequence[Path] = (),
    ) -> Iterator[Any]:
        self.booted.append((machine, flavour, options))
        self.tools.append(tuple(tools))
        self.running += 1
        (self.root / "guest.console").write_text("booting\n")
        try:
            yield SimpleNamespace(
                guest=LocalSystem(),
                host=LocalSystem() if MACHINES[machine].nested else None,
                vmm_pid=1,
                emulator_pid=None,
                spec=MACHINES[machine],
                boot_seconds=12.34,
                console=lambda role: self.root / f"{role}.console",
            )
        finally:
            self.running -= 1
