/**
 * What a row says when it is opened: the chart of a position's past, its rates, its rewards and what it made. It asks
 * REST when it opens and while it is open; what the socket tells meanwhile takes the place of that, so that no figure
 * here contradicts the row's. What the server does not know it leaves out. Text only, never markup.
 */
import { dueOf, earnedNow } from "./earned.js";
import { cents, dollars, duration, exactUnits, price, symbol, units, usd, worth } from "./format.js";
import { shape, stripes } from "./chart.js";
import { setText } from "./rows.js";

const EVERY_MS = 15_000;
const TIMEOUT_MS = 15_000;
const POINTS = 200;
const WINDOW_NAMES = { "1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days" };
const NOT_KEPT = "This server keeps no history of positions.";
const TOO_SHORT = "Not enough of its past is known yet for a chart.";
const NOW = "at the prices of now";
const THEN = "each payment at the prices of its own block";

const money = (text) => usd(cents(text));
const amount = (raw, token) => `${units(raw, token?.decimals)} ${symbol(token?.symbol)}`;

function clock(seconds, span) {
  const options = span > 2 * 86_400 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" };
  return new Date(seconds * 1000).toLocaleString(undefined, options);
}

/** A `<dl>` in a titled box; `rows` are [name, text, title]. */
function box(title, rows) {
  const section = document.createElement("section");
  const head = document.createElement("h3");
  head.textContent = title;
  const list = document.createElement("dl");
  for (const [name, text, why] of rows) {
    const term = document.createElement("dt");
    const value = document.createElement("dd");
    term.textContent = name;
    value.textContent = text;
    if (why) value.title = why;
    list.append(term, value);
  }
  section.append(head, list);
  return section;
}

function rates({ aprs, poolApr }) {
  const rows = [];
  for (const [name, window] of Object.entries(aprs ?? {})) {
    const rate = window?.APR ?? window?.feeAPR;
    if (rate === null || rate === undefined) continue; // too little of its time is known yet
    const parts = [["fees", window.feeAPR], ["rewards", window.rewardAPR]].filter(([, part]) => part !== null && part !== undefined).map(([what, part]) => `${what} ${part}`);
    const covered = Number.isFinite(window.windowSeconds) ? `over ${duration(window.windowSeconds * 1000)}` : "";
    rows.push([WINDOW_NAMES[name] ?? name, rate, [parts.join(", "), covered].filter(Boolean).join(" ")]);
  }
  if (rows.length && poolApr !== null && poolApr !== undefined) rows.push(["Over the whole range", poolApr.APR ?? "—", `What a position over the whole range earned in this pool${Number.isFinite(poolApr.windowSeconds) ? ` over ${duration(poolApr.windowSeconds * 1000)}` : ""}: not this position’s rate`]);
  return rows.length ? box("APR", rows) : null;
}

function rewards({ rewards: earned }) {
  if (!earned?.places?.length) return null;
  const rows = earned.places.map(({ token, amount: raw, valueUSD, endTime }) => {
    const ended = endTime * 1000 < Date.now() ? "ended" : `until ${new Date(endTime * 1000).toLocaleDateString()}`;
    const worth = valueUSD === null || valueUSD === undefined ? "" : ` · ${money(valueUSD)}`;
    return [symbol(token?.symbol), `${raw === null ? "—" : amount(raw, token)}${worth}`, `${exactUnits(raw, token?.decimals)} ${symbol(token?.symbol)}, ${ended}`];
  });
  if (rows.length > 1 && earned.usd) rows.push(["Together", money(earned.usd), ""]);
  return box("Rewards", rows);
}

function fees({ fees: told, token0, token1, feesUSD }) {
  const rows = [
    [symbol(token0?.symbol), amount(told.amount0, token0) + (told.value0USD ? ` · ${money(told.value0USD)}` : ""), exactUnits(told.amount0, token0?.decimals)],
    [symbol(token1?.symbol), amount(told.amount1, token1) + (told.value1USD ? ` · ${money(told.value1USD)}` : ""), exactUnits(told.amount1, token1?.decimals)],
  ];
  if (feesUSD !== null) rows.push(["Together", money(feesUSD), ""]);
  return box("Uncollected fees", rows);
}

function made({ pnl, earnedAmountUSD }) {
  const told = [
    ["Earned over life", earnedAmountUSD, `Fees and rewards, collected or not, ${NOW}`],
    ["Deposited", pnl?.deposits?.usd, THEN],
    ["Withdrawn", pnl?.withdrawals?.usd, THEN],
    ["Collected", pnl?.collected?.usd, THEN],
    ["Worth if just held", pnl?.hodlUSD, `What was deposited and not withdrawn, ${NOW}`],
    ["Impermanent loss", pnl?.impermanentLossUSD, `Against having held the tokens, ${NOW}`],
    ["Net", pnl?.netUSD, `With ${(pnl?.netIncludes ?? []).join(", ")}; ${THEN}; without gas`],
  ];
  const rows = told.filter(([, text]) => text !== null && text !== undefined).map(([name, text, why]) => [name, money(text), why]);
  return rows.length ? box("Since it was opened", rows) : null;
}

function prices({ prices: told, token0, token1, price: spot, priceDeviation }) {
  const rows = [];
  for (const [side, token] of [[told?.token0, token0], [told?.token1, token1]]) {
    if (!side) continue;
    const others = Object.entries(side.others ?? {}).map(([source, value]) => `${source} says $${price(value)}`).join(", ");
    rows.push([symbol(token?.symbol), side.priceUSD === null ? "no price" : `$${price(side.priceUSD)}`, [side.source && `by ${side.source}`, side.disputed && `in dispute: ${others}`].filter(Boolean).join(", ")]);
  }
  if (spot) rows.push(["In the pool", price(spot), `${symbol(token1?.symbol)} per ${symbol(token0?.symbol)}${priceDeviation ? ", away from the prices above" : ""}`]);
  return box("Prices", rows);
}

/** The place as it is now, worth what it was told to be worth for each unit. */
function moved(place, before) {
  const then = before?.places?.find(({ incentive }) => incentive === place.incentive);
  const worth = cents(then?.valueUSD ?? null);
  if (worth === null || place.amount === null || !(BigInt(then.amount ?? 0) > 0n)) return place;
  return { ...place, valueUSD: dollars((worth * BigInt(place.amount)) / BigInt(then.amount)) };
}

/** What REST told, with the amounts and sums that the socket tells of now in its place; each token at the price told. */
function live(details, position) {
  const { fees: then, rewards: before, told } = details;
  const { value } = earnedNow(told, position, null);
  const fees = { ...then };
  for (const side of [0, 1]) {
    const raw = position[`fees${side}`];
    if (raw === null || raw === undefined || String(raw) === then?.[`amount${side}`]) continue;
    fees[`amount${side}`] = raw;
    fees[`value${side}USD`] = worth(BigInt(raw), details[`token${side}`]?.decimals, details.prices?.[`token${side}`]?.priceUSD);
  }
  const rewards = before === null || position.rewards === null || position.rewards === undefined || position.rewards.asOf === before?.asOf ? before : { ...position.rewards, places: position.rewards.places.map((place) => moved(place, before)), usd: position.rewardsUSD };
  const { feesUSD, price: spot, priceDeviation } = position;
  const earnedAmountUSD = value === null ? details.earnedAmountUSD : dollars(value);
  return { ...details, fees, rewards, feesUSD, price: spot, priceDeviation, earnedAmountUSD };
}

export class Panel {
  #parts = {};
  #position;
  #details = null;
  #window = "24h";
  #history = null;
  #shape = null;
  #stop = new AbortController();
  #timer;

  constructor(template, position) {
    this.#position = position;
    this.element = template.content.firstElementChild.cloneNode(true);
    for (const node of this.element.querySelectorAll("[data-part]")) this.#parts[node.dataset.part] = node;
    const { windows, metric, plot } = this.#parts;
    windows.addEventListener("click", ({ target }) => {
      if (target.value === undefined || target.value === this.#window) return;
      this.#window = target.value;
      for (const button of windows.children) button.setAttribute("aria-pressed", String(button.value === this.#window));
      this.#refresh();
    });
    metric.addEventListener("change", () => this.#draw());
    plot.addEventListener("pointermove", ({ clientX }) => {
      const { left, width } = plot.getBoundingClientRect();
      this.#point((clientX - left) / width);
    });
    plot.addEventListener("pointerleave", () => this.#point(null));
    this.#refresh();
  }

  remove() {
    this.#stop.abort();
    clearTimeout(this.#timer);
    this.element.remove();
  }

  async #get(path, query) {
    const { chainId, protocol, tokenId } = this.#position;
    const url = new URL(`api/v1/positions/${tokenId}/${path}?${new URLSearchParams({ chainId, protocol, ...query })}`, document.baseURI);
    const response = await fetch(url, { signal: AbortSignal.any([this.#stop.signal, AbortSignal.timeout(TIMEOUT_MS)]) });
    if (!response.ok) throw Object.assign(new Error(`HTTP ${response.status}`), { status: response.status });
    return response.json();
  }

  async #refresh() {
    clearTimeout(this.#timer);
    const window = this.#window;
    if (!document.hidden) await Promise.all([this.#facts(), this.#past(window)]);
    clearTimeout(this.#timer);
    if (!this.#stop.signal.aborted) this.#timer = setTimeout(() => this.#refresh(), EVERY_MS);
  }

  async #facts() {
    try {
      const details = await this.#get("details", {});
      this.#details = { ...details, told: { earnedUSD: details.earnedAmountUSD, then: dueOf(details) } };
      this.#tell();
    } catch {
      // Kept as they were; asked again soon.
      if (this.#parts.facts.childElementCount === 0) setText(this.#parts.facts, "Details are not to be had just now.");
    }
  }

  /** Tell the position as a block has left it. */
  show(position) {
    this.#position = position;
    if (this.#details !== null && !document.hidden) this.#tell();
  }

  #tell() {
    const details = live(this.#details, this.#position);
    const boxes = [rates(details), made(details), fees(details), rewards(details), prices(details)];
    this.#parts.facts.replaceChildren(...boxes.filter((each) => each !== null));
  }

  async #past(window) {
    const { none, chart } = this.#parts;
    try {
      const history = await this.#get("history", { window, points: POINTS });
      if (window !== this.#window) return;
      this.#history = history;
      this.#draw();
    } catch (error) {
      if (this.#stop.signal.aborted || window !== this.#window) return;
      // 404: no history is kept here. Anything else passes; what is drawn stays.
      if (error.status !== 404 && this.#history !== null) return;
      chart.hidden = true;
      setText(none, error.status === 404 ? NOT_KEPT : "Its history is not to be had just now.");
      none.hidden = false;
    }
  }

  #said(value) {
    return this.#parts.metric.value === "price" ? price(value) : money(value);
  }

  #draw() {
    const { chart, none, line, area, high, low, from, until, strip, metric, plot } = this.#parts;
    const { points = [], resolution = 60 } = this.#history ?? {};
    const found = (this.#shape = shape(points, metric.value, resolution));
    // The window can be changed even where this one is empty.
    chart.hidden = false;
    plot.hidden = found === null;
    none.hidden = found !== null;
    if (found === null) {
      setText(none, TOO_SHORT);
      for (const node of [this.#parts.said, from, until]) setText(node, "");
      strip.replaceChildren();
      return;
    }
    line.setAttribute("d", found.line);
    area.setAttribute("d", found.area);
    const name = metric.value;
    setText(high, this.#said(found.high.point[name]));
    setText(low, this.#said(found.low.point[name]));
    high.style.bottom = `${100 - found.high.y}%`;
    low.style.top = `${found.low.y}%`;
    setText(from, clock(found.from, found.until - found.from));
    setText(until, clock(found.until, found.until - found.from));
    strip.replaceChildren(
      ...stripes(points, found).map(({ left, width, share }) => {
        const stripe = document.createElement("i");
        stripe.style.left = `${left}%`;
        stripe.style.width = `${width}%`;
        stripe.style.opacity = String(share / 100);
        return stripe;
      }),
    );
    plot.setAttribute("aria-label", `${metric.selectedOptions[0].textContent} over ${WINDOW_NAMES[this.#window]}: from ${this.#said(found.at(0).point[name])} to ${this.#said(found.last.point[name])}`);
    this.#point(null);
  }

  /** Say the value at a share of the width; without one, the change over the whole window. */
  #point(share) {
    const { at, said, metric } = this.#parts;
    const found = this.#shape;
    if (found === null) return;
    at.hidden = share === null;
    const name = metric.value;
    if (share === null) {
      const [first, last] = [found.at(0).value, found.last.value];
      const change = first ? ((last - first) / first) * 100 : 0;
      setText(said, `${this.#said(found.last.point[name])} ${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(2)}%`);
      return;
    }
    const place = found.at(Math.min(1, Math.max(0, share)));
    at.style.left = `${place.x / 10}%`;
    setText(said, `${this.#said(place.point[name])} · ${new Date(place.time * 1000).toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" })}`);
  }
}
