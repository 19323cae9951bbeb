# SPDX-License-Identifier: Apache-2.0
"""`cvmtune report`: show what an earlier run recorded."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from cvmtune.report import render, summarise
from cvmtune.report.rule import Factors, Rule, Rules
from cvmtune.report.schema import Verdict, load
from cvmtune.report.table import print_tables


def main(results_file: Path, *, html: Path | None, summary: Path | None, as_json: bool, rules: Rules) -> int:
    """Show a result file, as a page and a summary too if asked; return 0 if every verdict is PASS, else 1.

    The verdicts are those of the file; the rules say what else to tell of the experiments.
    """
    results = load(results_file)
    render(results, rules, html=html, json=None)
    if summary:
        summarise(results, rules, summary)
    if as_json:
        print(json.dumps(results.to_json(), indent=2))
    else:
        print_tables(results, Console())
    return 0 if all(result.verdict is Verdict.PASS for result in results.results) else 1


def rules() -> Rules:
    """The rules of all experiments, by their names."""
    from cvmtune.features.cq_poll import about as cq_poll_about
    from cvmtune.features.cq_poll import verdict as cq_poll
    from cvmtune.features.soft_ipi import about as soft_ipi_about
    from cvmtune.features.soft_ipi import verdict as soft_ipi
    from cvmtune.features.vtimer import about as vtimer_about
    from cvmtune.features.vtimer import verdict as vtimer
    from cvmtune.features.wfx import about as wfx_about
    from cvmtune.features.wfx import verdict as wfx
    from cvmtune.workloads.blackbox import about as blackbox_about
    from cvmtune.workloads.blackbox import verdict as blackbox
    from cvmtune.workloads.blackbox.experiment import COMBINATIONS, FEATURES

    factors = Factors(FEATURES, COMBINATIONS, blackbox.MAIN_METRICS)
    return {
        "ipi": Rule(lambda metrics, _: soft_ipi.verdict(metrics), "sgi_per_ipi", about=soft_ipi_about.ABOUT),
        "vtimer": Rule(vtimer.verdict, "timer_exits_per_section", about=vtimer_about.ABOUT),
        "cq-poll": Rule(
            lambda metrics, _: cq_poll.verdict(metrics), "wakeups_per_write", about=cq_poll_about.ABOUT
        ),
        "wfx": Rule(lambda metrics, _: wfx.verdict(metrics), "wfx_per_futex_rtt", about=wfx_about.ABOUT),
        "blackbox": Rule(blackbox.verdict, "tpcb_ipis", blackbox.GOAL, factors, blackbox_about.ABOUT),
    }
