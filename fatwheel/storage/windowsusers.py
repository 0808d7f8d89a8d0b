"""Folders of one user on Windows, which no other user can open. This module is empty on other
systems.

Microsoft, "Access Control": a folder has an owner, and a list of who may do what in it and in all
that is made there; administrators and the system may do everything. Standard library only.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes
    from pathlib import Path

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
