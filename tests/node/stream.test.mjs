/** Streams of changes as the server's own diff and compose write them (path in RTSERVER_STREAMS). */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { canonicalJson } from "../../rtserver/web/static/rtserver-client.js";
import { block, connected, settle, welcome } from "./harness.mjs";

const channel = "owner:31337:0x1";
const streams = JSON.parse(readFileSync(process.env.RTSERVER_STREAMS, "utf8"));

test("the copy equals the server's state after every change, without one resync", async () => {
  assert.ok(streams.length > 0);
  for (const [number, { state, checksum, frames }] of streams.entries()) {
    const { client, net, clock } = await connected();
    let seen;
    client.watch(channel, ({ state: copy }) => (seen = canonicalJson(Object.fromEntries(copy))));
    await settle();
    await net.last().says({ type: "snapshot", channel, epoch: "e", seq: 0, block: block(0), state, checksum, cursor: "c0", part: 1, parts: 1 });
    for (const [index, { change, canonical }] of frames.entries()) {
      if (index === 9) {
        await net.last().drops();
        await clock.advance(1_000);
        await net.last().says(welcome());
        const [{ id, cursor }] = net.last().took("subscribe");
        assert.equal(cursor, `c${change.prev}`);
        await net.last().says({ type: "subscribed", id, channel, how: "resumed", epoch: "e", seq: change.prev, cursor });
      }
      await net.last().says({ type: "block", chainId: 31337, block: block(change.seq), changes: [{ ...change, channel, epoch: "e" }] });
      assert.equal(seen, canonical, `stream ${number}, seq ${change.seq}`);
    }
    assert.deepEqual(net.sockets.flatMap((socket) => socket.took("resync")), []);
    client.close();
  }
});
