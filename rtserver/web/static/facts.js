/**
 * What is known of a position, as titled lists of names and values: its rates, what it made, its fees, rewards and prices.
 * What REST told is put together with what the socket tells since, and written in place: only a text that differs is
 * touched, so that nothing jumps and what somebody has selected stays selected. Text only, never markup.
 */
import { earnedNow } from "./earned.js";
import { cents, dollars, duration, exactUnits, percent, price, symbol, units, usd, worth } from "./format.js";
import { setText } from "./rows.js";

const WINDOW_NAMES = { "1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days" };
const NOW = "at the prices of now";
const THEN = "each payment at the prices of its own block";

const money = (text) => usd(cents(text));
const amount = (raw, token) => `${units(raw, token?.decimals)} ${symbol(token?.symbol)}`;

// ---------------------------------------------------------------- what is said: [title, [name, text, title][]], or null

function rates({ aprs, poolApr }) {
  const rows = [];
  for (const [name, window] of Object.entries(aprs ?? {})) {
    const rate = window?.APR ?? window?.feeAPR;
    if (rate === null || rate === undefined) continue; // too little of its time is known yet
    const parts = [["fees", window.feeAPR], ["rewards", window.rewardAPR]].filter(([, part]) => part !== null && part !== undefined).map(([what, part]) => `${what} ${percent(part)}`);
    const covered = Number.isFinite(window.windowSeconds) ? `over ${duration(window.windowSeconds * 1000)}` : "";
    rows.push([WINDOW_NAMES[name] ?? name, percent(rate), [parts.join(", "), covered].filter(Boolean).join(" ")]);
  }
  if (rows.length && poolApr !== null && poolApr !== undefined) rows.push(["Over the whole range", poolApr.APR ? percent(poolApr.APR) : "—", `What a position over the whole range earned in this pool${Number.isFinite(poolApr.windowSeconds) ? ` over ${duration(poolApr.windowSeconds * 1000)}` : ""}: not this position’s rate`]);
  return rows.length ? ["APR", rows] : null;
}

function rewards({ rewards: earned }) {
  if (!earned?.places?.length) return null;
  const rows = earned.places.map(({ token, amount: raw, valueUSD, endTime }) => {
    const ended = endTime * 1000 < Date.now() ? "ended" : `until ${new Date(endTime * 1000).toLocaleDateString()}`;
    const worth = valueUSD === null || valueUSD === undefined ? "" : ` · ${money(valueUSD)}`;
    return [symbol(token?.symbol), `${raw === null ? "—" : amount(raw, token)}${worth}`, `${exactUnits(raw, token?.decimals)} ${symbol(token?.symbol)}, ${ended}`];
  });
  if (rows.length > 1 && earned.usd) rows.push(["Together", money(earned.usd), ""]);
  return ["Rewards", rows];
}

function fees({ fees: told, token0, token1, feesUSD }) {
  const rows = [
    [symbol(token0?.symbol), amount(told.amount0, token0) + (told.value0USD ? ` · ${money(told.value0USD)}` : ""), exactUnits(told.amount0, token0?.decimals)],
    [symbol(token1?.symbol), amount(told.amount1, token1) + (told.value1USD ? ` · ${money(told.value1USD)}` : ""), exactUnits(told.amount1, token1?.decimals)],
  ];
  if (feesUSD !== null) rows.push(["Together", money(feesUSD), ""]);
  return ["Uncollected fees", rows];
}

function made({ pnl, earnedAmountUSD }) {
  const told = [
    ["Earned over life", earnedAmountUSD, `Fees and rewards, collected or not, ${NOW}`],
    ["Deposited", pnl?.deposits?.usd, THEN],
    ["Withdrawn", pnl?.withdrawals?.usd, THEN],
    ["Collected", pnl?.collected?.usd, THEN],
    ["Worth if just held", pnl?.hodlUSD, `What was deposited and not withdrawn, ${NOW}`],
    [cents(pnl?.impermanentLossUSD) > 0n ? "Gain against holding" : "Impermanent loss", pnl?.impermanentLossUSD, `Against having held the tokens, ${NOW}`],
    ["Net", pnl?.netUSD, `With ${(pnl?.netIncludes ?? []).join(", ")}; ${THEN}; without gas`],
  ];
  const rows = told.filter(([, text]) => text !== null && text !== undefined).map(([name, text, why]) => [name, money(text), why]);
  if (pnl?.deposits && pnl.deposits.usd === null) rows.push(["Deposited, net", "not known", "What the tokens were worth then is not known, or not yet"]);
  return rows.length ? ["Since it was opened", rows] : null;
}

function prices({ prices: told, token0, token1, price: spot, priceDeviation }) {
  const rows = [];
  for (const [side, token] of [[told?.token0, token0], [told?.token1, token1]]) {
    if (!side) continue;
    const others = Object.entries(side.others ?? {}).map(([source, value]) => `${source} says $${price(value)}`).join(", ");
    rows.push([symbol(token?.symbol), side.priceUSD === null ? "no price" : `$${price(side.priceUSD)}`, [side.source && `by ${side.source}`, side.disputed && `in dispute: ${others}`].filter(Boolean).join(", ")]);
  }
  if (spot) rows.push(["In the pool", price(spot), `${symbol(token1?.symbol)} per ${symbol(token0?.symbol)}${priceDeviation ? ", away from the prices above" : ""}`]);
  return ["Prices", rows];
}

/** All that is said of a position, box by box. */
export const boxesOf = (details) => [rates(details), made(details), fees(details), rewards(details), prices(details)].filter((box) => box !== null);

// ---------------------------------------------------------------- what moved since

/** The place as it is now, worth what it was told to be worth for each unit. */
function moved(place, before) {
  const then = before?.places?.find(({ incentive }) => incentive === place.incentive);
  const worth = cents(then?.valueUSD ?? null);
  if (worth === null || place.amount === null || !(BigInt(then.amount ?? 0) > 0n)) return place;
  return { ...place, valueUSD: dollars((worth * BigInt(place.amount)) / BigInt(then.amount)) };
}

/** What REST told, with the amounts and sums that the socket tells of now in its place; each token at the price told. */
export function live(details, position) {
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

// ---------------------------------------------------------------- on the page

/** Make these the children, in this order; whatever stands where it should is left alone. */
function arrange(parent, nodes) {
  let next = parent.firstElementChild;
  for (const node of nodes) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  while (next !== null) {
    const after = next.nextElementSibling;
    next.remove();
    next = after;
  }
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** The boxes below an element. */
export class Facts {
  #root;
  #boxes = new Map(); // title → {section, list, rows: Map of a name and its place among equal ones → {term, value}}

  constructor(root) {
    this.#root = root;
  }

  show(boxes) {
    arrange(this.#root, boxes.map(([title, rows]) => this.#box(title, rows)));
  }

  #box(title, rows) {
    let box = this.#boxes.get(title);
    if (box === undefined) {
      const list = document.createElement("dl");
      box = { section: element("section", element("h3", title), list), list, rows: new Map() };
      this.#boxes.set(title, box);
    }
    const times = new Map();
    const nodes = rows.flatMap(([name, text, why]) => {
      times.set(name, (times.get(name) ?? 0) + 1);
      const key = JSON.stringify([name, times.get(name)]);
      let row = box.rows.get(key);
      if (row === undefined) box.rows.set(key, (row = { term: element("dt", name), value: element("dd") }));
      setText(row.value, text);
      if (row.value.title !== (why || "")) row.value.title = why || "";
      return [row.term, row.value];
    });
    arrange(box.list, nodes);
    return box.section;
  }
}
