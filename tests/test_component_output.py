"""What components print: told by lines, within bounds, and without slowing them down."""

from __future__ import annotations

from itertools import pairwise

import pytest
from wasmtime import wat2wasm

from greentic.components.host import MAX_LOGS
from greentic.ground.going import in_place
from greentic.wasm import carrier, drive
from greentic.wasm.call_limits import DEFAULT_LIMITS
from greentic.wasm.printed import MAX_OUTPUT, MAX_TEXT, Output
from greentic.wasm.traps import Trap, reason_of
from simulators import FakeClock
from test_wasm import context, loaded

EXPORT = "test:api/run@1.0.0"


def printing(pieces: list[bytes], then: str = "") -> bytes:
    """A component that writes pieces to its standard output, one by one."""
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    data = "".join(f"\\{byte:02x}" for byte in b"".join(pieces))
    calls = "".join(
        f"(call $write (global.get $out) (i32.const {at}) (i32.const {end - at}) (i32.const 65000))"
        for at, end in pairwise(ends)
    )
    imports = carrier._TEXT.partition("(core module $memory")[0].removeprefix("\n(component")
    return bytes(
        wat2wasm(f"""(component {imports}
  (core module $memory (memory (export "memory") 1) (data (i32.const 0) "{data}"))
  (core instance $memory (instantiate $memory))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $memory "memory"))))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core module $main
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "get" (func $get (result i32)))
    (global $out (mut i32) (i32.const 0))
    (func (export "run") (global.set $out (call $get)) {calls} {then}))
  (core instance $main (instantiate $main (with "host" (instance (export "write" (func $write)) (export "get" (func $get))))))
  (func $run (canon lift (core func $main "run")))
  (instance $api (export "run" (func $run)))
  (export "{EXPORT}" (instance $api)))""")
    )


def logged(pieces: list[bytes], then: str = "") -> list[str]:
    log: list[str] = []
    component = loaded(printing(pieces, then))
    export = component.find(EXPORT, "run")
    assert export is not None
    try:
        component.call(export, [], context(log), DEFAULT_LIMITS)
    except Trap:
        log.append("trapped")
    return log


def test_a_line_that_is_written_in_pieces_is_told_as_one():
    """Rust writes `eprintln!("the price of {} is {}", …)` in as many pieces as it has parts."""
    pieces = [b"the price of ", b"apples", b" is ", b"3", b".", b"5\n", b"caf\xc3", b"\xa9\r\n", b"\n", b"no end"]
    assert logged(pieces) == [
        "component c (stdout): the price of apples is 3.5",
        "component c (stdout): café",
        "component c (stdout): no end",
    ]


def test_what_a_component_wrote_before_it_trapped_is_told():
    assert logged([b"\npanicked at ", b"lib.rs"], "unreachable") == [
        "component c (stdout): panicked at lib.rs",
        "trapped",
    ]


@pytest.mark.parametrize("noise", [[b"line\n"] * (MAX_LOGS + 9), [b"n\n"]])
def test_why_a_component_gave_up_is_told_however_much_it_wrote_before(noise):
    """The text of a panic is the last that it writes; it was beyond what is logged of a call."""
    last = [b"thread 'main' panicked at ", b"lib.rs:45:\nthe price is missing\n"]
    told = logged([*noise, *last], "unreachable")
    assert told[-1] == "trapped" and "panicked at lib.rs:45:\nthe price is missing" in told[-2]
    assert "line\n" * 500 not in told[-2] and len(told) <= MAX_LOGS + 4
    assert not any("panicked" in text for text in logged([*noise, *last])[MAX_LOGS:]), (
        "one that ended well says no more"
    )


@pytest.mark.parametrize("trapped", [True, False])
@pytest.mark.parametrize("whole", [MAX_OUTPUT - 1, MAX_OUTPUT, MAX_OUTPUT + 5000])
def test_the_last_of_what_was_too_much_is_told_of_a_call_that_trapped(whole, trapped):
    found: list[str] = []
    output = Output(lambda stream, text: not found.append(text))  # type: ignore[func-returns-value]
    output.write("stdout", b"x" * (whole - 1) + b"\n")
    output.write("stderr", b"panicked at ")
    output.write("stderr", b"lib.rs\n")
    output.trapped = trapped
    output.over()
    assert ("the last of what was left out: panicked at lib.rs" in found) is trapped
    output.over()
    assert sum("the last of" in text for text in found) == trapped * (2 if whole > MAX_OUTPUT else 1)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("error while executing\n\nCaused by:\n  Exited with i32 exit status 1", "it exited with status 1, and gave no answer"),
        ("Caused by:\n  0: failed\n  1: wasm trap: wasm `unreachable` instruction executed", "wasm trap: wasm `unreachable` instruction executed (mostly a panic or an abort; the log has what it printed)"),
        ("Caused by:\n  wasm trap: out of bounds memory access", "wasm trap: out of bounds memory access"),
    ],
)  # fmt: skip
def test_a_trap_says_what_became_of_the_answer_and_where_to_look(said, reason):
    assert reason_of(said) == reason


def told(*pieces: tuple[str, bytes]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    output = Output(lambda stream, text: not found.append((stream, text)))  # type: ignore[func-returns-value]
    for stream, data in pieces:
        output.write(stream, data)
    output.over()
    output.write("stdout", b"after the end\n")
    output.over()
    return found


def test_streams_are_put_together_each_for_itself():
    assert told(("stdout", b"a"), ("stderr", b"x\n"), ("stdout", b"b\nc")) == [
        ("stderr", "x"),
        ("stdout", "ab"),
        ("stdout", "c"),
    ]


def test_lines_that_are_written_at_once_are_told_together_and_none_is_lost():
    lines = [f"line {n} of many" for n in range(2000)]
    texts = [text for _, text in told(("stdout", "\n".join(lines).encode()))]
    assert [line for text in texts for line in text.split("\n")] == lines
    assert 1 < len(texts) < 20 and max(map(len, texts)) <= MAX_TEXT
    assert told(("stdout", b"a\n\nb\n")) == [("stdout", "a\n\nb")]
    assert told(("stdout", b"\n"), ("stdout", b"\r\n")) == []


@pytest.mark.parametrize("size", [1000, MAX_OUTPUT - 1, MAX_OUTPUT, MAX_OUTPUT + 1, MAX_OUTPUT * 3])
def test_what_is_more_than_a_call_may_write_is_left_out_and_told_once(size):
    found = told(*[("stdout", b"x" * (size - 1) + b"\n"), ("stderr", b"y\n" * MAX_OUTPUT)])
    assert found[-1] == (
        "stderr" if size <= MAX_OUTPUT else "stdout",
        "it wrote more than 64 KiB; the rest of the call is left out",
    )
    assert sum("left out" in text for _, text in found) == 1
    assert sum(text.count("x") for _, text in found) == min(size - 1, MAX_OUTPUT)


def test_a_long_message_is_cut_and_more_than_so_many_are_left_out_and_both_are_told():
    log: list[str] = []
    one = context(log)
    one.log("stdout", "x" * (MAX_TEXT + 3))
    assert log[0].endswith("x… (3 more characters)")
    for _ in range(MAX_LOGS * 2):
        one.log("stdout", "more")
    assert len(log) == MAX_LOGS + 1 and f"it logged more than {MAX_LOGS} messages" in log[-1]


class Paused:
    """A call that pauses so often, as one that prints does for each line, or one that sleeps."""

    def __init__(self, pauses: int, *, writes: bool) -> None:
        self.left_over, self.writes = pauses, writes
        self.computed = self.waited = 0.0
        self.limit, self.result, self.context = 10.0, "done", context()

    def advance(self) -> str | None:
        self.left_over -= 1
        return "sleeps" if self.left_over >= 0 else None

    def wrote(self) -> bool:
        return self.writes

    def left(self) -> float:
        return self.limit

    def close(self) -> None: ...


@pytest.mark.parametrize(("writes", "longest"), [(True, 0), (False, drive.MOST_SLEEP)])
def test_a_call_that_prints_much_is_not_taken_for_one_that_sleeps(monkeypatch, writes, longest):
    naps: list[float] = []

    class Clock(FakeClock):
        def sleep(self, seconds: float) -> None:
            naps.append(seconds)
            super().sleep(seconds)

    monkeypatch.setattr(drive, "CLOCK", Clock())
    assert in_place(drive.finish(Paused(2000, writes=writes))) == "done"  # type: ignore[arg-type]
    assert len(naps) == 2000 and max(naps) == longest
