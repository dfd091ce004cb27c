/**
 * One row of the table per position: builds it from the page's template and writes only the texts that differ.
 * It decides how a position looks, and nothing about where it comes from or in which order rows stand.
 */
import { earnedNow } from "./earned.js";
import { cents, exactUnits, feeTier, percent, price, symbol, units, usd } from "./format.js";

// Where the range begins and ends on its bar, in percent: the rest is room for a price outside.
const BAND = [20, 80];
const FULL_RANGE_TICK = 887_000; // usable full ranges end between 887,200 and 887,272, by tick spacing
const FLASH_MS = 1_100;
const FLASH_STEPS = 14; // fading in every frame repaints four times as often, and looks the same
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// Rows on screen. Flashing the others too cost half a core with 200 positions: each repaints for a second.
const onScreen = new WeakSet();
const screen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) onScreen.add(target);
    else onScreen.delete(target);
  }
});

/** Write a text if it differs; tells whether it did. */
export function setText(node, text) {
  if (node.firstChild?.nodeValue === text) return false;
  // In the text node that is there, so that what somebody has selected around it stays selected.
  if (text !== "" && node.firstChild?.nodeType === Node.TEXT_NODE && node.childNodes.length === 1) node.firstChild.nodeValue = text;
  else node.textContent = text;
  return true;
}

/** A brief tint behind what changed. It moves nothing, and is left out for those who asked for calm. */
export function flash(node, kind = "moved") {
  if (calm.matches || document.hidden) return;
  node.animate([{ backgroundColor: `var(--flash-${kind})` }, { backgroundColor: "transparent" }], { duration: FLASH_MS, easing: `steps(${FLASH_STEPS})` });
}

const direction = (before, after) => (before === null || after === null ? "moved" : after > before ? "up" : "down");

function stateOf({ liquidity, isActive, tick, tickLower }) {
  if (liquidity === 0n) return ["closed", "Closed"];
  if (isActive) return ["in", "In range"];
  return tick < tickLower ? ["out", "Below range"] : ["out", "Above range"];
}

const ODDITIES = {
  noCode: "nothing answers at its address",
  symbolMissing: "it has no name",
  symbolAltered: "its name holds characters that are not shown",
  symbolMarkup: "its name looks like a page’s code",
  decimalsMissing: "it does not say its decimals: amounts are raw",
};

/** What is odd about a position's tokens, as a sentence; empty for ordinary ones. */
function oddities({ token0, token1 }) {
  return [token0, token1].flatMap((token) => (token?.flags ?? []).map((flag) => `${symbol(token.symbol)}: ${ODDITIES[flag] ?? "something is odd about it"}`)).join("; ");
}

const isFullRange = ({ tickLower, tickUpper }) => tickLower <= -FULL_RANGE_TICK && tickUpper >= FULL_RANGE_TICK;

/** Percent of the bar's width at which the current price stands. */
function markAt({ tick, tickLower, tickUpper }, [start, end]) {
  const share = (tick - tickLower) / Math.max(1, tickUpper - tickLower);
  if (share < 0) return start - (start - 3) * Math.min(1, -share);
  if (share > 1) return end + (97 - end) * Math.min(1, share - 1);
  return start + (end - start) * share;
}

export class Row {
  #parts = {};
  #shown = null;
  #block = null;
  #panel = null;
  #left = null;
  #told = null;
  #earned = null;

  #openPanel;
  #onStale;

  /**
   * `openPanel` makes what stands below the row while it is open: `{element, show(position, block), rolledBack(),
   * remove()}`; it is given the position, its block, and whom to tell what REST reckons. `onStale` is called when that
   * has to be asked for again.
   */
  constructor(template, key, openPanel, onStale) {
    this.key = key;
    this.#openPanel = openPanel;
    this.#onStale = onStale;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.key = key;
    for (const node of this.element.querySelectorAll("[data-part]")) this.#parts[node.dataset.part] = node;
    this.#parts.toggle.addEventListener("click", () => this.#toggle());
    this.earned(null);
    screen.observe(this.element);
  }

  /** Take the row off the page. */
  remove() {
    screen.unobserve(this.element);
    this.#panel?.remove();
    this.element.remove();
  }

  /** What stands below the row, if it is opened. */
  get below() {
    return this.#panel?.element ?? null;
  }

  #toggle() {
    const { toggle } = this.#parts;
    const opens = this.#panel === null;
    this.#panel?.remove();
    this.#panel = opens ? this.#openPanel(this.#shown, this.#block, (told) => this.earned(told)) : null;
    if (opens) this.element.after(this.#panel.element);
    toggle.setAttribute("aria-expanded", String(opens));
    setText(toggle, opens ? "Close" : "Details");
    this.#name(toggle.dataset.of);
  }

  #name(of) {
    const { toggle } = this.#parts;
    toggle.setAttribute("aria-label", `${toggle.textContent}: ${of}`);
  }

  /** Blocks were replaced: what REST told of them does not hold. */
  rolledBack() {
    this.#panel?.rolledBack();
  }

  /** Show a position as a block left it. `live` says that it changed just now, so that changes may be pointed out. */
  show(position, block, live) {
    const before = this.#shown;
    this.#shown = position;
    this.#block = block;
    if (before === null && live) flash(this.element); // new: the row as a whole, not each of its cells
    live &&= before !== null && onScreen.has(this.element);
    this.#identity(position);
    this.#range(position);
    this.#money("value", position, position.valueUSD, before?.valueUSD, [position.amount0, position.amount1], live);
    this.#money("fees", position, position.feesUSD, before?.feesUSD, [position.fees0, position.fees1], live);
    this.#rewards(position, before, live);
    this.#showEarned();
    this.#panel?.show(position, block);
    const { token0, token1, collectable0, collectable1 } = position;
    this.#parts.fees.title = `collect pays ${exactUnits(collectable0, token0?.decimals)} ${symbol(token0?.symbol)} and ${exactUnits(collectable1, token1?.decimals)} ${symbol(token1?.symbol)}`;
  }

  #identity(position) {
    const parts = this.#parts;
    const [state, label] = stateOf(position);
    setText(parts.symbol0, symbol(position.token0?.symbol));
    setText(parts.symbol1, symbol(position.token1?.symbol));
    setText(parts.fee, feeTier(position.feePips));
    setText(parts.id, `#${position.tokenId}`);
    const of = `${symbol(position.token0?.symbol)}/${symbol(position.token1?.symbol)} #${position.tokenId}`;
    // Read out of its row, "Details" alone says nothing.
    if (parts.toggle.dataset.of !== of) this.#name((parts.toggle.dataset.of = of));
    setText(parts.state, label);
    if (this.element.dataset.state !== state) this.element.dataset.state = state;
    if (parts.staked.hidden === position.isStaked) parts.staked.hidden = !position.isStaked;
    parts.deviates.hidden = position.priceDeviation !== true;
    const odd = oddities(position);
    parts.odd.hidden = odd === "";
    if (parts.odd.title !== odd) parts.odd.title = odd;
  }

  /** Show what REST reckoned, or nothing while it has not. */
  earned(told) {
    this.#told = told ?? null;
    this.#earned = null;
    setText(this.#parts.apr, typeof told?.apr === "string" ? percent(told.apr) : "—");
    this.#showEarned();
  }

  #showEarned() {
    let sum = null;
    if (this.#told !== null && this.#shown !== null) {
      const { value, isStale } = earnedNow(this.#told, this.#shown, this.#earned);
      sum = this.#earned = value;
      if (isStale) this.#onStale();
    }
    setText(this.#parts.earned, sum === null ? "" : `${usd(sum)} earned`);
  }

  #rewards({ rewards, rewardsUSD }, before, live) {
    const parts = this.#parts;
    const places = rewards?.places ?? [];
    parts.rewards.hidden = places.length === 0;
    if (places.length === 0) return;
    const value = cents(rewardsUSD ?? null);
    if (setText(parts.rewardsUSD, value === null ? "Rewards" : `+ ${usd(value)}`) && live) flash(parts.rewardsUSD, direction(cents(before?.rewardsUSD ?? null), value));
    const sums = new Map();
    for (const { token, amount } of places) {
      const sum = sums.get(token.address) ?? { token, raw: 0n };
      sum.raw = amount === null || sum.raw === null ? null : sum.raw + BigInt(amount);
      sums.set(token.address, sum);
    }
    setText(parts.rewardAmounts, [...sums.values()].map(({ token, raw }) => `${units(raw, token.decimals)} ${symbol(token.symbol)}`).join(", "));
    const exact = [...sums.values()].map(({ token, raw }) => `${exactUnits(raw, token.decimals)} ${symbol(token.symbol)}`).join(", ");
    if (parts.rewards.title !== exact) parts.rewards.title = `Earned by staking: ${exact}`;
  }

  #range(position) {
    const parts = this.#parts;
    const full = isFullRange(position);
    const band = full ? [0, 100] : BAND;
    const left = `${markAt(position, band).toFixed(2)}%`;
    if (left !== this.#left) {
      parts.mark.style.transition = onScreen.has(this.element) ? "" : "none"; // nobody watches it glide
      parts.mark.style.left = this.#left = left;
    }
    parts.bar.classList.toggle("full", full);
    const lower = full ? "0" : price(position.priceLower);
    const upper = full ? "∞" : price(position.priceUpper);
    setText(parts.lower, lower);
    setText(parts.upper, upper);
    setText(parts.price, price(position.price));
    setText(parts.quote, `${symbol(position.token1?.symbol)} per ${symbol(position.token0?.symbol)}`);
    const told = `Price ${price(position.price)}, range ${lower} to ${upper}: ${stateOf(position)[1].toLowerCase()}`;
    if (parts.bar.getAttribute("aria-label") !== told) parts.bar.setAttribute("aria-label", told);
  }

  #money(name, { token0, token1 }, text, textBefore, [raw0, raw1], live) {
    const parts = this.#parts;
    const value = cents(text);
    if (setText(parts[`${name}USD`], usd(value)) && live) flash(parts[`${name}USD`], direction(cents(textBefore), value));
    parts[`${name}USD`].title = value === null ? "One of the tokens has no price" : "";
    for (const [side, raw, token] of [[0, raw0, token0], [1, raw1, token1]]) {
      const node = parts[`${name}${side}`];
      if (setText(node, `${units(raw, token?.decimals)} ${symbol(token?.symbol)}`) && live) flash(node);
      const exact = `${exactUnits(raw, token?.decimals)} ${symbol(token?.symbol)}`;
      if (node.title !== exact) node.title = exact;
    }
  }
}
