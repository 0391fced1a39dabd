"""PromQL as far as the checks need it: which series an expression asks for."""

import json
import re
from pathlib import Path

# The aggregations and operators that are not followed by a parenthesis, too.
KEYWORDS = {
    "and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right",
    "bool", "offset", "inf", "nan", "sum", "min", "max", "avg", "count", "topk", "quantile",
}  # fmt: skip
TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")|(?P<range>\[[^\]]*\])|(?P<number>\d[\w.]*)
    |(?P<name>[A-Za-z_:][\w:]*)|(?P<op>=~|!~|!=|[=(){},])|(?P<other>\S)""",
    re.X,
)


class Expression:
    """`selectors`: pairs of a metric and its matchers (label, operator, value);
    `grouping`: the labels that results are grouped or joined by."""

    def __init__(self, text: str):
        self.text, self.selectors, self.grouping = text, [], set()
        tokens = [(m.lastgroup, m.group()) for m in TOKEN.finditer(re.sub(r"(?m)#.*$", "", text))]
        tokens.append(("end", ""))
        at = 0
        while at < len(tokens) - 1:
            (kind, token), (_, following) = tokens[at], tokens[at + 1]
            at += 1
            if kind != "name":
                continue
            if token in ("by", "without", "on", "ignoring", "group_left", "group_right"):
                if following == "(":
                    end = tokens.index(("op", ")"), at)
                    self.grouping |= {t for k, t in tokens[at:end] if k == "name"}
                    at = end + 1
            elif following != "(" and token not in KEYWORDS:
                matchers = []
                if following == "{":
                    end = tokens.index(("op", "}"), at)
                    inner = [t for _, t in tokens[at + 1 : end] if t != ","]
                    matchers = list(zip(inner[::3], inner[1::3], (v[1:-1] for v in inner[2::3])))
                    at = end + 1
                self.selectors.append((token, matchers))


def dashboard_expressions(path: Path) -> list[tuple[str, str]]:
    """Where they are, and what they are with the variables filled in."""
    board = json.loads(path.read_text())
    found = [
        (f"panel {panel['title']} {target['refId']}", target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]
    found += [
        (f"annotation {a['name']}", a["expr"]) for a in board["annotations"]["list"] if "expr" in a
    ]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(
                r"label_values\((.*), (\w+)\)", variable["definition"]
            ).groups()
            found.append((f"variable {variable['name']}", f"count by ({label}) ({series})"))
    return [(where, filled(text)) for where, text in found]


def filled(text: str) -> str:
    text = re.sub(r"\$__(rate_interval|range)", "5m", text)
    return re.sub(r"\$(namespace|job|instance|tool)\b", ".*", text)


def page_expressions(path: Path) -> list[tuple[str, str]]:
    """The queries of a page, one a line."""
    found = []
    for block in re.findall(r"^```promql$(.*?)^```$", path.read_text(), re.M | re.S):
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        found += [(path.name, line) for line in lines]
    return found
