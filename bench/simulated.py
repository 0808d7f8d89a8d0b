"""Kept reports of `invoke simulate --json`, and what docs/performance.md shows of them.

python -m bench.simulated           write the table and the picture
python -m bench.simulated --check   only say whether they are current

bench/simulations has a report, NAME.json, with the costs that it was made of, NAME.costs.json.
Seconds and bytes throughout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from fatwheel import text
from fatwheel.pipeline.simulate import LIMITS

from .results import DOCUMENT, between, keep_current
from .show import markdown

FOLDER = Path(__file__).with_name("simulations")
PICTURE = DOCUMENT.with_name("workers.svg")
_BEGIN = "<!-- Made of bench/simulations. Do not edit; run: python -m bench.simulated -->\n"
_END = "<!-- End of what was made of bench/simulations. -->\n"

Report = Mapping[str, Any]


def read_report(folder: Path) -> Report:
    """The report that a folder has beside its costs."""
    [path] = (one for one in folder.glob("*.json") if not one.name.endswith(".costs.json"))
    found: Report = json.loads(path.read_bytes())
    return found


def section(report: Report) -> str:
    """What the document has between its marks."""
    caption = f"![what limits a build on clusters of several sizes]({PICTURE.name})"
    return "\n".join([*markdown([_row(row) for row in report["rows"]]), "", caption, ""])


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "workers": str(row["workers"]),
        "cores": str(row["cores"]),
        "wall": text.duration(row["seconds"]),
        "at least": text.duration(row["bound"]),
        "cores busy": f"{100 * row['busy']:.0f} %",
        "sent": text.size(row["sent"]),
        "received": text.size(row["received"]),
        "most of it": f"{row['limit']}, {100 * row['parts'][row['limit']] / row['seconds']:.0f} %",
    }


def updated(document: str, report: Report) -> str:
    """The document with the report in it. Raises ValueError where it has no place for it."""
    return between(document, _BEGIN, section(report), _END)


# -- the picture -----------------------------------------------------------------------------------

# A bar for each size of a cluster, all of one height: what costs which part of its time.
_TOP, _HEIGHT, _BAR, _STEP, _LEFT = 66, 200, 44, 64, 8
_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.small { font-size: 11px; fill: #59636e; }
.path { fill: #0969da; } .cores { fill: #1a7f37; } .memory { fill: #9a6700; }
.transfers { fill: #8250df; } .overhead { fill: #bf3989; } .losses { fill: #cf222e; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .small { fill: #9198a1; }
  .path { fill: #4493f8; } .cores { fill: #3fb950; } .memory { fill: #d29922; }
  .transfers { fill: #ab7df8; } .overhead { fill: #db61a2; } .losses { fill: #f85149; }
}"""


def picture(report: Report) -> str:
    """What limits on each size of a cluster: an SVG document."""
    rows = report["rows"]
    width = max(_LEFT + len(rows) * _STEP, 560)
    bottom = _TOP + _HEIGHT + 40
    title = f"{report['project']} {report['version']} for {', '.join(report['archs'])}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom}" role="img" '
            'aria-label="what limits a build on clusters of several sizes">',
            f"<style>{_STYLE}</style>",
            f'<text x="{_LEFT}" y="14">{escape(title)}: what costs which part of the time</text>',
            *_legend(rows),
            *(line for place, row in enumerate(rows) for line in _bar(place, row)),
            f'<text class="small" x="{_LEFT}" y="{bottom - 4}">workers of '
            f"{text.count(report['worker']['cores'], 'core')} and "
            f"{text.size(report['worker']['memory'])}; above, the time</text>",
            "</svg>\n",
        ]
    )


def _used(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in reversed(LIMITS) if any(row["parts"][name] for row in rows)]


def _legend(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    x = _LEFT
    for name in _used(rows):
        yield f'<rect class="{_class(name)}" x="{x}" y="24" width="12" height="12"/>'
        yield f'<text class="small" x="{x + 16}" y="34">{name}</text>'
        x += 34 + 7 * len(name)


def _bar(place: int, row: Mapping[str, Any]) -> Iterator[str]:
    x, y = _LEFT + place * _STEP, float(_TOP + _HEIGHT)
    for name in _used([row]):
        height = _HEIGHT * row["parts"][name] / row["seconds"]
        y -= height
        yield (
            f'<rect class="{_class(name)}" x="{x}" y="{y:.1f}" width="{_BAR}" '
            f'height="{height:.1f}"><title>{name}: {text.duration(row["parts"][name])}</title>'
            "</rect>"
        )
    middle = x + _BAR / 2
    took = _short(row["seconds"])
    yield f'<text class="small" x="{middle}" y="{_TOP - 6}" text-anchor="middle">{took}</text>'
    yield (
        f'<text x="{middle}" y="{_TOP + _HEIGHT + 16}" text-anchor="middle">{row["workers"]}</text>'
    )


def _class(name: str) -> str:
    return name.rpartition(" ")[2]


def _short(seconds: float) -> str:
    """`49 min`, `3.2 min`, `45 s`: there is little room."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes >= 10 else f"{minutes:.1f} min"


def main(arguments: Sequence[str]) -> int:
    report = read_report(FOLDER)
    made = {
        DOCUMENT: updated(DOCUMENT.read_text(encoding="utf-8"), report),
        PICTURE: picture(report),
    }
    return keep_current(made, arguments, "bench.simulated")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
