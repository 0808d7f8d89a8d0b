"""Writes docs/cli.md, the reference of commands and exit codes, from the commands themselves.

python -m tests.helpers.clireference           write it
python -m tests.helpers.clireference --check   only say whether it is current
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from invoke.parser.argument import Argument
from invoke.tasks import Task

import tasks
from fatwheel import errors
from fatwheel.cli.arguments import OptionalTask

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
COMMAND = "python -m tests.helpers.clireference"

INTRODUCTION = f"""\
# Commands

<!-- Generated from the commands' own help. Do not edit; run: {COMMAND} -->

Every command can be called in two ways: as `fatwheel COMMAND`, the program that the package
installs, from any folder; and as `invoke COMMAND` from any folder of a checkout, which also has the
commands for [work on fatwheel itself](#commands-for-work-on-fatwheel-itself). Both are the same.

Recipes and toolchains come with the package. Your own are found first: `kernels/NAME/recipe.toml`
and `toolchains/NAME.toml` in the current folder, or recipes in a folder that `--recipes` names.

Tab completion, for bash (zsh and fish have it too):

```sh
source <(fatwheel --print-completion-script bash)
```

`invoke --list` lists the commands, and `invoke --help build` explains one. `--arch 80`
and `--arch=80` mean the same. Relative paths are relative to the current folder.

Results go to stdout, everything else to stderr. Where stderr is not a terminal, or `CI` is set,
progress is printed as plain lines. `NO_COLOR` is honoured. [Exit codes](#exit-codes) come last.
"""

DONE = "Success."
UNEXPECTED = "Invalid command line (an unknown option, for example), or a bug: please report it."
ENDED = "SIGHUP (129) or SIGTERM (143) was received. All ends as after Ctrl-C."


def reference() -> str:
    """The whole document."""
    groups: dict[str, list[Task[Any]]] = {}
    names = tasks.namespace.task_names
    # What users do comes first, then work on fatwheel itself.
    for task in sorted((tasks.namespace[name] for name in names), key=_order_of):
        groups.setdefault(_group_of(task), []).append(task)
    parts = [INTRODUCTION, "\n".join(_contents(groups))]
    for title, members in groups.items():
        parts += [f"## {title}\n", *("\n".join(_section(task)) for task in members)]
    parts.append("\n".join(_exit_codes()))
    return "\n".join(parts)


def _order_of(task: Task[Any]) -> tuple[bool, str]:
    return inspect.getmodule(task.body) is tasks, task.name


def _group_of(task: Task[Any]) -> str:
    """What the docstring of the task's module says before its first colon."""
    module = inspect.getmodule(task.body)
    assert module
    return (module.__doc__ or "").partition(":")[0].strip()


def _contents(groups: dict[str, list[Task[Any]]]) -> Iterator[str]:
    yield from ("| command | what it does |", "|---|---|")
    for members in groups.values():
        for task in members:
            yield f"| [`{_typed(task)}`](#{_typed(task)}) | {_lines(task)[0]} |"
    yield ""


def _section(task: Task[Any]) -> Iterator[str]:
    """Usage, text, examples and options of one command."""
    arguments = _arguments(task)
    words = [_flag(argument) for argument in arguments if argument.positional]
    if isinstance(task, OptionalTask):
        words = [f"[{name.upper()}]" for name in task.positional]
    yield from (f"### {_typed(task)}", "")
    usage = " ".join(["invoke", _typed(task), *words, "[OPTIONS]"])
    yield from ("```", usage, "```", "")
    indented = False
    for line in _lines(task):
        # Examples are indented by two more columns. Markdown wants four for text as it stands.
        indented = line.startswith("  ") or (indented and not line)
        yield f"  {line}" if line and indented else line
    if arguments:
        yield from ("", "| option | meaning |", "|---|---|")
        for argument in arguments:
            meaning = (argument.help or "").replace("*", r"\*")
            optional = isinstance(task, OptionalTask) and argument.names[0] in task.positional
            flag = argument.names[0].upper() if optional else _flag(argument)
            yield f"| `{flag}` | {meaning} |"
    yield ""


def _typed(task: Task[Any]) -> str:
    """A command as it is typed: `release-notes` is the function release_notes."""
    return task.name.replace("_", "-")


def _lines(task: Task[Any]) -> list[str]:
    return inspect.cleandoc(task.__doc__ or "").splitlines()


def _arguments(task: Task[Any]) -> list[Argument]:
    # Asking a task for its arguments takes their help away from it.
    return copy.deepcopy(task).get_arguments()


def _flag(argument: Argument) -> str:
    name = argument.names[0]
    if argument.positional:
        return name.upper()
    return ("-" if len(name) == 1 else "--") + name


def _exit_codes() -> Iterator[str]:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FatwheelError)
    ]
    yield from ("## Exit codes", "")
    yield from ("| code | error | meaning |", "|---|---|---|", f"| 0 | | {DONE} |")
    for kind in sorted(kinds, key=lambda kind: kind.exit_code):
        text = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        meaning = UNEXPECTED if kind is errors.FatwheelError else text
        yield f"| {kind.exit_code} | {kind.__name__} | {meaning} |"
    yield f"| 129, 143 | | {ENDED} |"
    yield ""


def main(arguments: list[str]) -> int:
    text = reference()
    if "--check" not in arguments:
        DOCUMENT.write_text(text, encoding="utf-8")
    elif not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != text:
        print(f"docs/cli.md is not current; run: {COMMAND}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
