// How the bench tells a server to broadcast: JSON lines in and out. The same words as control.py.
import { createInterface } from "node:readline";

export const say = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");

/** A text of exactly `size` bytes that says when it was made, in CLOCK_MONOTONIC nanoseconds. */
export function payload(size) {
  const head = `{"t":${process.hrtime.bigint()},"pad":"`;
  return head + "x".repeat(size - head.length - 2) + '"}';
}

/** Carries out commands with `send(size)` until the bench goes away. */
export async function obey(port, send) {
  say("listening", { port });
  for await (const line of createInterface({ input: process.stdin })) {
    const { count, interval_s: intervalS, bytes } = JSON.parse(line);
    const started = performance.now();
    for (let index = 0; index < count; index++) {
      const pause = started + index * intervalS * 1000 - performance.now();
      await (pause > 0 ? new Promise((done) => setTimeout(done, pause)) : new Promise(setImmediate));
      send(bytes);
    }
    say("done", { count });
  }
  process.exit(0);
}
