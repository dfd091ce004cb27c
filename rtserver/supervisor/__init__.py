"""`serve --gateways N`: one engine and N gateways as processes of this machine, on one port, over its Redis.

The supervisor computes and delivers nothing. It starts the others, each with its settings through a pipe, starts
again what ends or hangs, passes the end on, and answers operators for all of them.

- **The port.** Each gateway listens on it for itself (SO_REUSEPORT), and the kernel spreads new connections evenly over
  those that listen. A gateway that dies takes its own queue of connections with it and nobody else's; one that is not
  there gets none. The supervisor holds the port without listening, so that nobody else gets it between two lives.
- **Health.** On the clients' port any gateway may answer. So the supervisor has a port of its own (`ops.port`), which
  tells of each process by name, and has the metrics of all, each with the label `process`.
- **Life lines.** The pipe that settings came through stays open: a process whose supervisor is gone, for whatever
  reason, reads its end and stops in order. So no gateway is left behind that nobody looks after.
- **What ends is started again**, after a pause that grows while it keeps ending. Only one that ends before it ever
  served ends all: what is wrong with settings is to be told, not tried again.
"""
