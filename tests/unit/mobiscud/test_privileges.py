"""Privileges that are given up are gone; who is told to become nobody known stays who he is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mobiscud.app import privileges
from mobiscud.core.errors import ConfigError

DROP_AND = "from mobiscud.app import privileges; privileges.drop({user!r}); import os, socket; {then}"


def run(then: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    command = DROP_AND.format(user=user, then=then)
    return subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)


def test_an_unknown_user_changes_nothing() -> None:
    with pytest.raises(ConfigError, match=r"monitor\.user: there is no user 'nobody-at-all'"):
        privileges.drop("nobody-at-all")
    with open("/proc/self/status") as status:
        assert "NoNewPrivs:\t0" in status.read()


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has anything to give up")
def test_what_is_given_up_is_gone() -> None:
    done = run("socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)")
    assert "PermissionError" in done.stderr
    done = run("os.execvp('cat', ['cat', '/proc/self/status'])")
    assert "CapEff:\t0000000000000000" in done.stdout, "nor comes it back with another program"


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_user() -> None:
    assert run("print(os.getresuid(), os.getgroups())", "nobody").stdout == "(65534, 65534, 65534) []\n"
