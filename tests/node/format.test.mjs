/** What people read: exact digits cut, never rounded up and never through floating point. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cents, dollars, duration, exactUnits, feeTier, group, percent, price, symbol, units, usd, worth } from "../../rtserver/web/static/format.js";
import { parseOwner, recentOwners, rememberOwner } from "../../rtserver/web/static/owners.js";

const table = (run, cases) => {
  for (const [expected, ...input] of cases) assert.equal(run(...input), expected, `${input}`);
};

test("raw amounts in whole tokens", () => {
  table(units, [
    ["0", 0n, 18],
    ["1,234.56", 1234567890n, 6],
    ["1.99999", 1999999999999999999n, 18], // cut, not rounded to 2
    ["0.0001234", 123456n, 9],
    ["1e-18", 1n, 18],
    ["1.23e-13", 123456n, 18],
    ["123,456,789", 123456789123456n, 6],
    ["7", 7n, 0],
    ["3.4e38", 2n ** 128n - 1n, 0],
    ["9e15", 9007199254740993n * 10n ** 18n, 18],
    ["5 raw", 5n, 255],
    ["—", null, 18],
  ]);
  assert.equal(exactUnits(9007199254740993000000000000000001n, 18), "9007199254740993.000000000000000001");
});

test("prices are decimal strings of any size", () => {
  table(price, [
    ["3,012.55", "3012.559999"],
    ["0.0003319", "0.00033195"],
    ["3.4e38", "340256786836388094070642339899681172762"],
    ["2.9e-40", `0.${"0".repeat(39)}29`],
    ["1", "1"],
    ["1.00000", "1.000000000"],
    ["—", undefined],
    ["—", null],
  ]);
});

test("dollars, times, tiers", () => {
  table((text) => usd(cents(text)), [["$1,234,567.80", "1234567.8"], ["$0.00", "0"], ["−$1.05", "-1.05"], ["—", null], ["—", "NaN"]]);
  table(duration, [["0.0 s", -5], ["0.4 s", 432], ["10 s", 9_960], ["25 s", 25_400], ["3 min 5 s", 185_000], ["2 h 10 min", 7_800_000]]);
  table(percent, [["15.5%", "15.5%"], ["137,279.9%", "137279.9%"], ["−1,234.50%", "-1234.50%"]]);
  table(feeTier, [["0.3%", 3000], ["0.01%", 100], ["1%", 10000], ["—", null]]);
  table(group, [["1", 1], ["123", 123], ["1,234,567", 1234567]]);
});

test("a symbol has no control or direction characters and no end of letters", () => {
  table(symbol, [["WETH", "WETH"], ["CDSU", "\u202eCDSU\u202c"], ["AB", "A\u0000\nB"], ["?", "\u200b"], ["?", null], ["<b>x</b>", "<b>x</b>"]]);
  assert.equal([...symbol("💩".repeat(99))].length, 16);
});

test("an owner's address, or what to do about it", () => {
  const address = `0x${"aB".repeat(20)}`;
  assert.deepEqual(parseOwner(`  ${address}\n`), { owner: address });
  assert.deepEqual(parseOwner(address.slice(2)), { owner: address });
  for (const [text, problem] of [
    ["", /Paste/], ["vitalik.eth", /Names/], ["0xabc", /has 3\b/], [`0x${"a".repeat(64)}`, /transaction/],
    [`0x${"g".repeat(40)}`, /“g”/], ["hello", /starts with 0x/], ["<img src=x>", /starts with 0x/],
  ]) assert.match(parseOwner(text).problem, problem);
});

test("storage that fails or holds something else is no obstacle", () => {
  const address = `0x${"11".repeat(20)}`;
  const kept = {};
  const install = (storage) => Object.defineProperty(globalThis, "localStorage", { value: storage, configurable: true });
  install({ getItem: () => { throw new Error("denied"); }, setItem: () => { throw new Error("full"); } });
  assert.deepEqual(recentOwners(), []);
  rememberOwner(address);
  install({ getItem: (key) => kept[key] ?? null, setItem: (key, value) => (kept[key] = value) });
  for (let n = 10; n < 20; n += 1) rememberOwner(`0x${String(n).repeat(20)}`);
  rememberOwner(`0x${"18".repeat(20)}`);
  assert.deepEqual(recentOwners().map((text) => text.slice(2, 4)), ["18", "19", "17", "16", "15"]);
  for (const bad of ["{", "5", '["<script>", 7, null]', '{"a":1}']) {
    install({ getItem: () => bad });
    assert.deepEqual(recentOwners(), []);
  }
});

test("dollars of an amount at a price", () => {
  table(worth, [
    ["3.40", 10n ** 15n, 18, "3400.25"],
    ["0.01", 5n * 10n ** 15n, 18, "1"], // half a cent and more
    ["0.00", 49n * 10n ** 14n, 18, "1"],
    ["12.00", 12n, 0, "1.0"],
    [null, null, 18, "1"],
    [null, 1n, null, "1"],
    [null, 1n, 18, null],
    [null, 1n, 18, "nonsense"],
  ]);
  table(dollars, [["1234.50", 123450n], ["-0.05", -5n], ["0.00", 0n]]);
});
