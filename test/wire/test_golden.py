"""The format, byte by byte. A change here is a change of the wire, which nodes of two releases must both understand.

A field with a default may be added to a message, and a message may be added. Nothing else may change without a new
version in the header or in the batch.
"""

from __future__ import annotations

import pytest

from test.helpers.wire_samples import BATCH, CLIENT_CODEC, CLIENT_SAMPLES, CODEC, PEER_SAMPLES, SUBJECT_SAMPLES
from txpaxos.wire.client_messages import FromClient, FromNode, Welcome
from txpaxos.wire.commands import decode_batch, encode_batch
from txpaxos.wire.peer_messages import PeerMessage

PEER = {
    "Prepare": "975002016766a82cd5acebe8af39dfe90123456789abcdef00066e6f64652d6181a662616c6c6f749207a66e6f64652d61",
    "Promise": (
        "9750020226b18f04d5acebe8af39dfe90123456789abcdef00066e6f64652d6182a861636365707465649292"
        "07a66e6f64652d61c40576616c7565a662616c6c6f7492cd012ca66e6f64652d62"
    ),
    "Accept": (
        "97500203dd8e8f84d5acebe8af39dfe90123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61a576616c7565c40576616c7565"
    ),
    "Accepted": (
        "97500204338496f4d5acebe8af39dfe90123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61a576616c7565c40576616c7565"
    ),
    "Nack": (
        "97500205a0c59222d5acebe8af39dfe90123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61a870726f6d6973656492cd012ca66e6f64652d62"
    ),
    "Decided": "9750020642a47a14d5acebe8af39dfe90123456789abcdef00066e6f64652d6181a576616c7565c40576616c7565",
    "Heartbeat": (
        "97500207be55229ed5acebe8af39dfe90123456789abcdef00066e6f64652d6183a662616c6c6f749207a66e"
        "6f64652d61ae63686f73656e5f7468726f75676829a873657175656e6365cd03e8"
    ),
    "HeartbeatAck": (
        "9750020801fa49fad5acebe8af39dfe90123456789abcdef00066e6f64652d6184a662616c6c6f749207a66e"
        "6f64652d61ae63686f73656e5f7468726f75676828a76c656176696e67c2a873657175656e6365cd03e8"
    ),
    "AboutSubject": (
        "975002096f10d344d5acebe8af39dfe90123456789abcdef00066e6f64652d6100076772c3b6c39f650382a6"
        "62616c6c6f749207a66e6f64652d61a576616c7565c40576616c7565"
    ),
    "PrepareLog": (
        "9750020a61a67858d5acebe8af39dfe90123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61aa66697273745f736c6f742a"
    ),
    "PromiseLog": (
        "9750020be9040c24d5acebe8af39dfe90123456789abcdef00066e6f64652d6184a662616c6c6f7492cd012c"
        "a66e6f64652d62aa66697273745f736c6f7429a676616c75657391c40576616c7565a5766f74657392932a92"
        "07a66e6f64652d61c40576616c7565932c9207a66e6f64652d61c400"
    ),
    "AcceptSlot": (
        "9750020c0aae1500d5acebe8af39dfe90123456789abcdef00066e6f64652d6184a662616c6c6f749207a66e"
        "6f64652d61ae63686f73656e5f7468726f75676829a4736c6f742aa576616c7565c40576616c7565"
    ),
    "AcceptedSlot": (
        "9750020dfa9e574ad5acebe8af39dfe90123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e6f64652d61a4736c6f742a"
    ),
    "Fetch": "9750020e4f5e538ed5acebe8af39dfe90123456789abcdef00066e6f64652d6181aa66697273745f736c6f742a",
    "ChosenValues": (
        "9750020ffe668766d5acebe8af39dfe90123456789abcdef00066e6f64652d6183ae63686f73656e5f746872"
        "6f7567682caa66697273745f736c6f742aa676616c75657392c40576616c7565c400"
    ),
    "Hello": "97500210961089a5d5acebe8af39dfe90123456789abcdef00066e6f64652d6180",
    "Refusal": (
        "975002206a606d48d5acebe8af39dfe90123456789abcdef00066e6f64652d6181a6726561736f6ebb697420"
        "636f6d65732066726f6d2031302e302e302e393a34303031"
    ),
    "Forward": (
        "975002110547f60bd5acebe8af39dfe90123456789abcdef00066e6f64652d6181a472756e739294c4087365"
        "7373696f6e31010092c403707574c40367657494c420ffffffffffffffffffffffffffffffffffffffffffff"
        "ffffffffffffffffffffcfffffffffffffffffce0001117091c400"
    ),
    "PreVote": "97500212f4b0276fd5acebe8af39dfe90123456789abcdef00066e6f64652d6181a873657175656e636505",
    "PreVoteGranted": "9750021361c0f3fad5acebe8af39dfe90123456789abcdef00066e6f64652d6181a873657175656e636505",
    "Truncated": "97500214faea9766d5acebe8af39dfe90123456789abcdef00066e6f64652d6181aa66697273745f736c6f742b",
    "TakeOver": (
        "9750022645de9ebad5acebe8af39dfe90123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61ae63686f73656e5f7468726f75676829"
    ),
    "ReadIndexRequest": (
        "9750021531bd877bd5acebe8af39dfe90123456789abcdef00066e6f64652d6181a66e756d626572cf4000000000000000"
    ),
    "ReadIndexReply": (
        "975002165e68f8cad5acebe8af39dfe90123456789abcdef00066e6f64652d6182a66e756d626572cf4000000000000000a4736c6f742c"
    ),
    "FetchSnapshot": (
        "9750021731d61c47d5acebe8af39dfe90123456789abcdef00066e6f64652d6183a764616d6167656426a66f"
        "6666736574ce00100000a4736c6f7428"
    ),
    "SnapshotPart": (
        "97500218ad4062d4d5acebe8af39dfe90123456789abcdef00066e6f64652d6184a464617461c40464617461"
        "a66f6666736574ce00100000aa73697a655f6279746573ce00200000a4736c6f7428"
    ),
    "StateDigest": (
        "975002195c68dc4dd5acebe8af39dfe90123456789abcdef00066e6f64652d6183a86c6f675f68617368c403"
        "6c6f67a4736c6f7428aa73746174655f68617368c4057374617465"
    ),
    "Challenge": "9750021a0b68819bd5acebe8af39dfe90123456789abcdef00066e6f64652d6181a5746f6b656ecfffffffffffffffff",
    "Proof": "9750021bf4229495d5acebe8af39dfe90123456789abcdef00066e6f64652d6181a5746f6b656ecf8000000000000000",
    "AskStateDigest": "9750021ca9e95c43d5acebe8af39dfe90123456789abcdef00066e6f64652d6181a4736c6f7428",
    "StateDigestsHeard": (
        "97500222a0e7d124d5acebe8af39dfe90123456789abcdef00066e6f64652d6182a66175646974739293a66e"
        "6f64652d62c4036c6f67c405737461746593a66e6f64652d63c4036c6f67c400a4736c6f7428"
    ),
    "Fetching": "97500223d583c9b9d5acebe8af39dfe90123456789abcdef00066e6f64652d6181a4736c6f7428",
    "Introduction": (
        "9750021dcf2aba70d5acebe8af39dfe90123456789abcdef00066e6f64652d6186a461736b73c3a8666f756e"
        "6465727392a66e6f64652d61a66e6f64652d62a36d6574cf8000000000000000a8746f676574686572c3a975"
        "6e6368616e676564c3a5766f746573c3"
    ),
}
CLIENT = {
    "Submit": (
        "974301012a748621d5acebe867b47f4d0000000000000000000085ac61636b6e6f776c656467656404a8636f"
        "6d6d616e647392c403707574c403676574a77265717565737401a873657175656e636505a773657373696f6e"
        "c40873657373696f6e31"
    ),
    "Ask": (
        "974301028c342372d5acebe867b47f4d0000000000000000000083a77265717565737402a77375626a656374"
        "a76772c3b6c39f65a576616c7565c40576616c7565"
    ),
    "StatusRequest": "9743010380022aedd5acebe867b47f4d0000000000000000000081a77265717565737403",
    "Read": (
        "9743010469302fbad5acebe867b47f4d0000000000000000000083a56c6f63616cc3a57175657279c403676574a77265717565737404"
    ),
    "Ping": ("974301050016f548d5acebe867b47f4d0000000000000000000080"),
    "Welcome": (
        "974301810020d4d2d5acebe867b47f4d0000000000000000000085af6170706c6965645f7468726f7567682a"
        "a66c6561646572a66e6f64652d62ae6c65616465725f61646472657373aa5b3a3a315d3a37303032b76c6976"
        "656e6573735f77696e646f775f7365636f6e6473cb3fd0000000000000a46e6f6465a66e6f64652d61"
    ),
    "Pong": ("97430188ddb6b3c9d5acebe867b47f4d0000000000000000000080"),
    "Answer": (
        "974301821b569b50d5acebe867b47f4d0000000000000000000082a77265717565737401a7726573756c747392c401c0c40107"
    ),
    "AskAnswer": "97430183fad478e6d5acebe867b47f4d0000000000000000000082a77265717565737402a576616c7565c0",
    "ReadAnswer": (
        "9743018695ae6474d5acebe867b47f4d0000000000000000000083a77265717565737404a6726573756c74c401c0a4736c6f742a"
    ),
    "StatusAnswer": ("97430184b99d98f3d5acebe867b47f4d0000000000000000000082a77265717565737403a6737461747573c4027b7d"),
    "Refused": (
        "97430185d23631a4d5acebe867b47f4d0000000000000000000084a5636f756e7402a56572726f72aa4f7665"
        "726c6f61646564a6726561736f6ed928746f6f206d7563682069732077616974696e673a2073656e64206974"
        "20616761696e206c61746572a77265717565737401"
    ),
    "KeepAliveReply": "97430106afbfb882d5acebe867b47f4d0000000000000000000080",
    "KeepAlive": "97430187a129c3e8d5acebe867b47f4d0000000000000000000080",
}
WELCOME_OF_AN_OLDER_NODE = (
    "97430181f96fc7d5d5acebe867b47f4d0000000000000000000084af6170706c6965645f7468726f7567682a"
    "a66c6561646572a66e6f64652d62ae6c65616465725f61646472657373aa5b3a3a315d3a37303032a46e6f64"
    "65a66e6f64652d61"
)
SUBJECTS = (
    "975002099c06310ed5acebe8af39dfe90123456789abcdef00066e6f64652d6100076772c3b6c39f652481a6"
    "6e756d626572cf4000000000000000",
    "97500209d90a6169d5acebe8af39dfe90123456789abcdef00066e6f64652d6100076772c3b6c39f652582a8"
    "6163636570746564929207a66e6f64652d61c40576616c7565a66e756d626572cf4000000000000000",
)
GOLDEN_BATCH = (
    "029294c40873657373696f6e31010092c403707574c40367657494c420ffffffffffffffffffffffffffffff"
    "ffffffffffffffffffffffffffffffffffcfffffffffffffffffce0001117091c400"
)


def test_all_are_here() -> None:
    assert list(PEER) == [type(sample).__name__ for sample in PEER_SAMPLES]
    assert list(CLIENT) == [type(sample).__name__ for sample in CLIENT_SAMPLES]


@pytest.mark.parametrize("sample", PEER_SAMPLES, ids=list(PEER))
def test_peer_message(sample: PeerMessage) -> None:
    golden = bytes.fromhex(PEER[type(sample).__name__])
    assert CODEC.encode(sample).hex() == golden.hex()
    assert CODEC.decode(golden).message == sample


@pytest.mark.parametrize(("sample", "golden"), list(zip(SUBJECT_SAMPLES, SUBJECTS, strict=True)))
def test_what_is_said_only_about_subjects(sample: PeerMessage, golden: str) -> None:
    assert CODEC.encode(sample).hex() == golden
    assert CODEC.decode(bytes.fromhex(golden)).message == sample


@pytest.mark.parametrize("sample", CLIENT_SAMPLES, ids=list(CLIENT))
def test_client_message(sample: FromClient | FromNode) -> None:
    golden = bytes.fromhex(CLIENT[type(sample).__name__])
    assert CLIENT_CODEC.encode(sample).hex() == golden.hex()
    assert CLIENT_CODEC.decode(golden) == sample


def test_a_welcome_of_an_older_node() -> None:
    """It knows no Ping, and its client sends it none."""
    welcome = CLIENT_CODEC.decode(bytes.fromhex(WELCOME_OF_AN_OLDER_NODE))
    assert welcome == Welcome("node-a", "node-b", "[::1]:7002", 42, 0.0)


def test_batch() -> None:
    golden = bytes.fromhex(GOLDEN_BATCH)
    assert encode_batch(BATCH).hex() == golden.hex()
    assert decode_batch(golden) == BATCH
