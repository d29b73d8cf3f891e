"""The format, byte by byte. A change here is a change of the wire, which nodes of two releases must both understand.

A field with a default may be added to a message, and a message may be added. Nothing else may change without a new
version in the header or in the batch.
"""

from __future__ import annotations

import pytest

from test.wire_samples import BATCH, CLIENT_CODEC, CLIENT_SAMPLES, CODEC, PEER_SAMPLES
from txpaxos.wire.client_messages import FromClient, FromNode
from txpaxos.wire.commands import decode_batch, encode_batch
from txpaxos.wire.peer_messages import PeerMessage

PEER = {
    "Prepare": ("975001019e2aa982d5acebe867b47f4d0123456789abcdef00066e6f64652d6181a662616c6c6f749207a66e6f64652d61"),
    "Promise": (
        "9750010260b643c3d5acebe867b47f4d0123456789abcdef00066e6f64652d6182a861636365707465649292"
        "07a66e6f64652d61c40576616c7565a662616c6c6f7492cd012ca66e6f64652d62"
    ),
    "Accept": (
        "975001039fd28dc2d5acebe867b47f4d0123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61a576616c7565c40576616c7565"
    ),
    "Accepted": (
        "9750010471d894b2d5acebe867b47f4d0123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61a576616c7565c40576616c7565"
    ),
    "Nack": (
        "975001050628c116d5acebe867b47f4d0123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61a870726f6d6973656492cd012ca66e6f64652d62"
    ),
    "Decided": ("97500106fc08dcb0d5acebe867b47f4d0123456789abcdef00066e6f64652d6181a576616c7565c40576616c7565"),
    "Heartbeat": (
        "97500107f852ee59d5acebe867b47f4d0123456789abcdef00066e6f64652d6183a662616c6c6f749207a66e"
        "6f64652d61ae63686f73656e5f7468726f75676829a873657175656e6365cd03e8"
    ),
    "HeartbeatAck": (
        "97500108d6255117d5acebe867b47f4d0123456789abcdef00066e6f64652d6183a662616c6c6f749207a66e"
        "6f64652d61ae63686f73656e5f7468726f75676828a873657175656e6365cd03e8"
    ),
    "AboutSubject": (
        "97500109035f0efcd5acebe867b47f4d0123456789abcdef00066e6f64652d6100076772c3b6c39f650382a6"
        "62616c6c6f749207a66e6f64652d61a576616c7565c40576616c7565"
    ),
    "PrepareLog": (
        "9750010a8f3c5271d5acebe867b47f4d0123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e"
        "6f64652d61aa66697273745f736c6f742a"
    ),
    "PromiseLog": (
        "9750010b6788a947d5acebe867b47f4d0123456789abcdef00066e6f64652d6184a662616c6c6f7492cd012c"
        "a66e6f64652d62aa66697273745f736c6f7429a676616c75657391c40576616c7565a5766f74657392932a92"
        "07a66e6f64652d61c40576616c7565932c9207a66e6f64652d61c400"
    ),
    "AcceptSlot": (
        "9750010c6961b13bd5acebe867b47f4d0123456789abcdef00066e6f64652d6184a662616c6c6f749207a66e"
        "6f64652d61ae63686f73656e5f7468726f75676829a4736c6f742aa576616c7565c40576616c7565"
    ),
    "AcceptedSlot": (
        "9750010d8f3fa1bed5acebe867b47f4d0123456789abcdef00066e6f64652d6182a662616c6c6f749207a66e6f64652d61a4736c6f742a"
    ),
    "Fetch": ("9750010ee8e8e7fcd5acebe867b47f4d0123456789abcdef00066e6f64652d6181aa66697273745f736c6f742a"),
    "ChosenValues": (
        "9750010ffb20d7b9d5acebe867b47f4d0123456789abcdef00066e6f64652d6183ae63686f73656e5f746872"
        "6f7567682caa66697273745f736c6f742aa676616c75657392c40576616c7565c400"
    ),
    "Hello": "975001105f941c30d5acebe867b47f4d0123456789abcdef00066e6f64652d6180",
    "Forward": (
        "975001110d89607ed5acebe867b47f4d0123456789abcdef00066e6f64652d6181a8636f6d6d616e64739294"
        "c40873657373696f6e310100c40370757494c420ffffffffffffffffffffffffffffffffffffffffffffffff"
        "ffffffffffffffffcfffffffffffffffffce00011170c400"
    ),
    "Canvass": ("97500112ddc432cbd5acebe867b47f4d0123456789abcdef00066e6f64652d6181a873657175656e636505"),
    "Support": ("9750011348b4e65ed5acebe867b47f4d0123456789abcdef00066e6f64652d6181a873657175656e636505"),
    "Truncated": ("975001145d5c2314d5acebe867b47f4d0123456789abcdef00066e6f64652d6181aa66697273745f736c6f742b"),
    "AskReadPoint": (
        "97500115c8f186d5d5acebe867b47f4d0123456789abcdef00066e6f64652d6181a66e756d626572cf4000000000000000"
    ),
    "ReadPoint": (
        "975001162bc90e3ed5acebe867b47f4d0123456789abcdef00066e6f64652d6182a66e756d626572cf4000000000000000a4736c6f742c"
    ),
    "FetchSnapshot": (
        "97500117a59d1945d5acebe867b47f4d0123456789abcdef00066e6f64652d6183a764616d6167656426a66f"
        "6666736574ce00100000a4736c6f7428"
    ),
    "SnapshotPart": (
        "97500118a806320bd5acebe867b47f4d0123456789abcdef00066e6f64652d6184a464617461c40464617461"
        "a66f6666736574ce00100000aa73697a655f6279746573ce00200000a4736c6f7428"
    ),
    "Audit": (
        "9750011915208919d5acebe867b47f4d0123456789abcdef00066e6f64652d6183a86c6f675f68617368c403"
        "6c6f67a4736c6f7428aa73746174655f68617368c4057374617465"
    ),
}
CLIENT = {
    "Submit": (
        "9743010117069752d5acebe867b47f4d0000000000000000000085ac61636b6e6f776c656467656404a7636f"
        "6d6d616e64c403707574a77265717565737401a873657175656e636505a773657373696f6ec4087365737369"
        "6f6e31"
    ),
    "Ask": (
        "974301028c342372d5acebe867b47f4d0000000000000000000083a77265717565737402a77375626a656374"
        "a76772c3b6c39f65a576616c7565c40576616c7565"
    ),
    "StatusRequest": "9743010380022aedd5acebe867b47f4d0000000000000000000081a77265717565737403",
    "Read": (
        "9743010469302fbad5acebe867b47f4d0000000000000000000083a56c6f63616cc3a57175657279c403676574a77265717565737404"
    ),
    "Welcome": (
        "97430181f96fc7d5d5acebe867b47f4d0000000000000000000084af6170706c6965645f7468726f7567682a"
        "a66c6561646572a66e6f64652d62ae6c65616465725f61646472657373aa5b3a3a315d3a37303032a46e6f64"
        "65a66e6f64652d61"
    ),
    "Answer": ("97430182cbc38362d5acebe867b47f4d0000000000000000000082a77265717565737401a6726573756c74c401c0"),
    "AskAnswer": "97430183fad478e6d5acebe867b47f4d0000000000000000000082a77265717565737402a576616c7565c0",
    "ReadAnswer": (
        "9743018695ae6474d5acebe867b47f4d0000000000000000000083a77265717565737404a6726573756c74c401c0a4736c6f742a"
    ),
    "StatusAnswer": ("97430184b99d98f3d5acebe867b47f4d0000000000000000000082a77265717565737403a6737461747573c4027b7d"),
    "Refused": (
        "9743018541189909d5acebe867b47f4d0000000000000000000083a56572726f72aa4f7665726c6f61646564"
        "a6726561736f6ed928746f6f206d7563682069732077616974696e673a2073656e6420697420616761696e20"
        "6c61746572a77265717565737401"
    ),
}
GOLDEN_BATCH = (
    "019294c40873657373696f6e310100c40370757494c420ffffffffffffffffffffffffffffffffffffffffff"
    "ffffffffffffffffffffffcfffffffffffffffffce00011170c400"
)


def test_all_are_here() -> None:
    assert list(PEER) == [type(sample).__name__ for sample in PEER_SAMPLES]
    assert list(CLIENT) == [type(sample).__name__ for sample in CLIENT_SAMPLES]


@pytest.mark.parametrize("sample", PEER_SAMPLES, ids=list(PEER))
def test_peer_message(sample: PeerMessage) -> None:
    golden = bytes.fromhex(PEER[type(sample).__name__])
    assert CODEC.encode(sample).hex() == golden.hex()
    assert CODEC.decode(golden).message == sample


@pytest.mark.parametrize("sample", CLIENT_SAMPLES, ids=list(CLIENT))
def test_client_message(sample: FromClient | FromNode) -> None:
    golden = bytes.fromhex(CLIENT[type(sample).__name__])
    assert CLIENT_CODEC.encode(sample).hex() == golden.hex()
    assert CLIENT_CODEC.decode(golden) == sample


def test_batch() -> None:
    golden = bytes.fromhex(GOLDEN_BATCH)
    assert encode_batch(BATCH).hex() == golden.hex()
    assert decode_batch(golden) == BATCH
