/**
 * What positions have earned and at which rate: asked from REST once a minute, as it moves slowly and takes a past to
 * reckon. The socket doesn't tell it. A server that reckons nothing says null, and the page shows no column for it.
 */

const EVERY_MS = 60_000;
const SOON_MS = 4_000; // after a failure, doubling up to EVERY_MS
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
    for (const { protocol, tokenId, apr, earnedAmountUSD } of positions) {
      if (apr !== null || earnedAmountUSD !== null) found.set(`${protocol}:${tokenId}`, { apr: apr ?? null, earnedUSD: earnedAmountUSD ?? null });
    }
    if (!next) break;
    after = next;
  }
  return found;
}

/** Tell a Map of key → `{apr, earnedUSD}` now and from time to time. Returns the function that stops it. */
export function watchEarned(owner, chainId, onEarned) {
  const stop = new AbortController();
  let timer;
  let wait = SOON_MS;
  const ask = async () => {
    if (!document.hidden) {
      try {
        onEarned(await pages(owner, chainId, AbortSignal.any([stop.signal, AbortSignal.timeout(TIMEOUT_MS)])));
        wait = EVERY_MS;
      } catch {
        // The rates are an extra: the page goes on without them, and asks again.
        wait = Math.min(wait * 2, EVERY_MS);
      }
    }
    if (!stop.signal.aborted) timer = setTimeout(ask, wait);
  };
  ask();
  return () => {
    stop.abort();
    clearTimeout(timer);
  };
}
