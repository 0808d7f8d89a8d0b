"""Results of `invoke bench --part machine` as files, and what docs/performance.md shows of them.

python -m bench.results           write the table and the picture
python -m bench.results --check   only say whether they are current

A file is the JSON form of a `MachineResult`. Seconds and bytes throughout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from pydantic import TypeAdapter, ValidationError

from fatwheel import text
from fatwheel.errors import FormatError
from fatwheel.storage.documents import json_bytes

from .report import Machine
from .show import markdown

UPSTREAM, OWN = "upstream's own build", "fatwheel build"
FOLDER = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
PICTURE = DOCUMENT.with_name("machines.svg")
_BEGIN = "<!-- Made of bench/results. Do not edit; run: python -m bench.results -->\n"
_END = "<!-- End of what was made of bench/results. -->\n"


@dataclass(frozen=True)
class Subject:
    """What was built. archs, front: as `--arch` and `--front` take them."""

    project: str
    version: str
    archs: tuple[str, ...]
    front: str


@dataclass(frozen=True)
class Way:
    """wall, cpu: medians. memory: the highest sum over all compilers at a time."""

    wall: float
    cpu: float
    memory: int


@dataclass(frozen=True)
class MachineResult:
    """One wheel, built both ways on one machine. when: the day, as in 2026-11-30."""

    when: str
    subject: Subject
    machine: Machine
    rounds: int
    upstream: Way
    own: Way

    @property
    def ratios(self) -> tuple[tuple[str, float], ...]:
        """fatwheel's figures as parts of upstream's; those that were not measured are left out."""
        pairs = (
            ("wall", self.own.wall, self.upstream.wall),
            ("CPU", self.own.cpu, self.upstream.cpu),
            ("memory", self.own.memory, self.upstream.memory),
        )
        return tuple((name, own / base) for name, own, base in pairs if base)


_FILE = TypeAdapter(MachineResult)


def keep(path: Path, result: MachineResult) -> None:
    """Write a result to a file."""
    path.write_bytes(json_bytes(asdict(result)))


def read_results(folder: Path) -> tuple[MachineResult, ...]:
    """All results of a folder, by the names of their files. Raises FormatError."""
    return tuple(map(_read, sorted(folder.glob("*.json"))))


def _read(path: Path) -> MachineResult:
    try:
        return _FILE.validate_json(path.read_bytes())
    except ValidationError as error:
        raise FormatError(
            "not a result of `invoke bench --part machine --keep FILE`",
            where=str(path),
            details=[f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()],
        ) from error


# -- the document ----------------------------------------------------------------------------------


def section(results: Sequence[MachineResult]) -> str:
    """What the document has between its marks."""
    lines = markdown([_row(result) for result in results])
    machines = dict.fromkeys(_machine(result) for result in results)
    notes = [f"- {words}" for words in machines]
    picture = f"![fatwheel's time and memory as parts of upstream's]({PICTURE.name})"
    return "\n".join([*lines, "", *notes, "", picture, ""])


def _row(result: MachineResult) -> dict[str, str]:
    ratios = dict(result.ratios)
    return {
        "built": _title(result),
        "cores": str(result.machine.cores),
        **{
            name: f"{shown(result.own)} of {shown(result.upstream)}, {ratios[name]:.2f}×"
            if name in ratios
            else ""
            for name, shown in _SHOWN.items()
        },
    }


_SHOWN: dict[str, Callable[[Way], str]] = {
    "wall": lambda way: text.duration(way.wall),
    "CPU": lambda way: text.duration(way.cpu),
    "memory": lambda way: text.size(way.memory),
}


def _title(result: MachineResult) -> str:
    subject = result.subject
    words = f"{subject.project} {subject.version} for {', '.join(subject.archs)}"
    return words if subject.front == "auto" else f"{words}, --front {subject.front}"


def _machine(result: MachineResult) -> str:
    machine = result.machine
    programs = ", ".join(f"{name} {version}" for name, version in machine.programs.items())
    rounds = "once" if result.rounds == 1 else f"medians of {result.rounds} rounds"
    return (
        f"{text.count(machine.cores, 'core')}: {machine.cpu}, {text.size(machine.memory)}, "
        f"{machine.kernel}; {programs}; {result.when}, {rounds}"
    )


def updated(document: str, results: Sequence[MachineResult]) -> str:
    """The document with the results in it. Raises ValueError where it has no place for them."""
    return between(document, _BEGIN, section(results), _END)


def between(document: str, first: str, content: str, last: str) -> str:
    """The document with something else between two of its lines. Raises ValueError where it has
    none such."""
    before, begin, rest = document.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"no place for it: {first.strip()} … {last.strip()}")
    return f"{before}{begin}\n{content}\n{end}{after}"


# -- the picture -----------------------------------------------------------------------------------

# A group of bars for each result, upstream's figure being the line at the right. Colours by CSS, as
# the page that shows it may be dark.
_LEFT, _WIDTH, _BAR, _GAP, _GROUP = 260, 420, 16, 4, 26
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.small { font-size: 11px; fill: #59636e; }
.line { stroke: #59636e; stroke-dasharray: 4 3; }
.wall { fill: #0969da; } .CPU { fill: #1a7f37; } .memory { fill: #9a6700; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .small { fill: #9198a1; } .line { stroke: #9198a1; }
  .wall { fill: #4493f8; } .CPU { fill: #3fb950; } .memory { fill: #d29922; }
}"""


def picture(results: Sequence[MachineResult]) -> str:
    """The ratios as bars: an SVG document."""
    longest = max([1.0, *(value for one in results for _, value in one.ratios)])
    unit = _WIDTH / longest
    rows: list[str] = []
    bottom = 30
    for result in results:
        rows += _bars(result, bottom, unit)
        bottom += len(result.ratios) * (_BAR + _GAP) + _GROUP
    mark = _LEFT + unit
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {bottom}" role="img" '
            "aria-label=\"fatwheel's time and memory as parts of upstream's\">",
            f"<style>{_STYLE}</style>",
            f'<line class="line" x1="{mark:.1f}" x2="{mark:.1f}" y1="18" y2="{bottom - _GROUP}"/>',
            f'<text class="small" x="{mark:.1f}" y="12" text-anchor="middle">upstream</text>',
            *rows,
            "</svg>\n",
        ]
    )


def _bars(result: MachineResult, top: int, unit: float) -> Iterator[str]:
    lines = (
        f"{result.subject.project} {result.subject.version}",
        f"for {', '.join(result.subject.archs)}; {text.count(result.machine.cores, 'core')}",
    )
    for number, words in enumerate(lines):
        small = ' class="small"' if number else ""
        yield f'<text{small} x="0" y="{top + 13 + number * 18}">{escape(words)}</text>'
    for number, (name, value) in enumerate(result.ratios):
        y, width = top + number * (_BAR + _GAP), value * unit
        words = f"{name} {value:.2f}"
        yield (
            f'<rect class="{name}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}"/>'
            f'<text class="small" x="{_LEFT + width + 6:.1f}" y="{y + 12}">{words}</text>'
        )


def main(arguments: Sequence[str]) -> int:
    results = read_results(FOLDER)
    made = {
        DOCUMENT: updated(DOCUMENT.read_text(encoding="utf-8"), results),
        PICTURE: picture(results),
    }
    return keep_current(made, arguments, "bench.results")


def keep_current(made: Mapping[Path, str], arguments: Sequence[str], module: str) -> int:
    """Write what files should have, or with --check only say which are not current; the exit code.
    module: the one that makes it."""
    stale = [
        path
        for path, content in made.items()
        if not path.exists() or path.read_text(encoding="utf-8") != content
    ]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path.name} is not current: python -m {module}", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(made[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
