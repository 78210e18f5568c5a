"""How the event loop learns that a git child has ended: by a descriptor of it, where Linux has such (``pidfd_open``).

Python 3.12 does so by itself. 3.11 starts a thread for each child: starting and ending those was a quarter of the
time of an event loop that commits small pushes.
"""

import asyncio
import os
import sys


def watch_by_descriptor() -> None:
    """Let the event loops of this process watch their children by descriptors."""
    if sys.version_info < (3, 12) and sys.platform == "linux":
        asyncio.set_child_watcher(_Watcher())


if sys.version_info < (3, 12) and sys.platform == "linux":
    from collections.abc import Callable
    from typing import TypeVarTuple, Unpack

    _Args = TypeVarTuple("_Args")

    # As asyncio reports it where whoever started this process made the system forget ended children (SIGCHLD ignored).
    _UNKNOWN = 255

    class _Watcher(asyncio.ThreadedChildWatcher):
        """For any number of loops, in any thread, unlike ``asyncio.PidfdChildWatcher``, which serves one."""

        def add_child_handler(
            self, pid: int, callback: Callable[[int, int, Unpack[_Args]], object], *args: *_Args
        ) -> None:
            try:
                descriptor = os.pidfd_open(pid)
            except OSError:
                # No descriptor left, or a kernel before 5.3: a thread then.
                super().add_child_handler(pid, callback, *args)
                return
            loop = asyncio.get_running_loop()

            def ended() -> None:
                loop.remove_reader(descriptor)
                os.close(descriptor)
                try:
                    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                except ChildProcessError:
                    status = _UNKNOWN
                callback(pid, status, *args)

            loop.add_reader(descriptor, ended)
