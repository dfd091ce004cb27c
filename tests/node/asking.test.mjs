/** When something is asked again: at a pace, one at a time, and not while nobody looks or nothing is new. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Asking, Refusal } from "../../rtserver/web/static/asking.js";
import { ManualClock, settle } from "./harness.mjs";

/** What is asked is answered by the test: each entry of `asked` is `{at, signal, answer, fail}`. */
function asker() {
  const clock = Object.assign(new ManualClock(), { random: () => 0 });
  const [began, asked, failures] = [clock.now(), [], []];
  const state = { isBehind: true, isOld: false, mayAsk: true };
  const asking = new Asking(
    {
      ask: (signal) =>
        new Promise((resolve, fail) => {
          const answer = (isNew = true) => {
            if (isNew) state.isBehind = false;
            resolve();
          };
          asked.push({ at: clock.now() - began, signal, answer, fail });
        }),
      onFailure: (error) => failures.push(error),
      isBehind: () => state.isBehind,
      isOld: () => state.isOld,
      mayAsk: () => state.mayAsk,
      everyMs: 3_000,
      idleMs: () => 60_000,
    },
    clock,
  );
  return { clock, asking, asked, failures, state, times: () => asked.map(({ at }) => at) };
}

const refusal = (status, headers = {}) => new Refusal(new Response(null, { status, headers }));

test("it is asked at once, and again at a pace while changes come", async () => {
  const { clock, asking, asked, state, times } = asker();
  asking.look();
  assert.deepEqual(times(), [0]);
  await clock.advance(500);
  asked[0].answer();
  await settle();
  // A change each 100 ms for ten seconds, each answered at once.
  for (let n = 0; n < 100; n += 1) {
    state.isBehind = true;
    asking.look();
    asked.at(-1).answer();
    await settle();
    await clock.advance(100);
  }
  assert.deepEqual(times(), [0, 3_500, 6_500, 9_500]);
});

test("never two at once: what changes meanwhile is asked for afterwards, if the answer was older", async () => {
  const { clock, asking, asked, state, times } = asker();
  asking.look();
  await clock.advance(10_000);
  asking.look();
  assert.deepEqual(times(), [0]);
  asked[0].answer(false);
  await settle();
  await clock.advance(2_999);
  assert.deepEqual(times(), [0]);
  await clock.advance(1);
  assert.deepEqual(times(), [0, 13_000]);
  asked[1].answer();
  await settle();
  await clock.advance(50_000);
  assert.equal(state.isBehind, false);
  assert.equal(asked.length, 2);
});

test("where nothing changed it is asked now and then, if the chain has gone on", async () => {
  const { clock, asking, asked, state, times } = asker();
  asking.look();
  asked[0].answer();
  await settle();
  await clock.advance(600_000);
  assert.deepEqual(times(), [0]);
  state.isOld = true;
  await clock.advance(60_000);
  assert.equal(asked.length, 2);
});

test("while nobody looks nothing is asked and no timer runs", async () => {
  const { clock, asking, asked, state } = asker();
  asking.look();
  asked[0].answer();
  await settle();
  Object.assign(state, { mayAsk: false, isBehind: true, isOld: true });
  asking.look();
  assert.equal(clock.pending, 0);
  await clock.advance(600_000);
  assert.equal(asked.length, 1);
  state.mayAsk = true;
  asking.look();
  assert.equal(asked.length, 2);
});

test("after failures it waits longer each time, at least as long as the server asks, at most a minute more", async () => {
  const { clock, asking, asked, failures, times } = asker();
  const gaps = [];
  asking.look();
  for (const failure of [refusal(503), new TypeError("no network"), refusal(429, { "Retry-After": "40" }), refusal(500), refusal(500), refusal(500)]) {
    const count = asked.length;
    asked.at(-1).fail(failure);
    await settle();
    asking.look(); // a change does not hasten it
    while (asked.length === count) await clock.advance(1_000);
    gaps.push(times().at(-1) - times().at(-2));
  }
  assert.deepEqual(gaps, [6_000, 12_000, 40_000, 48_000, 60_000, 60_000]);
  assert.deepEqual(failures.map((failure) => failure.status), [503, undefined, 429, 500, 500, 500]);
  asked.at(-1).answer(false);
  await settle();
  await clock.advance(3_000);
  assert.equal(times().at(-1) - times().at(-2), 3_000);
});

test("Retry-After holds seconds or a date; years are a mistake", () => {
  assert.equal(refusal(429).waitMs, null);
  assert.equal(refusal(429, { "Retry-After": "7" }).waitMs, 7_000);
  assert.equal(refusal(429, { "Retry-After": "soon" }).waitMs, null);
  assert.equal(refusal(429, { "Retry-After": "999999999" }).waitMs, 300_000);
  assert.equal(refusal(503, { "Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT" }).waitMs, 0);
  assert.equal(refusal(503, { "Retry-After": "Wed, 21 Oct 2415 07:28:00 GMT" }).waitMs, 300_000);
});

test("another question is asked at once, and the answer to the one before is nobody's", async () => {
  const { clock, asking, asked, failures, times } = asker();
  asking.look();
  await clock.advance(100);
  asking.renew();
  assert.deepEqual(times(), [0, 100]);
  assert.equal(asked[0].signal.aborted, true);
  asked[0].fail(new Error("late"));
  await settle();
  await clock.advance(10_000);
  assert.deepEqual(failures, []);
  assert.deepEqual(times(), [0, 100]);
});

test("what is dropped is asked again at the pace; what is stopped never", async () => {
  const { clock, asking, asked, failures, times } = asker();
  asking.look();
  await clock.advance(1_000);
  asking.drop();
  assert.equal(asked[0].signal.aborted, true);
  await clock.advance(2_000);
  assert.deepEqual(times(), [0, 3_000]);
  asking.stop();
  asked[1].fail(new Error("aborted"));
  asking.look();
  await clock.advance(600_000);
  assert.deepEqual([asked.length, clock.pending, failures.length], [2, 0, 0]);
});
