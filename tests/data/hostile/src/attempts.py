"""Everything that a project can try against whoever builds it, each attempt a function.

An attempt that is stopped raises; one that returns has done what it wanted. Those marked `loud`
are allowed: they only touch the container's own folders, and must have no effect outside.
Nothing here is fit to be run outside of a container.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import poison

LIBC = ctypes.CDLL(None, use_errno=True)
CODE, SOURCES = Path("/fatwheel/code"), Path("/fatwheel/sources")
STORE, INCOMING = poison.STORE, poison.INCOMING
ENVIRONMENT = Path(sys.prefix)
SOCKETS = (
    "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock",
    "/run/fatwheel-test-engine/docker.sock", "/run/podman/podman.sock",
)  # fmt: skip
SECRET = "FATWHEEL_TEST_SECRET"
ALLOWED = {}  # name → whether the attempt may succeed
ATTEMPTS = []


def attempt(function):
    ATTEMPTS.append(function)
    ALLOWED[function.__name__] = False
    return function


def loud(function):
    attempt(function)
    ALLOWED[function.__name__] = True
    return function


def run_all():
    """By attempt: whether it may succeed, and what it met ('' where it did)."""
    return {
        function.__name__: {"allowed": ALLOWED[function.__name__], "met": met(function)}
        for function in ATTEMPTS
    }


def met(function):
    try:
        function()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""


def system(name, *arguments):
    """Call a function of the C library. Raises OSError where it fails."""
    if getattr(LIBC, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def in_child(function):
    """Run in a child process, which may be killed. Raises OSError where it did not end well."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            function()
            os._exit(0)
        os._exit(1)
    status = os.waitpid(child, 0)[1]
    if status:
        raise OSError(f"the child ended with {os.waitstatus_to_exitcode(status)}")


# -- what is mounted, and the image ----------------------------------------------------------------


@attempt
def change_fatwheels_code():
    with (CODE / "fatwheel" / "store.py").open("a") as stream:
        stream.write("raise SystemExit('changed')\n")


@attempt
def add_to_fatwheels_code():
    (CODE / "fatwheel" / "sitecustomize.py").write_text("raise SystemExit('added')\n")


@attempt
def change_the_sources():
    next(SOURCES.rglob("*.cu")).write_text("#error changed\n")


@attempt
def add_to_the_sources():
    (SOURCES / "added.cu").write_text("#error added\n")


@attempt
def write_into_the_store():
    (STORE / "objects" / "added").write_bytes(poison.FOREIGN)


@attempt
def delete_from_the_store():
    next(STORE.glob("refs/*/*/*")).unlink()


@attempt
def replace_an_object_of_the_store():
    path = next(STORE.glob("objects/*/*"))
    path.chmod(0o666)
    path.write_bytes(poison.FOREIGN)


@attempt
def hold_the_stores_lock():
    with (STORE / "lock").open("r+b"):
        pass


@attempt
def hard_link_an_object_of_the_store():
    os.link(next(STORE.glob("objects/*/*")), INCOMING / "object")


@attempt
def replace_a_compiler():
    (Path(os.environ["CUDA_HOME"]).resolve() / "bin" / "ptxas").write_text("#!/bin/sh\n")


@attempt
def replace_the_real_compiler():
    next(ENVIRONMENT.rglob("bin/ptxas")).write_text("#!/bin/sh\n")


@attempt
def add_to_the_environment():
    next(ENVIRONMENT.rglob("site-packages")).joinpath("added.pth").write_text("import os\n")


@attempt
def change_the_accounts():
    with Path("/etc/passwd").open("a") as stream:
        stream.write("root2::0:0::/:/bin/sh\n")


@attempt
def read_the_shadow():
    Path("/etc/shadow").read_text()


@attempt
def read_the_secrets_of_whoever_builds():
    if any(SECRET in text for text in environments()):
        return
    raise OSError("no process here has the variable")


def environments():
    yield "\n".join(os.environ)
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            yield path.read_text(errors="replace")


@attempt
def read_settings_of_whoever_builds():
    names = (".netrc", ".pypirc", ".docker/config.json", ".config/pip/pip.conf", ".ssh/id_rsa")
    for home in ("/root", *Path("/home").glob("*"), os.path.expanduser("~")):
        for name in names:
            if Path(home, name).exists():
                return
    raise OSError("there are none")


# -- the kernel ------------------------------------------------------------------------------------


@attempt
def become_root():
    os.setuid(0)


@attempt
def become_root_by_a_program():
    program = Path("/tmp/rootly")
    program.write_bytes(Path("/bin/sh").read_bytes())
    os.chown(program, 0, 0)
    program.chmod(0o4755)


@attempt
def mount_a_file_system():
    Path("/tmp/mounted").mkdir(exist_ok=True)
    system("mount", b"proc", b"/tmp/mounted", b"proc", 0, None)


@attempt
def mount_over_a_folder():
    system("mount", b"/tmp", b"/fatwheel/store", None, 4096, None)


@attempt
def unmount_a_folder():
    system("umount2", b"/fatwheel/store", 2)


@attempt
def change_the_root():
    os.chroot("/tmp")


@attempt
def make_a_user_namespace():
    system("unshare", 0x10000000)


@attempt
def enter_the_namespace_of_the_first_process():
    descriptor = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    system("setns", descriptor, 0)


@attempt
def make_a_device():
    os.mknod(INCOMING / "disk", 0o60666, os.makedev(8, 0))


@attempt
def read_the_memory_of_the_machine():
    os.open("/dev/mem", os.O_RDONLY)


@attempt
def read_the_log_of_the_kernel():
    system("klogctl", 3, ctypes.create_string_buffer(64), 64)


@attempt
def change_a_setting_of_the_kernel():
    Path("/proc/sys/kernel/core_pattern").write_text("|/bin/sh")


@attempt
def change_its_own_limits():
    for name in ("memory.max", "pids.max", "memory/memory.limit_in_bytes", "pids/pids.max"):
        with contextlib.suppress(FileNotFoundError):
            Path("/sys/fs/cgroup", name).write_text("max")
            return
    raise OSError("no limits to be found")


@attempt
def let_the_machine_run_a_program():
    path = next(Path("/sys/fs/cgroup").rglob("release_agent"), Path("/sys/fs/cgroup/release_agent"))
    path.write_text("/bin/sh")


@attempt
def load_a_module():
    system("syscall", 175, b"", 0, b"")


@attempt
def restart_the_machine():
    system("reboot", 0x01234567)


@attempt
def set_the_clock():
    system("settimeofday", ctypes.create_string_buffer(16), None)


@attempt
def name_the_machine():
    system("sethostname", b"mine", 4)


@attempt
def open_files_by_handle():
    system("syscall", 304, -100, ctypes.create_string_buffer(16), 0)


@attempt
def watch_the_kernel():
    system("syscall", 321, 5, ctypes.create_string_buffer(128), 128)


@attempt
def take_the_priority():
    os.nice(-5)


@attempt
def lock_memory():
    system("mlockall", 3)


@attempt
def kill_every_process():
    # The container's own first process takes no signal that it does not handle.
    os.kill(1, signal.SIGSTOP)
    os.kill(1, signal.SIGKILL)
    if Path("/proc/1").exists():
        raise OSError("the first process lives")


# -- the network and the engine --------------------------------------------------------------------


@attempt
def reach_the_network():
    with socket.create_connection(("192.0.2.1", 443), timeout=2):
        pass


@attempt
def reach_the_machine():
    with socket.create_connection(("172.17.0.1", 22), timeout=2):
        pass


@attempt
def reach_the_clouds_keys():
    with socket.create_connection(("169.254.169.254", 80), timeout=2):
        pass


@attempt
def ask_for_a_name():
    socket.getaddrinfo("example.org", 443)


@attempt
def send_raw_packets():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@attempt
def find_another_interface():
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not others or not any(up(name) for name in others):
        raise OSError("only its own")


def up(name):
    return Path("/sys/class/net", name, "operstate").read_text().strip() == "up"


@attempt
def talk_to_the_engine():
    for path in SOCKETS:
        if os.path.exists(path):
            return
    raise OSError("no socket of an engine")


# -- more than its share ---------------------------------------------------------------------------


@attempt
def take_all_memory():
    def fill():
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # this one and no other
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20) * 64))

    in_child(fill)


@attempt
def start_too_many_threads():
    release = threading.Event()
    threading.stack_size(64 << 10)
    started = []
    try:
        for _ in range(20_000):
            thread = threading.Thread(target=release.wait, daemon=True)
            thread.start()
            started.append(thread)
    finally:
        release.set()
        for thread in started:
            thread.join()
        threading.stack_size(0)


@attempt
def write_an_endless_file():
    path = INCOMING / "endless"

    def grow():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with path.open("wb") as stream:
            stream.truncate(1 << 43)

    try:
        in_child(grow)
    finally:
        path.unlink(missing_ok=True)


@attempt
def lift_the_limit_of_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@attempt
def fill_the_folder_for_temporary_files():
    path = Path("/tmp/full")
    try:
        with path.open("wb") as stream:
            for _ in range(64):
                stream.write(bytes(64 << 20))
    finally:
        path.unlink(missing_ok=True)


@loud
def leave_a_process_behind():
    subprocess.Popen(["sleep", "3600"], start_new_session=True)


# -- what it leaves for this machine ---------------------------------------------------------------


@loud
def poison_the_store():
    poison.everything()


@loud
def leave_links():
    for name, target in (("root", "/"), ("here", "."), ("up", "../.."), ("engine", SOCKETS[0])):
        os.symlink(target, INCOMING / name)
        os.symlink(target, poison.MINE / "refs" / name)
        os.symlink(target, poison.MINE / "objects" / name)


@loud
def leave_pipes_and_sockets():
    folder = poison.MINE / "refs" / "slice" / "ff"
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / f"{os.getpid():064x}")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(folder)
        server.bind(f"socket-{os.getpid()}")
    os.chdir(Path(__file__).parent)


@loud
def leave_a_sparse_object():
    folder = poison.MINE / "objects" / "ee"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ("ee" * 32)).open("wb") as stream:
        stream.truncate(3 << 30)


@loud
def leave_deep_folders():
    top = INCOMING / "deep"
    top.mkdir(exist_ok=True)
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@loud
def leave_many_files():
    folder = INCOMING / "many"
    folder.mkdir(exist_ok=True)
    for number in range(20_000):
        (folder / str(number)).touch()


@loud
def leave_folders_that_nobody_may_read():
    folder = INCOMING / "closed"
    (folder / "inside").mkdir(parents=True, exist_ok=True)
    (folder / "inside" / "file").touch()
    (folder / "inside").chmod(0)
    folder.chmod(0)


@loud
def leave_names_that_steer_terminals():
    (INCOMING / "\x1b]0;mine\x07\x1b[2J").touch()
    os.write(2, b"\x1b]0;mine\x07\x1b[2Jerror: none\r\n" + b"\xff\xfe" * 100 + b"\n")


@loud
def talk_without_end():
    os.write(1, b"x" * (1 << 20))
    os.write(2, b"y" * (1 << 20) + b"\n")
