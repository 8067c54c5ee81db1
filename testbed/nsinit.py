"""PID 1 of one emulated host: ``python nsinit.py NETNS HOSTNAME SOURCE:TARGET...``, a program of its own.

It joins the named network namespace, makes mount, UTS and PID namespaces, binds the host's private directories over
the machine's, and then only reaps. On standard output it says ``READY PID`` with its pid as the machine sees it.
The host lives until that pid is killed or standard input ends, so that it cannot outlive the one who holds the pipe;
with PID 1 the kernel kills everything else in the host, and its mounts vanish.

Nothing but the standard library is imported, so that it starts fast and from anywhere.
"""

import ctypes
import os
import select
import signal
import socket
import sys
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID, CLONE_NEWNET = 0x0002_0000, 0x0400_0000, 0x2000_0000, 0x4000_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """Turn the C library's -1 into an ``OSError`` that says what was tried."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    """mount(2)."""
    kind_bytes = None if kind is None else kind.encode()
    checked(libc.mount(source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), None), f"mount {target}")


def enter_network(name: str) -> None:
    """Move this process to a named network namespace."""
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    checked(libc.setns(descriptor, CLONE_NEWNET), f"network namespace {name}")
    os.close(descriptor)


def become_host(hostname: str, binds: list[str]) -> None:
    """Make this process's namespaces look like a machine of their own."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    for bind in binds:
        source, target = bind.split(":")
        mount(source, target, None, MS_BIND)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # A fresh sysfs shows the devices of this network namespace, and hides the machine's cgroups.
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    socket.sethostname(hostname)


def watch(init: int) -> None:
    """Outside the host: kill its PID 1 when standard input ends, and leave when it is dead."""
    dead = os.pidfd_open(init)
    while True:
        ready, _, _ = select.select([0, dead], [], [])
        if dead in ready:
            break
        if not os.read(0, 4096):
            os.kill(init, signal.SIGKILL)
            break
    os.waitpid(init, 0)


def reap() -> NoReturn:
    """Inside the host, as its PID 1: bury whatever dies."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler makes pause() return
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.pause()


def main() -> None:
    """Split into the watcher outside and PID 1 inside."""
    netns, hostname, *binds = sys.argv[1:]
    enter_network(netns)
    checked(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID), "unshare")
    is_up, say_up = os.pipe()
    init = os.fork()
    if init == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(is_up)
        become_host(hostname, binds)
        os.write(say_up, b"1")
        os.close(say_up)
        reap()
    os.close(say_up)
    if not os.read(is_up, 1):
        sys.exit(f"{hostname}: its PID 1 did not come up")
    sys.stdout.write(f"READY {init}\n")
    sys.stdout.flush()
    watch(init)


if __name__ == "__main__":
    main()
