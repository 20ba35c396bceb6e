"""Only typed errors come out of untrusted bytes and out of arguments: 20,000 inputs, the same each time.

The benchmark lane (`make fuzz`) goes on from there to a million and more.
"""

from __future__ import annotations

import pytest

from fuzz_targets import TARGETS
from fuzzing import Defect, Target, input_of, run

INPUTS = 20_000
_SHARES = sum(target.share for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_threat_malformed_image_only_typed_errors_come_out(target, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    count = -(-INPUTS * target.share // _SHARES)
    report = run(target, count)
    assert report.inputs == count
    assert report.taken or target.form is None, "no input was ever taken: the seeds are wrong"


def test_there_is_one_target_of_each_name():
    names = [target.name for target in TARGETS]
    assert len(set(names)) == len(names)
    assert all(run(target, len(target.seeds())).taken for target in TARGETS), "a seed is taken as it is"


def test_the_harness_sees_each_kind_of_defect(monkeypatch):
    seeds: list[object] = [b"seed"]
    with pytest.raises(Defect, match=r"untyped: input 0 ended in IndexError"):
        run(Target("untyped", lambda: seeds, lambda data: [][0]), 1)
    monkeypatch.setattr("fuzzing.SECONDS", 0.05)

    def forever(data: bytes) -> None:
        while True:
            pass

    with pytest.raises(Defect, match="slow: input 0 took more than"):
        run(Target("slow", lambda: seeds, forever), 1)
    monkeypatch.setattr("fuzzing.MEMORY", -1)
    with pytest.raises(Defect, match="large: an input up to 0 took more"):
        run(Target("large", lambda: seeds, len), 1)


def test_an_input_is_made_again_from_its_number():
    target = TARGETS[0]
    assert input_of(target, 777) == input_of(target, 777) != input_of(target, 778)
