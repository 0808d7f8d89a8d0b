"""Windows job objects: groups of processes that are measured and ended together.

A process that a member starts is a member too. Microsoft, "Job Objects". This module is empty on
other systems. Standard library only.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _KILL_ON_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    _JOB_MEMORY = 0x200  # JOB_OBJECT_LIMIT_JOB_MEMORY
    _ACCOUNTING, _EXTENDED = 1, 9  # JobObjectBasicAccountingInformation, …ExtendedLimitInformation
    _TICKS = 10_000_000  # in a second: times count 100 ns

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _native = ctypes.WinDLL("ntdll")
    for _name in ("CreateJobObjectW", "GetCurrentProcess"):
        getattr(_kernel, _name).restype = wintypes.HANDLE
    _kernel.CreateJobObjectW.argtypes = [ctypes.c_void_p, wintypes.LPCWSTR]
    _kernel.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    _kernel.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]
    _kernel.CloseHandle.argtypes = [wintypes.HANDLE]
    _kernel.SetInformationJobObject.argtypes = [
        wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD,
    ]  # fmt: skip
    _kernel.QueryInformationJobObject.argtypes = [
        wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p,
    ]  # fmt: skip
    _kernel.K32GetProcessMemoryInfo.argtypes = [wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD]
    _kernel.GetProcessTimes.argtypes = [wintypes.HANDLE] + [ctypes.c_void_p] * 4
    _native.NtResumeProcess.argtypes = [wintypes.HANDLE]

    class _BasicLimits(ctypes.Structure):
        _fields_ = [
            ("process_time", ctypes.c_int64),
            ("job_time", ctypes.c_int64),
            ("flags", wintypes.DWORD),
            ("least_set", ctypes.c_size_t),
            ("most_set", ctypes.c_size_t),
            ("processes", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority", wintypes.DWORD),
            ("scheduling", wintypes.DWORD),
        ]

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = [
            ("basic", _BasicLimits),
            ("io", ctypes.c_uint64 * 6),
            ("process_memory", ctypes.c_size_t),
            ("job_memory", ctypes.c_size_t),
            ("peak_process", ctypes.c_size_t),
            ("peak_job", ctypes.c_size_t),
        ]

    class _Accounting(ctypes.Structure):
        _fields_ = [
            ("user", ctypes.c_int64),
            ("kernel", ctypes.c_int64),
            ("period_user", ctypes.c_int64),
            ("period_kernel", ctypes.c_int64),
            ("faults", wintypes.DWORD),
            ("processes", wintypes.DWORD),
            ("active", wintypes.DWORD),
            ("terminated", wintypes.DWORD),
        ]

    class _MemoryCounters(ctypes.Structure):
        _fields_ = [
            ("size", wintypes.DWORD),
            ("faults", wintypes.DWORD),
            ("peak_set", ctypes.c_size_t),
            ("set", ctypes.c_size_t),
            ("pools", ctypes.c_size_t * 4),
            ("page_file", ctypes.c_size_t),
            ("peak_page_file", ctypes.c_size_t),
        ]

    class Group:
        """Processes that end when this object is closed, or when its process ends."""

        def __init__(self, memory: int = 0) -> None:
            """memory: bytes that they may be promised together, 0 for any number."""
            self._job = _kernel.CreateJobObjectW(None, None)
            _check(self._job)
            limits = _ExtendedLimits()
            limits.basic.flags = _KILL_ON_CLOSE | (_JOB_MEMORY if memory else 0)
            limits.job_memory = memory
            _check(
                _kernel.SetInformationJobObject(
                    self._job, _EXTENDED, ctypes.byref(limits), ctypes.sizeof(limits)
                )
            )

        def add(self, process: int) -> None:
            """Take in a process, by its handle."""
            _check(_kernel.AssignProcessToJobObject(self._job, process))

        def add_this(self) -> None:
            """Take in the process that calls this."""
            self.add(_kernel.GetCurrentProcess())

        def cpu(self) -> float:
            """Seconds that all members, also those that ended, have computed."""
            found = _Accounting()
            self._query(_ACCOUNTING, found)
            return float(found.user + found.kernel) / _TICKS

        def peak(self) -> int:
            """Bytes that the largest member had at its largest."""
            found = _ExtendedLimits()
            self._query(_EXTENDED, found)
            return int(found.peak_process)

        def end(self) -> None:
            """End all members."""
            _kernel.TerminateJobObject(self._job, 1)

        def close(self) -> None:
            _kernel.CloseHandle(self._job)

        def _query(self, kind: int, found: ctypes.Structure) -> None:
            _check(
                _kernel.QueryInformationJobObject(
                    self._job, kind, ctypes.byref(found), ctypes.sizeof(found), None
                )
            )

    def resume(process: int) -> None:
        """Let a process run that was started suspended, by its handle."""
        _native.NtResumeProcess(process)

    def peak_of(process: int) -> int:
        """Bytes that one process, by its handle, had at its largest."""
        found = _MemoryCounters()
        _kernel.K32GetProcessMemoryInfo(process, ctypes.byref(found), ctypes.sizeof(found))
        return int(max(found.peak_set, found.peak_page_file))

    def cpu_of(process: int) -> float:
        """Seconds that one process, by its handle, has computed."""
        times = [ctypes.c_uint64() for _ in range(4)]
        _kernel.GetProcessTimes(process, *map(ctypes.byref, times))
        return (times[2].value + times[3].value) / _TICKS

    def _check(done: int | None) -> None:
        if not done:
            raise ctypes.WinError(ctypes.get_last_error())
