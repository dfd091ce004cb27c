// Clients that help themselves: each watches newHeads on a WebSocket of its own and, for every block, reads its
// positions in one multicall pinned to that block and computes exact collectable fees. A client's time for a
// block is when it has all values. Settings come as one line on stdin; events go out as JSON lines.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { createPublicClient, encodePacked, http, keccak256, parseAbi, webSocket } from "viem";

const poolAbi = parseAbi([
  "function slot0() view returns (uint160 sqrtPriceX96, int24 tick, uint16, uint16, uint16, uint8, bool)",
  "function feeGrowthGlobal0X128() view returns (uint256)",
  "function feeGrowthGlobal1X128() view returns (uint256)",
  "function ticks(int24) view returns (uint128, int128, uint256, uint256, int56, uint160, uint32, bool)",
  "function positions(bytes32) view returns (uint128, uint256, uint256, uint128, uint128)",
]);
const managerAbi = parseAbi([
  "function positions(uint256) view returns (uint96, address, address, address, uint24, int24, int24, uint128, uint256, uint256, uint128, uint128)",
  "function ownerOf(uint256) view returns (address)",
  "struct CollectParams { uint256 tokenId; address recipient; uint128 amount0Max; uint128 amount1Max; }",
  "function collect(CollectParams params) payable returns (uint256 amount0, uint256 amount1)",
]);
const MAX_U128 = 2n ** 128n - 1n;
const mod256 = (value) => BigInt.asUintN(256, value);
const mod128 = (value) => BigInt.asUintN(128, value);
const min = (a, b) => (a < b ? a : b);
const say = (event, fields) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);

const lines = createInterface({ input: process.stdin });
const settings = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
lines.close();

// Multicall3 at an address of its own: the cheapest way that viem has.
const { multicall3Bytecode } = await import(
  new URL("./node_modules/viem/_esm/constants/contracts.js", import.meta.url)
);
const node = createPublicClient({ transport: http(settings.httpUrl) });
const hash = await node.request({
  method: "eth_sendTransaction",
  params: [{ from: settings.sender, data: multicall3Bytecode, gas: "0x5b8d80", gasPrice: "0x0" }],
});
const { contractAddress } = await node.waitForTransactionReceipt({ hash, pollingInterval: 50 });

/** The reads of a client: each pool's state once, then four reads a position. */
function plan(positions) {
  const contracts = [];
  const pools = new Map();
  const places = [];
  for (const { tokenId, pool, lower, upper } of positions) {
    if (!pools.has(pool)) {
      pools.set(pool, contracts.length);
      for (const functionName of ["slot0", "feeGrowthGlobal0X128", "feeGrowthGlobal1X128"])
        contracts.push({ address: pool, abi: poolAbi, functionName });
    }
    places.push({ pool: pools.get(pool), own: contracts.length, lower, upper });
    const key = keccak256(encodePacked(["address", "int24", "int24"], [settings.manager, lower, upper]));
    contracts.push(
      { address: settings.manager, abi: managerAbi, functionName: "positions", args: [BigInt(tokenId)] },
      { address: pool, abi: poolAbi, functionName: "ticks", args: [lower] },
      { address: pool, abi: poolAbi, functionName: "ticks", args: [upper] },
      { address: pool, abi: poolAbi, functionName: "positions", args: [key] },
    );
  }
  return { contracts, places };
}

/** What a collect would pay for each position, in raw units of both tokens. */
function fees(places, results) {
  return places.map(({ pool, own, lower, upper }) => {
    const tick = results[pool][1];
    const [nft, low, high, core] = results.slice(own, own + 4);
    return [0, 1].map((i) => {
      const growth = results[pool + 1 + i];
      const below = tick >= lower ? low[2 + i] : growth - low[2 + i];
      const above = tick < upper ? high[2 + i] : growth - high[2 + i];
      const inside = growth - below - above;
      if (nft[7] === 0n) return min(nft[10 + i], core[3 + i]);
      const mine = mod128(((mod256(inside - nft[8 + i]) * nft[7]) >> 128n) + nft[10 + i]);
      return min(mine, mod128(((mod256(inside - core[1 + i]) * core[0]) >> 128n) + core[3 + i]));
    });
  });
}

const done = {};
const blocks = new Set();
let calls = 0;
let finished = 0;
let last = null;

async function follow(positions, index) {
  // A query makes viem give every client a socket of its own instead of one for all.
  const client = createPublicClient({ transport: webSocket(`${settings.wsUrl}/?client=${index}`) });
  const { contracts, places } = plan(positions);
  let seen = 0;
  await client.getChainId();
  let joined;
  const first = new Promise((resolve) => (joined = resolve));
  const stop = client.watchBlockNumber({
    onError: (error) => {
      console.error(error);
      process.exit(1);
    },
    onBlockNumber: async (blockNumber) => {
      joined();
      if (!measuring) return;
      calls += 1;
      const results = await client.multicall({
        contracts, blockNumber, allowFailure: false, multicallAddress: contractAddress, batchSize: 1 << 20,
      });
      const values = fees(places, results);
      const now = process.hrtime.bigint();
      (done[blockNumber] ??= []).push(String(now));
      blocks.add(blockNumber);
      last = { blockNumber, positions, values };
      seen += 1;
      if (seen === settings.blocks) {
        stop();
        finished += 1;
        if (finished === settings.clients.length) await report();
      }
    },
  });
  await first;
}

/** Compare the newest values with static collects from the owners at the same block. */
async function report() {
  let wrong = 0;
  for (const [index, { tokenId }] of last.positions.entries()) {
    const at = { address: settings.manager, abi: managerAbi, blockNumber: last.blockNumber };
    const owner = await node.readContract({ ...at, functionName: "ownerOf", args: [BigInt(tokenId)] });
    const { result } = await node.simulateContract({
      ...at,
      functionName: "collect",
      account: owner,
      args: [{ tokenId: BigInt(tokenId), recipient: owner, amount0Max: MAX_U128, amount1Max: MAX_U128 }],
    });
    if (result[0] !== last.values[index][0] || result[1] !== last.values[index][1]) {
      wrong += 1;
      console.error(tokenId, result, last.values[index]);
    }
  }
  const { version } = JSON.parse(await readFile(new URL("./node_modules/viem/package.json", import.meta.url)));
  const result = { viem: version, done_ns: done, calls, blocks: blocks.size, checked: last.positions.length, wrong };
  // Exiting before a pipe took everything would cut it off.
  process.stdout.write(`${JSON.stringify({ event: "result", ...result })}\n`, () => process.exit(0));
}

let measuring = false;
await Promise.all(settings.clients.map(follow));
measuring = true;
say("joined", {});
