"""Containers on a real Docker Engine: what they say, how they end, what they cannot do."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fatwheel.containers.client import DockerEngine, connect
from fatwheel.containers.layouts import LINUX, ContainerSpec, Ending, Mount, owner
from fatwheel.containers.roster import Leftovers, Roster, enrolled, reap
from fatwheel.containers.running import RunningContainer
from fatwheel.errors import EngineError
from fatwheel.storage.cache import work_folder

from .engine import LentEngine

MIB = 1 << 20
LIMIT = 100 * MIB
SOON = 20.0  # seconds: for what takes less than one on an idle machine


@dataclass
class Bench:
    """Runs Python code in containers."""

    lent: LentEngine
    engine: DockerEngine
    folder: Path
    lines: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "logs" / "container.log"

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    def spec(self, code: str, *mounts: Mount, memory: int = LIMIT) -> ContainerSpec:
        return ContainerSpec(
            purpose="a test",
            image=self.lent.bases["3.11"],
            command=("python3", "-u", "-c", code),
            mounts=(Mount(str(self.incoming), LINUX.incoming, writable=True), *mounts),
            cpus=1,
            memory=memory,
            os="linux",
        )

    def start(self, spec: ContainerSpec, roster: Roster | None = None) -> RunningContainer:
        roster = roster or Roster(self.folder / "roster", {})
        container = RunningContainer(self.engine, spec, roster, self.lines.append, self.log)
        container.start()
        self.started.append(container.id)
        return container

    def run(self, code: str, *mounts: Mount, memory: int = LIMIT) -> Ending:
        return self.start(self.spec(code, *mounts, memory=memory)).wait()

    def existing(self) -> list[str]:
        """Those of the containers started here that the engine still has."""
        there = {container["Id"] for container in self.engine.api.containers(all=True)}
        return [name for name in self.started if name in there]


@pytest.fixture
def bench(docker_engine: LentEngine, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(docker_engine, docker_engine.connect(), tmp_path)
    made.incoming.mkdir()
    user = owner(made.engine)
    if user is not None:
        os.chown(made.incoming, *user)
    yield made
    left = made.existing()
    for name in left:
        made.engine.api.remove_container(name, force=True)
    assert not left, "containers are left behind"


def soon(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + SOON
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


# -- what they say -------------------------------------------------------------------------------


def test_lines_come_whole_and_the_rest_goes_to_the_log(bench: Bench) -> None:
    ending = bench.run(
        "import sys\n"
        "sys.stdout.buffer.write('one\\ntwo \\u00e9\\n\\nhalf'.encode())\n"
        "sys.stderr.buffer.write(b'to the log\\n\\xff\\x00 binary\\n')\n"
        "sys.exit(3)"
    )
    assert ending.code == 3
    assert not ending.out_of_memory
    assert bench.lines == ["one", "two é", ""]
    log = bench.log.read_bytes()
    assert b"to the log\n\xff\x00 binary\n" in log
    assert b"half" in log, "what was cut off must not be taken for a line, nor be lost"
    assert ending.last_lines[0] == "to the log"


def test_what_it_is_told_comes_in_whole_however_long_it_is(bench: Bench) -> None:
    code = (
        "import hashlib, sys\n"
        "for line in iter(sys.stdin.readline, 'end\\n'):\n"
        "    print(len(line), hashlib.sha256(line.encode()).hexdigest())\n"
        "print('end')"
    )
    container = bench.start(bench.spec(code))
    long = "x" * (3 * MIB) + "y"
    container.send(long + "\n")
    container.send("short\n")
    container.send("end\n")
    assert container.wait().code == 0

    def expected(text: str) -> str:
        return f"{len(text)} {hashlib.sha256(text.encode()).hexdigest()}"

    assert bench.lines == [expected(long + "\n"), expected("short\n"), "end"]


def test_several_threads_may_speak_at_once(bench: Bench) -> None:
    code = (
        "import sys\n"
        "for line in iter(sys.stdin.readline, 'end\\n'): print(len(set(line.strip())), len(line))"
    )
    container = bench.start(bench.spec(code))

    def speak(letter: str) -> None:
        for _ in range(20):
            container.send(letter * 20000 + "\n")

    threads = [threading.Thread(target=speak, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    container.send("end\n")
    container.wait()
    assert bench.lines == ["1 20001"] * 80, "words of several threads were mixed"


def test_much_output_on_both_streams_loses_nothing(bench: Bench) -> None:
    ending = bench.run(
        "import sys, threading\n"
        "def many(out, letter):\n"
        "    for number in range(20000): out.write(f'{letter * 500}{number}\\n')\n"
        "other = threading.Thread(target=many, args=(sys.stderr, 'e'))\n"
        "other.start(); many(sys.stdout, 'o'); other.join()"
    )
    assert ending.code == 0
    assert bench.lines == [f"{'o' * 500}{number}" for number in range(20000)]
    assert bench.log.read_text() == "".join(f"{'e' * 500}{number}\n" for number in range(20000))
    assert ending.last_lines[-1] == "e" * 500 + "19999"


def test_one_that_does_not_listen_holds_up_nobody(bench: Bench) -> None:
    """What is sent fills all buffers and waits; the rest goes on."""
    container = bench.start(bench.spec("print('up'); import time; time.sleep(600)"))
    sender = threading.Thread(target=container.send, args=("x" * (64 * MIB),))
    sender.start()
    assert soon(lambda: bench.lines)
    assert soon(lambda: container.memory() > 0)
    assert sender.is_alive(), "it took 64 MiB that nobody reads"
    container.kill()
    assert container.wait().code == 137
    sender.join(SOON)
    assert not sender.is_alive()


def test_many_run_side_by_side_in_silence(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Each keeps four connections; the libraries below must not complain on the terminal."""
    code = "import sys; sys.stdin.readline(); sys.exit({})"
    made = [bench.start(bench.spec(code.format(number))) for number in range(6)]
    for container in made:
        container.memory()
    for container in made:
        container.send("end\n")
    assert [container.wait().code for container in made] == list(range(6))
    assert [record.getMessage() for record in caplog.records] == []


def test_its_memory_is_told(bench: Bench) -> None:
    container = bench.start(
        bench.spec("import sys; kept = bytearray(60 << 20); print('filled'); sys.stdin.readline()")
    )
    assert soon(lambda: container.memory() > 60 * MIB), f"{container.memory()} bytes are told"
    assert container.memory() < LIMIT
    container.send("end\n")
    container.wait()
    assert container.memory() == 0, "it is gone"


def test_an_entry_point_of_the_image_does_not_come_between(bench: Bench) -> None:
    client = bench.lent.client()
    base = client.create_container(bench.lent.bases["3.11"], ["true"])["Id"]
    image = client.commit(base, changes='ENTRYPOINT ["/bin/echo", "entry point"]')["Id"]
    client.remove_container(base)
    try:
        bench.start(replace(bench.spec("print('the command')"), image=image)).wait()
    finally:
        client.remove_image(image)
    assert bench.lines == ["the command"]


# -- how they end --------------------------------------------------------------------------------


def test_too_much_memory_is_told_from_a_kill(bench: Bench) -> None:
    ending = bench.run("kept = [bytearray(1 << 20) for _ in range(1000)]")
    assert ending == Ending(137, True, ())


def test_there_is_no_swap_to_escape_to(bench: Bench) -> None:
    made = bench.start(bench.spec("import sys; sys.stdin.read()"))
    limits = bench.engine.api.inspect_container(made.id)["HostConfig"]
    made.kill()
    made.wait()
    assert limits["Memory"] == limits["MemorySwap"] == LIMIT


def test_killed_from_outside(bench: Bench) -> None:
    container = bench.start(bench.spec("print('up'); import time; time.sleep(600)"))
    assert soon(lambda: bench.lines)
    bench.lent.client().kill(container.id)
    assert container.wait() == Ending(137, False, ())


def test_killed_from_inside(bench: Bench) -> None:
    ending = bench.run("import os; os.kill(os.getpid(), 11)")
    assert ending.code == 128 + signal.SIGSEGV
    assert not ending.out_of_memory


def test_a_child_killed_for_memory_does_not_end_it(bench: Bench) -> None:
    """As a compiler is killed while its worker lives on."""
    ending = bench.run(
        "import subprocess, sys, time\n"
        "eat = 'kept = [bytearray(1 << 20) for _ in range(1000)]'\n"
        "print(subprocess.run([sys.executable, '-c', eat]).returncode)\n"
        "sys.exit(4)"
    )
    assert bench.lines == ["-9"]
    assert ending.code == 4
    assert not ending.out_of_memory


def test_kill_may_come_at_any_time_and_often(bench: Bench) -> None:
    container = bench.start(bench.spec("import time; time.sleep(600)"))
    threads = [threading.Thread(target=container.kill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert container.wait().code == 137
    container.kill()
    container.send("nobody hears that\n")
    assert container.wait().code == 137, "the ending can be asked for again"


def test_what_on_line_raises_ends_the_container(bench: Bench) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    spec = bench.spec("print('cause'); import time; time.sleep(600)")
    container = RunningContainer(
        bench.engine, spec, Roster(bench.folder / "roster", {}), refuse, bench.log
    )
    container.start()
    bench.started.append(container.id)
    with pytest.raises(ValueError, match="cause"):
        container.wait()


def test_nothing_is_left_when_the_process_that_started_it_is_killed(
    bench: Bench, tmp_path: Path
) -> None:
    """A container that listens ends with its input; no one is there to remove it."""
    code = f"""
import sys, time
from pathlib import Path
from fatwheel.containers.client import connect
from fatwheel.containers.roster import Roster
from fatwheel.containers.running import RunningContainer
from fatwheel.containers.layouts import ContainerSpec
waits = "import sys; print('up', flush=True); sys.stdin.read()"
spec = ContainerSpec("a test", {bench.lent.bases["3.11"]!r}, ("python3", "-c", waits), (), 1,
                     {LIMIT}, "linux")
up = lambda line: print(container.id, flush=True)
roster = Roster(Path({str(tmp_path / "roster")!r}), {{}})
container = RunningContainer(connect(), spec, roster, up, Path({str(tmp_path / "log")!r}))
container.start()
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **bench.lent.variables},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        bench.started.append(name)
        assert bench.existing() == [name]
        process.kill()
    assert soon(lambda: not bench.existing())


# -- what they cannot do -------------------------------------------------------------------------


def test_it_is_nobody_with_no_rights(bench: Bench) -> None:
    bench.run(
        "import os\n"
        "status = dict(line.split(':\\t', 1) for line in open('/proc/self/status')"
        " if ':\\t' in line)\n"
        "print(os.getuid(), os.getgid())\n"
        "print(*(int(status[name], 16) for name in ('CapEff', 'CapPrm', 'CapBnd')))\n"
        "print(status['NoNewPrivs'].strip())"
    )
    user = re.fullmatch(r"(\d+) \d+", bench.lines[0])
    assert user is not None
    assert int(user[1]) == (os.getuid() or 65534), "never root"
    assert bench.lines[1:] == ["0 0 0", "1"]


def test_what_it_makes_belongs_to_whoever_runs_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() == 0:
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        monkeypatch.setattr(os, "getgid", lambda: 4712)
        os.chown(bench.incoming, 4711, 4712)
    bench.run(f"open({LINUX.incoming + '/made'!r}, 'w')")
    made = (bench.incoming / "made").stat()
    assert (made.st_uid, made.st_gid) == (os.getuid(), os.getgid())


def test_it_has_no_network(bench: Bench) -> None:
    bench.run(
        "import os, socket\n"
        "print(*os.listdir('/sys/class/net'))\n"
        "try: socket.create_connection(('192.0.2.1', 80), 2)\n"
        "except OSError as error: print(error.strerror)"
    )
    assert bench.lines == ["lo", "Network is unreachable"]


def test_it_writes_to_its_incoming_folder_and_to_tmp_only(bench: Bench, tmp_path: Path) -> None:
    code, sources = tmp_path / "code", tmp_path / "sources"
    for folder in (code, sources):
        folder.mkdir()
        (folder / "given").write_text("given")
        folder.chmod(0o777)
    places = [LINUX.code, LINUX.sources, "/", "/etc", "/opt", "/tmp", LINUX.incoming]
    bench.run(
        "import errno\n"
        f"for place in {places!r}:\n"
        "    try:\n"
        "        open(place + '/made', 'w').write('x')\n"
        "        print(place, 'written')\n"
        "    except OSError as error: print(place, errno.errorcode[error.errno])\n"
        f"print(open({LINUX.code + '/given'!r}).read())",
        Mount(str(code), LINUX.code, writable=False),
        Mount(str(sources), LINUX.sources, writable=False),
    )
    refused = {line.split(" ")[0] for line in bench.lines if line.endswith("EROFS")}
    assert refused == set(places) - {"/tmp", LINUX.incoming}
    assert bench.lines[-3:] == ["/tmp written", f"{LINUX.incoming} written", "given"]
    assert (bench.incoming / "made").read_text() == "x"
    assert os.listdir(code) == ["given"]


def test_programs_can_run_from_tmp(bench: Bench) -> None:
    bench.run(
        "import os, subprocess\n"
        "open('/tmp/tool', 'w').write('#!/bin/sh\\necho ran')\n"
        "os.chmod('/tmp/tool', 0o755)\n"
        "print(subprocess.run(['/tmp/tool'], capture_output=True, text=True).stdout.strip())"
    )
    assert bench.lines == ["ran"]


def test_it_cannot_start_processes_without_end(bench: Bench) -> None:
    ending = bench.run(
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while made < 10000:\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        made += 1\n"
        "except OSError as error: print(error.strerror)\n"
        "print(made < 10000)",
        memory=4 << 30,
    )
    assert ending.code == 0
    assert bench.lines == ["Resource temporarily unavailable", "True"]


def test_its_limits_are_what_it_asked_for(bench: Bench) -> None:
    spec = replace(bench.spec("import sys; sys.stdin.read()"), cpus=10000)
    made = bench.start(spec)
    limits = bench.engine.api.inspect_container(made.id)["HostConfig"]
    made.kill()
    made.wait()
    assert limits["NanoCpus"] == bench.engine.cpus * 10**9, "no more than there are"


# -- what the engine refuses ---------------------------------------------------------------------


def refused_as(user: int, host: str) -> str:
    """What connecting says to another user; root only."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.environ["DOCKER_HOST"] = host
            connect()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_permission(docker_engine: LentEngine) -> None:
    said = refused_as(4711, docker_engine.host)
    assert said.startswith("EngineError: ")
    assert docker_engine.host in said
    assert "permission denied" in said
    assert "usermod -aG docker" in said


def test_an_image_that_is_not_there(bench: Bench) -> None:
    spec = replace(bench.spec(""), image="fatwheel/none:none")
    with pytest.raises(EngineError, match="image not found") as error:
        bench.start(spec)
    assert "invoke image" in str(error.value)


def test_a_folder_that_is_not_there(bench: Bench, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    spec = bench.spec("", Mount(str(missing), LINUX.code, writable=False))
    with pytest.raises(EngineError, match="not shared") as error:
        bench.start(spec)
    assert str(missing) in str(error.value)
    assert not missing.exists(), "the engine must not make it, as root"


def test_a_program_that_is_not_there(bench: Bench) -> None:
    container = bench.start(replace(bench.spec(""), command=("/opt/fatwheel/none", "-I")))
    ending = container.wait()
    assert ending.code in (126, 127)
    assert "/opt/fatwheel/none" in "".join(ending.last_lines)


# -- what is left over ---------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def left_over(bench: Bench, roster: Roster, labels: dict[str, str] | None = None) -> str:
    """A container that was made and not started when its build was killed."""
    name = roster.announce()
    container = foreign(bench, {**roster.labels, **(labels or {})}, name)
    roster.made(name, container)
    return container


def foreign(bench: Bench, labels: dict[str, str], name: str | None = None) -> str:
    """A container of somebody else's."""
    body = {"Image": bench.lent.bases["3.11"], "Cmd": ["true"], "Labels": labels}
    made: str = bench.lent.client().create_container_from_config(body, name)["Id"]  # type: ignore
    bench.started.append(made)
    return made


def test_leftovers_of_dead_builds_are_removed_and_no_others(bench: Bench, cache: Path) -> None:
    endpoint = bench.engine.endpoint
    with work_folder() as alive, enrolled("alive", alive, endpoint) as mine:
        kept = left_over(bench, mine)
        with work_folder() as dead, enrolled("dead", dead, endpoint) as roster:
            gone = left_over(bench, roster)
            unrecorded = foreign(bench, roster.labels, roster.announce())
            running = bench.start(bench.spec("import sys; sys.stdin.read()"), roster)
        assert reap(bench.engine, cache) == Leftovers(3, ())
        assert bench.existing() == [kept]
        assert running.wait().code == 137
        assert {gone, unrecorded, running.id}.isdisjoint(bench.existing())
    assert reap(bench.engine, cache) == Leftovers(1, ()), "its build has ended"


def test_what_a_container_says_of_itself_removes_nothing(
    bench: Bench, cache: Path, tmp_path: Path
) -> None:
    """Labels and a name as those of a killed build, and folders that nobody holds."""
    with (
        work_folder() as dead,
        enrolled("dead", dead, bench.engine.endpoint) as roster,
    ):
        name = roster.announce()
        killed = foreign(bench, roster.labels, name)
        roster.made(name, killed)
    seen = bench.engine.api.inspect_container(killed)["Config"]["Labels"]
    assert seen == roster.labels
    forged = [
        foreign(bench, seen),
        foreign(bench, {**seen, "fatwheel.hold": str(cache / "work" / "build-gone")}),
        foreign(bench, {**seen, "fatwheel.hold": str(tmp_path)}),
        foreign(bench, {**seen, "fatwheel.cache": "/another"}),
        foreign(bench, {"fatwheel.hold": str(cache / "gone")}),
    ]
    bench.engine.api.remove_container(killed)
    forged.append(foreign(bench, seen, name))  # the name of a container that is gone
    found = reap(bench.engine, cache)
    assert found.removed == 0
    assert set(found.unknown) == {*forged[:3], forged[-1]}
    assert bench.existing() == forged
    for container in forged:
        assert container[:12] in found.note or container not in found.unknown
        bench.engine.api.remove_container(container)


def test_a_killed_build_s_containers_go(bench: Bench, cache: Path, tmp_path: Path) -> None:
    """SIGKILL, and the engine does not remove what was never started."""
    code = f"""
import sys, time
from pathlib import Path
from fatwheel.containers.client import connect
from fatwheel.containers.roster import enrolled
from fatwheel.storage.cache import work_folder
engine = connect()
with work_folder() as work, enrolled("b", work, engine.endpoint) as roster:
    name = roster.announce()
    body = {{"Image": {bench.lent.bases["3.11"]!r}, "Cmd": ["true"], "Labels": roster.labels}}
    made = engine.api.create_container_from_config(body, name)["Id"]
    roster.made(name, made)
    print(made, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **bench.lent.variables},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        bench.started.append(process.stdout.readline().strip())
        assert reap(bench.engine, cache) == Leftovers(0, ())
        assert len(bench.existing()) == 1
        process.kill()
    assert reap(bench.engine, cache) == Leftovers(1, ())
    assert bench.existing() == []
    assert list((cache / "containers").iterdir()) == []


def test_labels_are_readable(bench: Bench, cache: Path) -> None:
    with (
        work_folder() as alive,
        enrolled("id", alive, bench.engine.endpoint) as roster,
    ):
        made = bench.start(bench.spec("import sys; sys.stdin.read()"), roster)
        labels = bench.engine.api.inspect_container(made.id)["Config"]["Labels"]
        made.kill()
        made.wait()
    assert labels["fatwheel"] == "id"
    assert labels["fatwheel.purpose"] == "a test"
    assert json.dumps(labels)
    assert list((cache / "containers").iterdir()) == [], "it has ended"
