"""Lessons on the log: one phase 1 for all slots, and what a new leader inherits."""

from __future__ import annotations

from txpaxos.core.catch_up import CatchUp
from txpaxos.core.election import Election
from txpaxos.core.leader import LeaderState
from txpaxos.core.log import Log
from txpaxos.core.replica import Replica
from txpaxos.play.lessons import Lesson, Step

LED_BY_B = ("until b leads", "settle", "step 3")
"""The start of most lessons: b is elected, and its first entry is known everywhere."""

FIRST_ELECTION = Lesson(
    "first-election",
    "A log: the first election",
    "One phase 1 for every slot there will ever be. After that each value costs one round trip.",
    "replica",
    (
        Step(
            "Three nodes start on empty disks. None leads, so each waits for a random time. The time of b is over"
            " first, and it asks whether the others miss a leader, too.",
            "The log of each node is empty.",
            Election._liveness_window,
            ("time",),
            {"b.role": "pre-candidate", "under way PreVote": "2", "b.log": "empty"},
        ),
        Step(
            "The pre-vote is granted. b starts the ballot 1.b, and asks for promises from slot 1 on: for all"
            " slots, in one message.",
            "b has promised its own ballot, which puts the round on its disk.",
            Replica._start_campaign,
            ("deliver b->a PreVote", "deliver a->b PreVoteGranted"),
            {
                "b.role": "candidate",
                "b.promised": "1.b",
                "disk b.promised": "1.b",
                "under way PrepareLog": "2",
                "chosen 1": "none",
            },
        ),
        Step(
            "a promises. With b's own promise that is a quorum: b leads. Before anything else it proposes an"
            " entry of its own ballot, a no-op at slot 1: once that is chosen, all earlier entries are.",
            "An AcceptSlot is under way to each follower.",
            LeaderState.propose_required,
            ("deliver b->c PreVote", "deliver b->a PrepareLog", "deliver a->b PromiseLog"),
            {"b.role": "leader", "b.accepted": "1 = no-op in 1.b", "under way AcceptSlot": "2", "chosen 1": "none"},
            ("Slot 1: b is free in 1.b: a and b promised it, and reported no vote. It proposes no-op.",),
        ),
        Step(
            "The followers vote. With the vote of a the leader has a quorum, and hands out slot 1. A moment later"
            " it tells the others.",
            "Every log has 1 = no-op.",
            LeaderState.count_vote,
            ("settle", "step 3"),
            {"chosen 1": "no-op", "a.log": "1 = no-op", "b.log": "1 = no-op", "c.log": "1 = no-op"},
        ),
        Step(
            "Propose x at b. Phase 1 is not needed any more: only votes are asked for, at slot 2.",
            "The leader has voted itself. Two AcceptSlots are under way.",
            LeaderState.propose,
            ("propose x at b",),
            {"b.accepted": "2 = x in 1.b", "under way AcceptSlot": "2", "chosen 2": "none"},
            by_user=True,
        ),
        Step(
            "One round trip later x is chosen at slot 2. The next message of the leader says how far all is chosen.",
            "Every log has 2 = x.",
            Log.advance,
            ("settle", "step 3"),
            {"chosen 2": "x", **{f"{node}.log": "1 = no-op, 2 = x" for node in "abc"}},
        ),
    ),
)

LEADER_CRASH = Lesson(
    "leader-crash",
    "A log: the leader crashes",
    "What it proposed last may be chosen. The next leader proposes it again, in its own ballot.",
    "replica",
    (
        Step(
            "b leads with 1.b, and slot 1 is chosen.",
            "Every node follows b.",
            Replica._start_leading,
            LED_BY_B,
            {"b.role": "leader", "chosen 1": "no-op", "a.follows": "b", "c.follows": "b", "a.promised": "1.b"},
        ),
        Step(
            "b proposes x. The others accept it at slot 2; but b is gone before it hears of their votes.",
            "x is chosen, and no node knows.",
            Log.accept,
            ("propose x at b", "deliver b->* AcceptSlot", "crash b"),
            {"chosen 2": "x", "a.accepted": "2 = x in 1.b", "c.accepted": "2 = x in 1.b", "a.log": "1 = no-op"},
            ("Slot 2: a, b and c accepted x in 1.b: 3 of 3, a quorum. x is chosen.",),
            at="self.promised = ballot",
        ),
        Step(
            "The others miss the heartbeats. c is granted a pre-vote, and asks with 2.c from slot 2 on, its first"
            " unchosen one. The promise of a tells of the vote for x, so c must propose x there.",
            "After x comes a no-op of its own ballot, at slot 3.",
            LeaderState.propose_required,
            ("until one leads",),
            {"c.role": "leader", "c.promised": "2.c", "c.accepted": "2 = x in 2.c, 3 = no-op in 2.c"},
            (
                "Slot 2: c must propose x in 2.c: a and c reported x in 1.b.",
                "Slot 2: a and c are in both quorums: that of the votes in 1.b, and that of the promises of 2.c.",
            ),
        ),
        Step(
            "a votes in 2.c, and both know x.",
            "a and c have the same log.",
            Replica._receive_accepted,
            ("settle", "step 3"),
            {"a.log": "1 = no-op, 2 = x, 3 = no-op", "c.log": "1 = no-op, 2 = x, 3 = no-op", "c.promised": "2.c"},
        ),
        Step(
            "Restart b. It has what was on its disk, and that it has led is forgotten. The heartbeat of the new"
            " leader tells it to follow.",
            "b has a vote for x in 1.b, but does not know that x is chosen.",
            Election.observe_leader,
            ("restart b", "step 4"),
            {"b.follows": "c", "b.accepted": "2 = x in 1.b", "b.log": "1 = no-op"},
        ),
        Step(
            "c says that all slots through 3 are chosen. But in which ballot? b voted in 1.b, and the leader"
            " speaks of 2.c. So b does not trust its own vote: it asks.",
            "b has fetched the values.",
            Log.mark_chosen_by_ballot,
            ("settle", "step 3"),
            {"b.log": "1 = no-op, 2 = x, 3 = no-op", "b.promised": "1.b", "c.promised": "2.c"},
        ),
    ),
)

GAP = Lesson(
    "gap",
    "A log: a gap is filled",
    "Slot 3 has votes and slot 2 has none that count. The next leader fills the gap with a no-op.",
    "replica",
    (
        Step(
            "b leads with 1.b. Its links fail while it proposes x at slot 2: only b itself has voted for x.",
            "One vote of 3 is no quorum.",
            LeaderState.propose,
            (*LED_BY_B, "cut b a", "cut b c", "propose x at b"),
            {"b.accepted": "2 = x in 1.b", "chosen 2": "none", "a.accepted": "nothing open"},
            ("Slot 2: b accepted x in 1.b: 1 of 3, which is no quorum.",),
        ),
        Step(
            "The links work again, and b proposes y at slot 3, without waiting for slot 2. All vote for y, so y"
            " is chosen. It is not handed out: slot 2 comes first.",
            "No log has anything above slot 1.",
            Log.advance,
            ("join b a", "join b c", "propose y at b", "deliver b->* AcceptSlot"),
            {"chosen 3": "y", "chosen 2": "none", "a.log": "1 = no-op", "a.accepted": "3 = y in 1.b"},
        ),
        Step(
            "Crash b, before it sends x again.",
            "The only vote for x is on the disk of b, which is down.",
            LeaderState.resend_unanswered,
            ("crash b",),
            {"b": "down", "disk b.accepted": "2 = x in 1.b, 3 = y in 1.b"},
            by_user=True,
        ),
        Step(
            "c is elected with 2.c. Its quorum reports a vote at slot 3, and none at slot 2. So nothing can have"
            " been chosen at slot 2, and c fills it with a no-op. At slot 3 it must propose y.",
            "Two of these proposals are bound to nothing, and one is bound to y.",
            LeaderState.propose_required,
            ("settle", "until one leads"),
            {"c.accepted": "2 = no-op in 2.c, 3 = y in 2.c, 4 = no-op in 2.c", "c.role": "leader"},
            (
                "Slot 2: c is free in 2.c: a and c promised it, and reported no vote. It proposes no-op.",
                "Slot 3: c must propose y in 2.c: a and c reported y in 1.b.",
            ),
        ),
        Step(
            "a votes, and all slots through 4 are chosen.",
            "Slot 2 has a no-op in both logs.",
            LeaderState.count_vote,
            ("settle",),
            {"c.log": "1 = no-op, 2 = no-op, 3 = y, 4 = no-op", "chosen 2": "no-op"},
        ),
        Step(
            "Restart b. It has a vote for x at slot 2, in 1.b, and is told that slot 2 is chosen in 2.c. Had it"
            " taken its own vote for the chosen value, its log would differ from all others. This is the commonest"
            " mistake in logs built on Paxos.",
            "b follows c, and has learned nothing from its own votes.",
            Log.mark_chosen_by_ballot,
            ("restart b", "time", "deliver c->* Heartbeat"),
            {"b.accepted": "2 = x in 1.b, 3 = y in 1.b", "b.log": "1 = no-op", "b.follows": "c", "c.promised": "2.c"},
        ),
        Step(
            "b asks for what it misses from slot 2 on, and is told. x was never chosen.",
            "All three logs are equal.",
            CatchUp._ask,
            ("time", "settle"),
            {f"{node}.log": "1 = no-op, 2 = no-op, 3 = y, 4 = no-op" for node in "abc"} | {"chosen 2": "no-op"},
        ),
    ),
)

CATCHING_UP = Lesson(
    "catching-up",
    "A log: a node catches up",
    "A node that is cut off misses slots, disturbs no other, and asks for the values when it is back.",
    "replica",
    (
        Step(
            "b leads. a is cut off from both others.",
            "Two of three nodes are a quorum.",
            Replica._start_leading,
            (*LED_BY_B, "cut a b", "cut a c"),
            {"b.role": "leader", "a.log": "1 = no-op", "quorum": "2"},
        ),
        Step(
            "x and y are proposed, and chosen with the votes of b and c.",
            "a knows nothing of it.",
            LeaderState.count_vote,
            ("propose x at b", "settle", "propose y at b", "settle", "step 2"),
            {"chosen 2": "x", "chosen 3": "y", "c.log": "1 = no-op, 2 = x, 3 = y", "a.log": "1 = no-op"},
        ),
        Step(
            "The clock of a runs ahead: it hears no leader, and asks for pre-votes. They are lost, and so a"
            " starts no ballot. It would only stand between the leader and its followers later.",
            "a has promised 1.b, and nothing above.",
            Election._keep_asking,
            ("timer a", "timer a"),
            {"a.role": "pre-candidate", "a.promised": "1.b"},
        ),
        Step(
            "a hears the others again, and asks them. c hears its leader, so it grants nothing. The next"
            " heartbeat tells a whom to follow.",
            "a follows b.",
            Election.grants_pre_vote,
            ("join a b", "join a c", "timer a", "settle", "step 4"),
            {"a.follows": "b", "a.role": "follower", "b.promised": "1.b", "under way PreVoteGranted": "0"},
        ),
        Step(
            "The heartbeat said that slots are chosen in which a has not voted. So it asks for the values from"
            " slot 2 on.",
            "All three logs are equal.",
            Replica._receive_fetch,
            ("settle", "timer a", "settle"),
            {f"{node}.log": "1 = no-op, 2 = x, 3 = y" for node in "abc"},
        ),
    ),
)

TWO_CANDIDATES = Lesson(
    "two-candidates",
    "A log: two candidates at once",
    "Pre-votes do not exclude that two nodes campaign at the same time. Of two ballots the higher one wins.",
    "replica",
    (
        Step(
            "Here are five nodes, so 3 are a quorum. The waits of a and d are over in the same moment, and both ask.",
            "Eight pre-votes are under way.",
            Election._keep_asking,
            ("timer a", "timer d"),
            {"a.role": "pre-candidate", "d.role": "pre-candidate", "quorum": "3", "under way PreVote": "8"},
        ),
        Step(
            "Both are granted their pre-votes, for these promise nothing. So both start a ballot: 1.a and 1.d.",
            "Two candidates.",
            Election.observe_pre_vote_granted,
            ("deliver *->* PreVote", "deliver *->a PreVoteGranted", "deliver *->d PreVoteGranted"),
            {"a.role": "candidate", "d.role": "candidate", "a.promised": "1.a", "d.promised": "1.d"},
        ),
        Step(
            "b and c hear of 1.a first, and promise it. With its own promise a would have a quorum; but the"
            " answers are slow.",
            "b and c have promised 1.a.",
            Replica._receive_prepare,
            ("deliver a->b PrepareLog", "deliver a->c PrepareLog"),
            {"b.promised": "1.a", "c.promised": "1.a", "a.promised": "1.a"},
            at="self.election.observe_candidate",
        ),
        Step(
            "Then all hear of 1.d, which is above 1.a: equal rounds, and d comes after a. All promise it, a as well.",
            "A promise of a lower ballot does not keep a node from promising a higher one.",
            Log.promise,
            ("deliver d->* PrepareLog",),
            {**{f"{node}.promised": "1.d" for node in "abcde"}, "a.role": "follower", "under way PrepareLog 1.a": "2"},
        ),
        Step(
            "The promises arrive at d. It leads, and proposes its first entry.",
            "d leads with 1.d.",
            Election.observe_promise,
            ("deliver *->d PromiseLog",),
            {"d.role": "leader", "d.promised": "1.d", "d.accepted": "1 = no-op in 1.d"},
        ),
        Step(
            "The late promises of 1.a arrive at a. It does not campaign any more: it has promised 1.d, and waits"
            " for d. e hears of 1.a last, and refuses it.",
            "All follow d.",
            Replica._refuse,
            ("deliver a->e PrepareLog", "settle"),
            {"chosen 1": "no-op", "a.follows": "d", "e.follows": "d", "a.promised": "1.d"}
            | {"marks e": "refuses: Nack 1.a, promised 1.d; accepts 1 = no-op in 1.d; follows d"},
        ),
    ),
    count=5,
)

LESSONS = (FIRST_ELECTION, LEADER_CRASH, GAP, CATCHING_UP, TWO_CANDIDATES)
