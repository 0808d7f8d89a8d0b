"""The command `fatwheel`, also as `python -m fatwheel`."""

from __future__ import annotations

import sys

from . import __version__


def main() -> None:
    """Run the command line. The version is shown without loading what commands are made of."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"fatwheel {__version__}\n")
        return
    from .cli.main import run

    run(sys.argv)


if __name__ == "__main__":
    main()
