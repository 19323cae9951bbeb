# SPDX-License-Identifier: Apache-2.0
"""Verdicts and figures from runs made by hand."""

import math
import re
from collections.abc import Sequence
from typing import Literal

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.judge import judge
from cvmtune.report.rule import Rule
from cvmtune.report.schema import Breakdown, Metric, Part, Result, Verdict
from cvmtune.report.stats import KEPT_SAMPLES
from cvmtune.workloads.blackbox.metrics import MAIN_METRICS
from tests.fakes.bound import BLACKBOX, RULES

COMBINATIONS, FEATURES = BLACKBOX.states, BLACKBOX.names
SINGLES = FEATURES


def count(name: str, value: float) -> Series:
    return Series(name, name.upper(), "per IPI", "count", "lower", (value,))


def time(name: str, *samples: float, better: Literal["lower", "higher"] = "lower") -> Series:
    return Series(name, name.upper(), "ns", "time", better, samples)


def run(off: list[Series], on: list[Series], rounds: int = 4, machine: str = "cvm") -> RawRun:
    pairs = [Round(state, i, tuple(s)) for i in range(rounds) for state, s in (("off", off), ("on", on))]
    return RawRun("ipi", machine, tuple(pairs), {"kernel": "6.12"})


def counts(sgi: float, exits: float | None) -> list[Series]:
    return [count("sgi_per_ipi", sgi)] + ([] if exits is None else [count("exits_per_ipi", exits)])


def only(raw: RawRun) -> Result:
    (result,) = judge([raw], [], RULES).results
    return result


def metric(result: Result, name: str) -> Metric:
    (found,) = (one for one in result.metrics if one.name == name)
    return found


def ratio(result: Result, name: str) -> float | None:
    effect = metric(result, name).effect
    return None if effect is None else effect.ratio


def test_ratio_is_turned_so_that_above_one_is_better() -> None:
    off = [*counts(1.0, None), time("notify", 6, 8), time("rate", 100, better="higher")]
    on = [*counts(0.0, None), time("notify", 2), time("rate", 300, better="higher")]
    result = only(run(off, on))
    assert ratio(result, "notify") == pytest.approx(3.5)
    assert metric(result, "notify").off.n == 8
    assert ratio(result, "rate") == pytest.approx(3.0)


def test_a_denominator_of_zero_has_no_ratio() -> None:
    sgi = metric(only(run(counts(1.0, None), counts(0.0, None))), "sgi_per_ipi")
    assert sgi.effect is None


def test_an_unsettled_time_is_told_and_decides_nothing() -> None:
    rounds = [
        Round(state, i, (count("sgi_per_ipi", sgi), time("hackbench", value)))
        for i, (off, on) in enumerate([(10.0, 9.0), (9.0, 10.0), (10.0, 9.5), (9.5, 10.0), (9.0, 8.0)])
        for state, sgi, value in (("off", 1.0, off), ("on", 0.0, on))
    ]
    result = only(RawRun("ipi", "cvm", tuple(rounds), {}))
    assert result.verdict == "PASS"
    (note,) = result.notes
    assert re.fullmatch(r"Not settled: hackbench, about \d+ more pair\(s\) of rounds would tell\.", note)
    assert "ettled" not in result.why


def test_no_effect_is_called_so() -> None:
    same = [*counts(1.0, None), time("hackbench", 9.0)]
    result = only(run(same, [*counts(0.0, None), time("hackbench", 9.0)], rounds=5))
    assert result.notes == ("Not settled: hackbench, no effect in sight.",)


def test_a_settled_time_is_not_noted() -> None:
    for on in (4.0, 10.0):
        off = [*counts(1.0, None), time("hackbench", 9.0)]
        assert only(run(off, [*counts(0.0, None), time("hackbench", on)], rounds=5)).notes == ()


@pytest.mark.parametrize(("rounds", "said"), [(1, "1 round"), (2, "2 rounds"), (4, "4 rounds")])
def test_of_few_rounds_it_is_noted_that_there_is_no_interval(rounds: int, said: str) -> None:
    off = [*counts(1.0, None), time("notify", 9.0), time("wake", 9.0)]
    result = only(run(off, [*counts(0.0, None), time("notify", 9.0), time("wake", 2.0)], rounds=rounds))
    assert result.notes == (f"No interval: {said} off and on, and at least 5 are needed.",)


def test_rounds_without_a_counterpart_are_left_out() -> None:
    whole = run(counts(1.0, 2.9), counts(0.0, 0.0))
    cut = RawRun("ipi", "cvm", (*whole.rounds, Round("off", 99, tuple(counts(0.0, 0.0)))), {})
    result = only(cut)
    assert result.verdict == "PASS"
    assert metric(result, "sgi_per_ipi").off.mean == 1.0
    assert result.notes[0] == "Left out: 1 round(s) without a counterpart."
    assert "Left out" not in result.why


def test_a_metric_in_one_state_only_is_left_out_and_told() -> None:
    result = only(run([*counts(1.0, None), time("notify", 7)], counts(0.0, None)))
    assert [one.name for one in result.metrics] == ["sgi_per_ipi"]
    assert result.notes == ("Left out: notify, never measured both off and on in one pair of rounds.",)


def test_no_rounds_at_all_is_undecided() -> None:
    assert only(RawRun("ipi", "cvm", (), {})).verdict == "UNDECIDED"


def test_runs_of_one_feature_and_machine_are_judged_together() -> None:
    one = run(counts(1.0, 2.9), counts(0.0, 0.0), rounds=2)
    results = judge([one, run(counts(1.0, None), counts(0.0, None), machine="plain"), one], [], RULES).results
    rounds = {result.machine: metric(result, "sgi_per_ipi").off.n for result in results}
    assert rounds == {"cvm": 4, "plain": 4}


def test_baselines_are_one_a_machine_and_state() -> None:
    vm = run([time("notify", 4)], [time("notify", 2)], machine="vm")
    cvm = RawRun("ipi", "cvm", (Round("nohlt", 0, (time("notify", 5), *counts(1.0, 2.1))),), {})
    baselines = judge([], [vm, cvm], RULES).baselines
    assert [one.name for one in baselines] == ["vm, feature off", "vm, feature on", "cvm, nohlt"]
    assert [one.name for one in baselines[2].metrics] == ["notify", "sgi_per_ipi", "exits_per_ipi"]
    assert baselines[0].metrics[0].values.mean == 4


def test_rule_gets_what_was_measured_on_its_machine_and_nothing_else() -> None:
    seen: dict[str, list[str]] = {}

    def rule(evidence: Evidence) -> Judged:
        seen[evidence.metrics[0].title] = [one.name for one in evidence.baselines]
        return Verdict.PASS, "well"

    def raw(machine: str, *states: str) -> RawRun:
        series = (Series("exits", machine, "each", "count", "lower", (1.0,)),)
        return RawRun("vtimer", machine, tuple(Round(state, 0, series) for state in states), {})

    baselines = [raw("cvm", "HW bit"), raw("vm", "ordinary VM"), raw("cvm", "other", "HW bit")]
    judged = [raw("cvm", "off", "on"), raw("vm", "off", "on"), raw("plain", "off", "on")]
    results = judge(judged, baselines, {"vtimer": Rule(rule, "exits")})
    own = {name: [f"{name}, feature off", f"{name}, feature on"] for name in ("cvm", "vm", "plain")}
    assert seen == {
        "cvm": ["cvm, HW bit", "cvm, other", *own["cvm"]],
        "vm": ["vm, ordinary VM", *own["vm"]],
        "plain": own["plain"],
    }
    # The file has all of them, whoever was judged by them.
    assert [one.name for one in results.baselines] == ["cvm, HW bit", "vm, ordinary VM", "cvm, other"]


def test_environment_keeps_what_is_shared_and_tells_what_differs() -> None:
    one = RawRun("ipi", "cvm", (), {"kernel": "6.12", "mem": 1})
    other = RawRun("ipi", "vm", (), {"kernel": "6.12", "mem": 2})
    assert judge([one], [other], RULES).environment == {
        "kernel": "6.12",
        "mem": {"run 1, ipi on cvm": 1, "run 2, ipi on vm": 2},
    }


def test_what_a_run_found_out_is_told_with_where_it_was_measured() -> None:
    one = RawRun("vtimer", "cvm", (), {"kernel": "6.12"}, {"section_us": 1600})
    other = RawRun("ipi", "cvm", (), {"kernel": "6.12"})
    assert judge([one, other], [], RULES).environment == {"kernel": "6.12", "section_us": 1600}


def test_refuses_a_feature_without_rule() -> None:
    with pytest.raises(CvmtuneError) as caught:
        judge([RawRun("warp", "cvm", (), {})], [], RULES)
    assert caught.value.where == "warp"


def test_refuses_rounds_that_disagree_on_a_metric() -> None:
    seconds = Series("notify", "NOTIFY", "s", "time", "lower", (1.0,))
    with pytest.raises(CvmtuneError, match="disagree") as caught:
        judge([run([time("notify", 7)], [seconds])], [], RULES)
    assert caught.value.where == "notify"


def test_many_samples_are_thinned_after_their_figures_are_taken() -> None:
    many = time("notify", *(float(value) for value in range(KEPT_SAMPLES)))
    notify = metric(only(run([many], [many], rounds=2)), "notify")
    assert (notify.off.n, len(notify.off.samples)) == (2 * KEPT_SAMPLES, KEPT_SAMPLES)


# What a mean is made of


def parts(**means: float) -> list[Series]:
    return [time(f"write/{name}", mean) for name, mean in means.items()]


def test_parts_are_no_metrics() -> None:
    off, on = counts(1.0, None), counts(0.0, None)
    beside = run([time("write", 9), *parts(queue=4, wire=5)], [time("write", 3)], machine="vm")
    found = judge(
        [run([*off, time("write", 9), *parts(queue=4, wire=5)], [*on, time("write", 3), *parts(wire=3)])],
        [beside],
        RULES,
    )
    (result,) = found.results
    assert [one.name for one in result.metrics] == ["sgi_per_ipi", "write"]
    # Nor is it told that a part was not measured both off and on.
    assert not any("/" in note for note in result.notes)
    for baseline in found.baselines:
        assert [one.name for one in baseline.metrics] == ["write"]


def test_breakdowns_are_one_a_machine_state_and_metric() -> None:
    whole = [time("write", 9), time("read", 5)]
    cvm = RawRun(
        "ipi",
        "cvm",
        tuple(
            Round(state, index, (*whole, *parts(queue=queue, wire=5), time("read/all", 5)))
            for index, added in enumerate((0.0, 2.0))
            for state, queue in (("off", 3 + added), ("on", 1 + added), ("ipi+wfx", 2 + added))
        ),
        {},
    )
    vm = RawRun("ipi", "vm", (Round("off", 0, (time("write", 7), *parts(wire=7))),), {})
    assert judge([cvm], [vm], RULES).breakdowns == tuple(
        Breakdown(machine, state, metric, metric.upper(), "ns", parts)
        for machine, state, metric, parts in (
            *(
                breakdown
                for state, queue in (("off", 4.0), ("on", 2.0), ("ipi+wfx", 3.0))
                for breakdown in (
                    (
                        *("cvm", state, "write"),
                        (Part("queue", "WRITE/QUEUE", queue), Part("wire", "WRITE/WIRE", 5.0)),
                    ),
                    ("cvm", state, "read", (Part("all", "READ/ALL", 5.0),)),
                )
            ),
            ("vm", "off", "write", (Part("wire", "WRITE/WIRE", 7.0),)),
        )
    )


def test_parts_are_those_of_the_metric_of_that_whole_name() -> None:
    series = [time("write", 1), *parts(queue=1), time("write_2", 2), time("write_2/queue", 2)]
    found = judge([run([*counts(1.0, None), *series], counts(0.0, None))], [], RULES).breakdowns
    assert [(one.metric, [(part.name, part.mean) for part in one.parts]) for one in found] == [
        ("write", [("queue", 1.0)]),
        ("write_2", [("queue", 2.0)]),
    ]


def test_a_metric_without_parts_and_parts_without_a_metric_have_no_breakdown() -> None:
    series = [time("read", 1), *parts(queue=1)]
    assert judge([run([*counts(1.0, None), *series], counts(0.0, None))], [], RULES).breakdowns == ()


def test_rounds_of_one_state_in_several_runs_have_one_breakdown() -> None:
    one = run([time("write", 4), *parts(all=4)], [], rounds=3)
    other = run([time("write", 8), *parts(all=8)], [], rounds=1)
    (found,) = judge([one, other], [], RULES).breakdowns
    assert found.parts == (Part("all", "WRITE/ALL", 5.0),)


# What each of several features gains


def in_states(feature: str, states: Sequence[str], metrics: Sequence[str], machine: str = "cvm") -> RawRun:
    """Each feature that is on halves each metric, in five rounds."""
    return RawRun(
        feature,
        machine,
        tuple(
            Round(state, index, tuple(time(name, 1600.0 / 2 ** len(COMBINATIONS[state])) for name in metrics))
            for index in range(5)
            for state in states
        ),
        {},
    )


def test_factorials_are_of_the_main_metrics_of_blackbox() -> None:
    metrics = (*MAIN_METRICS, "insert_2", "insert_lost")
    found = judge([in_states("blackbox", tuple(COMBINATIONS), metrics)], [], RULES).factorials
    assert [(one.machine, one.metric, one.factors) for one in found] == [
        ("cvm", metric, FEATURES) for metric in MAIN_METRICS
    ]
    for one in found:
        assert len(one.cells) == len(COMBINATIONS)
        assert len(one.interactions) == 6
        for gain in one.gains:
            assert gain.overall
            assert gain.overall.ratio == pytest.approx(2.0)


def test_factorials_of_a_short_form_have_gains_alone() -> None:
    (found,) = judge([in_states("blackbox", ("off", "on", *SINGLES), ("tpcb",))], [], RULES).factorials
    for gain in found.gains:
        assert (gain.last, gain.overall) == (None, None)
        assert gain.alone.ratio == pytest.approx(2.0)
    assert len(found.cells) == 6
    assert found.interactions == ()


@pytest.mark.parametrize("feature", sorted(RULES.keys() - {"blackbox"}))
def test_no_other_feature_has_factorials(feature: str) -> None:
    assert judge([in_states(feature, tuple(COMBINATIONS), MAIN_METRICS)], [], RULES).factorials == ()


def test_baselines_and_off_and_on_alone_have_no_factorials() -> None:
    vm = in_states("blackbox", tuple(COMBINATIONS), MAIN_METRICS, "vm")
    assert judge([in_states("blackbox", ("off", "on"), MAIN_METRICS)], [vm], RULES).factorials == ()


def test_a_metric_that_was_never_measured_has_no_factorial() -> None:
    assert judge([in_states("blackbox", tuple(COMBINATIONS), ("insert_2",))], [], RULES).factorials == ()


def test_ratio_and_interval_of_what_should_rise_are_on_over_off() -> None:
    rounds = [
        Round(state, index, (time("speed", value * (1 + index / 10), better="higher"),))
        for index in range(5)
        for state, value in (("off", 10.0), ("on", 30.0))
    ]
    found = metric(only(RawRun("ipi", "cvm", tuple(rounds), {})), "speed").effect
    assert found
    assert found.ratio == pytest.approx(3)
    assert found.ci95 == pytest.approx((3, 3))


def test_the_ratio_is_of_rounds_next_to_each_other() -> None:
    """Of the means over all rounds it would be 30 / 12."""
    rounds = [
        Round(state, index, (time("notify", value),))
        for index, pair in enumerate([(20.0, 2.0), (10.0, 10.0)])
        for state, value in zip(("off", "on"), pair, strict=True)
    ]
    found = metric(only(RawRun("ipi", "cvm", tuple(rounds), {})), "notify").effect
    assert found
    assert found.ratio == pytest.approx(math.sqrt(10 * 1))
    assert found.interval
    assert found.interval.kind == "spread"
    assert (found.interval.low, found.interval.high) == pytest.approx((1.0, 10.0))


def waits(state: str, index: int, waited: float | None) -> Round:
    return Round(state, index, (count("sgi_per_ipi", 1.0),), waited)


@pytest.mark.parametrize(
    ("rounds", "waited"),
    [
        ([waits("off", 0, 0.1), waits("on", 0, 0.2)], 0.2),
        ([waits("off", 0, 0.1), waits("on", 0, None)], None),
        # A state that the rule may look at, and one that is none of the features'.
        ([waits("off", 0, 0.1), waits("on", 0, 0.2), waits("ipi", 0, 0.9)], 0.9),
        ([waits("off", 0, 0.1), waits("on", 0, 0.2), waits("after all rounds", 0, None)], 0.2),
        ([], None),
    ],
)
def test_rule_gets_the_share_of_the_busiest_round(rounds: list[Round], waited: float | None) -> None:
    seen: list[float | None] = []

    def rule(evidence: Evidence) -> Judged:
        seen.append(evidence.waited)
        return Verdict.PASS, ""

    judge([RawRun("ipi", "cvm", tuple(rounds), {})], [], {"ipi": Rule(rule, "")})
    assert seen == [waited]


@pytest.mark.parametrize(
    ("told", "verdict", "why"),
    [
        (Verdict.PASS, Verdict.UNDECIDED, "No time."),
        (Verdict.UNDECIDED, Verdict.UNDECIDED, "No time."),
        # What is damaged is damaged.
        (Verdict.FAIL, Verdict.FAIL, "Told."),
    ],
)
def test_experiment_with_a_problem_is_undecided_unless_it_failed(
    told: Verdict, verdict: Verdict, why: str
) -> None:
    raw = RawRun("ipi", "cvm", (waits("off", 0, 0.0),), {}, problem="No time.")
    (result,) = judge([raw], [], {"ipi": Rule(lambda _: (told, "Told."), "")}).results
    assert (result.verdict, result.why) == (verdict, why)
