# SPDX-License-Identifier: Apache-2.0
"""The loads of the black box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cvmtune.workloads.blackbox.metrics import Named
from cvmtune.workloads.postgres import TransactionLoad


@dataclass(frozen=True)
class BlackboxScale:
    """How much is done in a round.

    Rates (a second) must be such that every machine sustains them in every state: then all do the same work,
    and are idle in between, as a system is whose users wait for it. `rates` are those of one client, by the
    script. The audit log's writer is on `server_cpu`, beside the poller; its producers are on the other.
    Each round has its own random numbers, the same in all its states.
    """

    rates: tuple[tuple[str, int], ...] = (("insert", 25), ("tpcb", 12))
    seconds: float = 2.4
    clients: tuple[int, ...] = (1, 2, 4)
    closed_transactions: int = 100
    audit_rate: int = 40
    producers: int = 3
    records: int = 30
    server_cpu: int = 0
    client_cpu: int = 1


DEFAULT_SCALE = BlackboxScale()

SCRIPTS = {"insert": "insert", "tpcb": "TPC-B transaction"}


@dataclass(frozen=True)
class DatabaseLoad(Named):
    """A load of the database."""

    load: TransactionLoad


def main_loads(scale: BlackboxScale) -> Iterator[DatabaseLoad]:
    """The loads by which the combinations are compared: each script by one client at a rate."""
    for script, rate in scale.rates:
        yield _at_rate(script, script, rate, 1, scale)


def closed_loads(scale: BlackboxScale) -> Iterator[DatabaseLoad]:
    """Each script by one client, one after another: what is counted is the transactions', not of a time that
    passes between them."""
    for script, _ in scale.rates:
        yield _closed(script, 1, scale)


def more_loads(scale: BlackboxScale) -> Iterator[DatabaseLoad]:
    """All others: each script by several clients, at a rate and one after another."""
    for script, rate in scale.rates:
        for clients in scale.clients:
            if clients > 1:
                # More clients have more done, but not as much more: all wait for one log.
                yield _at_rate(f"{script}_{clients}", script, rate * (1 + clients) // 2, clients, scale)
                yield _closed(script, clients, scale)


def _closed(script: str, clients: int, scale: BlackboxScale) -> DatabaseLoad:
    load = TransactionLoad(script, scale.closed_transactions, clients)
    return DatabaseLoad(
        f"{script}_{clients}_closed", f"{_by(script, clients)}, one after another", "tx", load
    )


def _at_rate(name: str, script: str, rate: int, clients: int, scale: BlackboxScale) -> DatabaseLoad:
    load = TransactionLoad(script, round(rate * scale.seconds), clients, rate)
    return DatabaseLoad(name, f"{_by(script, clients)}, {rate} a second", "tx", load)


def _by(script: str, clients: int) -> str:
    return f"{SCRIPTS[script]} by {clients} client{'s' if clients > 1 else ''}"
