/** Types of rtserver-client.js, the client of `rtserver.v1`. */

export declare const PROTOCOL: "rtserver.v1";

export interface Block {
  number: number;
  hash: string;
  parentHash?: string;
  /** Seconds since 1970. */
  timestamp?: number;
}

/** The chain went back to `to`; `dropped` are no longer part of it. */
export interface Rollback {
  to: { number: number; hash: string };
  dropped: string[];
}

export interface Token {
  address: string;
  symbol: string;
  /** Null where the token gives no usable answer: amounts stay raw. */
  decimals: number | null;
  /** What is odd about it, such as "symbolMarkup"; empty for an ordinary token. */
  flags?: string[];
}

/** A position; raw token amounts are in each token's smallest unit, null means unknown (never zero). */
export interface Position {
  tokenId: bigint;
  chainId: number;
  protocol: string;
  owner: string;
  pool: string;
  /** "WETH/USDC". Chosen by the tokens' authors: show it as text, never as HTML. */
  pair: string;
  /** Hundredths of a basis point: 3000 is 0.3 %. */
  feePips: number;
  token0: Token;
  token1: Token;
  tickLower: number;
  tickUpper: number;
  tick: number;
  liquidity: bigint;
  isActive: boolean;
  isStaked: boolean;
  /** Null where it isn't staked, or not known yet. Amounts are decimal strings, of the block at `asOf` (seconds). */
  rewards?: { asOf: number; places: { incentive: string; token: Token; amount: string | null; startTime: number; endTime: number; refundee: string }[] } | null;
  /** What they are worth, two decimals; null where an amount or a price is unknown. */
  rewardsUSD?: string | null;
  amount0: bigint;
  amount1: bigint;
  fees0: bigint | null;
  fees1: bigint | null;
  /** Exactly what `collect` would pay. */
  collectable0: bigint | null;
  collectable1: bigint | null;
  /** Prices are decimal strings: token1 per token0; null where a token tells no decimals. */
  priceLower: string | null;
  price: string | null;
  priceUpper: string | null;
  /** The pool's price is away from what its tokens cost elsewhere; null while that is unknown. */
  priceDeviation?: boolean | null;
  /** Two decimals, or null where something of a token is there that has no price. */
  valueUSD: string | null;
  feesUSD: string | null;
  readonly [later: string]: unknown;
}

export type Json = string | number | boolean | null | Json[] | { [name: string]: Json };
export type RawObject = { [name: string]: Json };

/** One change of a channel; several blocks missed while away arrive as one. */
export interface Update {
  channel: string;
  /** The whole state. It is the client's own copy and moves on: read it, don't keep or change it. */
  state: ReadonlyMap<string, RawObject>;
  /** Keys whose object was added or changed; unchanged objects keep their identity. */
  changed: string[];
  removed: string[];
  block: Block | null;
  seq: number;
  cause: "snapshot" | "change" | "resumed";
  rollback?: Rollback;
}

export type Status =
  /** A socket is being opened. */
  | { readonly state: "connecting"; readonly attempt: number }
  | { readonly state: "live" }
  /** Connected, but the head is older than it should be: the chain or the server's node stands still. */
  | { readonly state: "stale"; readonly reason: "chain"; readonly chainId: number; readonly headAgeMs: number }
  /** Connected, it seems, but nothing was heard for longer than a heartbeat. */
  | { readonly state: "stale"; readonly reason: "socket"; readonly silentMs: number }
  /** `retryAt` is in the clock's milliseconds (Date.now). */
  | { readonly state: "offline"; readonly final: false; readonly attempt: number; readonly retryAt: number; readonly code: number; readonly reason?: string }
  /** Closed for good: by `close()`, or by a server that does not want this client back. */
  | { readonly state: "offline"; readonly final: true; readonly code?: number; readonly reason?: string };

export interface Head extends Block {
  timestamp: number;
  /** Milliseconds since the server had this head, counting on. */
  ageMs: number;
}

export declare class RtserverError extends Error {
  /** The protocol's error code, such as "bad_channel". */
  readonly code: string;
}

export interface WebSocketLike {
  readyState: number;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

export interface ClientOptions {
  /** ws: or wss: address of `/ws`. */
  url: string | URL;
  /** Default: the global WebSocket (browsers, Node ≥ 22). */
  WebSocket?: new (url: string | URL) => WebSocketLike;
  /** Sent before the first subscription of each connection; a function is asked anew each time. */
  token?: string | (() => string | Promise<string>);
  /** A head older than this is stale. Default: four block times, between 10 s and 2 min. */
  staleAfterMs?: number;
  /** What no watcher took: failures of listeners, errors without a request. Default: console.error. */
  onError?: (error: unknown) => void;
  /** For tests. */
  clock?: { now?: () => number; setTimeout?: (run: () => void, ms: number) => unknown; clearTimeout?: (timer: any) => void };
  random?: () => number;
}

export interface WatchOptions {
  /** Refusals of this channel. Those that pass (rate, load_timeout …) are retried all the same. */
  onError?: (error: RtserverError) => void;
  /** "latest" lets the server merge changes while this client is slow. */
  mode?: "all" | "latest";
}

export interface Client {
  readonly status: Status;
  /** Chains that the server follows, as far as they are known. */
  readonly chains: number[];
  head(chainId: number): Head | null;
  /** Hears the present status too. Returns the function that stops listening. */
  onStatus(listener: (status: Status) => void): () => void;
  onHead(listener: (head: Head & { chainId: number }) => void): () => void;
  watch(channel: string, listener: (update: Update) => void, options?: WatchOptions): () => void;
  close(): void;
}

export interface PositionsChange {
  /** Keys are `protocol:tokenId`. The Map is the same one each time; unchanged positions keep their identity. */
  positions: ReadonlyMap<string, Position>;
  block: Block | null;
  changedKeys: string[];
  removedKeys: string[];
  rollback?: Rollback;
  cause: "snapshot" | "change" | "resumed";
}

export type WatchPositionsOptions = { owner: string; /** Needed only if the server follows several chains. */ chainId?: number; onError?: (error: unknown) => void } & (
  | { client: Client }
  | ClientOptions
);

export declare function createClient(options: ClientOptions): Client;
export declare function watchPositions(options: WatchPositionsOptions, onChange: (change: PositionsChange) => void): () => void;

/** JSON with keys in code point order and no spaces: what checksums are made of. */
export declare function canonicalJson(value: Json): string;
export declare function crc32(bytes: Uint8Array): number;
export declare function entryChecksum(key: string, object: RawObject): number;
export declare function mergePatch(target: Json | undefined, patch: RawObject): RawObject;
export declare function toPosition(raw: RawObject): Position;
