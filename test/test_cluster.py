"""The cluster file: what fits is read, what does not gets one line that says what and where."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test.helpers.wire_samples import spoil
from txpaxos.cluster import ALONE, Address, Cluster, Member
from txpaxos.errors import ConfigError
from txpaxos.host_names import canonical_host

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


def with_client(text: str, more: str = "") -> str:
    return f'cluster = "c"\n[nodes.a]\naddress = "127.0.0.1:1"\nclient = "{text}"\n{more}\n'


def pair(a: str, b: str, a_client: str = "c-a:9", b_client: str = "c-b:9") -> str:
    """A file of two nodes at these addresses."""
    return (
        f'cluster = "c"\n[nodes.a]\naddress = "{a}"\nclient = "{a_client}"\n'
        f'[nodes.b]\naddress = "{b}"\nclient = "{b_client}"\n'
    )


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


def is_of_one_machine(address: str) -> bool:
    """Whether an IP address can be a node's, also where it is an IPv4 address that is written as an IPv6 one."""
    ip = ip_address(canonical_host(address))
    return ip.is_global and not ip.is_multicast


HOSTS = st.one_of(
    st.ip_addresses().map(str).filter(is_of_one_machine),
    NAMES.map(lambda name: f"host-{name}"),
)
ADDRESSES = st.builds(Address, HOSTS, st.integers(1, 65535))


@given(name=NAMES, members=st.dictionaries(NAMES, st.builds(Member, ADDRESSES, ADDRESSES), min_size=1, max_size=5))
def test_every_cluster_is_written_and_read_again(name: str, members: dict[str, Member]) -> None:
    cluster = Cluster(name, members)
    addresses = [
        (canonical_host(address.host), address.port) for member in members.values() for _, address in member.addresses
    ]
    if len(set(addresses)) < len(addresses):
        with pytest.raises(ConfigError, match="which is also"):
            Cluster.parse(cluster.dumps())
    else:
        again = Cluster.parse(cluster.dumps())
        assert again == cluster
        assert list(again.members) == list(members)


BAD: list[tuple[str, str]] = [
    (f'cluster = "c"\n{NODE}\n[rights]\nshop = "read"', "'shop' = 'read' in [rights]: must be a list of"),
    (f'cluster = "c"\n{NODE}\n[rights]\nshop = ["own"]', "'shop' = ['own'] in [rights]: must be a list of \"read\""),
    (f'cluster = "c"\n{NODE}\n[rights]\nshop = [["read"]]', "in [rights]: must be a list of"),
    (f'cluster = "c"\n{NODE}\n[rights]\n"a b" = []', "'a b' in [rights] cannot be a client's name"),
    (f'cluster = "c"\n{NODE}\n[rights]\n"" = []', "'' in [rights] cannot be a client's name"),
    ('rights = 1\ncluster = "c"\n' + NODE, "[rights] must be a table"),
    ("", "needs cluster ="),
    ("cluster = ", "not TOML"),
    ('cluster = "c"\ncluster = "d"', "not TOML"),
    ("x = " + "[" * 5000, "not TOML"),
    ("x = " + "1" * 5000, "not TOML"),
    ("cluster = 1", "needs cluster ="),
    ('cluster = ""', "cluster = '' at the top cannot be a name"),
    ('cluster = "two words"', "cluster = 'two words' at the top cannot be a name: letters, digits"),
    ('cluster = "c\\n"', "cluster = 'c\\n' at the top cannot be a name"),
    (f'cluster = "{"c" * 33}"', "at most 32"),
    (f'cluster = "{"c" * 3000}"', "at most 32"),
    ('cluster = "c"\nfamily = "ipv5"', 'family = \'ipv5\' at the top: there are "ipv4" and "ipv6"'),
    ('cluster = "c"\nfamily = 4', "family = 4 at the top"),
    (f'name = "c"\n{NODE}', "unknown key 'name' at the top (known: cluster, family, nodes, rights)"),
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
    (
        f'cluster = "c"\n{NODE}port = 3',
        "unknown key 'port' in [nodes.a] (known: address, client,",
    ),
    (with_address(""), "address = '' in [nodes.a]"),
    (with_address("host"), "not host:port"),
    (with_address("4001"), "not host:port"),
    (with_address(":4001"), "not host:port"),
    (with_address("host:"), "not host:port"),
    (with_address("host:x"), "not host:port"),
    (with_address("host:0"), "the port is 0, and must be one of 1 to 65535"),
    (with_address("host:00"), "the port is 00, and must be one of 1 to 65535"),
    (with_address("host:65536"), "the port is 65536, and must be one of 1 to 65535"),
    (with_address("host:" + "9" * 5000), "the port is 99999999999999999999, and must be one of 1 to 65535"),
    (with_address("host:" + "0" * 5000), "the port is 00000000000000000000, and must be"),
    (with_address("[fe80::1%eth0]:4001"), "the zone %eth0 is known to one machine only"),
    (with_address("[fe80::1]:4001"), "a link-local address needs a zone"),
    (with_address("0.0.0.0:4001"), "0.0.0.0 is where a node listens, not where others reach it"),
    (with_address("0:4001"), "0.0.0.0 is where a node listens, not where others reach it"),
    (with_address("[::]:4001"), ":: is where a node listens, not where others reach it"),
    (with_address("[::ffff:0.0.0.0]:4001"), "0.0.0.0 is where a node listens, not where others reach it"),
    (with_address("224.0.0.1:4001"), "this is no address of a single machine"),
    (with_address("[ff02::1]:4001"), "this is no address of a single machine"),
    (with_address("[::ffff:224.0.0.1]:4001"), "this is no address of a single machine"),
    (with_address("255.255.255.255:4001"), "this is no address of a single machine"),
    (with_client("0.0.0.0:5001"), "client = '0.0.0.0:5001' in [nodes.a]: 0.0.0.0 is where a node listens"),
    (with_client("[::0]:5001"), "client = '[::0]:5001' in [nodes.a]: :: is where a node listens"),
    (with_client("127.0.0.1:5001", "listen = 4"), 'needs listen = "host:port" in [nodes.a]'),
    (with_client("127.0.0.1:5001", 'client_listen = "5001"'), "client_listen = '5001' in [nodes.a]: not host:port"),
    (with_client("127.0.0.1:5001", 'listen = "[::%lo]:4001"'), "listen = '[::%lo]:4001' in [nodes.a]: the zone %lo"),
    (with_address("host:-1"), "not host:port"),
    (with_address("host:1.5"), "not host:port"),
    (with_address("host:\u0663"), "not host:port"),
    (with_address("host: 1"), "not host:port"),
    (with_address("::1:4001"), "an IPv6 address needs brackets"),
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
    (pair("127.0.0.1:1", "localhost:1"), "of node b is localhost:1, which is also the address of node a, 127.0.0.1:1"),
    (pair("localhost:1", "[::1]:1"), "of node b is [::1]:1, which is also the address of node a, localhost:1"),
    (pair("127.0.0.1:1", "127.1:1"), "address of node b is 127.1:1, which is also the address of node a, 127.0.0.1:1"),
    (pair("127.0.0.1:1", "[::ffff:127.0.0.1]:1"), "which is also the address of node a"),
    (pair("[fd00::1]:1", "[FD00:0:0::0001]:1"), "which is also the address of node a"),
    (pair("db.example.org:1", "DB.example.org.:1"), "which is also the address of node a, db.example.org:1"),
    (
        pair("127.0.0.1:1", "10.0.0.2:1"),
        "address of node a is 127.0.0.1:1, which only its own machine can reach",
    ),
    (
        pair("10.0.0.1:1", "localhost:1"),
        "address of node b is localhost:1, which only its own machine can reach",
    ),
    (
        pair("[fd00::1]:1", "[::1]:1"),
        "address of node b is [::1]:1, which only its own machine can reach",
    ),
    (pair("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "10.0.0.2:3"), "client of node a is 127.0.0.1:3, which only"),
]

GOOD_PAIRS = [
    pair("10.0.0.1:1", "10.0.0.2:1"),
    pair("10.0.0.1:1", "b.example.org:1"),
    pair("127.0.0.1:1", "b.example.org:1"),  # what that is can only be said when it is looked up
    pair("127.0.0.1:1", "127.0.0.2:1"),
    pair("localhost:1", "localhost:2"),
    pair("10.0.0.1:1", "10.0.0.2:1", "127.0.0.1:3", "127.0.0.1:4"),  # clients on the same machines only
]


def test_addresses_that_go_together() -> None:
    for text in GOOD_PAIRS:
        assert list(Cluster.parse(text).members) == ["a", "b"], text


def test_where_a_node_listens_may_be_another_address_than_that_of_others() -> None:
    text = with_client("db.example.org:5001", 'listen = "0.0.0.0:4001"\nclient_listen = "[::]:5001"')
    member = Cluster.parse(text).members["a"]
    assert member.listen == Address("0.0.0.0", 4001)
    assert member.client_listen == Address("::", 5001)
    assert Cluster.parse(Cluster.parse(text).dumps()) == Cluster.parse(text)


def test_the_family_of_names_that_have_both() -> None:
    text = 'family = "ipv6"\n' + GOOD
    cluster = Cluster.parse(text)
    assert {address.family for member in cluster.members.values() for _, address in member.addresses} == {"ipv6"}
    assert Cluster.parse(cluster.dumps()).members["b"].client.family == "ipv6"
    assert Cluster.parse(GOOD).members["b"].client.family == "ipv4"


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
    [
        *[("127.0.0.1", "127.0.0.1"), ("0:0::1", "::1"), ("2001:DB8::0:1", "2001:db8::1")],
        *[("127.1", "127.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1")],
    ],
)
def test_an_ip_address_resolves_to_its_canonical_spelling(host: str, canonical: str) -> None:
    assert Address(host, 5).resolve() == Address(canonical, 5)


def test_a_name_resolves_to_an_ip_address_and_is_remembered() -> None:
    resolved = Address("localhost", 5).resolve()
    assert resolved in (Address("127.0.0.1", 5), Address("::1", 5))
    assert (resolved.name, resolved.host_name) == ("localhost", "localhost")
    assert resolved.resolve() == resolved
    assert Address("127.0.0.1", 5).resolve().host_name == ""


@pytest.mark.parametrize("host", ["nowhere", "a..b", "a" * 70, "a\0b"])
def test_a_name_that_is_not_known_gets_one_line(host: str, hosts: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match=r"cannot resolve '.*use an IP address, or correct the name") as caught:
        Address(host, 5).resolve()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("found", [["0.0.0.0"], ["fe80::1%2"], ["fe80::1"], ["ff02::1"]])
def test_a_name_that_leads_nowhere_gets_one_line(found: list[str], hosts: dict[str, list[str]]) -> None:
    hosts["host"] = found
    with pytest.raises(ConfigError, match="'host' has no address at which others could reach it"):
        Address("host", 5).resolve()


def test_a_family_comes_first(hosts: dict[str, list[str]]) -> None:
    hosts["host"] = ["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "fe80::1%2", "10.0.0.1"]
    assert [found.host for found in Address("host", 5).look_up()] == ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]
    assert Address("host", 5, family="ipv6").look_up()[0] == Address("fd00::1", 5)


def test_a_cluster_resolves_what_it_can(hosts: dict[str, list[str]]) -> None:
    """A name that is not known today does not keep the others from being found."""
    hosts.update({"na": ["10.0.0.1"], "nb": ["10.0.0.2"]})
    cluster = Cluster.parse(pair("na:1", "nc:1", "nb:2", "[fd00:0::2]:2"))
    resolved = cluster.resolve()
    assert resolved == Cluster(
        "c",
        {
            "a": Member(Address("10.0.0.1", 1), Address("10.0.0.2", 2)),
            "b": Member(Address("nc", 1), Address("fd00::2", 2)),
        },
    )
    hosts["nc"] = ["10.0.0.3"]
    assert resolved.resolve().members["b"].address == Address("10.0.0.3", 1)


def test_two_names_of_one_address_are_found_when_they_are_looked_up(hosts: dict[str, list[str]]) -> None:
    hosts.update({"na": ["10.0.0.1"], "nb": ["10.0.0.1"]})
    with pytest.raises(ConfigError) as caught:
        Cluster.parse(pair("na:1", "nb:1")).resolve()
    line = "address of node b is nb:1 (10.0.0.1:1), which is also the address of node a, na:1 (10.0.0.1:1)"
    assert str(caught.value) == line


def test_a_name_of_ones_own_machine_is_found_when_it_is_looked_up(hosts: dict[str, list[str]]) -> None:
    hosts.update({"na": ["127.0.1.1"], "nb": ["10.0.0.2"]})
    with pytest.raises(ConfigError, match=r"^address of node a is na:1 \(127\.0\.1\.1:1\), which only its own machine"):
        Cluster.parse(pair("na:1", "nb:1")).resolve()
