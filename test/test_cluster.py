"""The cluster file: what fits is read, what does not gets one line that says what and where."""

from __future__ import annotations

import socket
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test.wire_samples import spoil
from txpaxos.cluster import ALONE, Address, Cluster, Member
from txpaxos.errors import ConfigError

GOOD = """\
cluster = "orders"

[nodes.a]
address = "127.0.0.1:4001"
client = "127.0.0.1:5001"

[nodes.b]
address = "[::1]:4002"
client = "db.example.org:5002"
"""

NODE = '[nodes.a]\naddress = "127.0.0.1:1"\nclient = "127.0.0.1:2"\n'


def with_address(text: str) -> str:
    return f"cluster = \"c\"\n[nodes.a]\naddress = '''{text}'''\nclient = \"127.0.0.1:2\"\n"


def test_a_file_is_read() -> None:
    cluster = Cluster.parse(GOOD)
    assert cluster.name == "orders"
    assert list(cluster.members.items()) == [
        ("a", Member(Address("127.0.0.1", 4001), Address("127.0.0.1", 5001))),
        ("b", Member(Address("::1", 4002), Address("db.example.org", 5002))),
    ]


def test_what_is_written_is_read_again() -> None:
    assert Cluster.parse(Cluster.parse(GOOD).dumps()) == Cluster.parse(GOOD)
    assert Cluster.parse(ALONE.dumps()) == ALONE


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", fullmatch=True)
HOSTS = st.one_of(st.ip_addresses().map(str), NAMES)
ADDRESSES = st.builds(Address, HOSTS, st.integers(1, 65535))


@given(name=NAMES, members=st.dictionaries(NAMES, st.builds(Member, ADDRESSES, ADDRESSES), min_size=1, max_size=5))
def test_every_cluster_is_written_and_read_again(name: str, members: dict[str, Member]) -> None:
    cluster = Cluster(name, members)
    addresses = [address for member in members.values() for address in (member.address, member.client)]
    if len(set(addresses)) < len(addresses):
        with pytest.raises(ConfigError, match="which is also"):
            Cluster.parse(cluster.dumps())
    else:
        again = Cluster.parse(cluster.dumps())
        assert again == cluster
        assert list(again.members) == list(members)


BAD = [
    ("", "needs cluster ="),
    ("cluster = ", "not TOML"),
    ('cluster = "c"\ncluster = "d"', "not TOML"),
    ("x = " + "[" * 5000, "not TOML"),
    ("x = " + "1" * 5000, "not TOML"),
    ("cluster = 1", "needs cluster ="),
    ('cluster = ""', "needs cluster ="),
    ('cluster = "two words"', "needs cluster ="),
    ('cluster = "c\\n"', "needs cluster ="),
    (f'cluster = "{"c" * 33}"', "at most 32"),
    (f'name = "c"\n{NODE}', "unknown key 'name' at the top (known: cluster, nodes)"),
    ('cluster = "c"', "at least one [nodes.NAME]"),
    ('cluster = "c"\nnodes = 3', "at least one [nodes.NAME]"),
    ('cluster = "c"\nnodes = []', "at least one [nodes.NAME]"),
    ('cluster = "c"\n[nodes]', "at least one [nodes.NAME]"),
    ('cluster = "c"\n[nodes]\na = "127.0.0.1:1"', "[nodes.a] must be a table"),
    ('cluster = "c"\n[[nodes.a]]', "[nodes.a] must be a table"),
    ('cluster = "c"\n[nodes."a b"]', "'a b' cannot be a node"),
    ('cluster = "c"\n[nodes.""]', "'' cannot be a node"),
    ('cluster = "c"\n[nodes."a\\n"]', "cannot be a node"),
    (f'cluster = "c"\n[nodes.{"a" * 33}]', "at most 32"),
    ('cluster = "c"\n[nodes.a]', 'needs address = "host:port" in [nodes.a]'),
    ('cluster = "c"\n[nodes.a]\naddress = "h:1"', 'needs client = "host:port" in [nodes.a]'),
    ('cluster = "c"\n[nodes.a]\naddress = 4001\nclient = "h:1"', "needs address"),
    (f'cluster = "c"\n{NODE}port = 3', "unknown key 'port' in [nodes.a] (known: address, client)"),
    (with_address(""), "address = '' in [nodes.a]"),
    (with_address("host"), "not host:port"),
    (with_address("4001"), "not host:port"),
    (with_address(":4001"), "not host:port"),
    (with_address("host:"), "not host:port"),
    (with_address("host:x"), "not host:port"),
    (with_address("host:0"), "not host:port"),
    (with_address("host:65536"), "not host:port"),
    (with_address("host:-1"), "not host:port"),
    (with_address("host:1.5"), "not host:port"),
    (with_address("host:\u0663"), "not host:port"),
    (with_address("host: 1"), "not host:port"),
    (with_address("::1:4001"), "an IPv6 address stands in brackets"),
    (with_address("[::1]"), "[nodes.a]"),
    (with_address("[]:4001"), "[nodes.a]"),
    (with_address("[host]:4001"), "[nodes.a]"),
    (with_address("[127.0.0.1]:4001"), "[nodes.a]"),
    (with_address("[::1:4001"), "[nodes.a]"),
    (with_address("127.0.0.1:2"), "client of node a is 127.0.0.1:2, which is also the address of node a"),
    (
        f'cluster = "c"\n{NODE}[nodes.b]\naddress = "127.0.0.1:1"\nclient = "127.0.0.1:3"',
        "address of node b is 127.0.0.1:1, which is also the address of node a",
    ),
]


def test_every_malformed_file_gets_one_line() -> None:
    for text, reason in BAD:
        with pytest.raises(ConfigError) as caught:
            Cluster.parse(text)
        line = str(caught.value)
        assert reason in line, (text[:100], line)
        assert "\n" not in line
        assert len(line) < 300


def test_spoiled_files() -> None:
    """Whatever is done to a good file, it is read, or it gets one line."""
    rng, refused = Random(5), 0
    for _ in range(3000):
        text = spoil(rng, GOOD.encode()).decode(errors="replace")
        line = ""
        try:
            cluster = Cluster.parse(text)
        except ConfigError as error:
            refused += 1
            line = str(error)
        else:
            assert Cluster.parse(cluster.dumps()) == cluster, text
        assert "\n" not in line, text
    assert 100 < refused < 3000


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read cluster file .*nothing\.toml: No such file"):
        Cluster.load(tmp_path / "nothing.toml")


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read cluster file .*: Is a directory"):
        Cluster.load(tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read cluster file .*: not a text file"):
        Cluster.load(tmp_path / "cluster.toml")


def test_what_is_wrong_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text("cluster = 1")
    with pytest.raises(ConfigError, match=r"^cluster file .*cluster\.toml: needs cluster = "):
        Cluster.load(path)
    path.write_text(GOOD)
    assert Cluster.load(str(path)) == Cluster.parse(GOOD)


@pytest.mark.parametrize(
    ("address", "text"),
    [(Address("127.0.0.1", 1), "127.0.0.1:1"), (Address("host", 65535), "host:65535"), (Address("::1", 7), "[::1]:7")],
)
def test_addresses(address: Address, text: str) -> None:
    assert str(address) == text
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    ("host", "canonical"),
    [("127.0.0.1", "127.0.0.1"), ("0:0::1", "::1"), ("2001:DB8::0:1", "2001:db8::1")],
)
def test_an_ip_address_resolves_to_its_canonical_spelling(host: str, canonical: str) -> None:
    assert Address(host, 5).resolve() == Address(canonical, 5)


def test_a_name_resolves_to_an_ip_address() -> None:
    assert Address("localhost", 5).resolve() in (Address("127.0.0.1", 5), Address("::1", 5))


@pytest.mark.parametrize("host", ["nowhere", "a..b", "a" * 70, "a\0b"])
def test_a_name_that_is_not_known_gets_one_line(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def without_asking_a_server(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "nowhere":
            raise socket.gaierror(-2, "Name or service not known")
        return look_up(name, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", without_asking_a_server)
    with pytest.raises(ConfigError, match=r"cannot resolve '.*use an IP address, or mend the name") as caught:
        Address(host, 5).resolve()
    assert "\n" not in str(caught.value)


def test_a_cluster_resolves_each_address() -> None:
    cluster = Cluster("c", {"a": Member(Address("localhost", 1), Address("0:0::1", 2))})
    resolved = cluster.resolve()
    assert resolved.members["a"].address.host in ("127.0.0.1", "::1")
    assert resolved.members["a"].client == Address("::1", 2)
    assert (resolved.name, list(resolved.members)) == ("c", ["a"])
