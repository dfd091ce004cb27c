/**
 * What the client's tests stand on: a clock that moves only when told, a socket whose other end is the test, and
 * a `Channel` that keeps the true state of one channel and writes its frames with correct checksums.
 * It never looks into the client.
 */
import { createClient, entryChecksum, mergePatch } from "../../rtserver/web/static/rtserver-client.js";

export class ManualClock {
  #now = 1_700_000_000_000;
  #timers = new Map();
  #next = 1;
  now = () => this.#now;
  setTimeout = (run, ms) => {
    this.#timers.set(this.#next, { at: this.#now + ms, run });
    return this.#next++;
  };
  clearTimeout = (id) => this.#timers.delete(id);

  get pending() {
    return this.#timers.size;
  }

  /** Move on, running what falls due, in order; promises settle after each. */
  async advance(ms) {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, t]) => t.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (due === undefined) break;
      this.#timers.delete(due[0]);
      this.#now = Math.max(this.#now, due[1].at);
      due[1].run();
      await settle();
    }
    this.#now = end;
    await settle();
  }
}

/** Until every queued microtask has run. */
export const settle = () => new Promise((done) => setImmediate(done));

/** The network: collects the sockets that the client opens. */
export function network() {
  const sockets = [];
  class FakeWebSocket {
    readyState = 0;
    sent = [];
    onmessage = null;
    onclose = null;
    constructor(url) {
      this.url = url;
      sockets.push(this);
    }
    send(text) {
      if (this.readyState !== 1) throw new Error("not open");
      this.sent.push(JSON.parse(text));
    }
    close(code, reason) {
      this.closedWith = { code, reason };
      this.readyState = 3;
    }
    // The server's end:
    async says(...messages) {
      this.readyState = 1;
      for (const message of messages) this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
      await settle();
    }
    async drops(code = 1006, reason = "") {
      this.readyState = 3;
      this.onclose?.({ code, reason });
      await settle();
    }
    took(type) {
      return this.sent.filter((message) => message.type === type);
    }
  }
  return { sockets, FakeWebSocket, last: () => sockets.at(-1) };
}

export const block = (number, fork = "") => ({
  number,
  hash: `0x${fork}${number.toString(16)}`,
  parentHash: `0x${fork}${(number - 1).toString(16)}`,
  timestamp: 1_700_000_000 + number,
});

export const welcome = (more = {}) => ({
  type: "welcome", session: "s1", protocol: "rtserver.v1", limits: {}, heartbeatMs: 15_000,
  heads: { 31337: { ...block(10), ageMs: 0 } }, ...more,
});

export const OWNER = `0x${"Ab".repeat(20)}`;
export const OWNER_CHANNEL = `owner:31337:${OWNER.toLowerCase()}`;

/** The server's side of one channel. */
export class Channel {
  constructor(name, state, { epoch = "e1", seq = 1 } = {}) {
    Object.assign(this, { name, state: { ...state }, epoch, seq, at: block(10) });
  }
  get checksum() {
    return Object.entries(this.state).reduce((sum, [key, object]) => (sum + entryChecksum(key, object)) % 2 ** 32, 0);
  }
  get cursor() {
    return `${this.epoch}.${this.seq}.${this.at.hash}`;
  }
  snapshot(more = {}) {
    const { name: channel, state, epoch, seq, checksum, cursor } = this;
    return { type: "snapshot", channel, epoch, seq, block: this.at, state: structuredClone(state), checksum, cursor, part: 1, parts: 1, ...more };
  }
  /** One more block: changes the true state and returns the frame that says so. */
  frame({ set = {}, patch = {}, remove = [] }, { checked = false, at = block(this.at.number + 1), ...more } = {}) {
    for (const [key, object] of Object.entries(set)) this.state[key] = object;
    for (const [key, fields] of Object.entries(patch)) this.state[key] = mergePatch(this.state[key], fields);
    for (const key of remove) delete this.state[key];
    this.seq += 1;
    this.at = at;
    const change = { channel: this.name, epoch: this.epoch, prev: this.seq - 1, seq: this.seq, set, patch, remove, cursor: this.cursor };
    if (checked) change.checksum = this.checksum;
    return { type: "block", chainId: 31337, block: at, changes: [change], ...more };
  }
}

/** A connected client: welcomed, on a manual clock, with middling jitter. */
export async function connected(options = {}) {
  const clock = new ManualClock();
  const net = network();
  const errors = [];
  const client = createClient({
    url: "ws://rtserver.test/ws", WebSocket: net.FakeWebSocket, clock, random: () => 0.5, onError: (e) => errors.push(e), ...options,
  });
  const statuses = [];
  client.onStatus((status) => statuses.push(status));
  await settle();
  await net.last().says(welcome());
  return { client, clock, net, errors, statuses, socket: net.last() };
}

/** Watch a channel of a connected client and answer with its snapshot. */
export async function watching(channel, options = {}) {
  const world = await connected(options);
  const updates = [];
  const unwatch = world.client.watch(channel.name, (update) => updates.push({ ...update, copy: Object.fromEntries(update.state) }), options.watch);
  await settle();
  const [request] = world.socket.took("subscribe");
  await world.socket.says(
    channel.snapshot({ id: request.id }),
    { type: "subscribed", id: request.id, channel: channel.name, how: "snapshot", epoch: channel.epoch, seq: channel.seq, cursor: channel.cursor },
  );
  return { ...world, updates, unwatch, request };
}
