"""Lessons on one decree, from the paper to elections."""

from __future__ import annotations

from txpaxos.core import essential, functional, practical
from txpaxos.core.election import Election
from txpaxos.play.lessons import Lesson, Step

ALL_GOES_WELL = Lesson(
    "one-decree",
    "One decree: all goes well",
    "A proposer asks for promises, then for votes, and a learner counts them.",
    "essential",
    (
        Step(
            "Here are two proposers, p and q, three acceptors, a, b and c, and a learner, l. Any 2 acceptors are"
            " a quorum, and any two quorums share an acceptor. All of Paxos rests on that.",
            "Each column is a node. Time will run down from here.",
            essential.quorum_size,
            expects={"quorum": "2", "under way": "0", "a.promised": "none"},
        ),
        Step(
            "A user wants red chosen, and offers it to p. Offer it: write red at p, and propose it.",
            "p holds the value. No message has left yet.",
            essential.Proposer.propose,
            ("propose red at p",),
            {"p.value": "red", "p.ballot": "none", "under way": "0"},
            by_user=True,
        ),
        Step(
            "Phase 1. p starts the ballot 1.p, round and name, which no other node ever uses. It asks all"
            " acceptors for a promise. Start a ballot at p.",
            "A Prepare is on its way to each acceptor. You decide when each arrives, or whether.",
            essential.Proposer.prepare,
            ("prepare p",),
            {"p.ballot": "1.p", "under way Prepare": "3"},
            by_user=True,
        ),
        Step(
            "Deliver the Prepare to a. It promises 1.p: from now on it accepts nothing in any lower ballot. Its"
            " answer tells what it has accepted so far, which is nothing.",
            "The promise is on the disk of a before the answer leaves.",
            essential.Acceptor.receive_prepare,
            ("deliver p->a Prepare",),
            {"a.promised": "1.p", "a.accepted": "nothing", "disk a.promised": "1.p", "under way Promise": "1"},
            by_user=True,
        ),
        Step(
            "b promises, too, and both promises arrive. They are a quorum, and neither reports a vote. So p is"
            " free to propose its own value, and asks all acceptors to vote for red.",
            "See what the argument says about 1.p. The third Prepare is still under way, and is not needed.",
            essential.Proposer.receive_promise,
            ("deliver p->b Prepare", "deliver *->p Promise"),
            {"p.promises": "a, b", "p.told of": "nothing", "under way Accept": "3", "under way Prepare": "1"},
            ("p is free in 1.p: a and b promised it, and reported no vote. It proposes red.",),
        ),
        Step(
            "Phase 2. a has promised no higher ballot, so it accepts red. One vote of 3 is no quorum yet.",
            "The vote is on the disk of a, and its message is under way to the learner.",
            essential.Acceptor.receive_accept,
            ("deliver p->a Accept",),
            {"a.accepted": "red in 1.p", "chosen": "none", "disk a.accepted": "red in 1.p"},
            ("a accepted red in 1.p: 1 of 3, which is no quorum.",),
        ),
        Step(
            "b accepts red as well. In this moment red is chosen, for ever, and no node knows it.",
            "The argument says so, since it sees all disks. The learner has heard nothing.",
            essential.Acceptor.receive_accept,
            ("deliver p->b Accept",),
            {"b.accepted": "red in 1.p", "chosen": "red", "l.learned": "unknown", "l.votes heard": "none"},
            ("a and b accepted red in 1.p: 2 of 3, a quorum. red is chosen.",),
        ),
        Step(
            "The votes arrive at the learner. It counts different acceptors in one ballot: with the second vote"
            " it knows.",
            "l has learned red.",
            essential.Learner.receive_accepted,
            ("deliver *->l Accepted",),
            {"l.votes heard": "1.p from a, b", "l.learned": "red"},
        ),
        Step(
            "The rest arrives late: a promise that is not needed, and a vote more. Nothing changes. Go on by"
            " yourself: have q propose another value, and see what becomes of it.",
            "c has voted, too.",
            essential.Proposer.receive_promise,
            ("settle",),
            {"c.accepted": "red in 1.p", "chosen": "red", "l.learned": "red", "under way": "0"},
        ),
    ),
)

A_CHOSEN_VALUE_SURVIVES = Lesson(
    "chosen-survives",
    "One decree: a chosen value survives",
    "A value is chosen, no node knows, and its proposer dies. The next proposer cannot choose another one.",
    "essential",
    (
        Step(
            "p has asked for promises and votes, and a and b have accepted red. So red is chosen. Then their"
            " messages to the learner are lost.",
            "The votes are on two disks. No node knows that they are a quorum.",
            essential.Acceptor.receive_accept,
            (
                "propose red at p",
                "prepare p",
                "deliver p->a Prepare",
                "deliver p->b Prepare",
                "deliver *->p Promise",
                "deliver p->a Accept",
                "deliver p->b Accept",
                "drop *->l Accepted",
            ),
            {"chosen": "red", "l.learned": "unknown", "a.accepted": "red in 1.p", "b.accepted": "red in 1.p"},
            ("a and b accepted red in 1.p: 2 of 3, a quorum. red is chosen.",),
        ),
        Step(
            "Crash p. It forgets its value. Only the ballot it used last is on its disk.",
            "Its messages that are under way stay under way.",
            essential.Proposer.prepare,
            ("crash p",),
            {"p": "down", "disk p.ballot": "1.p", "disk p.value": "none"},
            by_user=True,
        ),
        Step(
            "Now q comes, wants blue, and starts the ballot 1.q. It is above 1.p: equal rounds, and q comes after p.",
            "q does not know of red.",
            essential.Proposer.prepare,
            ("propose blue at q", "prepare q"),
            {"q.value": "blue", "q.ballot": "1.q", "b.promised": "1.p"},
        ),
        Step(
            "Its Prepare reaches b and c. Both promise 1.q. b tells that it accepted red in 1.p, and c has"
            " nothing to tell.",
            "Two promises are under way to q.",
            essential.Acceptor.receive_prepare,
            ("deliver q->b Prepare", "deliver q->c Prepare"),
            {"b.promised": "1.q", "c.promised": "1.q", "under way Promise": "2", "b.accepted": "red in 1.p"},
        ),
        Step(
            "The promises arrive at q. A quorum has promised, so it may ask for votes, but not for blue: it has"
            " been told of red. Whether red is chosen, q does not know, and need not know. Perhaps is enough.",
            "b is the acceptor in both quorums. It is the reason why no proposer can miss a chosen value.",
            essential.Proposer.receive_promise,
            ("deliver *->q Promise",),
            {"q.promises": "b, c", "q.told of": "red in 1.p", "q.value": "red"},
            (
                "q must propose red in 1.q: b reported red in 1.p.",
                "b is in both quorums: that of the votes in 1.p, and that of the promises of 1.q.",
            ),
            at="accepted = promise.accepted",
        ),
        Step(
            "b and c accept red in 1.q, and the learner hears of it.",
            "l has learned red, from q's ballot.",
            essential.Learner.receive_accepted,
            ("deliver q->b Accept", "deliver q->c Accept", "deliver *->l Accepted"),
            {"l.votes heard": "1.q from b, c", "l.learned": "red", "chosen": "red"},
            ("b and c accepted red in 1.q: 2 of 3, a quorum. red is chosen.",),
        ),
        Step(
            "The Accept of p arrives at c, late. c has promised 1.q, which is above 1.p: it says nothing.",
            "c keeps its vote of the higher ballot.",
            essential.Acceptor.receive_accept,
            ("deliver p->c Accept",),
            {"c.promised": "1.q", "c.accepted": "red in 1.q", "marks c": "", "p": "down", "disk p.ballot": "1.p"},
        ),
    ),
)

VOTES_OF_TWO_BALLOTS = Lesson(
    "stale-vote",
    "One decree: votes of two ballots do not add up",
    "Two acceptors have accepted red, and red is not chosen. Votes are counted by ballot, never by value.",
    "essential",
    (
        Step(
            "p proposes red in 1.p, and only a accepts it. The other messages of p are lost.",
            "One vote is no quorum.",
            essential.Acceptor.receive_accept,
            (
                *("propose red at p", "prepare p", "deliver p->a Prepare", "deliver p->b Prepare"),
                *("deliver *->p Promise", "deliver p->a Accept", "drop p->b Accept", "drop p->c", "drop p->c"),
            ),
            {"a.accepted": "red in 1.p", "b.accepted": "nothing", "chosen": "none", "p.ballot": "1.p"},
        ),
        Step(
            "q asks b and c. Neither has accepted anything, so q is free, and proposes blue in 1.q. Only b accepts it.",
            "Two values have one vote each. That is no mistake: neither is chosen.",
            essential.Proposer.receive_promise,
            (
                *("propose blue at q", "prepare q", "deliver q->b Prepare", "deliver q->c Prepare"),
                *("deliver *->q Promise", "deliver q->b Accept", "drop q->c Accept", "drop q->a", "drop q->a"),
            ),
            {"b.accepted": "blue in 1.q", "q.ballot": "1.q", "chosen": "none"},
            ("q is free in 1.q: b and c promised it, and reported no vote. It proposes blue.",),
        ),
        Step(
            "p tries again with 2.p, and asks a and c. a reports red in 1.p, so p proposes red. Only c accepts it.",
            "The argument: p was bound to red by the report of a.",
            essential.Proposer.accept,
            (
                *("prepare p", "deliver p->a Prepare", "deliver p->c Prepare", "deliver *->p Promise"),
                *("deliver p->c Accept", "drop p->b Prepare", "drop p->a Accept", "drop p->b Accept"),
            ),
            {"p.ballot": "2.p", "p.told of": "red in 1.p", "c.accepted": "red in 2.p"},
            ("p must propose red in 2.p: a reported red in 1.p.",),
        ),
        Step(
            "Now a and c have both accepted red: two of three acceptors. But a did so in 1.p, and c in 2.p. In"
            " neither ballot is there a quorum, so red is not chosen. The learner hears both votes, and does not"
            " count them together.",
            "l keeps the votes apart.",
            essential.Learner.receive_accepted,
            ("deliver a->l Accepted", "deliver c->l Accepted"),
            {"l.votes heard": "1.p from a; 2.p from c", "l.learned": "unknown", "chosen": "none"},
            (
                "a accepted red in 1.p: 1 of 3, which is no quorum.",
                "c accepted red in 2.p: 1 of 3, which is no quorum.",
            ),
        ),
        Step(
            "Why must it be so? q goes on with 2.q, and asks a and b. They report red in 1.p and blue in 1.q. The"
            " higher ballot decides: q proposes blue.",
            "A learner that had counted by value would have said red a moment ago, and would hear blue next.",
            essential.Proposer.receive_promise,
            ("prepare q", "deliver q->a Prepare", "deliver q->b Prepare", "deliver *->q Promise"),
            {"q.ballot": "2.q", "q.told of": "blue in 1.q", "q.value": "blue", "a.accepted": "red in 1.p"},
            ("q must propose blue in 2.q: b reported blue in 1.q, the highest ballot reported.",),
            at="accepted = promise.accepted",
        ),
        Step(
            "a and b accept blue in 2.q. blue is chosen, and red never was.",
            "l learns blue.",
            essential.Learner.receive_accepted,
            ("deliver q->a Accept", "deliver q->b Accept", "deliver *->l Accepted", "settle"),
            {"chosen": "blue", "l.learned": "blue", "a.accepted": "blue in 2.q"},
            ("a, b and c accepted blue in 2.q: 3 of 3, a quorum. blue is chosen.",),
        ),
    ),
)

SAVE_BEFORE_SEND = Lesson(
    "save-first",
    "One decree: save before send",
    "A promise that was not on disk before it was told could be forgotten. So it is on disk first.",
    "practical",
    (
        Step(
            "From here on each node plays all three roles. Have the disk of b hang: what it must save has to wait.",
            "The head of b says so.",
            practical.Node._ready,
            ("hang b",),
            {"b.promised": "none", "under way": "0"},
            by_user=True,
        ),
        Step(
            "a is offered x, and starts 1.a. It promises its own ballot to itself; that is how the round comes"
            " onto its disk. Then its Prepare arrives at b, which promises in memory.",
            "No promise of b is under way. It waits for the disk.",
            practical.Node.prepare,
            ("propose x at a", "prepare a", "deliver a->b Prepare"),
            {"a.ballot": "1.a", "b.promised": "1.a", "disk b.promised": "none", "under way Promise": "0"},
        ),
        Step(
            "Crash b. What was in its memory is gone.",
            "Only what is on the disk of b is left, which is nothing.",
            practical.Acceptor.__init__,
            ("crash b",),
            {"b": "down", "disk b.promised": "none", "marks b": "loses what was not saved"},
            by_user=True,
        ),
        Step(
            "Restart b. It does not know of its promise any more. No harm is done, for no node was told of it.",
            "Had the promise left before the save, a would count on a promise that b does not keep.",
            practical.Node.__init__,
            ("restart b",),
            {"b": "up", "b.promised": "none", "a.promises": "a"},
            by_user=True,
        ),
        Step(
            "The disk works again, and a sends again what is unanswered. Now b promises 1.a, saves, and only then"
            " answers.",
            "The promise is on the disk, and its message under way.",
            practical.Proposer.resend,
            ("save b", "resend a", "deliver a->b Prepare"),
            {"b.promised": "1.a", "disk b.promised": "1.a", "under way Promise": "1"},
        ),
        Step(
            "Crash b once more, and restart it. It keeps its word: its promise of 1.a was saved before it was told.",
            "b has promised 1.a.",
            practical.Acceptor.__init__,
            ("crash b", "restart b"),
            {"b.promised": "1.a", "disk b.promised": "1.a"},
        ),
        Step(
            "All the rest arrives, and x is chosen.",
            "Every node has learned x.",
            practical.Node.receive,
            ("settle",),
            {"chosen": "x", "a.learned": "x", "b.learned": "x", "c.learned": "x"},
            at="case Accept():",
        ),
    ),
)

DUEL = Lesson(
    "duel",
    "One decree: two proposers duel",
    "Each raises its ballot above the other, and nothing is chosen: safe, and no progress.",
    "practical",
    (
        Step(
            "a is offered x, and b is offered y. a starts 1.a, which c promises.",
            "a has its quorum, itself and c, and asks for votes.",
            practical.Node.prepare,
            ("propose x at a", "propose y at b", "prepare a", "deliver a->c Prepare", "deliver c->a Promise"),
            {"a.promises": "a, c", "c.promised": "1.a", "a.accepted": "x in 1.a", "chosen": "none"},
        ),
        Step(
            "Before the Accept of a arrives at c, b starts 1.b, and c promises that. It is above 1.a.",
            "c has promised 1.b now.",
            practical.Acceptor.answer_prepare,
            ("prepare b", "deliver b->c Prepare"),
            {"b.ballot": "1.b", "c.promised": "1.b", "a.ballot": "1.a"},
        ),
        Step(
            "The Accept of a arrives at c: too late. c refuses it, and says what it has promised, so that a knows"
            " what to exceed.",
            "The refusal (Nack) is a courtesy. Paxos is safe without it.",
            practical.Acceptor.answer_accept,
            ("deliver a->c Accept",),
            {"marks c": "refuses: Nack 1.a, promised 1.b", "c.accepted": "nothing"},
        ),
        Step(
            "a hears the refusal, and starts 2.a. c promises it. By that the ballot of b has no chance any more.",
            "a has learned from the refusal which ballot to exceed.",
            practical.Proposer.prepare,
            ("deliver c->a Nack", "prepare a", "deliver a->c Prepare"),
            {"a.ballot": "2.a", "c.promised": "2.a"},
        ),
        Step(
            "b had its promise of c, asks for votes, and is refused in its turn. It starts 3.b, and c promises that.",
            "So it could go on for ever. No wrong value is chosen, but no right one either.",
            practical.Proposer.receive_nack,
            ("deliver c->b Promise", "deliver b->c Accept", "deliver c->b Nack", "prepare b", "deliver b->c Prepare"),
            {"b.ballot": "3.b", "c.promised": "3.b", "chosen": "none"},
        ),
        Step(
            "No algorithm can exclude that for certain without clocks. It ends as soon as one of the two waits:"
            " let a wait, and let b be quick. It is told of no vote in its quorum, and has y chosen. Then all the"
            " rest arrives.",
            "Every node learns the same value.",
            practical.Node.receive,
            ("deliver c->b Promise", "deliver b->c Accept", "settle"),
            {"chosen": "y", "a.learned": "y", "b.learned": "y", "c.learned": "y"},
            at="case Promise():",
        ),
    ),
)

LOST_LEADER = Lesson(
    "lost-leader",
    "One decree: the leader is lost",
    "One node is allowed to go first. When it dies, the others notice, elect another one, and it has to go on.",
    "functional",
    (
        Step(
            "All nodes wait, each for a random time. The time of b is over first. It asks the others for a pre-"
            "vote: do you hear no leader either?",
            "A pre-vote promises nothing. So a node that asks in vain has disturbed no other.",
            Election._liveness_window,
            ("time",),
            {"b.role": "pre-candidate", "a.role": "follower", "under way PreVote": "2", "b.promised": "none"},
        ),
        Step(
            "One of them grants it. With b itself that is a quorum, so b starts the ballot 1.b: phase 1, as before.",
            "b is a candidate, and its Prepare is under way.",
            functional.Node._start_campaign,
            ("deliver b->a PreVote", "deliver a->b PreVoteGranted"),
            {"b.role": "candidate", "b.ballot": "1.b", "under way Prepare": "2"},
        ),
        Step(
            "A quorum promises: b leads. It sends heartbeats, and the others follow it.",
            "Each heartbeat begins a new wait at its receiver.",
            Election.observe_promise,
            ("until b leads", "settle"),
            {"b.role": "leader", "a.follows": "b", "c.follows": "b"},
        ),
        Step(
            "Propose x at b. It has its promises already, so it asks for votes at once. a accepts, and then b"
            " crashes. All other messages are lost.",
            "a and b have accepted x. So x is chosen, and no node that runs knows it.",
            practical.Node.propose,
            (
                *("propose x at b", "deliver b->a Accept", "drop b->c Accept"),
                *("drop *->* Accepted", "crash b"),
            ),
            {"chosen": "x", "a.accepted": "x in 1.b", "c.accepted": "nothing", "a.learned": "unknown", "b": "down"},
            ("a and b accepted x in 1.b: 2 of 3, a quorum. x is chosen.",),
        ),
        Step(
            "No heartbeat comes any more. Time passes until the wait of some node is over, and it is elected: a,"
            " with 2.a.",
            "a was told by its own acceptor of x in 1.b. It must propose x.",
            Election.tick,
            ("until one leads",),
            {"a.role": "leader", "a.ballot": "2.a", "a.told of": "x in 1.b"},
            (
                "a must propose x in 2.a: a reported x in 1.b.",
                "a is in both quorums: that of the votes in 1.b, and that of the promises of 2.a.",
            ),
        ),
        Step(
            "c accepts x in 2.a, and both learn it. Restart b: it will be told, too.",
            "The leader answers a node that does not know the outcome with it.",
            functional.Node._receive_heartbeat_ack,
            ("settle", "restart b", "step 20"),
            {"a.learned": "x", "c.learned": "x", "b.learned": "x", "c.accepted": "x in 2.a"},
        ),
    ),
)

LESSONS = (ALL_GOES_WELL, A_CHOSEN_VALUE_SURVIVES, VOTES_OF_TWO_BALLOTS, SAVE_BEFORE_SEND, DUEL, LOST_LEADER)
