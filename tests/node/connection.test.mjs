/** The connection: reconnect, resume, leave-taking, refusals, pacing, what status says. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { block, Channel, connected, OWNER_CHANNEL, settle, watching, welcome } from "./harness.mjs";

const owner = () => new Channel(OWNER_CHANNEL, { "uniswap-v3:17": { amount0: "5" } });

test("a drop is healed: reconnect, resume by cursor, then what was missed", async () => {
  const channel = owner();
  const { socket, net, clock, updates, statuses } = await watching(channel);
  const { cursor } = channel;
  await socket.drops();
  assert.equal(statuses.at(-1).state, "offline");
  assert.equal(statuses.at(-1).retryAt - clock.now(), 750); // halfway between 500 and 1000
  await clock.advance(749);
  assert.equal(net.sockets.length, 1);
  await clock.advance(1);
  assert.equal(statuses.at(-1).state, "connecting");
  const next = net.last();
  await next.says(welcome());
  const [request] = next.took("subscribe");
  assert.equal(request.cursor, cursor);
  const missed = channel.frame({ patch: { "uniswap-v3:17": { amount0: "6" } } }, { checked: true });
  await next.says({ type: "subscribed", id: request.id, channel: channel.name, how: "resumed", epoch: "e1", seq: 1, cursor }, missed);
  assert.equal(updates.at(-1).copy["uniswap-v3:17"].amount0, "6");
  assert.deepEqual(next.took("resync"), []);
  assert.equal(statuses.at(-1).state, "live");
});

test("missed changes may also come before `subscribed`", async () => {
  const channel = owner();
  const { socket, net, clock, updates } = await watching(channel);
  await socket.drops();
  await clock.advance(1_000);
  const next = net.last();
  await next.says(welcome());
  const missed = channel.frame({ patch: { "uniswap-v3:17": { amount0: "6" } } }, { checked: true });
  const { id } = next.took("subscribe")[0];
  await next.says(missed, { type: "subscribed", id, channel: channel.name, how: "resumed", epoch: "e1", seq: 2, cursor: channel.cursor });
  assert.equal(updates.length, 2);
  assert.deepEqual(updates[1].changed, ["uniswap-v3:17"]);
  assert.equal(updates[1].copy["uniswap-v3:17"].amount0, "6");
});

test("an answer to an earlier watch is not taken for a newer one's", async () => {
  const channel = owner();
  const { client, socket, net, clock, unwatch } = await watching(channel);
  await socket.drops();
  await clock.advance(1_000);
  const next = net.last();
  await next.says(welcome());
  const [resume] = next.took("subscribe");
  unwatch();
  const updates = [];
  client.watch(channel.name, (update) => updates.push(update));
  await settle();
  const again = next.took("subscribe").at(-1);
  assert.notEqual(again.id, resume.id);
  assert.equal(again.cursor, undefined);
  const joined = { type: "subscribed", channel: channel.name, epoch: channel.epoch, seq: channel.seq, cursor: channel.cursor };
  await next.says({ ...joined, id: resume.id, how: "resumed" });
  assert.deepEqual(updates, []);
  await next.says(channel.snapshot({ id: again.id }), { ...joined, id: again.id, how: "snapshot" });
  assert.deepEqual(updates.map((update) => update.cause), ["snapshot"]);
  assert.deepEqual(next.took("resync"), []);
});

test("a snapshot instead of a resume tells only what differs", async () => {
  const channel = new Channel(OWNER_CHANNEL, { a: { x: "1" }, b: { x: "2" }, c: { x: "3" } });
  const { socket, net, clock, updates } = await watching(channel);
  await socket.drops();
  await clock.advance(1_000);
  channel.frame({ patch: { b: { x: "9" } }, remove: ["c"] });
  channel.epoch = "e2";
  await net.last().says(welcome(), channel.snapshot());
  assert.deepEqual([updates[1].changed, updates[1].removed], [["b"], ["c"]]);
});

test("waits grow with the absence up to 20 s, with full jitter, and start over after a connection that held", async () => {
  for (const [random, expected] of [[0, [500, 500, 500]], [1, [1_000, 1_000, 1_000, 1_500, 2_250, 3_375, 5_062.5, 7_593.75, 11_390.625, 17_085.9375, 20_000, 20_000]]]) {
    const { net, clock, statuses } = await connected({ random: () => random });
    const waits = [];
    for (const _ of expected) {
      await net.last().drops();
      waits.push(statuses.at(-1).retryAt - clock.now());
      await clock.advance(waits.at(-1));
    }
    assert.deepEqual(waits, expected);
    await net.last().says(welcome());
    await clock.advance(10_000);
    await net.last().drops();
    assert.equal(statuses.at(-1).retryAt - clock.now(), random === 0 ? 500 : 1_000);
  }
});

test("bye: comes back when asked to, and only then", async () => {
  const { socket, net, clock, statuses } = await connected();
  await socket.says({ type: "bye", code: 4001, reconnect: true, afterMs: 3_210 });
  assert.equal(statuses.at(-1).code, 4001);
  assert.equal(statuses.at(-1).retryAt - clock.now(), 3_210);
  await clock.advance(3_210);
  assert.equal(net.sockets.length, 2);
  await net.last().says(welcome(), { type: "bye", code: 4504, reconnect: false, afterMs: 0 });
  assert.deepEqual([statuses.at(-1).final, statuses.at(-1).code], [true, 4504]);
  await clock.advance(3_600_000);
  assert.equal(net.sockets.length, 2);
});

test("close codes: 4000–4499 and broken lines come back, 4500–4999 do not", async () => {
  for (const [code, returns] of [[1000, true], [1006, true], [1012, true], [4000, true], [4008, true], [4499, true], [4500, false], [4503, false], [4999, false]]) {
    const { socket, net, clock, client } = await connected();
    await socket.drops(code, "why");
    assert.equal(client.status.final, !returns, `${code}`);
    await clock.advance(60_000);
    assert.equal(net.sockets.length > 1, returns, `${code}`);
  }
});

test("a silent socket is stale at 1.5 heartbeats and dead at 2.5", async () => {
  const { socket, net, clock, statuses } = await connected({ staleAfterMs: 3_600_000 });
  await clock.advance(23_000);
  assert.deepEqual([statuses.at(-1).state, statuses.at(-1).reason], ["stale", "socket"]);
  assert.equal(socket.closedWith, undefined);
  await clock.advance(16_000);
  assert.equal(socket.closedWith.code, 4000);
  assert.equal(net.sockets.length, 2);
  await net.last().says(welcome());
  assert.equal(statuses.at(-1).state, "live");
});

test("no welcome in time is a failed attempt; something that isn't JSON ends the connection", async () => {
  const { socket, net, clock } = await connected();
  await socket.says("{oops");
  assert.equal(socket.closedWith.code, 4000);
  await clock.advance(1_000);
  assert.equal(net.sockets.length, 2);
  await clock.advance(10_000 + 2_000);
  assert.equal(net.sockets[1].closedWith.reason, "no welcome");
  assert.equal(net.sockets.length, 3);
});

test("a server of another protocol version is left for good", async () => {
  const { socket, net, clock, client } = await connected();
  await socket.drops();
  await clock.advance(1_000);
  await net.last().says(welcome({ protocol: "rtserver.v2" }));
  assert.match(client.status.reason, /speaks rtserver\.v2/);
  assert.equal(client.status.final, true);
});

test("a stalled chain is told apart from a stalled socket, with its age", async () => {
  const { socket, clock, statuses, client } = await connected();
  const beat = (heads) => socket.says({ type: "heartbeat", time: 0, heads, seqs: {} });
  await clock.advance(15_000);
  await beat({ 31337: { ...block(10), ageMs: 15_000 } });
  await clock.advance(10_000);
  assert.deepEqual([statuses.at(-1).state, statuses.at(-1).reason, statuses.at(-1).chainId], ["stale", "chain", 31337]);
  assert.equal(statuses.at(-1).headAgeMs, 25_000);
  await beat({ 31337: { ...block(10), ageMs: 40_000 } }); // the server has known it for longer
  assert.equal(client.head(31337).ageMs, 40_000);
  await beat({ 31337: { ...block(11), ageMs: 100 } });
  assert.equal(statuses.at(-1).state, "live");
  assert.equal(client.head(31337).ageMs, 100);
});

test("a block time of a second makes ten seconds without a head stale", async () => {
  const { socket, clock, client } = await connected();
  for (let n = 11; n < 16; n += 1) await socket.says({ type: "block", chainId: 31337, block: block(n), changes: [] });
  await clock.advance(9_000);
  assert.equal(client.status.state, "live");
  await clock.advance(2_000);
  assert.equal(client.status.state, "stale");
});

test("watchers of one channel share a subscription; the last one ends it", async () => {
  const channel = owner();
  const { client, socket, updates, unwatch } = await watching(channel);
  const second = [];
  const unwatchSecond = client.watch(channel.name.toUpperCase().replace("OWNER", "owner"), (update) => second.push(update.cause));
  assert.deepEqual(second, []);
  await settle();
  assert.deepEqual(second, ["snapshot"]);
  assert.equal(socket.took("subscribe").length, 1);
  unwatch();
  unwatch();
  assert.equal(socket.took("unsubscribe").length, 0);
  await socket.says(channel.frame({ patch: { "uniswap-v3:17": { amount0: "6" } } }));
  assert.equal(updates.length, 1);
  assert.deepEqual(second, ["snapshot", "change"]);
  unwatchSecond();
  assert.equal(socket.took("unsubscribe").length, 1);
  assert.equal(socket.took("unsubscribe")[0].channel, channel.name);
  await socket.says(channel.frame({ patch: { "uniswap-v3:17": { amount0: "7" } } }));
  assert.equal(second.length, 2);
  assert.deepEqual(socket.took("resync"), []);
});

test("a refusal reaches the watcher; those that pass are tried again", async () => {
  const { client, socket, clock } = await connected();
  const errors = [];
  client.watch("nonsense", () => {}, { onError: (error) => errors.push(error.code) });
  client.watch("head:31337", () => {}, { onError: (error) => errors.push(error.code) });
  await settle();
  const [bad, head] = socket.took("subscribe");
  await socket.says({ type: "error", id: bad.id, code: "bad_channel", message: "no such channel" }, { type: "error", id: head.id, code: "rate", message: "slower", retryAfterMs: 4_000 });
  assert.deepEqual(errors, ["bad_channel", "rate"]);
  await clock.advance(3_000);
  assert.equal(socket.took("subscribe").length, 2);
  await clock.advance(2_000);
  assert.deepEqual(socket.took("subscribe").slice(2).map((m) => m.channel), ["head:31337"]);
});

test("a subscribe that is never answered is asked again", async () => {
  const { client, socket, clock } = await connected();
  client.watch("head:31337", () => {});
  for (let s = 0; s < 22; s += 2) {
    await clock.advance(2_000);
    await socket.says({ type: "heartbeat", heads: {}, seqs: {} });
  }
  assert.equal(socket.took("subscribe").length, 2);
});

test("many subscriptions keep below the server's rate", async () => {
  const { client, socket, clock } = await connected();
  for (let n = 0; n < 50; n += 1) client.watch(`position:31337:uniswap-v3:${n}`, () => {});
  await settle();
  assert.equal(socket.took("subscribe").length, 16);
  await socket.says({ type: "heartbeat", heads: {}, seqs: {} });
  assert.equal(socket.took("pong").length, 1); // a pong does not queue
  await clock.advance(1_000);
  assert.ok(socket.sent.length <= 16 + 1 + 8);
  await clock.advance(5_000);
  assert.deepEqual(socket.took("subscribe").map((m) => m.channel), Array.from({ length: 50 }, (_, n) => `position:31337:uniswap-v3:${n}`));
});

test("a token goes first, anew for each connection, and again when it expires", async () => {
  let count = 0;
  const { client, socket, net, clock } = await connected({ token: async () => `t${(count += 1)}` });
  client.watch("head:31337", () => {});
  await settle();
  assert.deepEqual(socket.sent.map((m) => m.token ?? m.type), ["t1", "subscribe"]);
  await socket.says({ type: "error", code: "token_expired", message: "" });
  assert.deepEqual(socket.sent.at(-1), { type: "refresh", token: "t2" });
  await socket.drops(4005);
  await clock.advance(1_000);
  await net.last().says(welcome());
  assert.deepEqual(net.last().sent.map((m) => m.token ?? m.type), ["t3", "subscribe"]);
});

test("a failing listener harms no other", async () => {
  const channel = owner();
  const { client, socket, errors, updates } = await watching(channel);
  client.watch(channel.name, () => {
    throw new Error("mine");
  });
  await settle();
  await socket.says(channel.frame({ patch: { "uniswap-v3:17": { amount0: "6" } } }));
  assert.equal(updates.length, 2);
  assert.equal(errors[0].message, "mine");
});

test("close ends everything and leaves no timer", async () => {
  const { client, socket, clock, net } = await watching(owner());
  client.close();
  client.close();
  assert.equal(socket.closedWith.code, 1000);
  assert.equal(clock.pending, 0);
  assert.equal(client.status.final, true);
  await clock.advance(60_000);
  assert.equal(net.sockets.length, 1);
});
