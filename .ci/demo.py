#!/usr/bin/env python3
"""Runs `fanfare demo` (first argument) into a pipe and checks what it promises: the three calls
(3 s, 1 s, 2 s) complete in the order 1, 2, 0, the aggregate has them in the order 0, 1, 2, all
succeed, and the wall time is at most 5 % over the longest call. Layout and wording may change."""

import re
import subprocess
import sys

SECONDS = [3.0, 1.0, 2.0]
# Durations are printed to two places; a sleep may not end early.
ROUNDING = 0.02

done = subprocess.run([sys.argv[1], "demo"], capture_output=True, text=True, timeout=60, check=True)
lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout).splitlines()
print(*lines, sep="\n")
arrived = [m.groups() for m in map(re.compile(r"\s*([\d.]+) ?s\s+\[(\d+)\]").match, lines) if m]
assert [int(index) for _, index in arrived] == [1, 2, 0], arrived
assert all(float(at) >= SECONDS[int(index)] - ROUNDING for at, index in arrived), arrived
(head,) = [n for n, line in enumerate(lines) if line.startswith("Aggregate")]
results = [m.groups() for m in map(re.compile(r"\s*\[?(\d+)\]?\s(.*)").match, lines[head + 1 :]) if m]
assert [index for index, _ in results] == ["0", "1", "2"], results
assert all(re.search(r"\bok\b", line) for _, line in results), results
wall, total = (float(re.findall(rf"\b{word}\b\D*?([\d.]+) ?s\b", done.stdout, re.I)[-1]) for word in ("wall", "sum"))
assert 3.0 - ROUNDING <= wall <= 3.0 * 1.05 and total >= sum(SECONDS) - ROUNDING, (wall, total)
