/**
 * What positions have earned and at which rate: asked from REST once a minute, as it takes a past to reckon, and soon
 * after something was collected. In between, what was earned moves on with the fees and rewards that the socket tells, so
 * that it never stands below them. A server that reckons nothing says null, and the page shows no column for it.
 */
import { cents } from "./format.js";

const EVERY_MS = 60_000;
const SOON_MS = 4_000; // after a failure, doubling up to EVERY_MS; and after a collect
// Positions of one range round together: what another one collects may take a few units away, and is no collect of this.
const SLACK = 10n;
const TIMEOUT_MS = 20_000;
const PAGE = 500;
const MAX_PAGES = 4; // an owner with more sees the first two thousand reckoned

async function pages(owner, chainId, signal) {
  const found = new Map();
  let after = null;
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const query = new URLSearchParams({ owner, limit: PAGE, ...(chainId !== null && { chainId }), ...(after !== null && { after }) });
    const response = await fetch(new URL(`api/v1/positions/summary?${query}`, document.baseURI), { signal });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const { positions, next } = await response.json();
    for (const position of positions) {
      const { protocol, tokenId, apr, earnedAmountUSD } = position;
      if (apr !== null || earnedAmountUSD !== null) found.set(`${protocol}:${tokenId}`, { apr: apr ?? null, earnedUSD: earnedAmountUSD ?? null, then: dueOf(position) });
    }
    if (!next) break;
    after = next;
  }
  return found;
}

/** What a position has due, as REST or the socket tell it: dollars in cents, fees as BigInt, places it is staked in. */
export function dueOf({ feesUSD, rewardsUSD, fees0, fees1, rewards }) {
  const fees = cents(feesUSD ?? null);
  const raw = [fees0, fees1].map((amount) => (amount === null || amount === undefined ? null : BigInt(amount)));
  return { sum: fees === null ? null : fees + (cents(rewardsUSD ?? null) ?? 0n), raw, places: rewards?.places?.length ?? 0 };
}

/**
 * What a position has earned by now, in cents; null where that is not known. `told` is what REST reckoned, `shown` what
 * was last shown of it. `isStale` says that some of it was paid since: what was shown stays until REST is asked again.
 */
export function earnedNow(told, position, shown) {
  const reckoned = cents(told?.earnedUSD ?? null);
  const now = dueOf(position);
  if (reckoned === null || told.then.sum === null || now.sum === null) return { value: reckoned, isStale: false };
  const paid = told.then.raw.some((amount, side) => amount !== null && now.raw[side] !== null && amount > now.raw[side] + SLACK);
  if (paid || told.then.places !== now.places) {
    const kept = shown ?? reckoned;
    return { value: kept > now.sum ? kept : now.sum, isStale: true };
  }
  // Each sum is rounded on its own: a cent less than nothing is nothing.
  const settled = reckoned > told.then.sum ? reckoned - told.then.sum : 0n;
  return { value: settled + now.sum, isStale: false };
}

/** Tell a Map of key → `{apr, earnedUSD, then}` now and from time to time. Returns `{stop, soon}`: `soon` asks early. */
export function watchEarned(owner, chainId, onEarned) {
  const stop = new AbortController();
  let timer;
  let wait = SOON_MS;
  let isAsking = false;
  let isSoon = false;
  const ask = async () => {
    [isAsking, isSoon] = [true, false];
    if (!document.hidden) {
      try {
        onEarned(await pages(owner, chainId, AbortSignal.any([stop.signal, AbortSignal.timeout(TIMEOUT_MS)])));
        wait = EVERY_MS;
      } catch {
        // The rates are an extra: the page goes on without them, and asks again.
        wait = Math.min(wait * 2, EVERY_MS);
      }
    }
    isAsking = false;
    if (!stop.signal.aborted) timer = setTimeout(ask, isSoon ? SOON_MS : wait);
  };
  ask();
  return {
    stop() {
      stop.abort();
      clearTimeout(timer);
    },
    soon() {
      if (isSoon || stop.signal.aborted) return;
      isSoon = true;
      if (isAsking) return; // it may have been answered before: once more after that
      clearTimeout(timer);
      timer = setTimeout(ask, SOON_MS);
    },
  };
}
