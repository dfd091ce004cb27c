/**
 * The browser and Node client of `rtserver.v1`: it keeps an exact copy of each watched channel, proves it
 * (epoch, prev/seq, checksum), heals it (resync, resume by cursor, reconnect) and tells its listeners once
 * per block. It never guesses: a change that does not fit the copy is not applied, it asks for a new one.
 *
 * One ES module without dependencies; types are in rtserver-client.d.ts. Three parts, top to bottom: canonical
 * JSON and checksums, `Replica` (the copy of one channel, no I/O), `Client` (socket, timers, subscriptions).
 */

export const PROTOCOL = "rtserver.v1";

// Reconnects: full jitter between these, so that a restarted server is not met by everyone at once; the longest delay
// is a share of what was waited already, so that a short absence stays short.
const RECONNECT_MIN_MS = 500;
const RECONNECT_FIRST_MS = 1_000;
const RECONNECT_MAX_MS = 20_000;
const RECONNECT_SHARE = 0.5;
// A connection that lasted this long was a good one: the next drop starts at the short delays again.
const STABLE_MS = 10_000;
const CONNECT_TIMEOUT_MS = 10_000; // socket opened and welcome read
const ANSWER_TIMEOUT_MS = 20_000; // a subscribe or resync answered; the server's own load limit is shorter
const TICK_MS = 1_000;
// Changes that may arrive while a snapshot is on its way. The server's ring holds as many; one more is a gap.
const MAX_HELD = 256;
// The server takes 10 messages a second with a burst of 20; staying below leaves room for pongs.
const SEND_BURST = 16;
const SEND_PER_SECOND = 8;
// Without a known block time a head older than this is stale; afterwards four block times, within bounds.
const STALE_DEFAULT_MS = 20_000;
const STALE_BOUNDS_MS = [10_000, 120_000];
const TRANSIENT_ERRORS = new Set(["rate", "chain_unavailable", "load_timeout", "unrecoverable", "token_expired"]);

const OPEN = 1; // WebSocket.OPEN, which injected classes need not define

// ---------------------------------------------------------------- canonical JSON and checksums

/** Order by Unicode code point, as UTF-8 bytes order; JavaScript's own order is by UTF-16 unit. */
function byCodePoint(a, b) {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i += 1) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    // A surrogate stands for a code point above U+FFFF, hence after U+E000–U+FFFF too.
    const xAstral = (x & 0xf800) === 0xd800;
    const yAstral = (y & 0xf800) === 0xd800;
    return xAstral === yAstral ? x - y : xAstral ? 1 : -1;
  }
  return a.length - b.length;
}

/** JSON with keys sorted at every level, no spaces and non-ASCII as is: byte for byte the server's. */
export function canonicalJson(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const fields = Object.keys(value).sort(byCodePoint);
  return `{${fields.map((name) => `${JSON.stringify(name)}:${canonicalJson(value[name])}`).join(",")}}`;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit += 1) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  return c;
});
const utf8 = new TextEncoder();

/** zlib's CRC-32 of some bytes, unsigned. */
export function crc32(bytes) {
  let c = 0xffffffff;
  for (let i = 0; i < bytes.length; i += 1) c = CRC_TABLE[(c ^ bytes[i]) & 0xff] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/** What one key adds to its channel's checksum: CRC-32 of the key followed by the object's canonical JSON. */
export const entryChecksum = (key, object) => crc32(utf8.encode(key + canonicalJson(object)));

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** RFC 7396 merge into a new object. Through a Map, so that a field named `__proto__` is a field like any other. */
export function mergePatch(target, patch) {
  const merged = new Map(isObject(target) ? Object.entries(target) : []);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) merged.delete(name);
    else merged.set(name, isObject(value) ? mergePatch(merged.get(name), value) : value);
  }
  return Object.fromEntries(merged);
}

const INTEGER_FIELDS = ["tokenId", "liquidity", "amount0", "amount1", "fees0", "fees1", "collectable0", "collectable1"];

/** The typed view of a position object: raw integers become BigInt; null stays null, as unknown is not zero. */
export function toPosition(raw) {
  const position = { ...raw };
  for (const name of INTEGER_FIELDS) {
    const value = raw[name];
    const exact = (typeof value === "string" && /^-?\d+$/.test(value)) || Number.isSafeInteger(value);
    position[name] = exact ? BigInt(value) : null;
  }
  return position;
}

// ---------------------------------------------------------------- the copy of one channel

/** An outcome is `{changed, removed}`, or `{resync: reason}`, or null for "nothing to tell (yet)". */
class Replica {
  state = new Map();
  epoch = null;
  seq = -1;
  cursor = undefined;
  block = null;
  #sums = new Map(); // key → checksum of the object in `state`; absent while not computed since its last change
  #parts = null;

  #total(state, known) {
    let total = 0;
    for (const [key, object] of state) {
      let sum = known.get(key);
      if (sum === undefined) known.set(key, (sum = entryChecksum(key, object)));
      total = (total + sum) >>> 0;
    }
    return total;
  }

  /** Whether the copy is what the server has at its seq. */
  matches(checksum) {
    return this.#total(this.state, this.#sums) === checksum;
  }

  /** A connection ended: the parts that are still missing will not come. */
  forgetParts() {
    this.#parts = null;
  }

  takeSnapshot(message) {
    const { epoch, seq, part, parts = 1 } = message;
    if (this.#parts === null || this.#parts.epoch !== epoch || this.#parts.seq !== seq) {
      this.#parts = { epoch, seq, seen: new Set(), entries: new Map(), checksum: undefined, cursor: undefined };
    }
    const pending = this.#parts;
    pending.seen.add(part ?? 0);
    pending.checksum = message.checksum ?? pending.checksum;
    pending.cursor = message.cursor ?? pending.cursor;
    for (const [key, object] of Object.entries(message.state ?? {})) pending.entries.set(key, object);
    if (pending.seen.size < parts) return null;
    this.#parts = null;

    const sums = new Map();
    if (pending.checksum !== undefined && this.#total(pending.entries, sums) !== pending.checksum) {
      return { resync: "checksum" };
    }
    const changed = [];
    for (const [key, object] of pending.entries) {
      const before = this.state.get(key);
      // Equal objects keep their identity, so listeners redraw what differs and nothing else.
      if (before !== undefined && canonicalJson(before) === canonicalJson(object)) pending.entries.set(key, before);
      else changed.push(key);
    }
    const removed = [...this.state.keys()].filter((key) => !pending.entries.has(key));
    this.state = pending.entries;
    this.#sums = sums;
    Object.assign(this, { epoch, seq, cursor: pending.cursor, block: message.block ?? null });
    return { changed, removed };
  }

  /** Applied wholly or not at all: the checksum, where there is one, is proved before anything is shown. */
  applyChange(change, block) {
    if (change.epoch !== this.epoch) return { resync: "epoch" };
    if (change.seq <= this.seq) return null; // covers what this copy already holds
    if (change.prev !== this.seq) return { resync: "gap" };
    const staged = new Map(Object.entries(change.set ?? {}));
    for (const [key, patch] of Object.entries(change.patch ?? {})) {
      const base = staged.get(key) ?? this.state.get(key);
      if (base === undefined) return { resync: "unknown_key" };
      staged.set(key, mergePatch(base, patch));
    }
    const removed = (change.remove ?? []).filter((key) => this.state.has(key));
    for (const key of change.remove ?? []) staged.delete(key);
    const changed = [...staged.keys()];

    const undo = [...removed, ...changed].map((key) => [key, this.state.get(key)]);
    const write = (key, object) => {
      if (object === undefined) this.state.delete(key);
      else this.state.set(key, object);
      this.#sums.delete(key);
    };
    for (const key of removed) write(key, undefined);
    for (const [key, object] of staged) write(key, object);
    if (typeof change.checksum === "number" && this.#total(this.state, this.#sums) !== change.checksum) {
      for (const [key, object] of undo) write(key, object);
      return { resync: "checksum" };
    }
    Object.assign(this, { seq: change.seq, cursor: change.cursor ?? this.cursor, block: block ?? this.block });
    return { changed, removed };
  }
}

// ---------------------------------------------------------------- the client

/** An error reply or a refusal, with the protocol's code. */
export class RtserverError extends Error {
  constructor(code, message) {
    super(message || code);
    this.name = "RtserverError";
    this.code = code;
  }
}

const systemClock = {
  now: () => Date.now(),
  setTimeout: (run, ms) => setTimeout(run, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};
// Hex digits in any case name the same address, and the server answers in its own spelling.
const keyOf = (channel) => channel.toLowerCase();

class Client {
  #options;
  #clock;
  #socket = null;
  #session = null; // {id, heartbeatMs, welcomedAt} while welcomed
  #subscriptions = new Map(); // keyOf(channel) → {channel, replica, watchers, phase, held, …}
  #requests = new Map(); // id → subscription
  #nextId = 1;
  #heads = new Map(); // chainId → {number, hash, timestamp, ageMs, at, blockMs}
  #status = { state: "connecting", attempt: 0 };
  #listeners = { status: new Set(), head: new Set() };
  #timers = { tick: null, retry: null, connect: null, flush: null };
  #attempt = 0;
  #waitedMs = 0;
  #lastSeen = 0;
  #outbox = [];
  #tokens = SEND_BURST;
  #refilledAt = 0;
  #bye = null;
  #closed = false;
  #onOnline = () => this.#timers.retry !== null && this.#connect();

  constructor(options) {
    this.#options = { WebSocket: globalThis.WebSocket, random: Math.random, ...options };
    this.#clock = { ...systemClock, ...options.clock };
    if (typeof this.#options.WebSocket !== "function") throw new TypeError("no WebSocket here: pass one as options.WebSocket");
    globalThis.addEventListener?.("online", this.#onOnline);
    this.#connect();
    this.#tick();
  }

  get status() {
    return this.#status;
  }

  get chains() {
    return [...this.#heads.keys()].sort((a, b) => a - b);
  }

  head(chainId) {
    const head = this.#heads.get(Number(chainId));
    if (head === undefined) return null;
    const { number, hash, timestamp } = head;
    return { number, hash, timestamp, ageMs: head.ageMs + this.#clock.now() - head.at };
  }

  onStatus = (listener) => this.#listen("status", listener, this.#status);
  onHead = (listener) => this.#listen("head", listener);

  /** Watch one channel; several watchers share one subscription. Returns the function that ends this watch. */
  watch(channel, listener, { onError, mode } = {}) {
    const key = keyOf(channel);
    const watcher = { listener, onError };
    let subscription = this.#subscriptions.get(key);
    if (subscription === undefined) {
      subscription = { key, channel, mode, replica: new Replica(), watchers: new Set(), phase: "idle", held: [], heals: 0, due: 0 };
      this.#subscriptions.set(key, subscription);
      this.#subscribe(subscription);
    } else if (subscription.replica.epoch !== null) {
      const { state } = subscription.replica;
      // Asynchronously, so that a listener never runs before watch() has returned.
      queueMicrotask(() => subscription.watchers.has(watcher) && this.#tell([watcher], this.#update(subscription, { changed: [...state.keys()], removed: [] }, "snapshot")));
    }
    subscription.watchers.add(watcher);
    return () => {
      if (!subscription.watchers.delete(watcher) || subscription.watchers.size > 0) return;
      this.#subscriptions.delete(key);
      this.#requests.delete(subscription.requestId);
      const queued = this.#outbox.findIndex((m) => m.type === "subscribe" && m.channel === subscription.channel);
      if (queued >= 0) this.#outbox.splice(queued, 1);
      else if (subscription.phase !== "idle" && subscription.phase !== "failed") this.#send({ type: "unsubscribe", id: this.#nextId++, channel: subscription.channel });
    };
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    globalThis.removeEventListener?.("online", this.#onOnline);
    for (const name of Object.keys(this.#timers)) this.#cancel(name);
    this.#drop(1000, "closed");
    this.#setStatus({ state: "offline", final: true, reason: "closed" });
  }

  // ------------------------------------------------ connection

  #connect() {
    this.#cancel("retry");
    this.#bye = null;
    this.#setStatus({ state: "connecting", attempt: this.#attempt });
    const socket = new this.#options.WebSocket(this.#options.url);
    this.#socket = socket;
    socket.onmessage = (event) => this.#socket === socket && this.#receive(event.data);
    socket.onclose = (event) => this.#socket === socket && this.#lost(event.code, event.reason);
    socket.onerror = () => {}; // a close always follows, with the code
    this.#arm("connect", CONNECT_TIMEOUT_MS, () => {
      this.#drop(4000, "no welcome");
      this.#lost(1006, "no welcome in time");
    });
  }

  /** Let go of the socket at once: closing a dead one can take minutes to be reported. */
  #drop(code, reason) {
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onmessage = socket.onclose = null;
    socket.close(code, reason);
  }

  #lost(code, reason) {
    this.#socket = null;
    this.#cancel("connect");
    this.#cancel("flush");
    this.#outbox = [];
    this.#requests.clear();
    const now = this.#clock.now();
    if (this.#session !== null && now - this.#session.welcomedAt >= STABLE_MS) this.#attempt = this.#waitedMs = 0;
    this.#session = null;
    for (const subscription of this.#subscriptions.values()) {
      if (subscription.phase !== "failed") subscription.phase = "idle";
      subscription.held = [];
      subscription.replica.forgetParts();
    }
    const final = typeof this.#bye?.reconnect === "boolean" ? !this.#bye.reconnect : code >= 4500 && code <= 4999;
    const told = { code: this.#bye?.code ?? code, reason: reason || undefined };
    if (final) {
      this.#cancel("tick");
      this.#setStatus({ state: "offline", final: true, ...told });
      return;
    }
    const ceiling = Math.min(RECONNECT_MAX_MS, Math.max(RECONNECT_FIRST_MS, RECONNECT_SHARE * this.#waitedMs));
    const jitter = RECONNECT_MIN_MS + this.#options.random() * (ceiling - RECONNECT_MIN_MS);
    // A server that is going away has spread its clients' return itself; being sent away twice adds our own wait.
    const asked = Number.isFinite(this.#bye?.afterMs) ? this.#bye.afterMs : null;
    const delay = asked === null ? jitter : this.#attempt === 0 ? asked : Math.max(asked, jitter);
    this.#attempt += 1;
    this.#waitedMs += delay;
    this.#setStatus({ state: "offline", final: false, attempt: this.#attempt, retryAt: now + delay, ...told });
    this.#arm("retry", delay, () => this.#connect());
  }

  #receive(data) {
    this.#lastSeen = this.#clock.now();
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      this.#drop(4000, "bad frame");
      this.#lost(1007, "the server sent something that is not JSON");
      return;
    }
    const handle = this.#handlers[message?.type];
    if (handle !== undefined) handle(message); // later versions may add messages
  }

  #handlers = {
    __proto__: null,
    welcome: (m) => this.#welcome(m),
    snapshot: (m) => this.#snapshot(m),
    subscribed: (m) => this.#subscribed(m),
    block: (m) => this.#block(m),
    heartbeat: (m) => this.#heartbeat(m),
    error: (m) => this.#error(m),
    bye: (m) => {
      this.#bye = m;
      this.#drop(1000, "bye");
      this.#lost(m.code, m.message);
    },
  };

  #welcome(message) {
    this.#cancel("connect");
    const now = this.#clock.now();
    if (message.protocol !== undefined && message.protocol !== PROTOCOL) {
      this.#drop(1000, "protocol");
      this.#lost(4501, `the server speaks ${message.protocol}, this client ${PROTOCOL}`);
      return;
    }
    this.#session = { id: message.session, heartbeatMs: message.heartbeatMs ?? 15_000, welcomedAt: now, ready: false };
    const session = this.#session;
    this.#tokens = SEND_BURST;
    this.#refilledAt = now;
    this.#takeHeads(message.heads);
    this.#setStatus({ state: "live" });
    this.#authorize("auth").then(() => {
      session.ready = true; // from here on a new watch subscribes at once; before, it would overtake the token
      if (this.#session !== session) return;
      for (const subscription of this.#subscriptions.values()) this.#subscribe(subscription);
    });
  }

  async #authorize(type) {
    const { token } = this.#options;
    if (token === undefined) return;
    const session = this.#session;
    try {
      const value = typeof token === "function" ? await token() : token;
      if (this.#session === session) this.#send({ type, token: value });
    } catch (error) {
      this.#report(error); // without a token the server answers `unauthorized`, which the watchers hear
    }
  }

  // ------------------------------------------------ subscriptions

  #request(subscription, message) {
    const id = this.#nextId++;
    this.#requests.delete(subscription.requestId);
    subscription.requestId = id;
    subscription.phase = "waiting";
    subscription.due = this.#clock.now() + ANSWER_TIMEOUT_MS;
    this.#requests.set(id, subscription);
    this.#send({ ...message, id, channel: subscription.channel });
  }

  #subscribe(subscription) {
    if (!this.#session?.ready || subscription.phase !== "idle") return;
    const { cursor } = subscription.replica;
    const { mode } = subscription;
    this.#request(subscription, { type: "subscribe", ...(cursor && { cursor }), ...(mode && { mode }) });
  }

  #resync(subscription, reason) {
    subscription.reason = reason;
    subscription.heals += 1;
    subscription.phase = "healing";
    subscription.due = this.#clock.now() + (subscription.heals === 1 ? 0 : Math.min(30_000, 500 * 2 ** subscription.heals));
    if (subscription.heals === 1) this.#heal(subscription);
  }

  #heal(subscription) {
    this.#request(subscription, { type: "resync", reason: subscription.reason });
  }

  #find(message) {
    const subscription = this.#requests.get(message.id) ?? this.#subscriptions.get(keyOf(message.channel ?? ""));
    return this.#subscriptions.get(subscription?.key) === subscription ? subscription : undefined;
  }

  #snapshot(message) {
    const subscription = this.#find(message);
    if (subscription === undefined) return;
    subscription.due = this.#clock.now() + ANSWER_TIMEOUT_MS; // each part is progress
    const outcome = subscription.replica.takeSnapshot(message);
    if (outcome === null) subscription.phase = "waiting";
    else if (outcome.resync !== undefined) this.#resync(subscription, outcome.resync);
    else this.#goLive(subscription, outcome, "snapshot");
  }

  #subscribed(message) {
    const subscription = this.#find(message);
    this.#requests.delete(message.id);
    if (subscription === undefined || message.how !== "resumed") return;
    if (message.id !== subscription.requestId) return; // of a copy that is not kept any more, or asked for again since
    const { replica } = subscription;
    if (replica.epoch !== message.epoch || replica.seq > message.seq) this.#resync(subscription, "epoch");
    else this.#goLive(subscription, { changed: [], removed: [] }, "resumed");
  }

  /** The copy is whole: add what arrived meanwhile, then tell once. */
  #goLive(subscription, outcome, cause) {
    const { replica, held } = subscription;
    this.#requests.delete(subscription.requestId);
    const changed = new Set(outcome.changed);
    const removed = new Set(outcome.removed);
    subscription.phase = "live";
    subscription.held = [];
    let rollback;
    for (const { change, frame } of held) {
      if (change.epoch !== replica.epoch) continue; // sent before this snapshot, which replaced it
      const next = replica.applyChange(change, frame.block);
      if (next === null) continue;
      if (next.resync !== undefined) {
        this.#resync(subscription, next.resync);
        break;
      }
      rollback = frame.rollback ?? rollback;
      for (const key of next.changed) changed.add(key) && removed.delete(key);
      for (const key of next.removed) removed.add(key) && changed.delete(key);
    }
    this.#tell(subscription.watchers, this.#update(subscription, { changed: [...changed], removed: [...removed] }, cause, rollback));
  }

  #block(frame) {
    const told = [];
    for (const change of frame.changes ?? []) {
      const subscription = this.#find(change);
      if (subscription === undefined) continue;
      if (subscription.phase !== "live") {
        subscription.held.push({ change, frame });
        if (subscription.held.length > MAX_HELD) subscription.held.shift();
        continue;
      }
      const outcome = subscription.replica.applyChange(change, frame.block);
      if (outcome?.resync !== undefined) this.#resync(subscription, outcome.resync);
      else if (outcome !== null) {
        if (typeof change.checksum === "number") subscription.heals = 0; // proved whole again
        told.push([subscription, this.#update(subscription, outcome, "change", frame.rollback)]);
      }
    }
    this.#takeHead(frame.chainId, { ...frame.block, ageMs: 0 });
    // Everything of the block is in place before anyone hears of it: no listener sees half a block.
    for (const [subscription, update] of told) this.#tell(subscription.watchers, update);
  }

  #update({ channel, replica }, { changed, removed }, cause, rollback) {
    return { channel, state: replica.state, changed, removed, block: replica.block, seq: replica.seq, cause, rollback };
  }

  #heartbeat(message) {
    this.#send({ type: "pong" }, true);
    this.#takeHeads(message.heads);
    for (const [channel, seq] of Object.entries(message.seqs ?? {})) {
      const subscription = this.#subscriptions.get(keyOf(channel));
      if (subscription?.phase !== "live") continue;
      const { replica } = subscription;
      const checksum = message.checksums?.[channel];
      if (seq > replica.seq) this.#resync(subscription, "missed");
      else if (seq === replica.seq && typeof checksum === "number" && !replica.matches(checksum)) {
        this.#resync(subscription, "checksum");
      }
    }
  }

  #error(message) {
    const subscription = this.#requests.get(message.id);
    this.#requests.delete(message.id);
    const error = new RtserverError(message.code, message.message);
    if (message.code === "token_expired") this.#authorize("refresh");
    if (subscription === undefined) {
      if (message.id == null && message.code !== "token_expired") this.#report(error);
      return;
    }
    if (this.#subscriptions.get(subscription.key) !== subscription) return;
    if (TRANSIENT_ERRORS.has(message.code) || message.retryAfterMs != null) {
      if (message.code === "unrecoverable") subscription.replica.cursor = undefined;
      subscription.heals += 1;
      subscription.phase = "refused";
      subscription.due = this.#clock.now() + (message.retryAfterMs ?? Math.min(30_000, 500 * 2 ** subscription.heals));
    } else subscription.phase = "failed";
    for (const { onError } of [...subscription.watchers]) this.#guard(onError ?? ((e) => this.#report(e)), error);
  }

  // ------------------------------------------------ heads, time, sending

  #takeHeads(heads) {
    for (const [chainId, head] of Object.entries(heads ?? {})) this.#takeHead(chainId, head);
  }

  #takeHead(chainId, head) {
    const id = Number(chainId);
    if (!Number.isSafeInteger(id) || !Number.isSafeInteger(head?.number)) return;
    const before = this.#heads.get(id);
    const known = this.head(id);
    const at = this.#clock.now();
    const same = before?.hash === head.hash;
    // Heard again, a head never gets younger: blocks come with age 0, heartbeats with the server's figure.
    const ageMs = same ? Math.max(known.ageMs, head.ageMs ?? 0) : (head.ageMs ?? 0);
    const timestamp = head.timestamp ?? (same ? before.timestamp : null);
    let blockMs = before?.blockMs ?? null;
    if (before?.timestamp && timestamp && head.number > before.number) {
      const sample = ((timestamp - before.timestamp) * 1000) / (head.number - before.number);
      blockMs = blockMs === null ? sample : blockMs * 0.8 + sample * 0.2;
    }
    this.#heads.set(id, { number: head.number, hash: head.hash, timestamp, ageMs, at, blockMs });
    if (!same) {
      if (this.#status.state === "stale") this.#judge();
      this.#emit("head", { chainId: id, ...this.head(id) });
    }
  }

  /** Live or stale: an old head means a stalled chain, a silent socket means we can't know. */
  #judge() {
    if (this.#session === null) return;
    const silentMs = this.#clock.now() - this.#lastSeen;
    if (silentMs > 1.5 * this.#session.heartbeatMs) return this.#setStatus({ state: "stale", reason: "socket", silentMs });
    let worst = null;
    for (const [chainId, { blockMs }] of this.#heads) {
      const { ageMs } = this.head(chainId);
      const adaptive = blockMs === null ? STALE_DEFAULT_MS : Math.min(STALE_BOUNDS_MS[1], Math.max(STALE_BOUNDS_MS[0], 4 * blockMs));
      const limit = this.#options.staleAfterMs ?? adaptive;
      if (ageMs > limit && (worst === null || ageMs > worst.headAgeMs)) worst = { chainId, headAgeMs: ageMs };
    }
    if (worst !== null) this.#setStatus({ state: "stale", reason: "chain", ...worst });
    else if (this.#status.state !== "live") this.#setStatus({ state: "live" });
    return undefined;
  }

  #tick() {
    this.#arm("tick", TICK_MS, () => this.#tick());
    if (this.#session === null) return;
    const now = this.#clock.now();
    if (now - this.#lastSeen > 2.5 * this.#session.heartbeatMs) {
      this.#drop(4000, "silent");
      this.#lost(1006, "nothing heard for too long");
      return;
    }
    for (const subscription of this.#subscriptions.values()) {
      if (now < subscription.due) continue;
      if (subscription.phase === "healing") this.#heal(subscription);
      else if (subscription.phase === "refused" || subscription.phase === "waiting") {
        subscription.phase = "idle";
        this.#subscribe(subscription);
      }
    }
    this.#judge();
  }

  #send(message, urgent = false) {
    if (this.#session === null || this.#socket?.readyState !== OPEN) return; // subscriptions are sent anew on welcome
    if (urgent) this.#outbox.unshift(message);
    else this.#outbox.push(message);
    this.#flush(urgent);
  }

  #flush(force = false) {
    const now = this.#clock.now();
    this.#tokens = Math.min(SEND_BURST, this.#tokens + ((now - this.#refilledAt) * SEND_PER_SECOND) / 1000);
    this.#refilledAt = now;
    while (this.#outbox.length > 0 && (force || this.#tokens >= 1)) {
      force = false;
      this.#tokens -= 1;
      this.#socket.send(JSON.stringify(this.#outbox.shift()));
    }
    if (this.#outbox.length > 0 && this.#timers.flush === null) this.#arm("flush", 1000 / SEND_PER_SECOND, () => this.#flush());
  }

  #arm(name, ms, run) {
    this.#cancel(name);
    this.#timers[name] = this.#clock.setTimeout(() => {
      this.#timers[name] = null;
      run();
    }, ms);
  }

  #cancel(name) {
    if (this.#timers[name] !== null) this.#clock.clearTimeout(this.#timers[name]);
    this.#timers[name] = null;
  }

  // ------------------------------------------------ telling

  #setStatus(status) {
    this.#status = Object.freeze(status);
    this.#emit("status", this.#status);
  }

  #listen(kind, listener, current) {
    this.#listeners[kind].add(listener);
    if (current !== undefined) queueMicrotask(() => this.#listeners[kind].has(listener) && this.#guard(listener, this.#status));
    return () => this.#listeners[kind].delete(listener);
  }

  #emit(kind, value) {
    for (const listener of [...this.#listeners[kind]]) this.#guard(listener, value);
  }

  #tell(watchers, update) {
    for (const { listener } of [...watchers]) this.#guard(listener, update);
  }

  /** One listener's failure is reported and stays its own. */
  #guard(listener, value) {
    try {
      listener(value);
    } catch (error) {
      this.#report(error);
    }
  }

  #report(error) {
    if (this.#options.onError) this.#options.onError(error);
    else console.error("rtserver-client:", error);
  }
}

/** Connect to a server's `/ws` and stay connected until `close()`. */
export const createClient = (options) => new Client(options);

/**
 * Watch all positions of an owner, staked ones too. `onChange` hears the whole first state, then once per block
 * that changed something. Returns `unwatch`.
 */
export function watchPositions({ owner, chainId, client, onError, ...options }, onChange) {
  if (!/^0x[0-9a-fA-F]{40}$/.test(owner)) throw new TypeError(`not an address: ${owner}`);
  const own = client ?? createClient({ ...options, ...(onError && { onError }) });
  const positions = new Map();
  let stopWatching = null;
  let stopWaiting = null;
  const listener = ({ state, changed, removed, block, rollback, cause }) => {
    for (const key of removed) positions.delete(key);
    for (const key of changed) positions.set(key, toPosition(state.get(key)));
    onChange({ positions, block, changedKeys: changed, removedKeys: removed, rollback, cause });
  };
  const start = () => {
    if (stopWatching !== null) return;
    const chain = chainId ?? (own.chains.length === 1 ? own.chains[0] : undefined);
    if (chain !== undefined) {
      stopWaiting?.();
      stopWatching = own.watch(`owner:${chain}:${owner}`, listener, { onError });
    } else if (own.chains.length > 1) {
      stopWaiting?.();
      stopWatching = () => {};
      (onError ?? console.error)(new RtserverError("bad_request", `chainId is needed, this server follows ${own.chains.join(", ")}`));
    }
  };
  // Which chains there are is known from the welcome; a server without any head yet tells in a later heartbeat.
  // Not before the status is live: heads arrive one at a time, and one of two would look like the only one.
  const offStatus = chainId === undefined ? own.onStatus(({ state }) => state === "live" && start()) : () => {};
  const offHead = chainId === undefined ? own.onHead(() => own.status.state === "live" && start()) : () => {};
  stopWaiting = () => (offStatus(), offHead());
  if (chainId !== undefined || own.status.state === "live") start();
  return () => {
    stopWaiting();
    stopWatching?.();
    stopWatching = () => {};
    if (client === undefined) own.close();
  };
}
