"""The past of each tracked position: records of what it was, taken between blocks and written beside them.

**What a record is.** A position's sample at a block, with the block's hash, and how many of the seconds since its
record before it was in range. Seconds are counted from every block's own `isActive`, not from records: so what is
sampled once a minute tells its time in range to the second.

**When.** At each change of liquidity, at that very block. Else once in `history.every_s` of the chain's time, and only
where something about the position changed; where nothing did, a quarter of an hour later at the latest, so that a
crash leaves no more than that uncovered. Positions take turns (`rounds`), and records are taken in small parts while
everything is settled: no block pays for all.

**On the way to the disk** (`backlog`, `writer`). A bounded queue, written in batches by a task of its own. When it is
full the oldest records of the usual pace go first, then those of changed liquidity; their seconds are then not covered,
which is what readers are told. Gaps are gaps, nothing is guessed.

**Blocks that leave the chain.** What waits for them is dropped at once, and the next batch first takes back what was
written of them. After a crash in between, or a reorganisation deeper than anyone remembers, the newest record whose
block is still on the chain is looked for, and all after it are deleted; until that is done nothing is read.

**Several engines.** Of those on one database the one in charge writes: its lease's token, which begins with a
generation, is what the chain is claimed by, and what is older is refused, whether it claims or writes. A standby takes
records as if it wrote, and holds the newest ready. When it takes over it proves what is there, looks where each
position ends, and writes what comes after that; a record that begins earlier is cut, so that seconds add up over both.
Engines that share a chain by shards write as if the others were not: each has a claim, a branch and records of its
own. A position may be with several, so whoever reads puts them together (`windows.merged`).

**Growing old.** Minutes are merged into hours and hours into days once they are old enough, and never before they
are final. A merged record holds the newest values and the sum of the seconds.
"""
