#!/usr/bin/env python3
"""Judges what kube-score has found (JSON, one file for each rendering): nothing may be
left but what the list of exceptions (first argument) names, and each exception is needed.
"""

import json
import re
import sys
from pathlib import Path

OK = 10


def main() -> None:
    exceptions, *scores = map(Path, sys.argv[1:])
    accepted = set(re.findall(r"^([a-z-]+): ", exceptions.read_text(), re.MULTILINE))
    found, count, problems = set(), 0, []
    for score in scores:
        for scored in json.loads(score.read_text()):
            for check in scored["checks"]:
                count += not check["skipped"]
                if check["skipped"] or check["grade"] >= OK:
                    continue
                name = check["check"]["id"]
                found.add(name)
                if name not in accepted:
                    comments = [c["summary"] for c in check["comments"] or []]
                    problems.append(f"{score.stem}: {scored['object_name']}: {name}: {comments}")
    problems += [f"{name}: is not found any more" for name in sorted(accepted - found)]
    if problems or not count:
        sys.exit("kube-score:\n" + "\n".join(problems or ["nothing was scored"]))
    print(f"{count} checks, {len(accepted)} kinds of finding accepted")


if __name__ == "__main__":
    main()
