/** The client over Node's own WebSocket against a real server (ws: address in RTSERVER_SCRIPTED_URL). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient, watchPositions } from "../../rtserver/web/static/rtserver-client.js";

test("snapshot, a change, an abrupt drop, resume", { timeout: 30_000 }, async () => {
  const client = createClient({ url: process.env.RTSERVER_SCRIPTED_URL, random: () => 0 });
  try {
    const amounts = await new Promise((done, fail) => {
      const seen = [];
      watchPositions({ client, owner: `0x${"11".repeat(20)}`, onError: fail }, ({ positions, cause }) => {
        seen.push([cause, positions.get("uniswap-v3:17").amount0]);
        if (seen.length === 4) done(seen);
      });
    });
    assert.deepEqual(amounts, [["snapshot", 1n], ["change", 2n], ["resumed", 2n], ["change", 3n]]);
    assert.equal(client.status.state, "live");
    assert.equal(client.head(31337).number, 3);
  } finally {
    client.close();
  }
});
