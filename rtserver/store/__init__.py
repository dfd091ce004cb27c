"""What outlives the process: one checkpoint of each chain, in SQL. This page is the argument for it.

(Beside the checkpoints are the records of positions' past, on which nothing here depends: `history` argues for them.)

**What is kept.** As of one block: the newest headers' hashes; the names of the open channels; of each book the
facts that no single call can read again (whose positions are whose, in which range, what principal is owed, what
each recent block touched). Not kept: prices, growth, liquidity, views. Those are read anew, so an old checkpoint
costs reads and never a wrong number.

**When.** Between two blocks, when all is settled and told, at most every `store.every_s`. Taking it is a walk over
what is tracked that collects what changed; writing it is one transaction, beside the blocks, through a slot of one.
While a write hangs or fails nothing queues up: the next checkpoint covers it. A file that a crash leaves behind
holds some earlier checkpoint whole.

**Going on** (engine.resuming). The newest kept block that is still canonical is A, the head of now is N. Logs of the
contracts in (A, N] are read; wishes are made; the books take their facts, undo the kept blocks above A by their
journal, fold the logs, and read everything at N. From there it is a chain as any other: what is first read at N is
undone with N, and the journal reaches back over the restart. Nothing is enumerated, unless an owner was first
looked at in a block that left the chain. Where A can't be found, or the logs can't be had, the wishes alone
are kept.

**Cursors.** A seq must never mean two things under one epoch. After a crash clients may hold steps that were never
kept: to go on under the old epochs each step would have to be on the disk before it is on the wire, with its
content. That is the wrong price for saving a snapshot: a block that moves everything is as large as the state, and
every block would wait for the disk. So:

- after a crash every stream begins a new epoch, and every client gets a snapshot;
- after an orderly end streams go on. The follower stops first, so nothing is published after what is kept; what
  is kept is each stream's newest place and its state. The next process reads the state of now and publishes the
  difference as one more change: whoever was listening until the end resumes. Streams are deleted in the very
  transaction that reads them, durably, before anyone is served: a crash afterwards can't bring them back. They
  are not used when a kept block has left the chain (clients could not be told what was lost), nor later than a
  ring lasts. Of the ring only the newest place is kept: whoever was away already when the process ended gets a
  snapshot.

**What can be wrong with the file**: not there, empty (a new store); broken or cut short, pages (moved aside) or a
digit (each fact has a checksum: not read, and replaced); of another deployment or format (not read); of a newer
version or another program (left alone, nothing is kept); locked (tried again with each checkpoint); deleted, full,
dead while running (tried again, more and more rarely). Each is a line in the log and a cold start at worst. Only a
place that was asked for by name and can't be written ends the process, before it serves anything. Two processes on
one chain: the later one takes it over in the transaction in which it reads; the earlier one's next write finds that
and is its last.

**Several engines** on one database, of which one is in charge: each reads at its start, and that one writes, under its
lease's token, which begins with a generation that only grows. The first write in a turn is whole; one of an earlier
turn than what is there is refused. So whoever slept through its turn can't spoil what its follower keeps, and a standby
that ends takes nothing with it.
"""
