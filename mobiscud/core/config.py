"""The configuration: one YAML file, parsed once, strictly. Unknown keys are errors that name their path.

``parse`` is pure (text in, ``Config`` out); reading the file and the environment is ``load``'s, the only function
here that touches either.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from mobiscud.core.errors import ConfigError
from mobiscud.core.ids import CloudletId
from mobiscud.core.offload import OffloadConfig as OffloadConfig
from mobiscud.core.offload import repeated
from mobiscud.core.section import Name, Section
from mobiscud.core.vm_config import HypervisorConfig, ImageConfig, image_problems

BUS_SCHEMES = ("mqtt", "mqtts", "unix")


def _bus_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in BUS_SCHEMES:
        raise ValueError("begins with mqtt://, mqtts:// or unix://")
    if parts.scheme == "unix":
        if not parts.path.startswith("/"):
            raise ValueError("names a socket by its absolute path: unix:///run/mosquitto.sock")
    elif not parts.hostname:
        raise ValueError("names no host: mqtt://HOST:1883")
    else:
        _ = parts.port  # raises where it is no port number
    return url


class SiteConfig(Section):
    """Who and where this node is; both become part of its topics. What it must remember lies in ``state_dir``."""

    name: Name = "site"
    node: Name = "node"
    state_dir: Path = Path("/var/lib/mobiscud")


class BusConfig(Section):
    """The MQTT broker. Without ``url`` the node starts an embedded one on loopback.

    ``spool_mib`` bounds the memory for what waits while the broker is away.
    """

    url: Annotated[str, AfterValidator(_bus_url)] | None = None
    username: str | None = None
    password: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    embedded_port: int = Field(default=1883, ge=1, le=65535)
    spool_mib: int = Field(default=256, ge=1, le=65536)

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file exclude each other")
        return self


class PrivacyConfig(Section):
    """``pseudonym``: no IMSI leaves the process. Without ``key`` the key of the pseudonyms is made once, mode 0600,
    at ``key_file``."""

    mode: Literal["pseudonym", "clear"] = "pseudonym"
    key: Annotated[str, Field(min_length=16)] | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key is not None and self.key_file is not None:
            raise ValueError("key and key_file exclude each other")
        return self


class LimitsConfig(Section):
    """How much the monitor may remember, and for how long. Beyond a number the oldest gives way: that is counted, and
    told as ``monitor.dropped`` with reason ``limit``. What is older than its age goes without a word.

    ``half_open``: S1 connections that serve no UE, not yet or no longer. ``transactions``: GTPv2 requests without an
    answer. ``waiting_mib``: SCTP messages that wait for a fragment, or for an earlier message of their stream.
    ``fragments``: IP packets of which a part is missing. Connected UEs do not age.
    """

    ues: int = Field(default=200_000, ge=1)
    half_open: int = Field(default=50_000, ge=1)
    transactions: int = Field(default=50_000, ge=1)
    associations: int = Field(default=16_384, ge=1)
    waiting_mib: int = Field(default=64, ge=1)
    fragments: int = Field(default=256, ge=1)
    ue_age_s: int = Field(default=7 * 86_400, ge=60)
    half_open_age_s: int = Field(default=600, ge=10)
    transaction_age_s: int = Field(default=60, ge=1)
    fragment_age_s: int = Field(default=60, ge=1)


class MonitorConfig(Section):
    """What is watched. ``buffer_mib``: the kernel's buffer for all interfaces; ``user``: who the monitor becomes when
    its sockets are open, if it is started as root."""

    interfaces: tuple[str, ...] = ()
    buffer_mib: int = Field(default=64, ge=1, le=1024)
    user: str | None = None
    limits: LimitsConfig = LimitsConfig()


class CloudletConfig(Section):
    """One edge site: which eNodeBs it stands beside, which node controls it, where its hypervisor takes guests."""

    id: Name
    node: Name
    enb_ids: tuple[Annotated[int, Field(ge=0, le=0xFFF_FFFF)], ...]
    migration_uri: str | None = None


class TlsConfig(Section):
    """PEM files for ``ssl:``: the CA of the switch's certificate, and our own certificate and key."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


class SwitchConfig(Section):
    """The switch of one cloudlet: a bump in the S1-U wire, and an OpenFlow bridge behind it.

    ``sgi_port`` leads into the network by which the core reaches the personal VMs, one for all cloudlets;
    ``sgi_gateway`` is the address there of the next hop towards UEs (the P-GW, or a router beside it).
    """

    cloudlet: Name
    bridge: str
    openflow: str
    enb_port: str
    core_port: str
    gi_port: str = "gi0"
    gi_switch_port: str = "gi1"
    pvm_port: str
    peers: dict[str, str] = Field(default_factory=dict)
    sgi_port: str | None = None
    sgi_gateway: IPv4Address | None = None
    bpffs: Path = Path("/sys/fs/bpf")
    tls: TlsConfig | None = None

    @model_validator(mode="after")
    def _tls_where_it_serves(self) -> Self:
        if self.openflow.startswith("ssl:") != (self.tls is not None):
            raise ValueError("openflow: ssl:HOST:PORT needs tls, and nothing else does")
        return self

    @model_validator(mode="after")
    def _sgi_whole(self) -> Self:
        if (self.sgi_port is None) != (self.sgi_gateway is None):
            raise ValueError("sgi_port and sgi_gateway need each other")
        return self


class FollowConfig(Section):
    """When a personal VM follows its user: ``follow`` after ``dwell_s`` in the new place; ``stay``, never;
    ``hysteresis`` as follow, but after ``ping_pong_s`` where the UE left less than that before; ``cost`` when it pays.

    ``start``: the earliest moment of a move. Before the UE has arrived there is no time to wait for.
    """

    policy: Literal["follow", "stay", "hysteresis", "cost"] = "follow"
    dwell_s: float = Field(default=0.0, ge=0)
    ping_pong_s: float = Field(default=60.0, ge=0)
    start: Literal["at_preparing", "at_executing", "at_completed"] = "at_completed"

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.policy == "hysteresis" and self.ping_pong_s < self.dwell_s:
            raise ValueError("ping_pong_s is at least dwell_s")
        waits = self.policy == "hysteresis" or (self.policy == "follow" and self.dwell_s > 0)
        if self.start != "at_completed" and waits:
            raise ValueError(f"start: {self.start} and a time to wait in the new place exclude each other")
        return self


class LinkConfig(Section):
    """The way between two cloudlets: its round-trip time, and how many moves fill it."""

    between: tuple[Name, Name]
    rtt_ms: float = Field(gt=0)
    moves: int = Field(default=4, ge=1)


class CostConfig(Section):
    """What the policy ``cost`` reckons with.

    ``round_trips_s``: of a user, a second; ``wait_ms_per_mib``: how much waiting of a user it is worth to spare the
    link a MiB; ``usual_stay_s``: of a UE at a cloudlet, before it is known better; ``outage_ms``: of a migration,
    likewise; ``move_mib``: what one copies; ``rtt_ms`` and ``moves``: of a way that ``links`` does not name.
    """

    round_trips_s: float = Field(default=20.0, ge=0)
    wait_ms_per_mib: float = Field(default=20.0, ge=0)
    usual_stay_s: float = Field(default=600.0, gt=0)
    outage_ms: float = Field(default=40.0, ge=0)
    move_mib: float = Field(default=128.0, ge=0)
    rtt_ms: float = Field(default=4.0, gt=0)
    moves: int = Field(default=4, ge=1)
    links: tuple[LinkConfig, ...] = ()


class OverrideConfig(FollowConfig):
    """When one personal VM follows, other than the rest."""

    pvm: Name


class MigrationConfig(FollowConfig):
    """When personal VMs follow their users, and how.

    ``switch_over``: what a guest is sent as it stops is either sent once more to where it goes on, so that nothing is
    lost and some packets arrive twice (``duplicate``), or a few are lost and none arrives twice (``flip``).
    """

    switch_over: Literal["duplicate", "flip"] = "duplicate"
    cost: CostConfig = CostConfig()
    overrides: tuple[OverrideConfig, ...] = ()
    absence_s: float | None = Field(default=None, ge=0)
    """How long a PVM runs on for a UE that is idle or detached. None: for ever, or until it detaches."""


class WebConfig(Section):
    """The web console."""


def _listen(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("is an address and a port: 127.0.0.1:9464")
    return text


class MetricsConfig(Section):
    """Where the metrics are served for Prometheus (``/metrics``), such as 127.0.0.1:9464; without it, nowhere."""

    listen: Annotated[str, AfterValidator(_listen)] | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port."""
        if self.listen is None:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class Config(Section):
    """The whole file."""

    site: SiteConfig = SiteConfig()
    bus: BusConfig = BusConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    monitor: MonitorConfig = MonitorConfig()
    cloudlets: tuple[CloudletConfig, ...] = ()
    switches: tuple[SwitchConfig, ...] = ()
    images: dict[Name, ImageConfig] = Field(default_factory=dict)
    """What personal VMs are made of, by name; the same on every node, since a migration takes the paths along."""
    hypervisors: tuple[HypervisorConfig, ...] = ()
    offload: OffloadConfig = OffloadConfig()
    migration: MigrationConfig = MigrationConfig()
    web: WebConfig = WebConfig()
    metrics: MetricsConfig = MetricsConfig()

    @model_validator(mode="before")
    @classmethod
    def _privacy_in_one_word(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("privacy"), str):
            return {**raw, "privacy": {"mode": raw["privacy"]}}
        return raw

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        problems = list(repeated("cloudlets: id", (c.id for c in self.cloudlets)))
        known = {c.id for c in self.cloudlets}
        enbs = [str(e) for c in self.cloudlets for e in c.enb_ids]
        problems += repeated("cloudlets: node", (c.node for c in self.cloudlets))
        problems += repeated("cloudlets: enb_ids", enbs)
        for kind, sections in (("switches", self.switches), ("hypervisors", self.hypervisors)):
            for section in sections:
                if section.cloudlet not in known:
                    problems.append(f"{kind}: cloudlet {section.cloudlet!r} is not among cloudlets")
        for switch in self.switches:
            problems += [f"switches: peer {p!r} is not among cloudlets" for p in switch.peers if p not in known]
        pvms = {s.pvm.id for s in self.offload.subscribers}
        overridden = [own.pvm for own in self.migration.overrides]
        problems += repeated("migration.overrides: pvm", overridden)
        groups = tuple(f"{group.name}-" for group in self.offload.groups)
        strange = [pvm for pvm in overridden if pvm not in pvms and not pvm.startswith(groups)]
        problems += [f"migration.overrides: pvm {pvm!r} is of no subscriber, and of no group" for pvm in strange]
        ends = {end for link in self.migration.cost.links for end in link.between}
        problems += [f"migration.cost.links: {end!r} is not among cloudlets" for end in sorted(ends - known)]
        problems += self.offload.problems()
        problems += image_problems(self.images, self.hypervisors, self.offload.images())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def cloudlet(self, name: CloudletId | str) -> CloudletConfig:
        """The section of one cloudlet.

        :raises ConfigError: there is none of that name
        """
        for cloudlet in self.cloudlets:
            if cloudlet.id == name:
                return cloudlet
        raise ConfigError(f"cloudlets: there is no {name!r}")

    def own_cloudlet(self) -> CloudletConfig | None:
        """The cloudlet that this node controls, if it controls one."""
        return next((c for c in self.cloudlets if c.node == self.site.node), None)


def parse(text: str) -> Config:
    """Read the YAML text of a configuration.

    :raises ConfigError: with one line for every wrong key, ``path: why``
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise ConfigError("not a mapping of sections at the top")
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError([problem(e["loc"], e["type"], e["msg"]) for e in error.errors()]) from error


def problem(where: tuple[int | str, ...], kind: str, message: str) -> str:
    """One error of pydantic's in our words: the path of the key, and why."""
    path = ""
    for step in where:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    if kind == "extra_forbidden":
        message = "there is no such key"
    return f"{path or 'configuration'}: {message.removeprefix('Value error, ')}"


def load(path: Path) -> Config:
    """Read and parse a configuration file.

    :raises ConfigError: unreadable, or wrong
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {os.strerror(error.errno or 0)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    return parse(text)
