"""What joins computing and delivering where they are separate processes. This page is the argument for it.

One process does everything by default, and nothing of this is in its way: the engine hands its steps to the hub. With
`--role engine` and `--role gateway` the same steps cross Redis. A client can't tell which of the two it is served by.

**What crosses is a step**: one block of one chain, with the fragment of every channel that it changed. The engine's
streams mint epoch and seq and encode each change once (hub.ledger); gateways write those very bytes into their
clients' frames, and parse them only to keep the state that snapshots and merged changes are made from (hub.mirror). So
a cursor means the same on every gateway, and a checksum in a change is the engine's: it proves the whole way.

**Publishing is one Lua call a block** (scripts.PUBLISH). It checks the writer, appends each fragment to its channel's
history, puts new snapshots in place, counts the step, and notifies: all of it or nothing. All keys of a chain have one
hash tag. History is a stream per channel whose entry ids are the seqs, and is as long as the engine's own ring (256
entries or 120 s), so whoever joins gets the ring with the state. Snapshots are not rewritten with each change: a new
one goes along every 64th, or when the ring has left the last one behind; state = snapshot + what comes after it.

**One writer.** The lease is a key with an expiry; whoever takes it gets a token that begins with a generation that only
grows (and not below Redis' own clock, so also over a Redis that was emptied) and ends with its holder. The token stays
in a key without expiry, and every write compares: an engine that slept through its lease and wakes up is refused by
the script itself, whatever it believes. A lease that ran out is its holder's for a second more: it runs out as well
where Redis itself was away, and a new run costs every client a snapshot. The token is also the name of the *run*: steps
are counted within it. If Redis holds another count than the writer (restored, failed over, emptied), the writer is
refused as well and begins a new run. A write whose answer was lost is sent again: the count tells whether it had been
taken.

**A new run is a new epoch for every channel.** It begins with all snapshots, in calls of a bounded size, and is
*complete* with the last of them. This is the one way for a takeover, an empty Redis, lost writes, and an engine whose
queue overflowed while Redis was away. A standby follows the chain and the wishes like the engine in charge and only
doesn't write, so that it has it all when it takes the lease; an engine that is still loading leaves the lease to one
that is not, for a while.

**A gateway applies step n + 1 of the run that it is in, and nothing else** (hub.relay). Whatever else it hears (a gap,
another run, a channel begun anew, silence, a new connection) means *healing*: steps are kept (bounded), everything it
holds is read in one script, as of one step, as the entries that it lacks or as a whole, and the kept steps follow.
Until then clients are served the old state under the old block, with its age: nothing is ever told under a block that
it is not of. Joining is the same for one channel: wish, read, replay what was heard meanwhile, open at the gateway's
own step. Whoever was behind gets one merged change with a checksum, or a snapshot, as any client that lagged.

**Interest** is a set of channels per gateway, with an expiry, renewed, and changed in batches; and a count per channel,
kept by the same scripts. What is wished for and not there is announced to the engine at once; every few seconds it
reads on in a list of the channels that somebody began to wish for, or nobody wishes for any more: one call for however
many gateways, and all counts where the list no longer reaches back. Whoever looks takes back what gateways wished for
whose time is over. A channel that nobody wants is closed by a script that looks at the counts itself, so it can't race
with a gateway that just came. A gateway adds to its set before it reads:
it finds the channel, or it will be told when it is there. A gateway whose set expired (it slept) treats all that it
holds as unproven and heals. So does one whose line broke or that hears of another run: it enters none before its
wishes were found there, all of them (a version says so). Else an emptied Redis, or a replica that took over, would have
channels closed under it, and it would go on showing their last state under newer blocks. And for a while after such a
thing an engine closes nothing.

**Shards.** Several engines can share a chain: shard i of n has the channels whose names say so (domain.shards), and its
own keys, lease, run and wishes, so all of the above is true of each by itself. A gateway has a relay for each, and
every state is told under its own shard's block (hub.heads). Gateways read n from the chain's description; engines
compare it, at the start and every few seconds, and end where someone leads by another number.

**On a Cluster** the keys of a shard have one hash tag, so a script is still one piece, and notifications are sharded:
they go to the node with the slot, which is where a listener subscribes; when the slot leaves it subscribes anew. Before
that it asks the node itself, which has a second to answer; then it asks another one. The node that failed last is the
last to be asked: whoever hangs is not waited for twice (redis_nodes.py). While keys move, a script looks first whether
all that it needs is on its node, and else does nothing (scripts.py). A replica that takes over may lack the last steps.
The engine finds that at its next beat, as its step is not there any more, and begins a new run; until then a gateway
that has told those steps takes nothing older from the new master.

**While Redis is away** gateways serve what they hold, and its age; joins of what is not open end in `load_timeout`. The
engine follows the chain and queues its steps, up to a bound; then it forgets them, and begins a new run later.

**Beside the steps** a gateway asks for what no channel holds (`asks`): what positions earned moves with time alone, and
few look at it. An answer is of one block and one run, in Redis for all gateways, written under the token like a step.
And gateways count there what an address may do (`rates`), each after its own account: that is all there is while Redis
is away, and what refuses a flood without asking.
"""
