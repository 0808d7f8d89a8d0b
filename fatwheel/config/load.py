"""Loads recipes, and any TOML file, into the model.

All mistakes of a file come at once, in one ConfigError: each detail is a line
`kernels/x/recipe.toml:12: memroy: unknown key; did you mean 'memory'?`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..errors import ConfigError, UsageError
from ..storage.documents import TomlError, read_toml
from . import fields
from .checks import recipe_mistakes
from .mistakes import Key, TomlLines, read_table, suggestion
from .recipe import Recipe
from .schema import RecipeFile

RECIPE_FILE = "recipe.toml"
_LONGEST_LINE = 20_000  # characters
_MOST_VALUES = 20_000  # the largest toolchain has 2,000
_MISTAKES_SHOWN = 100

T = TypeVar("T")
Mistake = tuple[Key, str]  # where it stands, and what is wrong


def load_recipe(name_or_path: str | Path, *folders: Path) -> Recipe:
    """A recipe by its folder's name in `kernels_dir`, or by the path of a folder or file.

    Raises UsageError where there is none, ConfigError listing every mistake in it.
    """
    file = _recipe_file(name_or_path, folders)
    folder = file.parent.resolve()

    def mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
        yield from recipe_mistakes(raw)
        yield from _name_mistakes(folder.name)
        yield from _missing_sources(raw, file)
        yield from _script_mistakes(raw, file)

    found = load_table(RecipeFile, file, mistakes, "docs/recipes.md explains every key")
    return found.recipe(folder)


def load_table(
    kind: type[T], file: Path, mistakes: Callable[[dict[str, Any]], Iterable[Mistake]], hint: str
) -> T:
    """A TOML file as the dataclass of its keys.

    mistakes: finds what the types do not say, in the raw values. Raises ConfigError listing every
    mistake, with `hint`.
    """
    text, raw = _read(file)
    found, wrong = read_table(kind, raw)
    wrong += mistakes(raw)
    if wrong:
        raise _refusal(file, _places(file, text), wrong, hint)
    assert found is not None, "there are no mistakes"
    return found


def read_table_of(file: Path) -> dict[str, Any]:
    """A TOML file's values. Raises ConfigError where it is none."""
    return _read(file)[1]


def list_recipes(*folders: Path) -> tuple[str, ...]:
    """The names of the recipes in some folders, sorted."""
    files = (file for folder in folders for file in folder.glob(f"*/{RECIPE_FILE}"))
    return tuple(sorted({file.parent.name for file in files}))


def recipe_folder(name: str, *folders: Path) -> Path:
    """The folder of a recipe: in the first of these that has one of that name, or else where it
    would be in the last one."""
    places = [folder / name for folder in folders]
    return next((place for place in places if (place / RECIPE_FILE).exists()), places[-1])


def _recipe_file(name_or_path: str | Path, folders: Sequence[Path]) -> Path:
    if isinstance(name_or_path, str) and not re.search(r"[/\\]|\.toml$", name_or_path):
        if name_or_path not in list_recipes(*folders):
            raise unknown("kernel", name_or_path, list_recipes(*folders), folders)
        return recipe_folder(name_or_path, *folders) / RECIPE_FILE
    path = Path(name_or_path)
    file = path if path.suffix == ".toml" else path / RECIPE_FILE
    if not file.is_file():
        raise UsageError(
            "no such recipe",
            where=str(path),
            hint=f"name a folder with a {RECIPE_FILE} in it, or one of: "
            + ", ".join(list_recipes(*folders)),
        )
    return file


def unknown(what: str, name: str, known: Sequence[str], folders: Sequence[Path]) -> UsageError:
    if not known:
        return UsageError(
            f"unknown {what} {name!r}", hint=f"none found in {', '.join(map(_shown, folders))}"
        )
    near = suggestion(name, known)
    listing = f"{what}s here: {', '.join(known)}"
    hint = f"{near} ({listing})" if near.startswith("did") else listing
    return UsageError(f"unknown {what} {name!r}", hint=hint)


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    """A TOML file's text and values; ConfigError where it is none."""
    try:
        text, raw = read_toml(file)
        _check_values(text, raw)
        return text, raw
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=_shown(file)) from error
    except TomlError as error:
        raise _unparsable(file, str(error)) from error
    except RecursionError as error:
        raise _unparsable(file, "1: nested too deeply") from error


def _places(file: Path, text: str) -> TomlLines:
    try:
        return TomlLines(text)
    except RecursionError as error:
        raise _unparsable(file, "1: nested too deeply") from error


def _check_values(text: str, raw: dict[str, Any]) -> None:
    """Raise TomlError for more than a recipe or a toolchain can need."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _LONGEST_LINE:
            raise TomlError(f"{number}: the line has more than {_LONGEST_LINE} characters")
    if text.count(",") + text.count("=") + text.count("[") > _MOST_VALUES:
        raise TomlError(f"1: it has more than {_MOST_VALUES} values")
    for key, number in _integers(raw):
        if not -(2**63) <= number < 2**63:  # which TOML calls an error
            raise TomlError(f"{TomlLines(text).line(key)}: an integer has more than 64 bits")


def _integers(part: Any, key: Key = ()) -> Iterator[tuple[Key, int]]:
    """Every integer, with its place."""
    if isinstance(part, int):
        yield key, part
    elif isinstance(part, (dict, list)):
        for name, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from _integers(value, (*key, name))


def _unparsable(file: Path, mistake: str) -> ConfigError:
    return ConfigError(
        "not a TOML file",
        where=_shown(file),
        details=[f"{_shown(file)}:{mistake}"],
        hint="TOML's rules: toml.io",
    )


def _name_mistakes(name: str) -> list[tuple[Key, str]]:
    """A recipe is called like its folder, and locks and records tell that name."""
    try:
        TypeAdapter(fields.Name).validate_python(name)
    except ValidationError:
        return [((), f"{fields.shown(name)} is not a valid folder name for a recipe")]
    return []


def _missing_sources(raw: dict[str, Any], file: Path) -> Iterator[Mistake]:
    """Folders and patches that are not there."""
    source = raw.get("source")
    if not isinstance(source, dict):
        return
    for key, where in (("folder", " beside this file"), ("checkout", "")):
        folder = source.get(key)
        if isinstance(folder, str) and not _is_there(file.parent, folder, os.path.isdir):
            yield ("source", key), f"{fields.shown(folder)}: no such folder{where}"
    patches = source.get("patches")
    for number, patch in enumerate(patches if isinstance(patches, list) else ()):
        if isinstance(patch, str) and not _is_there(file.parent, patch, os.path.isfile):
            what = f"{fields.shown(patch)}: no such file beside this file"
            yield ("source", "patches", number), what


def _is_there(folder: Path, name: str, is_one: Callable[[Path], bool]) -> bool:
    """Whether a path is what it should be; of one that cannot be a path `schema` says so."""
    return "\0" in name or is_one(folder / os.path.expanduser(name))


def _script_mistakes(raw: dict[str, Any], file: Path) -> list[tuple[Key, str]]:
    script = raw.get("verify")
    if not isinstance(script, str) or "\0" in script:
        return []
    path = (file.parent / script).resolve()
    if not path.is_relative_to(file.resolve().parent.parent):
        return [(("verify",), f"{script!r} is neither in this folder nor in one beside it")]
    return [] if path.is_file() else [(("verify",), f"{script!r}: no such file")]


def _refusal(file: Path, places: TomlLines, mistakes: list[Mistake], hint: str) -> ConfigError:
    """All mistakes, in the file's order."""
    lines = sorted((places.line(key), dotted(key), message) for key, message in mistakes)
    count = "a mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    said = [f"{_shown(file)}:{line}: {key}: {message}" for line, key, message in lines]
    more = len(said) - _MISTAKES_SHOWN
    return ConfigError(
        count,
        where=_shown(file),
        details=[*said[:_MISTAKES_SHOWN], *([f"... and {more} more"] if more > 0 else [])],
        hint=hint,
    )


def dotted(key: Key) -> str:
    """`cost[0].units` for ("cost", 0, "units")."""
    return "".join(_part(part) for part in key).removeprefix(".")


def _part(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if re.fullmatch("[A-Za-z0-9_-]+", part) else f".{json.dumps(part)}"


def _shown(path: Path) -> str:
    """A path as the user would write it from here."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)
