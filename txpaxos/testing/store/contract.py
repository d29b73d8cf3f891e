"""The contract of every :class:`~txpaxos.storage.store.Store`, as tests to inherit.

Subclass :class:`StoreContract` in a test module, and implement the methods that make a store, open it again and break
the medium under it. pytest runs the tests::

    class TestMemoryStore(StoreContract):
        def make_store(self, location):
            return MemoryStore()

        def reopen(self, store, location):
            return store.reopen()

        def break_store(self, store):
            store.failing = True

        def break_snapshot(self, store):
            store.files.failing = True

        def discard_snapshots(self, store, location):
            for path in [path for path in store.files.contents if path.endswith(".snapshot")]:
                del store.files.contents[path]

The only fixture is pytest's ``tmp_path``, an empty folder.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from txpaxos.core.messages import LOWEST, Ballot
from txpaxos.core.ready import DecreeState, Learned, PeerMet, Promised, Record, SubjectState, Voted, Voter
from txpaxos.errors import StoreError
from txpaxos.testing.store.harness import BALLOT, voted
from txpaxos.testing.store.snapshot_contract import SnapshotContract


class StoreContract(SnapshotContract):
    """The tests. Each starts from ``make_store(tmp_path)``."""

    # ----------------------------------------------------- what comes back

    def test_a_new_store_is_empty(self, tmp_path: Path) -> None:
        self.assert_kept(self.loaded(tmp_path), tmp_path, [])

    def test_records_come_back_in_the_order_saved(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        records: list[Record] = [
            Promised(BALLOT),
            voted(2),
            voted(1),
            Learned(1, (b"a", b"")),
            voted(2, b""),
            Promised(LOWEST),
        ]
        for record in records:
            self.wait(store.save([record]))
        self.assert_kept(store, tmp_path, records)

    def test_records_come_back_without_a_close(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.wait(store.save([voted(1), voted(2)]))
        self.wait(store.save([voted(3)]))
        self.assert_kept(store, tmp_path, [voted(1), voted(2), voted(3)], close=False)

    def test_every_value_of_a_field_comes_back(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        ballot = Ballot(2**64 - 1, "n\N{SNOWMAN}de \0 " + "x" * 300)
        log: list[Record] = [
            Promised(ballot),
            Voted(ballot, 2**63, bytes(range(256)), 2**62),
            Learned(0, ()),
            Learned(5, (b"", b"")),
        ]
        self.wait(store.save(log))
        self.assert_kept(store, tmp_path, log)

    def test_a_voter_comes_back(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        voter = Voter(("node-1", "node-2"), (PeerMet("node-2", 2**64 - 1),))
        self.wait(store.save([voter, voted(1), PeerMet("node-2", 2**64 - 1)]))
        kept: list[Record] = [voted(1), PeerMet("node-2", 2**64 - 1)]
        self.assert_kept(store, tmp_path, [*kept, voter], close=False)

    def test_the_last_voter_wins(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        for members in (("node-1", "node-2"), ("node-1", "node-3")):
            self.wait(store.save([Voter(members)]))
        self.assert_kept(store, tmp_path, [Voter(("node-1", "node-3"))])

    def test_an_empty_save_fires(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.wait(store.save([]))
        self.wait(store.save([voted(1)]))
        self.wait(store.save([]))
        self.assert_kept(store, tmp_path, [voted(1)])

    def test_a_big_value_comes_back(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        records = [voted(1), voted(2, bytes(range(256)) * 4096), voted(3, bytes(1 << 20)), voted(4)]
        for record in records:
            self.wait(store.save([record]))
        self.assert_kept(store, tmp_path, records)

    def test_many_saves_come_back(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        records = [voted(slot, b"%d" % slot * (slot % 50)) for slot in range(300)]
        for record in records:
            self.wait(store.save([record]))
        self.assert_kept(store, tmp_path, records)

    def test_saving_continues_after_each_reopening(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        records: list[Record] = []
        for slot in range(1, 10):
            self.wait(store.save([voted(slot)]))
            if slot % 2:
                self.wait(store.close())
            store = self.reopen(store, tmp_path)
            records.append(voted(slot))
            assert store.load() == records
        self.wait(store.close())

    def test_the_incarnation_stays(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        incarnation = store.incarnation
        assert 0 < incarnation < 2**64
        self.wait(store.close())
        again = self.reopen(store, tmp_path)
        assert again.incarnation == incarnation
        self.wait(again.close())

    # -------------------------------------------------------------- order

    def test_saves_fire_in_order_without_waiting(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        fired: list[int] = []
        saves = [store.save([voted(slot)] if slot % 3 else []) for slot in range(20)]
        for slot, save in enumerate(saves):
            save.addCallback(partial(self._note, fired, slot))
        closed = store.close()
        closed.addCallback(partial(self._note, fired, 20))
        self.wait(closed)
        assert fired == list(range(21))
        self.assert_kept(store, tmp_path, [voted(slot) for slot in range(20) if slot % 3])

    def test_what_is_passed_in_may_change_afterwards(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        records: list[Record] = [voted(1), voted(2)]
        saved = store.save(records)
        records.clear()
        self.wait(saved)
        self.assert_kept(store, tmp_path, [voted(1), voted(2)])

    # ----------------------------------------------------------- refusals

    def test_after_a_failed_save_everything_is_refused(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.wait(store.save([voted(1)]))
        self.break_store(store)
        for records in ([voted(2)], [voted(3)], []):
            self.refusal(store.save(records))
        self.wait(store.close())

    def test_saves_come_after_loading_and_before_closing(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        self.refusal(store.save([voted(1)]))
        assert store.load() == []
        self.wait(store.close())
        self.refusal(store.save([voted(1)]))
        self.assert_kept(store, tmp_path, [])

    def test_loading_is_done_once(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        for _ in range(2):
            try:
                store.load()
            except StoreError:
                self.wait(store.close())
                continue
            raise AssertionError("loaded twice")

    def test_closing_twice_is_harmless(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        self.wait(store.close())
        self.wait(store.close())

    def test_after_a_failed_save_of_a_voter_everything_is_refused(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.break_store(store)
        for records in ([Voter(("node-1",))], [Voter(("node-1",))], [voted(1)], []):
            self.refusal(store.save(records))
        self.wait(store.close())

    def test_the_store_of_a_removed_node_is_not_loaded_again(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        self.refusal(store.mark_removed("too early"))
        assert store.load() == []
        self.wait(store.save([voted(1)]))
        self.wait(store.mark_removed("node-1 was removed at slot 7"))
        self.wait(store.close())
        self.refusal(store.mark_removed("too late"))
        for _ in range(2):
            store = self.reopen(store, tmp_path)
            assert "node-1 was removed at slot 7" in self.refused(store.load)
            self.wait(store.close())

    def test_what_only_earlier_releases_saved_is_refused(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        for record in (DecreeState(), SubjectState("s", DecreeState())):
            try:
                store.save([voted(1), record])
            except TypeError:
                continue
            raise AssertionError(f"saved {record}")
        self.wait(store.save([voted(2)]))
        self.assert_kept(store, tmp_path, [voted(2)])

    def test_registers_are_forgotten_between_loading_and_closing(self, tmp_path: Path) -> None:
        """A store of this release has none, so there is nothing to do."""
        store = self.make_store(tmp_path)
        self.refusal(store.forget_registers())
        assert store.load() == []
        self.wait(store.save([voted(1)]))
        self.wait(store.forget_registers())
        self.wait(store.close())
        self.refusal(store.forget_registers())
        self.assert_kept(store, tmp_path, [voted(1)])
