"""Entries of members: what is encoded is decoded, and what no node can follow is refused."""

from __future__ import annotations

import attrs
import pytest

from txpaxos.cluster import Cluster
from txpaxos.core.messages import MEMBERS_BYTE
from txpaxos.errors import CodecError
from txpaxos.wire.members import (
    MemberEntry,
    MembersEntry,
    base_name,
    check_members,
    decode_members,
    encode_members,
    founding_entry,
    next_id,
)

ENTRY = MembersEntry(
    7,
    {
        "b": MemberEntry("127.0.0.1:2", "127.0.0.1:12"),
        "a": MemberEntry("127.0.0.1:1", "127.0.0.1:11", priority=0),
        "d": MemberEntry("[::1]:4", "d.example.org:14", "learner", 2**64 - 1),
    },
    ("c",),
)

GOLDEN = (
    "4d83a46261736507a76d656d6265727383a16286a761646472657373ab3132372e302e302e313a32a6636c69656e74ac3132372e302e"
    "302e313a3132ab696e6361726e6174696f6e00a87072696f7269747901a87265706c61636573a0a4726f6c65a5766f746572a16186a7"
    "61646472657373ab3132372e302e302e313a31a6636c69656e74ac3132372e302e302e313a3131ab696e6361726e6174696f6e00a870"
    "72696f7269747900a87265706c61636573a0a4726f6c65a5766f746572a16486a761646472657373a75b3a3a315d3a34a6636c69656e"
    "74b0642e6578616d706c652e6f72673a3134ab696e6361726e6174696f6ecfffffffffffffffffa87072696f7269747901a87265706c"
    "61636573a0a4726f6c65a76c6561726e6572a77265746972656491a163"
)


def test_what_is_encoded_is_decoded() -> None:
    assert decode_members(encode_members(ENTRY)) == ENTRY
    assert encode_members(ENTRY)[:1] == MEMBERS_BYTE


def test_golden_bytes() -> None:
    assert encode_members(ENTRY).hex() == GOLDEN


def test_the_core_is_told_voters_learners_and_who_never_leads() -> None:
    change = ENTRY.change
    assert (change.base, change.voters, change.learners, change.priorities) == (7, ("a", "b"), ("d",), (("a", 0),))
    assert ENTRY.configuration(30).slot == 30


def test_founders_are_those_of_the_cluster_file() -> None:
    cluster = Cluster.parse(
        'cluster = "x"\n[nodes.a]\naddress = "127.0.0.1:1"\nclient = "127.0.0.1:2"\n'
        '[nodes.b]\naddress = "127.0.0.1:3"\nclient = "127.0.0.1:4"\n'
    )
    entry = founding_entry(cluster)
    assert entry.voters == ("a", "b")
    assert entry.base == 0
    assert entry.cluster("x") == cluster


@pytest.mark.parametrize("value", [b"", b"x", MEMBERS_BYTE, MEMBERS_BYTE + b"\xc1", MEMBERS_BYTE + b"\x80"])
def test_rubbish_is_refused(value: bytes) -> None:
    with pytest.raises(CodecError):
        decode_members(value)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (attrs.evolve(ENTRY, retired=("a",)), "cannot be a member again"),
        (attrs.evolve(ENTRY, members={"d": ENTRY.members["d"]}), "without a voter"),
        (attrs.evolve(ENTRY, members={"a b": ENTRY.members["a"]}), "no name of a node"),
        (attrs.evolve(ENTRY, members={"a": MemberEntry("nowhere", "127.0.0.1:1")}), "no address"),
    ],
)
def test_what_no_node_can_follow_is_refused(entry: MembersEntry, reason: str) -> None:
    with pytest.raises(CodecError, match=reason):
        check_members(entry)
    with pytest.raises(CodecError, match=reason):
        decode_members(encode_members(entry))


def test_a_name_that_was_used_before_gets_a_number() -> None:
    assert next_id("e", ENTRY) == "e"
    assert next_id("c", ENTRY) == "c~2"
    later = attrs.evolve(ENTRY, retired=("c", "c~2"))
    assert next_id("c", later) == "c~3"
    assert [base_name(one) for one in ("c", "c~2", "c~10", "c~1")] == ["c", "c", "c", "c~1"]
