/**
 * What a row says when it is opened: the chart of a position's past, its rates, its rewards and what it made. REST tells
 * that, and is asked again when a block has changed the position; what the socket tells meanwhile takes the place of what
 * it tells too, so that no figure here contradicts the row's. It says of which block its numbers are. What the server does
 * not know it leaves out.
 */
import { Asking, Refusal } from "./asking.js";
import { dueOf } from "./earned.js";
import { boxesOf, Facts, live } from "./facts.js";
import { cents, group, price, usd } from "./format.js";
import { shape, stripes } from "./chart.js";
import { setText } from "./rows.js";

const TIMEOUT_MS = 15_000;
// After an answer. Blocks may come every second; a server that many people look at should not be asked as often.
const FACTS_MS = 3_000;
const PAST_MS = 15_000; // a chart gains a point less often than that
// Where no block changed the position: rates go on by the clock, and what the server still reads of its past comes late.
const IDLE_MS = 60_000;
const READING_MS = 15_000;
const POINTS = 200;
const STEP = 0.02; // of the chart's width, with an arrow key
const KEYS = {
  ArrowLeft: (share) => Math.max(0, share - STEP),
  ArrowRight: (share) => Math.min(1, share + STEP),
  Home: () => 0,
  End: () => 1,
  Escape: () => null,
};
const WINDOW_NAMES = { "1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days" };
const SHORTEST = "1h";
const NOT_KEPT = "This server keeps no history of positions.";
const NOT_NOW = "Its history is not to be had just now; it is asked for again.";
const TOO_SHORT = "Not enough of its past is known yet for a chart.";

const money = (text) => usd(cents(text));

function clock(seconds, span) {
  const options = span > 2 * 86_400 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" };
  return new Date(seconds * 1000).toLocaleString(undefined, options);
}

/** Whether a block came after another one, or in its place. */
const follows = (block, other) => block.number > other.number || (block.number === other.number && block.hash !== other.hash);

export class Panel {
  #parts = {};
  #position;
  #block; // that last changed the position
  #headOf;
  #onReckoned;
  #details = null; // what REST told, with its block
  #isDoubtful = false; // the block of the details may have left the chain
  #facts;
  #factsAsking;
  #factsHead = null;
  #failure = null; // why the last request had no answer
  #window = "24h";
  #mayChoose = true; // another window, if this one is empty: until somebody chose
  #history = null;
  #historyWindow = null;
  #historyHead = null;
  #historyBlock = null;
  #pastAsking;
  #shape = null;
  #share = null; // where the pointer is on the chart
  #isSeen = true;
  #gone = new AbortController();
  #screen;

  /**
   * `block` is the one that last changed the position, `headOf()` tells the hash of the chain's newest. `onReckoned` hears
   * what REST reckons, as the row shows it too.
   */
  constructor(template, position, block, headOf, onReckoned) {
    [this.#position, this.#block, this.#headOf, this.#onReckoned] = [position, block, headOf, onReckoned];
    this.element = template.content.firstElementChild.cloneNode(true);
    for (const node of this.element.querySelectorAll("[data-part]")) this.#parts[node.dataset.part] = node;
    const { facts, windows, metric, plot } = this.#parts;
    this.#facts = new Facts(facts);
    windows.addEventListener("click", ({ target }) => {
      this.#mayChoose = false;
      if (target.value && target.value !== this.#window) this.#choose(target.value);
    });
    metric.addEventListener("change", () => this.#draw());
    plot.addEventListener("pointermove", ({ clientX }) => {
      const { left, width } = plot.getBoundingClientRect();
      this.#point((clientX - left) / width);
    });
    plot.addEventListener("pointerleave", () => this.#point(null));
    plot.addEventListener("keydown", (event) => {
      const share = KEYS[event.key]?.(this.#share ?? 1);
      if (share === undefined) return;
      event.preventDefault();
      this.#point(share);
    });
    plot.addEventListener("blur", () => this.#point(null));

    const mayAsk = () => this.#isSeen && !document.hidden;
    this.#factsAsking = new Asking({
      ask: (signal) => this.#askFacts(signal),
      onFailure: (failure) => {
        this.#failure = failure;
        this.#tellBlock();
      },
      isBehind: () => this.#details === null || this.#isDoubtful || (this.#block !== null && follows(this.#block, this.#details.block)),
      isOld: () => this.#factsHead !== headOf(),
      everyMs: FACTS_MS,
      idleMs: () => (this.#details?.pnl ? IDLE_MS : READING_MS),
      mayAsk,
    });
    this.#pastAsking = new Asking({
      ask: (signal) => this.#askPast(signal),
      onFailure: () => {
        // What is drawn stays, unless it is another window's.
        if (this.#history === null || this.#historyWindow !== this.#window) this.#noChart(NOT_NOW);
      },
      isBehind: () => this.#historyWindow !== this.#window || (this.#history !== null && this.#historyBlock !== this.#block),
      isOld: () => this.#historyHead !== headOf(),
      everyMs: PAST_MS,
      idleMs: () => IDLE_MS,
      mayAsk,
    });
    document.addEventListener("visibilitychange", () => this.show(this.#position, this.#block), { signal: this.#gone.signal });
    this.#screen = new IntersectionObserver((entries) => {
      this.#isSeen = entries.at(-1).isIntersecting;
      this.#look();
    });
    this.#screen.observe(this.element);
    this.#tellBlock();
    this.#look();
  }

  remove() {
    this.#gone.abort();
    this.#screen.disconnect();
    this.#factsAsking.stop();
    this.#pastAsking.stop();
    this.element.remove();
  }

  /** Tell the position as a block has left it. */
  show(position, block) {
    [this.#position, this.#block] = [position, block];
    if (this.#details !== null && !document.hidden) this.#tell();
    this.#look();
  }

  /** Blocks were replaced: what REST told, or is about to, may be of one that is not on the chain any more. */
  rolledBack() {
    this.#isDoubtful = true;
    this.#historyBlock = undefined;
    this.#factsAsking.drop();
    this.#pastAsking.drop();
  }

  #choose(window) {
    this.#window = window;
    for (const button of this.#parts.windows.children) button.setAttribute("aria-pressed", String(button.value === window));
    this.#pastAsking.renew();
  }

  #look() {
    this.#factsAsking.look();
    this.#pastAsking.look();
  }

  async #get(path, query, signal) {
    const { chainId, protocol, tokenId } = this.#position;
    const url = new URL(`api/v1/positions/${tokenId}/${path}?${new URLSearchParams({ chainId, protocol, ...query })}`, document.baseURI);
    const response = await fetch(url, { signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]) });
    if (!response.ok) throw new Refusal(response);
    return response.json();
  }

  async #askFacts(signal) {
    const head = this.#headOf();
    const details = await this.#get("details", {}, signal);
    [this.#factsHead, this.#failure] = [head, null];
    // From a process that is behind the one before: what is there stays.
    if (this.#details !== null && !this.#isDoubtful && details.block.number < this.#details.block.number) return;
    const told = { apr: details.apr, earnedUSD: details.earnedAmountUSD, then: dueOf(details) };
    this.#details = { ...details, told };
    this.#isDoubtful = false;
    this.#tell();
    this.#onReckoned(told);
  }

  #tell() {
    const isAhead = this.#isAhead();
    this.#facts.show(boxesOf(isAhead ? live(this.#details, this.#position) : this.#details));
    this.#tellBlock();
  }

  /** Whether the row is of a later block than the details. */
  #isAhead() {
    return this.#details !== null && this.#block !== null && (this.#isDoubtful || follows(this.#block, this.#details.block));
  }

  /** Say of which block the numbers are, and that they are not of a newer one if REST failed to answer. */
  #tellBlock() {
    const { asOf } = this.#parts;
    if (this.#details === null) {
      setText(asOf, this.#failure === null ? "Loading details…" : "Details are not to be had just now; they are asked for again.");
      return;
    }
    const { number } = this.#details.block;
    const ahead = this.#isAhead() ? this.#block.number - number : 0;
    const newer = ahead > 0 ? `; fees, rewards and what was earned are ${ahead} ${ahead === 1 ? "block" : "blocks"} newer` : "";
    const late = this.#failure === null ? "" : `. ${this.#failure.status === 429 ? "The server asks for patience" : "Newer numbers are not to be had just now"}; it is asked again.`;
    setText(asOf, `At block ${group(number)}${newer}${late}`);
  }

  async #askPast(signal) {
    const [window, head, block] = [this.#window, this.#headOf(), this.#block];
    let history = null;
    try {
      history = await this.#get("history", { window, points: POINTS }, signal);
    } catch (error) {
      if (error.status !== 404) throw error; // 404: no history is kept here, which is an answer
    }
    [this.#history, this.#historyWindow, this.#historyHead, this.#historyBlock] = [history, window, head, block];
    if (history === null) this.#noChart(NOT_KEPT);
    else this.#draw();
    // Whoever has just started to watch has minutes, and no day yet.
    if (history !== null && this.#shape === null && this.#mayChoose) {
      this.#mayChoose = false;
      this.#choose(SHORTEST);
    }
  }

  /** Say why there is no line. The window can be changed even where this one is empty. */
  #noChart(why) {
    const { none, chart, plot, said, from, until, strip } = this.#parts;
    chart.hidden = why === NOT_KEPT || this.#history === null;
    plot.hidden = strip.hidden = true;
    this.#shape = null;
    for (const node of [said, from, until]) setText(node, "");
    setText(none, why);
    none.hidden = false;
  }

  #said(value) {
    return this.#parts.metric.value === "price" ? price(value) : money(value);
  }

  #draw() {
    const { chart, none, line, area, high, low, from, until, strip, metric, plot } = this.#parts;
    const { points = [], resolution = 60 } = this.#history ?? {};
    const found = shape(points, metric.value, resolution);
    if (found === null) {
      this.#noChart(TOO_SHORT);
      return;
    }
    this.#shape = found;
    chart.hidden = plot.hidden = strip.hidden = false;
    none.hidden = true;
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
      ...stripes(points, found, resolution).map(({ left, width, share }) => {
        const stripe = document.createElement("i");
        stripe.style.left = `${left}%`;
        stripe.style.width = `${width}%`;
        stripe.style.opacity = String(share / 100);
        return stripe;
      }),
    );
    plot.setAttribute("aria-label", `${metric.selectedOptions[0].textContent} over ${WINDOW_NAMES[this.#historyWindow]}: from ${this.#said(found.at(0).point[name])} to ${this.#said(found.last.point[name])}`);
    this.#point(this.#share);
  }

  /** Say the value at a share of the width; without one, the change over the whole window. */
  #point(share) {
    const { at, said, metric, plot } = this.#parts;
    this.#share = share;
    const found = this.#shape;
    if (found === null) return;
    at.hidden = share === null;
    const name = metric.value;
    if (share === null) {
      const [first, last] = [found.at(0).value, found.last.value];
      // Of nothing there is no share.
      const change = first ? (((last - first) / first) * 100).toFixed(2) : null;
      setText(said, `${this.#said(found.last.point[name])}${change === null ? "" : ` ${change < 0 ? "−" : "+"}${change.replace("-", "")}%`}`);
    } else {
      const place = found.at(Math.min(1, Math.max(0, share)));
      at.style.left = `${place.x / 10}%`;
      setText(said, `${this.#said(place.point[name])} · ${new Date(place.time * 1000).toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" })}`);
    }
    plot.setAttribute("aria-valuenow", String(Math.round((share ?? 1) * 100)));
    plot.setAttribute("aria-valuetext", said.textContent);
  }
}
