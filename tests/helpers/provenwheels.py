"""Wheels of a few bytes with a lock and a statement in them, as builds leave them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fatwheel.provenance.lock import FILE as LOCK_FILE
from fatwheel.provenance.lock import lock_bytes
from fatwheel.provenance.statement import FILE as STATEMENT_FILE
from fatwheel.provenance.statement import predicate_of, statement_bytes

from .somelocks import some_lock
from .tinywheels import Draft

RECORD = {"fatwheel": "0.1.0", "archs": ["80"], "front": "auto", "fronts": []}


def proven_wheel(folder: Path, content: bytes = b"code") -> Path:
    """`demo-1.0-cp311-cp311-linux_x86_64.whl`, whose one module has this content."""
    lock = some_lock()
    locked = lock_bytes(lock)
    subjects = {"demo/code.py": content, f"demo-1.0.dist-info/{LOCK_FILE}": locked}
    statement = statement_bytes(
        [(name, hashlib.sha256(data).hexdigest()) for name, data in subjects.items()],
        predicate_of(lock, RECORD),
    )
    files = {**subjects, f"demo-1.0.dist-info/{STATEMENT_FILE}": statement}
    folder.mkdir(parents=True, exist_ok=True)
    return Draft(files=files).write(folder)
