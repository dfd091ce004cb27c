/** What was earned moves on with what is due, and never stands below it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { dueOf, earnedNow } from "../../rtserver/web/static/earned.js";

const position = (fees, fields = {}) => ({ feesUSD: `${fees}.00`, rewardsUSD: null, fees0: BigInt(fees) * 1000n, fees1: 0n, rewards: null, ...fields });
const told = (earnedUSD, then) => ({ earnedUSD, then: dueOf(then) });

test("fees and rewards that grew since are earned, too", () => {
  const reckoned = told("50.25", { ...position(5), fees0: "5000", fees1: "0" });
  assert.deepEqual(earnedNow(reckoned, position(5), null), { value: 5025n, isStale: false });
  assert.deepEqual(earnedNow(reckoned, position(9), null), { value: 5425n, isStale: false });
  // Prices fell: so did what is due.
  assert.deepEqual(earnedNow(reckoned, position(5, { feesUSD: "4.50" }), null), { value: 4975n, isStale: false });
  const places = { places: [{}] };
  const staked = told("60.00", position(5, { rewards: places, rewardsUSD: "10.00" }));
  assert.deepEqual(earnedNow(staked, position(6, { rewards: places, rewardsUSD: "12.00" }), null), { value: 6300n, isStale: false });
});

test("after a collect what was shown stays, and REST is to be asked", () => {
  const reckoned = told("50.25", position(5));
  assert.deepEqual(earnedNow(reckoned, position(0), 5200n), { value: 5200n, isStale: true });
  assert.deepEqual(earnedNow(reckoned, position(0), null), { value: 5025n, isStale: true });
  // A few units less are another position's rounding.
  assert.equal(earnedNow(reckoned, position(5, { fees0: 4990n }), null).isStale, false);
  assert.equal(earnedNow(reckoned, position(5, { fees0: 4989n }), null).isStale, true);
  // Unstaked: its rewards were credited.
  const staked = told("60.00", position(5, { rewards: { places: [{}] }, rewardsUSD: "10.00" }));
  assert.deepEqual(earnedNow(staked, position(6), 6100n), { value: 6100n, isStale: true });
});

test("it never stands below what is due, however sums were rounded", () => {
  const reckoned = told("4.99", position(5));
  assert.deepEqual(earnedNow(reckoned, position(5), null), { value: 500n, isStale: false });
});

test("what is unknown is not made up", () => {
  assert.deepEqual(earnedNow(null, position(5), null), { value: null, isStale: false });
  assert.deepEqual(earnedNow(told(null, position(5)), position(6), null), { value: null, isStale: false });
  const unpriced = position(5, { feesUSD: null });
  assert.deepEqual(earnedNow(told("50.25", unpriced), position(6), null), { value: 5025n, isStale: false });
  assert.deepEqual(earnedNow(told("50.25", position(5)), unpriced, null), { value: 5025n, isStale: false });
});
