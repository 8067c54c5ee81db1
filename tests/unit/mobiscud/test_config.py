"""A configuration is right, or every wrong key is named with its path and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobiscud.core.config import Config, load, parse
from mobiscud.core.errors import ConfigError
from mobiscud.core.ids import Imsi
from mobiscud.core.vm_config import HypervisorConfig, ImageConfig, image_of, missing_files

WHOLE = """
site: {name: lab, node: c1}
bus: {url: "mqtt://127.0.0.1:1883"}
privacy: clear
monitor: {interfaces: [eth0]}
cloudlets:
  - {id: c1, node: c1, enb_ids: [411], migration_uri: "qemu+tcp://10.90.0.1/system"}
  - {id: c2, node: c2, enb_ids: [412]}
switches:
  - {cloudlet: c1, bridge: br0, openflow: "unix:/run/br0.mgmt", enb_port: enb, core_port: core, pvm_port: pvm0,
     peers: {c2: isl-c2}}
hypervisors:
  - {cloudlet: c1, kernel: /k, initrd: /i}
offload:
  gateway: 172.16.0.1/16
  subscribers:
    - {imsi: "999700000000001", pvm: {id: p1, address: 172.16.1.10, mac: "52:54:00:00:00:10"}}
    - {ue: ue-0123456789abcdef, pvm: {id: p2, address: 172.16.1.11, mac: "52:54:00:00:00:11"}}
migration: {policy: follow, dwell_s: 2}
"""


def test_a_whole_configuration() -> None:
    config = parse(WHOLE)
    own = config.own_cloudlet()
    assert own is not None
    assert own.id == "c1"
    assert config.privacy.mode == "clear"
    assert [s.personal_vm().id for s in config.offload.subscribers] == ["p1", "p2"]


def test_a_pvm_is_made_of_what_it_names_or_of_what_its_host_says() -> None:
    config = parse(WHOLE.replace("id: p1", "id: p1, image: debian") + "images: {debian: {disk: /d, format: raw}}")
    (host,) = config.hypervisors
    p1, p2 = (subscriber.personal_vm() for subscriber in config.offload.subscribers)
    assert image_of(p1.image, config.images, host) == ImageConfig(disk=Path("/d"), format="raw")
    assert image_of(p2.image, config.images, host) == ImageConfig(kernel=Path("/k"), initrd=Path("/i"))
    assert image_of("huge", config.images, host) is None


def test_a_file_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "kernel").touch()
    host = HypervisorConfig(cloudlet="c1", kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    images = {"debian": ImageConfig(disk=tmp_path / "disk")}
    assert missing_files(images, host) == [
        f"images.debian.disk: there is no file {tmp_path}/disk",
        f"hypervisors: c1.initrd: there is no file {tmp_path}/initrd",
    ]


def test_nothing_is_a_configuration_too() -> None:
    assert parse("") == Config()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bus: {url: 'http://x'}", "bus.url: begins with mqtt://"),
        ("bus: {url: 'unix://relative'}", "bus.url: names a socket by its absolute path"),
        ("bus: {url: 'mqtt://h:99999'}", "bus.url"),
        ("bus: {password: a, password_file: /b}", "bus: password and password_file exclude each other"),
        ("buss: {}", "buss: there is no such key"),
        ("cloudlets: [{id: c1, node: n, enb_ids: [1], foo: 1}]", "cloudlets[0].foo: there is no such key"),
        ("cloudlets: [{id: c/1, node: n, enb_ids: [1]}]", "cloudlets[0].id: is made of letters"),
        ("privacy: open", "privacy.mode"),
        ("privacy: {key: short}", "privacy.key"),
        ("site: [1]", "site"),
        ("- 1", "not a mapping of sections"),
        ("a: [", "not YAML"),
        (WHOLE.replace("enb_ids: [412]", "enb_ids: [411]"), "cloudlets: enb_ids '411' appears twice"),
        (WHOLE.replace("node: c2", "node: c1"), "cloudlets: node 'c1' appears twice"),
        (WHOLE.replace("cloudlet: c1, bridge", "cloudlet: c9, bridge"), "switches: cloudlet 'c9' is not among"),
        (WHOLE.replace("peers: {c2", "peers: {c9"), "switches: peer 'c9' is not among cloudlets"),
        (WHOLE.replace("172.16.1.11", "10.1.1.1"), "10.1.1.1 is outside 172.16.0.0/16"),
        (WHOLE.replace("172.16.1.11", "172.16.1.10"), "pvm address '172.16.1.10' appears twice"),
        (WHOLE.replace("52:54:00:00:00:10", "53:54:00:00:00:10"), "is a multicast address"),
        (
            WHOLE.replace("dwell_s: 2", "dwell_s: 2, start: at_preparing"),
            "migration: start: at_preparing and a time to",
        ),
        ("migration: {policy: hysteresis, dwell_s: 9, ping_pong_s: 8}", "migration: ping_pong_s is at least dwell_s"),
        ("migration: {policy: later}", "migration.policy"),
        ("migration: {overrides: [{policy: stay}]}", "migration.overrides[0].pvm"),
        ("migration: {overrides: [{pvm: p7}]}", "migration.overrides: pvm 'p7' is of no subscriber"),
        (
            WHOLE.replace("dwell_s: 2", "overrides: [{pvm: p1}, {pvm: p1}]"),
            "migration.overrides: pvm 'p1' appears twice",
        ),
        (
            WHOLE.replace("dwell_s: 2", "cost: {links: [{between: [c1, c7], rtt_ms: 3}]}"),
            "migration.cost.links: 'c7' is not among cloudlets",
        ),
        (WHOLE.replace('imsi: "999700000000001"', "imsi: '12'"), "an IMSI has 6 to 15 digits"),
        (WHOLE.replace("id: p1", "id: vm-999700000000001"), "pvm.id holds the IMSI"),
        (WHOLE.replace("id: p1", "id: p1, image: huge"), "image 'huge' of p1 is not among images"),
        (WHOLE.replace("kernel: /k, initrd: /i", "image: huge"), "hypervisors: image 'huge' is not among images"),
        (WHOLE.replace(", kernel: /k, initrd: /i", ""), "hypervisors: c1 needs kernel and initrd, or image, for p2"),
        (WHOLE.replace("kernel: /k, ", ""), "hypervisors[0]: kernel and initrd go together"),
        (WHOLE.replace("kernel: /k", "kernel: k"), "hypervisors[0]: kernel is an absolute path"),
        (WHOLE.replace("kernel: /k", "pool: 3, kernel: /k"), "hypervisors[0]: pool needs on_stop: pause"),
        ("images: {a: {}}", "images.a: needs kernel and initrd, or disk, or all three"),
        ("images: {a: {kernel: /k}}", "images.a: kernel and initrd go together"),
        ("images: {a: {disk: d}}", "images.a: disk is an absolute path"),
        ("images: {a: {disk: /d, cmdline: quiet}}", "images.a: cmdline needs kernel"),
        ("images: {a: {disk: /d, format: vmdk}}", "images.a.format"),
        ("images: {a: {disk: /d, vcpus: 0}}", "images.a.vcpus"),
    ],
)
def test_what_is_wrong_is_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert problem in str(caught.value)


def test_all_wrong_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("buss: {}\nmonitor: {buffer_mib: 0}")
    assert len(caught.value.problems) == 2


def test_an_unreadable_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "bytes.yaml")


def test_an_imsi_does_not_show() -> None:
    assert "999700000000001" not in repr(Imsi("999700000000001"))
    assert "999700000000001" not in repr(parse(WHOLE))


@pytest.mark.parametrize("half", ["sgi_port: sgi0", "sgi_gateway: 172.16.255.254"])
def test_the_way_to_the_core_needs_port_and_next_hop(half: str) -> None:
    switch = "cloudlet: c1, bridge: b, openflow: 'unix:/b', enb_port: e, core_port: c, pvm_port: p"
    with pytest.raises(ConfigError, match="need each other"):
        parse(f"cloudlets: [{{id: c1, node: n, enb_ids: [1]}}]\nswitches: [{{{switch}, {half}}}]\n")
