"""Faults at the system call, for what nobody can arrange on a real disk, least of all root.

Python runs this file at its start if its folder is on PYTHONPATH. FAULT="CALL:WHICH:WHAT" makes a
call of open, mkdir, fsync or replace fail: from the WHICH-th call on if WHICH is a number, else
every call on a path that contains WHICH. It fails with the error WHAT (ENOSPC, EROFS, EACCES);
KILL kills the process before the call is made.
"""

import builtins
import errno
import io
import itertools
import os
import signal

PLACES = {
    "open": [(builtins, "open"), (io, "open")],
    "mkdir": [(os, "mkdir")],
    "fsync": [(os, "fsync")],
    "replace": [(os, "replace")],
}


def install(fault: str) -> None:
    call, which, what = fault.split(":")
    module, name = PLACES[call][0]
    real, calls = getattr(module, name), itertools.count(1)

    def faulty(target, *words, **named):
        met = next(calls) >= int(which) if which.isdecimal() else which in str(target)
        if met and what == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if met:
            code = getattr(errno, what)
            raise OSError(code, os.strerror(code), str(target))
        return real(target, *words, **named)

    for module, name in PLACES[call]:
        setattr(module, name, faulty)


if "FAULT" in os.environ:
    install(os.environ["FAULT"])
