/**
 * Which owner to look at: judges what was typed, remembers recent owners in this browser, asks the server for those
 * it knows. It never trusts what it stored: anyone with a console may have written there.
 */

const STORAGE_KEY = "rtserver.recent-owners";
const MAX_RECENT = 5;
const KNOWN_TIMEOUT_MS = 5_000;

const isAddress = (text) => typeof text === "string" && /^0x[0-9a-fA-F]{40}$/.test(text);

/** `{owner}` or `{problem}`: a sentence that says what to change. */
export function parseOwner(text) {
  const typed = text.trim();
  if (isAddress(typed)) return { owner: typed };
  if (typed === "") return { problem: "Paste an owner’s address: 0x followed by 40 hexadecimal digits." };
  if (/\.[a-z]{2,}$/i.test(typed)) return { problem: "Names are not looked up here. Paste the address that the name points to (0x…)." };
  if (/^0x[0-9a-f]{64}$/i.test(typed)) return { problem: "This looks like a transaction hash. An address is 0x followed by 40 hexadecimal digits." };
  if (/^[0-9a-f]{40}$/i.test(typed)) return { owner: `0x${typed}` };
  if (!/^0x/i.test(typed)) return { problem: "An address starts with 0x, followed by 40 hexadecimal digits." };
  const odd = /[^0-9a-f]/i.exec(typed.slice(2));
  if (odd !== null) return { problem: `“${odd[0]}” is not a hexadecimal digit: addresses hold 0–9 and a–f.` };
  return { problem: `An address has 40 hexadecimal digits after 0x; this one has ${typed.length - 2}.` };
}

/** Storage can be switched off, full or somebody else's; the page works without it. */
export function recentOwners() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter(isAddress).slice(0, MAX_RECENT) : [];
  } catch {
    return [];
  }
}

export function rememberOwner(owner) {
  const others = recentOwners().filter((other) => other.toLowerCase() !== owner.toLowerCase());
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify([owner, ...others].slice(0, MAX_RECENT)));
  } catch {
    // Nothing to heal: it is a convenience, and the address stays in the page's own URL.
  }
}

/** Owners that the server holds already, most positions first; empty where it does not tell. */
export async function knownOwners() {
  try {
    const response = await fetch(new URL("api/v1/owners", document.baseURI), { signal: AbortSignal.timeout(KNOWN_TIMEOUT_MS) });
    if (!response.ok) return [];
    const { owners } = await response.json();
    return owners.filter(({ owner }) => isAddress(owner)).sort((a, b) => b.positions - a.positions);
  } catch (error) {
    console.info("known owners are not available:", error);
    return [];
  }
}
