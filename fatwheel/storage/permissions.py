"""Which other users of this machine can change or read a path, and folders that none of them can
open.

On Linux that is told by owners and modes, of a folder and of those around it. On Windows a user's
folders are closed to other users by what they inherit, and nothing is asked here: a folder has an
owner, and a list of who may do what in it and in all that is made there; administrators and the
system may do everything (Microsoft, "Access Control").

Standard library only: this module is imported inside build containers.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes
else:
    import grp
    import pwd


@dataclass(frozen=True)
class PermissionGap:
    """A user other than root and the current one who can replace what is at a path.

    folder: where they can do so, the folder itself or one around it. who: in words. everybody:
    whether that is every user of the machine. mend: the command that keeps them out, or ''.
    """

    folder: Path
    who: str
    everybody: bool = False
    mend: str = ""


if sys.platform == "win32":

    def gap_of(folder: Path) -> PermissionGap | None:
        """Which other user can replace what is at a path."""
        return None

    def open_lock(path: Path) -> int:
        """A file that is there to be locked, made if it is missing. Raises OSError."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_BINARY, lock_mode(path.parent))

    def lock_mode(folder: Path) -> int:
        """The mode of a lock in a folder, which says little there."""
        return 0o666

    _ALREADY_EXISTS = 183  # ERROR_ALREADY_EXISTS
    _QUERY = 0x8  # TOKEN_QUERY
    _USER, _OWNER = 1, 4  # TokenUser, TokenOwner: the user, and who owns what the user makes
    _FILE, _OWNER_INFORMATION = 1, 1  # SE_FILE_OBJECT, OWNER_SECURITY_INFORMATION
    _READ_CONTROL, _SHARED, _EXISTING = 0x20000, 7, 3
    # FILE_FLAG_OPEN_REPARSE_POINT and FILE_FLAG_BACKUP_SEMANTICS: a folder, or a junction itself.
    _ITSELF = 0x0020_0000 | 0x0200_0000
    # Full access for the user, the system and administrators; nothing is inherited from above.
    _PRIVATE = "D:P(A;OICI;FA;;;{user})(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _security = ctypes.WinDLL("advapi32", use_last_error=True)
    _kernel.GetCurrentProcess.restype = wintypes.HANDLE
    _kernel.LocalFree.argtypes = [ctypes.c_void_p]
    _kernel.CloseHandle.argtypes = [wintypes.HANDLE]
    _kernel.CreateDirectoryW.argtypes = [wintypes.LPCWSTR, ctypes.c_void_p]
    _security.OpenProcessToken.argtypes = [wintypes.HANDLE, wintypes.DWORD, ctypes.c_void_p]
    _security.GetTokenInformation.argtypes = [
        wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p,
    ]  # fmt: skip
    _security.ConvertSidToStringSidW.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    _security.ConvertStringSecurityDescriptorToSecurityDescriptorW.argtypes = [
        wintypes.LPCWSTR, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    _kernel.CreateFileW.restype = wintypes.HANDLE
    _kernel.CreateFileW.argtypes = [
        wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, wintypes.DWORD,
        wintypes.DWORD, wintypes.HANDLE,
    ]  # fmt: skip
    _security.GetSecurityInfo.argtypes = [
        wintypes.HANDLE, ctypes.c_int, wintypes.DWORD, *[ctypes.c_void_p] * 5,
    ]  # fmt: skip

    class _Attributes(ctypes.Structure):
        _fields_ = [
            ("size", wintypes.DWORD),
            ("descriptor", ctypes.c_void_p),
            ("inherited", wintypes.BOOL),
        ]

    def private_folder(folder: Path) -> bool:
        """Make a folder that only the user can open; False where there is one of somebody else's.
        Raises OSError."""
        descriptor = ctypes.c_void_p()
        words = _PRIVATE.format(user=_of_token(_USER))
        convert = _security.ConvertStringSecurityDescriptorToSecurityDescriptorW
        _check(convert(words, 1, ctypes.byref(descriptor), None))
        try:
            attributes = _Attributes(ctypes.sizeof(_Attributes), descriptor, False)
            if _kernel.CreateDirectoryW(str(folder), ctypes.byref(attributes)):
                return True
            if ctypes.get_last_error() != _ALREADY_EXISTS:
                raise ctypes.WinError(ctypes.get_last_error())
        finally:
            _kernel.LocalFree(descriptor)
        return _owner(folder) in (_of_token(_USER), _of_token(_OWNER))

    def _owner(folder: Path) -> str:
        """Who owns a folder, as `S-1-5-…`. Of a junction it is who made it: its target may be the
        user's, and it may lead elsewhere at any time."""
        owner, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
        opened = _kernel.CreateFileW(
            str(folder), _READ_CONTROL, _SHARED, None, _EXISTING, _ITSELF, None
        )
        if opened == wintypes.HANDLE(-1).value:
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            error = _security.GetSecurityInfo(
                opened, _FILE, _OWNER_INFORMATION, ctypes.byref(owner), None, None, None,
                ctypes.byref(descriptor),
            )  # fmt: skip
        finally:
            _kernel.CloseHandle(opened)
        if error:
            raise ctypes.WinError(error)
        try:
            return _text(owner)
        finally:
            _kernel.LocalFree(descriptor)

    def _of_token(kind: int) -> str:
        """Who this process is: what its token says of that begins with a pointer."""
        token = wintypes.HANDLE()
        _check(_security.OpenProcessToken(_kernel.GetCurrentProcess(), _QUERY, ctypes.byref(token)))
        try:
            found = ctypes.create_string_buffer(1024)
            size = wintypes.DWORD()
            _check(
                _security.GetTokenInformation(token, kind, found, len(found), ctypes.byref(size))
            )
            return _text(ctypes.c_void_p.from_buffer(found))
        finally:
            _kernel.CloseHandle(token)

    def _text(user: ctypes.c_void_p) -> str:
        words = wintypes.LPWSTR()
        _check(_security.ConvertSidToStringSidW(user, ctypes.byref(words)))
        try:
            return words.value or ""
        finally:
            _kernel.LocalFree(words)

    def _check(done: int) -> None:
        if not done:
            raise ctypes.WinError(ctypes.get_last_error())

else:
    _OTHERS = stat.S_IRWXG | stat.S_IRWXO
    _WRITE = stat.S_IWGRP | stat.S_IWOTH
    _NO_FOLDER_OF_OURS = (errno.ENOTDIR, errno.ELOOP, errno.EACCES)

    def private_folder(path: Path) -> bool:
        """Make a folder private to the user; an existing one is closed to others.

        False where there is no real folder of the user's, or one that others could write into:
        they may have left something there that they still hold. Raises OSError where none can be
        made.
        """
        with suppress(FileExistsError):
            path.mkdir(mode=stat.S_IRWXU)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _NO_FOLDER_OF_OURS:
                return False
            raise
        try:
            found = os.fstat(handle)
            if found.st_uid != os.geteuid() or found.st_mode & _WRITE:
                return False
            if found.st_mode & _OTHERS:
                os.fchmod(handle, stat.S_IRWXU)
            return True
        finally:
            os.close(handle)

    def gap_of(folder: Path) -> PermissionGap | None:
        """Which other user can replace what is at a path, which must exist; the nearest one.

        As sshd asks of the path of a user's keys, but that what lies in a closed folder may be
        open. Raises OSError.
        """
        real = folder.resolve()
        gap: PermissionGap | None = None
        for path in (real, *real.parents):
            found = path.stat()
            gap = gap and _reached_through(found, gap)
            # In a sticky folder, only who owns an entry can rename it, and who owns the folder.
            sticky = path != real and found.st_mode & stat.S_ISVTX
            if gap is None and (not sticky or _foreign(found)):
                gap = _gap_in(path, found)
        return gap

    def _gap_in(path: Path, found: os.stat_result) -> PermissionGap | None:
        if _foreign(found):
            # Where everybody may make folders, anybody may have made this one.
            anybody = bool(path.parent.stat().st_mode & stat.S_IWOTH)
            return PermissionGap(path, f"the user {_user(found.st_uid)}", everybody=anybody)
        if found.st_mode & stat.S_IWOTH:
            return PermissionGap(
                path, "every user of this machine", True, _mend("o-w", path, found)
            )
        if found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid):
            return PermissionGap(
                path, f"the group {_group(found.st_gid)}", mend=_mend("g-w", path, found)
            )
        return None

    def _mend(change: str, path: Path, found: os.stat_result) -> str:
        """The command that closes a folder, if the user may run it."""
        return f"chmod {change} {path}" if os.geteuid() in (0, found.st_uid) else ""

    def _reached_through(around: os.stat_result, gap: PermissionGap) -> PermissionGap | None:
        """What is left of a gap in a folder `around`, which may be closed to some."""
        if around.st_mode & stat.S_IXOTH or _foreign(around):
            return gap
        if around.st_mode & stat.S_IXGRP and not _is_own_group(around.st_gid):
            return replace(gap, who=f"the group {_group(around.st_gid)}", everybody=False)
        return None

    def _foreign(found: os.stat_result) -> bool:
        return found.st_uid not in (0, os.geteuid())

    def open_lock(path: Path) -> int:
        """A file that is there to be locked, made if it is missing. Raises OSError."""
        mode = lock_mode(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, mode)
        found = os.fstat(handle)
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != mode:
            with suppress(PermissionError):  # a file system without modes
                os.fchmod(handle, mode)
        return handle

    def lock_mode(folder: Path) -> int:
        """The mode of a lock in a folder. Raises OSError.

        Whoever can open it can hold it. So those can who may write into the folder, where they
        could remove it as well, and nobody else.
        """
        writers = folder.stat().st_mode & _WRITE
        return stat.S_IRUSR | stat.S_IWUSR | writers | writers << 1  # who writes it reads it, too

    def _is_own_group(gid: int) -> bool:
        """Whether a group is its user's alone, as many systems give one to every user."""
        try:
            user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        except KeyError:
            return False
        alone = set(group.gr_mem) <= {user.pw_name}
        return gid == user.pw_gid and group.gr_name == user.pw_name and alone

    def _user(uid: int) -> str:
        with suppress(KeyError):
            return pwd.getpwuid(uid).pw_name
        return str(uid)

    def _group(gid: int) -> str:
        with suppress(KeyError):
            return grp.getgrgid(gid).gr_name
        return str(gid)
