/**
 * When what was asked once is asked again: soon after it is known to be old, never faster than a pace, never twice at
 * the same time, and not while nobody looks. After a failure it waits as long as the server asks for, or longer each
 * time. It decides when, and nothing about what is asked.
 */

const LONGEST_MS = 60_000; // between two tries, however many failed
const MOST_ASKED_MS = 300_000; // a Retry-After of hours would be somebody's mistake

/** An answer that is none, and when the server wants to be asked again: null where it does not say. */
export class Refusal extends Error {
  constructor(response) {
    super(`HTTP ${response.status}`);
    this.name = "Refusal";
    this.status = response.status;
    this.waitMs = waitOf(response.headers.get("Retry-After"));
  }
}

/** Retry-After as milliseconds from now: it holds seconds, or a date (RFC 9110, 10.2.3). */
function waitOf(text) {
  if (!text) return null;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) ? Math.min(MOST_ASKED_MS, Math.max(0, ms)) : null;
}

const system = {
  now: () => performance.now(),
  random: Math.random,
  setTimeout: (run, ms) => setTimeout(run, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};

export class Asking {
  #options;
  #clock;
  #timer;
  #turn = null; // the AbortController of what is asked just now
  #isStopped = false;
  #failures = 0;
  #notBefore = 0;
  #answeredAt;

  /**
   * `ask(signal)` asks and shows; it rejects where there was no answer, with a `Refusal` where the server said so, and
   * `onFailure` hears that. `isBehind()` says that what is shown is known to be old: it is asked for `everyMs` after the
   * last answer. `isOld()` says that it may be: then after `idleMs()`. Nothing is asked while `mayAsk()` says no. Whoever
   * changes what one of these says calls `look`.
   */
  constructor(options, clock = system) {
    this.#options = options;
    this.#clock = clock;
    this.#answeredAt = clock.now();
  }

  /** Ask, if it is time to; otherwise be back when it is. */
  look() {
    this.#clock.clearTimeout(this.#timer);
    const { isBehind, isOld, idleMs, mayAsk } = this.#options;
    if (this.#isStopped || this.#turn !== null || !mayAsk()) return;
    const now = this.#clock.now();
    const isDue = this.#failures > 0 || isBehind();
    const at = Math.max(this.#notBefore, isDue ? now : this.#answeredAt + idleMs());
    if (at <= now && (isDue || isOld())) this.#ask(now);
    else this.#timer = this.#clock.setTimeout(() => this.look(), at > now ? at - now : idleMs());
  }

  /** What is on its way is not wanted any more. */
  drop() {
    this.#turn?.abort();
    this.#turn = null;
    this.look();
  }

  /** From now on it is another question: the pace and the failures of the one before do not count. */
  renew() {
    this.#notBefore = this.#failures = 0;
    this.drop();
  }

  stop() {
    this.#isStopped = true;
    this.drop();
  }

  async #ask(now) {
    const { ask, onFailure, everyMs } = this.#options;
    const turn = (this.#turn = new AbortController());
    let wait = everyMs;
    this.#notBefore = now + wait;
    try {
      await ask(turn.signal);
      if (turn !== this.#turn) return;
      this.#failures = 0;
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#failures += 1;
      // With jitter: rows that failed together come back one by one.
      wait = Math.max(error.waitMs ?? 0, Math.min(LONGEST_MS, everyMs * 2 ** this.#failures)) * (1 + this.#clock.random() / 4);
      onFailure(error);
    }
    this.#turn = null;
    this.#answeredAt = this.#clock.now();
    this.#notBefore = this.#answeredAt + wait;
    this.look();
  }
}
