/** A channel's copy: what is applied, what is refused and how it is healed. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { block, Channel, connected, OWNER, OWNER_CHANNEL, settle, watching } from "./harness.mjs";
import { watchPositions } from "../../rtserver/web/static/rtserver-client.js";

const position = (amount0, more = {}) => ({ amount0, valueUSD: "1.00", token0: { symbol: "WETH", decimals: 18 }, ...more });
const owner = (state = { "uniswap-v3:17": position("5"), "uniswap-v3:18": position("6") }) => new Channel(OWNER_CHANNEL, state);

test("set, patch and remove are applied, once per block", async () => {
  const channel = owner();
  const { socket, updates } = await watching(channel);
  assert.deepEqual(updates[0].changed, ["uniswap-v3:17", "uniswap-v3:18"]);
  const untouched = updates[0].state.get("uniswap-v3:18");
  await socket.says(channel.frame({
    set: { "uniswap-v3:19": position("7") },
    patch: { "uniswap-v3:17": { amount0: "4", token0: { symbol: "weth" } } },
  }, { checked: true }));
  assert.equal(updates.length, 2);
  assert.deepEqual(updates[1].copy, channel.state);
  assert.deepEqual(updates[1].copy["uniswap-v3:17"].token0, { symbol: "weth", decimals: 18 });
  assert.deepEqual(updates[1].changed.sort(), ["uniswap-v3:17", "uniswap-v3:19"]);
  assert.equal(updates[1].block.number, 11);
  assert.equal(updates[1].state.get("uniswap-v3:18"), untouched);
  await socket.says(channel.frame({ remove: ["uniswap-v3:18"] }, { checked: true }));
  assert.deepEqual(updates[2].removed, ["uniswap-v3:18"]);
  assert.deepEqual(updates[2].copy, channel.state);
  assert.deepEqual(socket.took("resync"), []);
});

test("every listener sees the whole block: two channels of one frame", async () => {
  const mine = owner();
  const head = new Channel("head:31337", { head: { number: 10 } });
  const { client, socket, updates } = await watching(mine);
  let headState;
  client.watch(head.name, ({ state }) => (headState = state));
  await settle();
  await socket.says(head.snapshot());
  const seen = [];
  client.watch(mine.name, ({ cause }) => cause === "change" && seen.push(headState.get("head").number));
  const frame = mine.frame({ patch: { "uniswap-v3:17": { amount0: "1" } } });
  frame.changes.push(...head.frame({ patch: { head: { number: 11 } } }).changes);
  await socket.says(frame);
  assert.deepEqual(seen, [11]);
  assert.equal(updates.length, 2);
  assert.equal(client.head(31337).number, 11);
});

test("a gap, another epoch and an unknown key ask for a resync and apply nothing", async () => {
  for (const [reason, spoil] of [
    ["gap", (change) => (change.prev += 1) && (change.seq += 1)],
    ["epoch", (change) => (change.epoch = "e2")],
    ["unknown_key", (change) => (change.patch = { "uniswap-v3:404": { amount0: "1" } })],
  ]) {
    const channel = owner();
    const { socket, updates } = await watching(channel);
    const frame = channel.frame({ patch: { "uniswap-v3:17": { amount0: "1" } } });
    spoil(frame.changes[0]);
    await socket.says(frame);
    const [asked] = socket.took("resync");
    assert.equal(asked.reason, reason);
    assert.equal(asked.channel, OWNER_CHANNEL);
    assert.equal(updates.length, 1);
    // What comes before the answer is held, and joins it if it is newer.
    const later = channel.frame({ patch: { "uniswap-v3:18": { amount0: "2" } } });
    const snapshot = channel.snapshot({ id: asked.id });
    const latest = channel.frame({ patch: { "uniswap-v3:18": { amount0: "3" } } }, { checked: true });
    await socket.says(later, latest, snapshot);
    assert.equal(updates.length, 2, reason);
    assert.deepEqual(updates[1].copy, channel.state);
    assert.equal(socket.took("resync").length, 1);
  }
});

test("a change that the copy already covers is passed over", async () => {
  const channel = owner();
  const { socket, updates } = await watching(channel);
  const frame = channel.frame({ patch: { "uniswap-v3:17": { amount0: "1" } } });
  await socket.says(frame, frame);
  assert.equal(updates.length, 2);
  assert.deepEqual(socket.took("resync"), []);
});

test("a merged change (prev, seq] over several blocks is one change", async () => {
  const channel = owner();
  const { socket, updates } = await watching(channel);
  channel.frame({ patch: { "uniswap-v3:17": { amount0: "1" } } });
  channel.frame({ patch: { "uniswap-v3:18": { amount0: "2" } } });
  const last = channel.frame({ patch: { "uniswap-v3:17": { amount0: "3" } } }, { checked: true });
  Object.assign(last.changes[0], { prev: 1, patch: { "uniswap-v3:17": { amount0: "3" }, "uniswap-v3:18": { amount0: "2" } } });
  await socket.says(last);
  assert.deepEqual(updates[1].copy, channel.state);
  assert.equal(updates[1].seq, 4);
});

test("a wrong checksum is never shown, and repeated ones are asked about ever more slowly", async () => {
  const channel = owner();
  const { socket, updates, clock } = await watching(channel);
  const spoiled = () => {
    const frame = channel.frame({ patch: { "uniswap-v3:17": { amount0: `${channel.seq}` } }, set: { "uniswap-v3:20": position("1") } }, { checked: true });
    frame.changes[0].checksum ^= 1;
    return frame;
  };
  await socket.says(spoiled());
  assert.equal(updates.length, 1);
  assert.equal(updates[0].state.get("uniswap-v3:17").amount0, "5");
  assert.equal(updates[0].state.has("uniswap-v3:20"), false);
  assert.deepEqual(socket.took("resync").map((m) => m.reason), ["checksum"]);
  await socket.says(channel.snapshot());
  assert.deepEqual(updates[1].copy, channel.state);
  await socket.says(spoiled());
  assert.equal(socket.took("resync").length, 1);
  await clock.advance(3_000);
  assert.equal(socket.took("resync").length, 2);
  await socket.says(channel.snapshot(), channel.frame({ remove: ["uniswap-v3:18"] }, { checked: true }));
  assert.deepEqual(updates.at(-1).copy, channel.state);
  await socket.says(spoiled()); // a proved change in between: at once again
  assert.equal(socket.took("resync").length, 3);
});

test("a snapshot with a wrong checksum is refused", async () => {
  const channel = owner();
  const { client, socket } = await connected();
  const updates = [];
  client.watch(channel.name, (update) => updates.push(update));
  await settle();
  await socket.says(channel.snapshot({ id: socket.took("subscribe")[0].id, checksum: 1 }));
  assert.equal(updates.length, 0);
  assert.equal(socket.took("resync")[0].reason, "checksum");
  await socket.says(channel.snapshot());
  assert.equal(updates.length, 1);
});

test("a snapshot in parts is shown when whole, with what came between them", async () => {
  const channel = owner({ a: position("1"), b: position("2"), c: position("3") });
  const { client, socket } = await connected();
  const updates = [];
  client.watch(channel.name, (update) => updates.push({ ...update, copy: Object.fromEntries(update.state) }));
  await settle();
  const [{ id }] = socket.took("subscribe");
  const parts = Object.entries(channel.state).map(([key, object], i) => channel.snapshot({ id, state: { [key]: object }, part: i + 1, parts: 3 }));
  const change = channel.frame({ patch: { b: { amount0: "9" } } }, { checked: true });
  await socket.says(parts[0], parts[1], change);
  assert.equal(updates.length, 0);
  await socket.says(parts[2]);
  assert.equal(updates.length, 1);
  assert.deepEqual(updates[0].copy, channel.state);
  assert.equal(updates[0].seq, 2);
});

test("parts of a broken connection are forgotten", async () => {
  const channel = owner({ a: position("1"), b: position("2") });
  const { client, socket, net, clock } = await connected();
  const updates = [];
  client.watch(channel.name, (update) => updates.push(update));
  await settle();
  await socket.says(channel.snapshot({ state: { a: channel.state.a }, part: 1, parts: 2 }));
  await socket.drops();
  await clock.advance(1_000);
  await net.last().says({ type: "welcome", heartbeatMs: 15_000, heads: {} }, channel.snapshot({ state: { b: channel.state.b }, part: 2, parts: 2 }));
  assert.equal(updates.length, 0);
});

test("a rollback is one more change, and says what it dropped", async () => {
  const channel = owner();
  const { socket, updates, client } = await watching(channel);
  await socket.says(channel.frame({ patch: { "uniswap-v3:17": { amount0: "1" } } }, { at: block(11) }));
  await socket.says(channel.frame({ patch: { "uniswap-v3:17": { amount0: "5" } } }, {
    at: block(10, "f"), checked: true, rollback: { to: { number: 9, hash: "0x9" }, dropped: ["0xa", "0xb"] },
  }));
  assert.deepEqual(updates[2].rollback.dropped, ["0xa", "0xb"]);
  assert.equal(updates[2].block.number, 10);
  assert.equal(updates[2].seq, 3);
  assert.equal(client.head(31337).number, 10);
});

test("a heartbeat is answered and reveals a lost last message", async () => {
  const channel = owner();
  const { socket } = await watching(channel);
  await socket.says({ type: "heartbeat", time: 1, heads: {}, seqs: { [channel.name]: 1 } });
  assert.equal(socket.took("pong").length, 1);
  assert.equal(socket.took("resync").length, 0);
  await socket.says({ type: "heartbeat", time: 2, heads: {}, seqs: { [channel.name]: 2 } });
  assert.equal(socket.took("resync")[0].reason, "missed");
});

test("a heartbeat reveals a copy that was altered on the way", async () => {
  const channel = owner();
  const { socket, updates } = await watching(channel);
  const beat = (checksum) => ({ type: "heartbeat", time: 1, heads: {}, seqs: { [channel.name]: channel.seq }, checksums: { [channel.name]: checksum } });
  const { checksum } = channel.snapshot();
  await socket.says(beat(checksum));
  assert.equal(socket.took("resync").length, 0);
  await socket.says(beat(checksum ^ 1));
  assert.equal(socket.took("resync")[0].reason, "checksum");
  await socket.says(channel.snapshot());
  assert.deepEqual(updates.at(-1).copy, channel.state);
  // One of another place says nothing of this copy.
  await socket.says({ ...beat(checksum ^ 1), seqs: { [channel.name]: channel.seq - 1 } });
  assert.equal(socket.took("resync").length, 1);
});

test("watchPositions types the amounts, finds the only chain, keeps unknown null", async () => {
  const raw = {
    tokenId: "17", liquidity: "340282366920938463463374607431768211455", amount0: "123456789012345678901234567890",
    amount1: "0", fees0: null, fees1: "3", collectable0: "1", collectable1: "2", feePips: 500, tickLower: -10, valueUSD: null,
  };
  const channel = owner({ "uniswap-v3:17": raw, "uniswap-v3:18": { ...raw, tokenId: "18" } });
  const { client, socket } = await connected();
  const seen = [];
  const unwatch = watchPositions({ client, owner: OWNER }, (change) => seen.push({ ...change, copy: new Map(change.positions) }));
  await settle();
  // As it was typed: the server finds a typing error by the case of the letters.
  assert.equal(socket.took("subscribe")[0].channel, `owner:31337:${OWNER}`);
  await socket.says(channel.snapshot(), channel.frame({ patch: { "uniswap-v3:17": { amount1: "7" } }, remove: ["uniswap-v3:18"] }, { checked: true }));
  const before = seen[0].copy.get("uniswap-v3:17");
  assert.equal(before.liquidity, 2n ** 128n - 1n);
  assert.equal(before.amount0, 123456789012345678901234567890n);
  assert.equal(before.tokenId, 17n);
  assert.equal(before.fees0, null);
  assert.equal(before.valueUSD, null);
  assert.equal(before.tickLower, -10);
  assert.equal(seen.length, 2);
  assert.equal(seen[1].copy.get("uniswap-v3:17").amount1, 7n);
  assert.deepEqual([seen[1].changedKeys, seen[1].removedKeys, seen[1].block.number], [["uniswap-v3:17"], ["uniswap-v3:18"], 11]);
  unwatch();
  assert.equal(socket.took("unsubscribe").length, 1);
});

test("watchPositions without chainId on a server of two chains says so", async () => {
  const { net, client } = await connected();
  const socket = net.last();
  await socket.says({ type: "heartbeat", heads: { 1: block(5) }, seqs: {} });
  const errors = [];
  watchPositions({ client, owner: OWNER, onError: (error) => errors.push(error.message) }, () => {});
  await settle();
  assert.match(errors[0], /chainId is needed.*1, 31337/);
  assert.throws(() => watchPositions({ client, owner: "vitalik.eth" }, () => {}), /not an address/);
});
