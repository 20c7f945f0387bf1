"""Live against virtual: what is the same agrees, and each figure that is off is named."""

import dataclasses

from viewsync.lab.agreement import COUNT, agreement
from viewsync.lab.record import Answer, Cost, Key, Run


def run(shift_s: float = 0.0, count: float = 20.0, every_s: float = 1.0, sent: int = 40_000) -> Run:
    answers = tuple(
        Answer(
            number=number,
            at_s=number * every_s + 0.3 + shift_s,
            instant_s=number * every_s + 2e-5,
            reference="north",
            used=2,
            offset_s=0.7,
            offsets_s={"north": 0.0, "south": -0.7 + 3e-5},
            count=count,
            truth=20,
            truth_now=20,
            squared_error=0.5,
            clock_error_s=0.1,
            clock_bound_s=0.5,
            degraded=False,
        )
        for number in range(round(40 / every_s))
    )
    return Run(Key("lan", "default", "b", "column", 7), 0.0, 40.0, answers, Cost(bytes=sent))


def off(live: Run) -> set[str]:
    return {check.name for check in agreement([live], [run()]) if not check.holds}


def test_the_same_run_agrees_and_every_difference_is_named() -> None:
    assert off(run()) == set()
    assert off(run(shift_s=0.2)) == set()
    assert off(run(shift_s=1.0)) == {"age p50, s"}
    assert off(run(count=20.0 + 2 * COUNT)) == {"count apart on them"}
    assert off(run(sent=20_000)) == {"bytes/s"}
    assert off(run(every_s=2.0)) == {"answers/s", "same frames"}


def test_what_chance_in_links_makes_is_no_difference() -> None:
    slow, slower = run(every_s=2.0), run(every_s=4.0)

    def off_beside(live: Run) -> set[str]:
        checks = agreement([live], [run()], {run().key: [run(), slow]})
        return {check.name for check in checks if not check.holds}

    assert off_beside(slow) == set()
    assert off_beside(slower) == {"answers/s", "same frames"}
    assert off_beside(run(every_s=0.5)) == {"answers/s"}


def test_a_live_run_without_answers_agrees_with_nothing() -> None:
    silent = dataclasses.replace(run(), answers=())
    assert {"answers/s", "age p50, s", "same frames", "count apart on them"} <= off(silent)
