"""What the benchmarks compute, and what they make of others' output. Nothing is started here."""

from __future__ import annotations

import re
import resource
import struct
from ipaddress import ip_address
from pathlib import Path
from random import Random

import attrs
import msgspec
import pytest
from cryptography.x509 import IPAddress, SubjectAlternativeName, load_pem_x509_certificate

from bench import certificates, clients, compare, core, etcd, members, plot, rotation, syncs, trace
from bench.figures import Latencies, Sample, latencies_of, median_sample, percentile, ratio_of_pairs
from bench.loop import KEYS_BYTES_MAX, KEYS_MAX, commands_for
from bench.report import Point, TargetCheck, as_table, at_least, at_most
from bench.system import Load
from test.system.test_readme import section
from txpaxos.cli.running import CommandError
from txpaxos.recording.reading import read_recording
from txpaxos.recording.replaying import Replayer


def sample(rate: int, seconds: float = 2.0, latency: float = 0.001) -> Sample:
    """A run with these figures."""
    latencies = Latencies(latency, 2 * latency, 3 * latency, 4 * latency)
    return Sample(round(rate * seconds), seconds, latencies, {"leader": latency / 10, "followers": latency / 5})


class TestFigures:
    def test_percentile_is_the_nearest_rank(self) -> None:
        ordered = [float(number) for number in range(1, 1001)]
        assert [percentile(ordered, one) for one in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1000]
        assert percentile([7.0], 0.001) == percentile([7.0], 0.999) == 7.0
        assert percentile([1.0, 2.0], 0.5) == 1.0
        assert percentile([1.0, 2.0], 0.51) == 2.0

    @pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 12_345])
    def test_percentile_leaves_as_many_above_as_it_says(self, count: int) -> None:
        rng = Random(count)
        ordered = sorted(rng.random() for _ in range(count))
        for fraction in (0.5, 0.99, 0.999):
            found = percentile(ordered, fraction)
            assert sum(one <= found for one in ordered) >= fraction * count - 1e-6
            assert sum(one < found for one in ordered) < fraction * count

    def test_latencies_need_not_be_sorted(self) -> None:
        assert latencies_of([0.3, 0.1, 0.2]) == Latencies(0.2, 0.3, 0.3, 0.3)
        with pytest.raises(ValueError, match="nothing was answered"):
            latencies_of([])

    def test_each_figure_has_its_own_median(self) -> None:
        middle = median_sample([sample(100, latency=0.3), sample(300, latency=0.1), sample(200, latency=0.2)])
        assert middle.rate == 200
        assert attrs.astuple(middle.latencies) == pytest.approx((0.2, 0.4, 0.6, 0.8))
        assert middle.cpu_seconds == {"leader": 0.02, "followers": 0.04}

    def test_ratios_are_taken_pair_by_pair(self) -> None:
        assert ratio_of_pairs([10, 100, 30], [5, 20, 30]) == 2.0


class TestReport:
    def test_targets(self) -> None:
        assert at_least("rate", 2.0, 2).met is True
        assert at_least("rate", 1.99, 2).met is False
        assert at_most("p50", 3.01, 3).met is False
        assert at_most("p50", 3.0, 3).met is True
        assert at_most("p50", None, 3) == TargetCheck("p50: at most 3 times", None, "not measured")
        assert str(at_least("rate", 1.5, 2)) == "MISSED  rate: at least 2 times: 1.5 times"

    def test_table_has_the_ratio_in_the_row_of_whom_it_is_to(self) -> None:
        point = Point("64", {"txpaxos": [sample(400), sample(600)], "etcd": [sample(200), sample(200)]})
        assert point.ratio("txpaxos", "etcd") == 2.5
        assert point.ratio("txpaxos", "PySyncObj") is None
        head, ours, theirs = as_table([point], "outstanding", "txpaxos").splitlines()
        assert head.split()[:4] == ["outstanding", "system", "puts/s", "ours/theirs"]
        assert ours.split() == ["64", "txpaxos", "500", "1.000", "2.000", "3.000", "100.0", "200.0", "0.00"]
        assert theirs.split() == ["64", "etcd", "200", "2.50", "1.000", "2.000", "3.000", "100.0", "200.0", "0.00"]

    def test_what_is_drawn(self) -> None:
        points = msgspec.to_builtins([Point("1", {"txpaxos": [sample(10), sample(20), sample(40)], "etcd": []})])
        assert plot.rates(points, "txpaxos") == [20]
        assert [str(one) for one in plot.rates(points, "etcd")] == ["nan"]
        assert plot.milliseconds(points, "txpaxos", "p99_seconds") == [2.0]


class TestLoad:
    def test_no_more_connections_than_puts_under_way(self) -> None:
        assert [Load(one).connections for one in (1, 8, 16, 1024)] == [1, 8, 16, 16]

    def test_big_values_have_fewer_keys(self) -> None:
        small, big = commands_for(100), commands_for(2**20)
        assert (len(small), len(big)) == (KEYS_MAX, KEYS_BYTES_MAX // 2**20)
        what, key, value = msgspec.msgpack.decode(big[3])
        assert (what, key, len(value)) == ("put", "key 3", 2**20)
        assert commands_for(100) == small
        assert len(set(small)) == KEYS_MAX


H2LOAD = """\
finished in 3.00s, 7789.50 req/s, 556.31KB/s
requests: 15579 total, 15579 started, 15579 done, 15579 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 15579 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.09MB (1139328) total, 46.73KB (47854) headers (space savings 94.73%), 754.19KB (772291) data
"""


class TestEtcd:
    @pytest.mark.parametrize(
        ("number", "data"),
        [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (2**20, b"\x80\x80@")],
    )
    def test_varint(self, number: int, data: bytes) -> None:
        assert etcd.varint(number) == data

    def test_put_request_in_its_frame(self) -> None:
        message = etcd.put_request(b"key", b"v" * 300)
        assert message == b"\x0a\x03key\x12\xac\x02" + b"v" * 300
        frame = etcd.grpc_frame(message)
        assert struct.unpack(">BI", frame[:5]) == (0, len(message))
        assert frame[5:] == message

    def test_answers_that_h2load_counted(self) -> None:
        assert etcd.answers(H2LOAD) == 15579

    @pytest.mark.parametrize(
        "output",
        [
            H2LOAD.replace("0 failed", "1 failed"),
            H2LOAD.replace("0 errored", "7 errored"),
            H2LOAD.replace("0 5xx", "2 5xx"),
            "could not connect to the host",
        ],
    )
    def test_answers_that_were_not_all_good(self, output: str) -> None:
        with pytest.raises(CommandError, match="h2load"):
            etcd.answers(output)

    def test_latencies_from_its_log(self) -> None:
        lines = ["1795518110344277\t200\t1394", "1795518112344099\t200\t1000000"]
        assert etcd.latencies_from_log(lines, 1) == [0.001394, 1.0]
        with pytest.raises(CommandError, match="answered a put with 503"):
            etcd.latencies_from_log(["1795518110344277\t503\t1394"], 1)

    def test_requests_that_were_answered_half_in_the_warm_up_are_left_out(self) -> None:
        half, whole = "1795518110344277\t0\t1394", "1795518112344099\t200\t2000"
        assert etcd.latencies_from_log([half, half, whole], 2) == [0.002]
        with pytest.raises(CommandError, match="answered a put with 0"):
            etcd.latencies_from_log([half, whole, half], 2)

    def test_certificates_are_signed_by_their_authority(self, tmp_path: Path) -> None:
        certificates.make_certificates(tmp_path / "made")
        authority, certificate = (
            load_pem_x509_certificate((tmp_path / "made" / name).read_bytes())
            for name in (certificates.AUTHORITY, certificates.CERTIFICATE)
        )
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        assert names.get_values_for_type(IPAddress) == [ip_address("127.0.0.1")]

    def test_refusals_are_counted_by_grpc_s_codes(self) -> None:
        line = 'grpc_server_handled_total{{grpc_code="{}",grpc_method="{}",grpc_type="unary"}} {}'
        metrics = [
            line.format("OK", "Put", "1e+06"),
            line.format("Unknown", "Put", 3),
            line.format("Unknown", "Range", 5),
        ]
        assert etcd.refusals([*metrics, line.format("Unavailable", "Put", 4), "# HELP"]) == 7


def test_no_fewer_files_may_be_open_than_before() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients.allow_files(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_syncs_in_what_strace_wrote() -> None:
    lines = [
        "11 fdatasync(7) = 0",
        "11 fsync(9 <unfinished ...>",
        "12 fdatasync(7) = -1 EIO (Input/output error)",
        "11 <... fsync resumed>)              = 0",
        "11 +++ exited with 0 +++",
        "13 msync(0x7f, 4096, MS_SYNC) = 0",
    ]
    assert syncs.syncs_in(lines) == 4


class TestTrace:
    client = [(0.0, 0.0, "submit"), (1.0, 1.1, "send"), (90.0, 91.0, "recv"), (95.0, 95.0, "answered")]
    leader = [
        *((1.5, 3.0, "recv"), (10.0, 11.0, "sendto"), (11.0, 12.0, "sendto"), (13.0, 13.5, "pwrite")),
        *((13.5, 48.0, "fdatasync"), (50.0, 52.0, "recvfrom"), (70.0, 71.0, "send"), (96.0, 97.0, "recvfrom")),
    ]
    slow = [(12.0, 14.0, "recvfrom"), (16.0, 60.0, "fdatasync"), (61.0, 62.0, "sendto")]
    quick = [(11.0, 15.0, "recvfrom"), (20.0, 40.0, "fdatasync"), (42.0, 43.0, "sendto")]

    def test_steps_go_by_the_quicker_follower(self) -> None:
        steps = trace.steps_of(self.client, self.leader, [self.slow, self.quick])
        assert list(steps.values()) == [1.0, 2.0, 7.0, 5.0, 5.0, 20.0, 2.0, 6.0, 4.0, 0.0, 18.0, 21.0, 4.0]
        assert sum(steps.values()) == 95.0

    def test_a_sync_of_the_leader_that_ends_last(self) -> None:
        leader = [call if call[2] != "fdatasync" else (13.5, 60.0, "fdatasync") for call in self.leader]
        steps = trace.steps_of(self.client, sorted(leader), [self.quick])
        assert list(steps.values())[7:11] == [10.0, 0.0, 8.0, 10.0]
        assert sum(steps.values()) == 95.0

    def test_a_put_that_cannot_be_followed_is_left_out(self) -> None:
        assert trace.steps_of(self.client, self.leader[:2], [self.quick]) == {}

    def test_medians_of_the_steps(self) -> None:
        def later(calls: list[trace.Call], seconds: float) -> list[trace.Call]:
            return [(began + seconds, ended + seconds, name) for began, ended, name in calls]

        client, leader, follower = (one + later(one, 100.0) for one in (self.client, self.leader, self.quick))
        once = trace.steps_of(self.client, self.leader, [self.quick])
        assert trace.steps_of(client, leader, [follower]) == pytest.approx(once)

    def test_syncs(self) -> None:
        assert trace.syncs_of(self.leader) == [34.5]


def test_the_page_tells_of_every_experiment() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.rst").read_text()
    told = re.findall(r"^``([a-z][a-z-]*)``  ", section(page, "The experiments"), re.MULTILINE)
    assert set(told) == set(compare.main.commands)


def test_the_page_tells_of_every_part_of_the_changes_of_members() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.rst").read_text()
    told = re.findall(r"^``([a-z]+)``  ", section(page, "Changes of the members"), re.MULTILINE)
    assert tuple(told) == members.PARTS


def test_changes_of_members_as_text() -> None:
    measured = {
        "changes": [members.Change("d joins: 3 to 4", 1.5, 0.01, 0.025, 0.003, 0.03)],
        "generations": members.Generations([2.0, 3.0, 2.5], 1000, 64, 0.05),
        "join": members.Join(12.0, 0.75, 10.5, 0.25, 6.0),
        "restarts": members.Restarts(100, 50, 0),
    }
    changes, others = members.as_text(measured).split("\n\n")
    assert changes.splitlines()[1].split()[-6:] == ["1.50", "10.0", "25.0", "2.5", "3.0", "30.0"]
    assert "10.5 s, and 1.5 s besides:" in others
    assert "restarts of a removed node, 50 of them untold" in others
    assert others.endswith("100; the leader or the ballot changed 0 times")


def test_rotations_as_text() -> None:
    quick = rotation.Rotations("SIGHUP", 64, 3, 123_456, 0, [], 0, 20.0, [0.03, 0.0385, 0.02], [0.01, 0.015, 0.03])
    text = rotation.as_text([quick, attrs.evolve(quick, way="txpaxos keys reload", usual_gaps_seconds=[0.2])])
    assert text.splitlines()[1].split() == [
        "SIGHUP",
        "64",
        "3",
        "20",
        "123,456",
        "0",
        "0",
        "30.0",
        "38.5",
        "15.0",
        "30.0",
    ]
    assert text.count("met    ") == 3
    assert rotation.is_whole([quick])
    failed, led, slow = (
        *(attrs.evolve(quick, errors=1, said=["no quorum"]), attrs.evolve(quick, leader_changes=1)),
        attrs.evolve(quick, gaps_seconds=[0.01, 0.1001]),
    )
    for one, is_whole in ((failed, False), (led, False), (slow, True)):
        assert rotation.is_whole([quick, one]) == is_whole
        assert [check.met for check in rotation.verdicts([quick, one])].count(False) == 1
    assert "no quorum" in rotation.as_text([failed])


def test_the_core_alone_can_be_recorded(tmp_path: Path) -> None:
    core.measure(50, 3, 1000, str(tmp_path / "recording"))
    for run in ("False", "True"):
        for node in "abc":
            replayer = Replayer()
            *_, last = replayer.steps(read_recording(str(tmp_path / "recording" / run), node))
            assert last.difference is None
            assert replayer.inputs > 50


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_the_core_alone_chooses_what_is_measured(nodes: int) -> None:
    measured = core.measure(100, nodes, 10)
    calls = {what: cost["calls"] for what, cost in measured["costs"].items()}
    assert calls["propose"] == pytest.approx(1.0, abs=0.1)
    assert calls.get("AcceptedSlot", 0) == pytest.approx(nodes - 1, abs=0.1 * nodes)
    assert measured["operations_per_second"] > 0
