/**
 * Turns exact values into text for people. Raw amounts are BigInt and prices decimal strings, and both stay so:
 * digits are cut, never computed in floating point. Cut means rounded down, as the pool would.
 */

const SIGNIFICANT = 6;
// Beyond these a token's decimals or a symbol's length are somebody's joke, not a quantity or a name.
const MAX_DECIMALS = 80;
const MAX_SYMBOL = 16;

/** "1234567" → "1,234,567" */
export const group = (digits) => String(digits).replace(/\B(?=(\d{3})+$)/g, ",");

/** Cut a whole/fraction pair of digit strings to about six significant digits. */
function cut(whole, fraction) {
  if (whole !== "0") {
    const places = Math.max(0, Math.max(SIGNIFICANT - whole.length, whole.length < 7 ? 2 : 0));
    const kept = fraction.slice(0, places);
    return kept ? `${group(whole)}.${kept}` : group(whole);
  }
  const zeros = fraction.search(/[1-9]/);
  if (zeros < 0) return "0";
  if (zeros >= 9) return scientific(fraction.slice(zeros), -zeros - 1);
  return `0.${fraction.slice(0, zeros + 4)}`;
}

function scientific(digits, exponent) {
  const places = digits.slice(1, 3).replace(/0+$/, "");
  return `${digits[0]}${places && `.${places}`}e${exponent}`;
}

/** A raw integer amount in whole tokens: 1234567890n with 6 decimals → "1,234.56". Null is unknown: "—". */
export function units(raw, decimals) {
  if (raw === null || raw === undefined) return "—";
  if (!Number.isInteger(decimals) || decimals < 0 || decimals > MAX_DECIMALS) return `${raw} raw`;
  const [whole, fraction] = split(raw, decimals);
  return whole.length > 15 ? scientific(whole, whole.length - 1) : cut(whole, fraction);
}

/** The same amount with every digit, for a tooltip. */
export function exactUnits(raw, decimals) {
  if (raw === null || raw === undefined) return "unknown";
  if (!Number.isInteger(decimals) || decimals < 0 || decimals > MAX_DECIMALS) return `${raw} raw`;
  const [whole, fraction] = split(raw, decimals);
  const kept = fraction.replace(/0+$/, "");
  return kept ? `${whole}.${kept}` : whole;
}

function split(raw, decimals) {
  const digits = raw.toString().padStart(decimals + 1, "0");
  const point = digits.length - decimals;
  return [digits.slice(0, point), digits.slice(point)];
}

/** A decimal string: "3012.55123456" → "3,012.55", "0.000000000000123" → "1.23e-13". */
export function price(text) {
  const match = /^(\d+)(?:\.(\d*))?$/.exec(text ?? "");
  if (match === null) return text ? String(text).slice(0, 14) : "—";
  const whole = match[1].replace(/^0+(?=\d)/, "");
  return whole.length > 12 ? scientific(whole, whole.length - 1) : cut(whole, match[2] ?? "");
}

/** "1234.5" → 123450n cents; null stays null. */
export function cents(text) {
  const match = /^(-?)(\d+)(?:\.(\d{1,2}))?$/.exec(text ?? "");
  if (match === null) return null;
  const value = BigInt(match[2]) * 100n + BigInt((match[3] ?? "").padEnd(2, "0"));
  return match[1] ? -value : value;
}

/** 123450n cents → "1234.50", as the server writes it. */
export function dollars(value) {
  const [whole, fraction] = split(value < 0n ? -value : value, 2);
  return `${value < 0n ? "-" : ""}${whole}.${fraction}`;
}

/** A raw amount at dollars for a whole token, "12.34", halves up; null where something of that is unknown. */
export function worth(raw, decimals, priceUSD) {
  const match = /^(\d+)(?:\.(\d*))?$/.exec(priceUSD ?? "");
  if (raw === null || raw === undefined || match === null || !Number.isInteger(decimals) || decimals > MAX_DECIMALS) return null;
  const fraction = match[2] ?? "";
  const unit = 10n ** BigInt(decimals + fraction.length);
  return dollars((2n * 100n * raw * BigInt(match[1] + fraction) + unit) / (2n * unit));
}

/** Cents → "$1,234.50"; null → "—". */
export function usd(value) {
  if (value === null) return "—";
  const [whole, fraction] = split(value < 0n ? -value : value, 2);
  return `${value < 0n ? "−" : ""}$${group(whole)}.${fraction}`;
}

/** A rate as the server writes it, easier to read: "137279.9%" → "137,279.9%". */
export const percent = (text) => String(text).replace(/^(-?)(\d+)/, (_, sign, whole) => `${sign && "−"}${group(whole)}`);

/** Milliseconds → "0.4 s", "25 s", "3 min 5 s", "2 h 10 min". */
export function duration(ms) {
  if (ms < 9_950) return `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** Hundredths of a basis point: 3000 → "0.3%". */
export const feeTier = (pips) => (Number.isInteger(pips) ? `${pips / 10_000}%` : "—");

export const shortAddress = (address) => `${address.slice(0, 6)}…${address.slice(-4)}`;

/** A token's symbol as it may be shown: no control or direction characters, no novels. Never HTML: use textContent. */
export function symbol(text) {
  const clean = String(text ?? "").replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "").trim();
  const points = [...clean];
  return points.length > MAX_SYMBOL ? `${points.slice(0, MAX_SYMBOL - 1).join("")}…` : clean || "?";
}
