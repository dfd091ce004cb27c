/**
 * The page at `/`: joins the client to the form, the totals and the rows. It draws at most once a frame, and only
 * what a block changed; it computes no amounts. Everything shown from outside is set as text, never as markup.
 */
import { createClient, watchPositions } from "./rtserver-client.js";
import { cents, duration, group, shortAddress, usd } from "./format.js";
import { knownOwners, parseOwner, recentOwners, rememberOwner } from "./owners.js";
import { watchEarned } from "./earned.js";
import { Panel } from "./panel.js";
import { flash, Row, setText } from "./rows.js";

const CHAIN_NAMES = { 1: "Ethereum", 10: "Optimism", 56: "BNB Chain", 137: "Polygon", 8453: "Base", 42161: "Arbitrum", 31337: "Local chain" };
const TICK_MS = 200; // a head's age shows tenths of a second
const REORG_NOTE_MS = 8_000;
const MAX_KNOWN = 12;
const TITLE = document.title;
const ROWS_AT_ONCE = 200; // of thousands of rows a browser lays out every one with each block

const $ = (id) => document.getElementById(id);
const parameters = () => new URLSearchParams(location.search);
const headHash = () => client.head(shownChain())?.hash ?? null;
const chainName = (chainId) => CHAIN_NAMES[chainId] ?? `Chain ${chainId}`;

const socketUrl = new URL("ws", document.baseURI);
socketUrl.protocol = location.protocol === "https:" ? "wss:" : "ws:";
socketUrl.search = "";
const client = createClient({ url: socketUrl.href });

let owner = null;
const askedChain = () => Number(parameters().get("chainId")) || null;
let chainId = askedChain(); // null: the server's only one
let unwatch = () => {};
let earnedWatch = null; // {stop, soon}
let earned = new Map(); // key → what REST reckoned
let seen = new Set(); // keys that were put in order
let limit = ROWS_AT_ONCE;
let unwatchHead = () => {};
let headChain = null;
let positions = null; // Map of what is watched, null until it is known
let pending = { changed: new Set(), removed: new Set(), live: false, frame: null, block: null, reorder: false };
const rows = new Map();

// ---------------------------------------------------------------- connection and head

const shownChain = () => chainId ?? client.chains[0] ?? null;

function statusText(status) {
  switch (status.state) {
    case "live":
      return "live";
    case "connecting":
      return status.attempt > 0 ? "reconnecting…" : "connecting…";
    case "stale":
      return status.reason === "chain" ? `chain stalled ${duration(client.head(status.chainId)?.ageMs ?? status.headAgeMs)}` : "server silent";
    default:
      if (status.final) return "disconnected";
      return `reconnecting in ${Math.max(1, Math.ceil((status.retryAt - Date.now()) / 1000))} s`;
  }
}

function tick() {
  const { status } = client;
  setText($("status-text"), statusText(status));
  const head = client.head(shownChain());
  setText($("head-age"), head === null ? "" : `${duration(head.ageMs)} ago`);
}

client.onStatus((status) => {
  const pill = $("status");
  // Said aloud once per change; the counting seconds are for the eye only.
  if (pill.dataset.state !== status.state) {
    setText($("announcer"), { live: "Connection live", stale: "Data is no longer moving", offline: "Connection lost, reconnecting", connecting: "" }[status.state]);
  }
  pill.dataset.state = status.state;
  document.body.dataset.link = status.state;
  pill.title = status.reason ?? "";
  $("reload").hidden = !(status.state === "offline" && status.final);
  if (status.state === "live") chainsKnown();
  tick();
});

client.onHead((head) => {
  if (head.chainId !== shownChain()) return;
  if (setText($("head-number"), group(head.number))) $("head-number").dataset.number = head.number;
  chainsKnown();
  tick();
});

/** From the welcome on: offer the chains where there are several, and follow the head of the one shown. */
function chainsKnown() {
  const { chains } = client;
  const select = $("chain");
  if (chains.length > 1 && chainId === null) chainId = chains[0];
  // What the address asks for may be none of them: then there is a way from it to those that there are.
  const isServed = chains.length === 0 || chainId === null || chains.includes(chainId);
  const offered = isServed ? chains : [chainId, ...chains];
  if (offered.length > 1 && select.options.length !== offered.length) {
    select.replaceChildren(...offered.map((id) => new Option(chains.includes(id) ? chainName(id) : `${chainName(id)} (not served)`, id, false, id === chainId)));
    if (owner !== null && positions === null) watch();
  }
  $("chain-label").hidden = offered.length < 2;
  const shown = shownChain();
  if (shown === null) return;
  setText($("chain-name"), offered.length > 1 ? "" : chainName(shown));
  if (headChain === shown) return;
  headChain = shown;
  unwatchHead();
  const head = client.head(shown);
  if (head !== null && setText($("head-number"), group(head.number))) $("head-number").dataset.number = head.number;
  // The channel itself makes the server send a frame for each block; the client keeps the head from it.
  unwatchHead = client.watch(`head:${shown}`, ({ rollback }) => rollback && rolledBack(rollback), { onError: (error) => console.warn(error) });
}

let reorgTimer;
function rolledBack({ dropped }) {
  for (const row of rows.values()) row.rolledBack();
  const count = dropped?.length ?? 0;
  setText($("reorg"), `reorg: ${count} ${count === 1 ? "block" : "blocks"} replaced`);
  $("reorg").hidden = false;
  clearTimeout(reorgTimer);
  reorgTimer = setTimeout(() => ($("reorg").hidden = true), REORG_NOTE_MS);
}

// ---------------------------------------------------------------- positions

/** Watch nobody, and show nothing of whom was watched. */
function clear() {
  unwatch();
  unwatch = () => {};
  earnedWatch?.stop();
  earnedWatch = null;
  positions = null;
  earned = new Map();
  seen = new Set();
  limit = ROWS_AT_ONCE;
  $("table").classList.remove("knows-earned");
  for (const row of rows.values()) row.remove();
  rows.clear();
  if (pending.frame !== null) cancelAnimationFrame(pending.frame);
  pending = { changed: new Set(), removed: new Set(), live: false, frame: null, block: null, reorder: false };
  $("positions").hidden = $("summary").hidden = true;
}

function watch() {
  clear();
  notice("Loading positions…", "");
  // Of several chains the page shows one: until they are known there is nothing to ask for.
  if (chainId === null && client.chains.length > 1) return;
  unwatch = watchPositions({ client, owner, chainId: chainId ?? undefined, onError: refused }, (change) => {
    const isFirst = positions === null;
    positions = change.positions;
    for (const key of change.changedKeys) pending.changed.add(key) && pending.removed.delete(key);
    for (const key of change.removedKeys) pending.removed.add(key) && pending.changed.delete(key);
    pending.live ||= !isFirst && change.cause === "change";
    pending.block = change.block ?? pending.block;
    pending.frame ??= requestAnimationFrame(draw);
    if (!isFirst) return;
    earnedWatch = watchEarned(owner, shownChain(), showEarned);
    // Only now: what the server refuses is nobody to come back to.
    rememberOwner(owner);
    offer();
  });
}

/** The column is there once anything is known for it. */
function showEarned(told) {
  earned = told;
  $("table").classList.toggle("knows-earned", told.size > 0);
  for (const [key, row] of rows) row.earned(told.get(key));
}

function refused(error) {
  const waits = ["rate", "chain_unavailable", "load_timeout", "unrecoverable"].includes(error.code);
  if (positions === null) notice(waits ? "The server is not ready for this owner yet" : "The server refused this", `${error.message}${waits ? " — trying again." : ""}`);
}

function draw() {
  const { changed, removed, live, block, reorder } = pending;
  pending = { changed: new Set(), removed: new Set(), live: false, frame: null, block, reorder: false };
  let regroup = reorder;
  for (const key of removed) {
    rows.get(key)?.remove();
    rows.delete(key);
    seen.delete(key);
    regroup = true;
  }
  for (const key of changed) {
    const position = positions.get(key);
    if (position === undefined) continue;
    regroup ||= !seen.has(key);
    rows.get(key)?.show(position, block, live);
  }
  if (regroup) arrange(block, live);
  drawTotals(live, block);
}

const descending = (a, b) => (a === b ? 0 : a === null ? 1 : b === null ? -1 : a < b ? 1 : -1);
const ORDERS = {
  value: (a, b) => descending(cents(a.valueUSD), cents(b.valueUSD)),
  fees: (a, b) => descending(cents(a.feesUSD), cents(b.feesUSD)),
  newest: (a, b) => descending(a.tokenId, b.tokenId),
};

/** Rows are put in order when they come, go or are asked to; not while values move, or nobody could read them. */
function arrange(block, live) {
  const order = ORDERS[$("sort").value] ?? ORDERS.value;
  const closed = (key) => Number(positions.get(key).liquidity === 0n);
  const all = [...positions.keys()].sort((a, b) => closed(a) - closed(b) || order(positions.get(a), positions.get(b)) || ORDERS.newest(positions.get(a), positions.get(b)));
  const keys = all.slice(0, limit);
  const shown = new Set(keys);
  for (const [key, row] of rows) {
    if (shown.has(key)) continue;
    row.remove();
    rows.delete(key);
  }
  for (const key of keys) {
    if (rows.has(key)) continue;
    const row = new Row($("row"), key, (position, since, onReckoned) => new Panel($("panel"), position, since, headHash, onReckoned), () => earnedWatch?.soon());
    rows.set(key, row);
    row.show(positions.get(key), block, live && !seen.has(key));
    row.earned(earned.get(key));
  }
  const body = $("rows");
  let next = body.firstElementChild;
  for (const key of keys) {
    const { element, below } = rows.get(key);
    for (const node of below === null ? [element] : [element, below]) {
      if (node === next) next = next.nextElementSibling;
      else body.insertBefore(node, next);
    }
  }
  seen = new Set(all);
  $("more").hidden = all.length <= limit;
  setText($("more-text"), `${group(keys.length)} of ${group(all.length)} are shown`);
}

function drawTotals(live, block) {
  let value = 0n;
  let fees = 0n;
  let rewards = null;
  let unpriced = 0;
  const count = { in: 0, open: 0, staked: 0 };
  for (const position of positions.values()) {
    const worth = cents(position.valueUSD);
    if (worth === null) unpriced += 1;
    else value += worth;
    fees += cents(position.feesUSD) ?? 0n;
    const reward = cents(position.rewardsUSD ?? null);
    if (reward !== null) rewards = (rewards ?? 0n) + reward;
    count.open += Number(position.liquidity !== 0n);
    count.in += Number(position.isActive);
    count.staked += Number(position.isStaked);
  }
  const priced = positions.size > unpriced;
  drawTotal($("total-value"), priced ? value : null, live);
  drawTotal($("total-fees"), priced ? fees : null, live);
  $("rewards-stat").hidden = count.staked === 0;
  drawTotal($("total-rewards"), rewards, live);
  setText($("in-range"), `${count.in} of ${count.open}`);
  setText($("count"), `${positions.size} ${positions.size === 1 ? "position" : "positions"}${count.staked ? `, ${count.staked} staked` : ""}`);
  recount(positions.size);
  setText($("left-out"), unpriced ? `${unpriced} without a price ${unpriced === 1 ? "is" : "are"} left out` : "");
  if (block?.number !== undefined) setText($("as-of"), `at block ${group(block.number)}`);
  const empty = positions.size === 0;
  $("positions").hidden = $("summary").hidden = empty;
  if (empty) notice("No positions yet", `${shortAddress(owner)} holds no Uniswap v3 position on ${CHAIN_NAMES[shownChain()] && shownChain() !== 31337 ? chainName(shownChain()) : "this chain"}, staked or not. One that is minted or sent here appears in the same block.`);
  else notice("", "");
}

function drawTotal(node, total, live) {
  const before = node.dataset.cents;
  if (setText(node, usd(total)) && live && before && total !== null) flash(node, BigInt(before) < total ? "up" : "down");
  node.dataset.cents = total ?? "";
}

function notice(title, text) {
  $("notice").hidden = title === "";
  setText($("notice-title"), title);
  setText($("notice-text"), text);
}

// ---------------------------------------------------------------- choosing an owner

function choose(text, { push = true } = {}) {
  const { owner: parsed, problem } = parseOwner(text);
  const input = $("owner");
  setText($("owner-problem"), problem ?? "");
  input.setAttribute("aria-invalid", String(problem !== undefined));
  if (problem !== undefined) return false;
  input.value = parsed;
  if (owner?.toLowerCase() === parsed.toLowerCase() && !$("positions").hidden) return true;
  owner = parsed;
  document.title = `${shortAddress(owner)} · rtserver`;
  if (push) tellAddress();
  watch();
  offer();
  return true;
}

/** What is shown can be bookmarked, shared, and gone back to. */
function tellAddress() {
  history.pushState(null, "", `?${new URLSearchParams({ ...(owner && { owner }), ...(chainId && { chainId }) })}`);
}

function chip(address, count) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "chip";
  button.title = address;
  button.dataset.owner = address;
  button.setAttribute("aria-pressed", String(owner?.toLowerCase() === address.toLowerCase()));
  button.append(shortAddress(address));
  if (Number.isInteger(count)) {
    const badge = document.createElement("span");
    badge.className = "chip-count";
    button.append(badge);
    tellCount(badge, count);
  }
  item.append(button);
  return item;
}

function tellCount(badge, count) {
  if (setText(badge, String(count))) badge.title = `${count} ${count === 1 ? "position" : "positions"}`;
}

/** Beside the owner that is watched stands how many positions it has now. */
function recount(count) {
  const badge = document.querySelector("#known .chip[aria-pressed=true] .chip-count");
  if (badge !== null) tellCount(badge, count);
}

let known = [];
function offer() {
  const focused = $("choices").contains(document.activeElement) ? (document.activeElement.dataset.owner ?? null) : null;
  const named = new Set(known.slice(0, MAX_KNOWN).map((entry) => entry.owner.toLowerCase()));
  const recent = recentOwners().filter((address) => !named.has(address.toLowerCase()));
  $("recent").replaceChildren(...recent.map((address) => chip(address)));
  $("known").replaceChildren(...known.slice(0, MAX_KNOWN).map((entry) => chip(entry.owner, entry.positions)));
  $("recent-group").hidden = recent.length === 0;
  $("known-group").hidden = known.length === 0;
  // Whoever chose by keyboard goes on from there.
  if (focused !== null) document.querySelector(`#choices [data-owner="${focused}"]`)?.focus();
  if (positions !== null) recount(positions.size);
  if (owner === null) invite();
}

function invite() {
  const isOffered = document.querySelector("#choices .chip") !== null;
  notice("Whose positions?", `Paste an owner’s address above${isOffered ? ", or pick one below it" : ""}. Values, fees and ranges then follow the chain, block by block.`);
}

$("owner-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!choose($("owner").value)) $("owner").focus();
});
$("owner").addEventListener("input", () => {
  setText($("owner-problem"), "");
  $("owner").setAttribute("aria-invalid", "false");
});
$("choices").addEventListener("click", (event) => {
  const address = event.target.closest("button")?.dataset.owner;
  if (address !== undefined) choose(address);
});
$("chain").addEventListener("change", () => {
  chainId = Number($("chain").value);
  tellAddress();
  chainsKnown();
  if (owner !== null) watch();
});
$("sort").addEventListener("change", () => {
  pending.reorder = true;
  pending.frame ??= requestAnimationFrame(draw);
});
$("show-more").addEventListener("click", () => {
  limit += ROWS_AT_ONCE;
  pending.reorder = true;
  pending.frame ??= requestAnimationFrame(draw);
});
$("reload").addEventListener("click", () => location.reload());
addEventListener("popstate", start);

function start() {
  const chain = askedChain() ?? (client.chains.length > 1 ? client.chains[0] : null);
  if (chain !== chainId) {
    clear();
    chainId = chain;
    $("chain").value = String(chain);
    chainsKnown();
  }
  const asked = parameters().get("owner");
  if (asked !== null) {
    $("owner").value = asked;
    if (choose(asked, { push: false })) return;
  }
  // Back to where nobody was chosen yet, or to what is no address.
  clear();
  owner = null;
  document.title = TITLE;
  if (asked === null) {
    $("owner").value = "";
    setText($("owner-problem"), "");
    $("owner").setAttribute("aria-invalid", "false");
  }
  offer();
}

start();
knownOwners().then((owners) => {
  known = owners;
  offer();
});
setInterval(tick, TICK_MS);
