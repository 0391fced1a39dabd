#!/usr/bin/env python3
"""Reads what `fanfare demo` printed into a pipe and checks what it promises.

The three calls (3 s, 1 s, 2 s) complete in the order 1, 2, 0, the aggregate has
them in the order 0, 1, 2, all succeed, and the wall time is at most 5 % over
the longest call. Layout and wording may change; what counts is one line per
completion with its time and `[index]`, an aggregate with one line per result
that starts with its index, and a closing line with `wall` and `sum`.
"""

import re
import sys

SECONDS = [3.0, 1.0, 2.0]
MAX_WALL = 1.05 * max(SECONDS)
# Durations are printed to two places; a sleep may not end early.
ROUNDING = 0.02

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LENGTH = r"(\d+(?:\.\d+)?) ?(ms|s)\b"
COMPLETION = re.compile(rf"\s*{LENGTH}\s+\[(\d+)\]")
RESULT = re.compile(r"\s*\[?(\d+)\]?\s")


def main() -> None:
    lines = [ANSI.sub("", line) for line in sys.stdin.read().splitlines()]

    arrived = [
        (int(match[3]), seconds(match[1], match[2]))
        for match in map(COMPLETION.match, lines)
        if match
    ]
    fastest_first = sorted(range(len(SECONDS)), key=SECONDS.__getitem__)
    expect("completions", [index for index, _ in arrived], fastest_first)
    for index, at in arrived:
        if at < SECONDS[index] - ROUNDING:
            fail(f"call {index} sleeps {SECONDS[index]} s and completed after {at} s")

    head = next((n for n, line in enumerate(lines) if line.startswith("Aggregate")), None)
    if head is None:
        fail("no line starts with `Aggregate`")
    results = [(int(match[1]), line) for line in lines[head + 1 :] if (match := RESULT.match(line))]
    expect("results in the aggregate", [index for index, _ in results], list(range(len(SECONDS))))
    for index, line in results:
        if not re.search(r"\bok\b", line):
            fail(f"result {index} is not ok: {line.strip()}")

    wall, total = length_after("wall", lines), length_after("sum", lines)
    if not max(SECONDS) - ROUNDING <= wall <= MAX_WALL:
        fail(f"wall time {wall} s: at least {max(SECONDS)} s, at most {MAX_WALL:.2f} s expected")
    if total < sum(SECONDS) - ROUNDING:
        fail(f"sum of the calls {total} s: at least {sum(SECONDS)} s expected")
    print(f"the demo kept its promises: order, results, wall {wall} s for {total} s of calls")


def length_after(word: str, lines: list[str]) -> float:
    """The first length that follows `word` in the last line that has both."""
    pattern = re.compile(rf"\b{word}\b\D*?{LENGTH}", re.IGNORECASE)
    match = next((match for line in reversed(lines) if (match := pattern.search(line))), None)
    return seconds(match[1], match[2]) if match else fail(f"no line has `{word}` and a length")


def seconds(number: str, unit: str) -> float:
    return float(number) / (1000 if unit == "ms" else 1)


def expect(what: str, found: list[int], wanted: list[int]) -> None:
    if found != wanted:
        fail(f"{what}: indices {found}, expected {wanted}")


def fail(message: str):
    sys.exit(f"check_demo: {message}")


if __name__ == "__main__":
    main()
