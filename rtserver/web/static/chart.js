/**
 * Turns points of a position's past into the shape of a line: pure geometry for an SVG of 1000 × 100 units, which
 * the page stretches. Numbers become floating point here and nowhere else: this is for the eye.
 */

export const WIDTH = 1000;
export const HEIGHT = 100;
const MARGIN = 14; // above and below the line, for the numbers at its highest and lowest
const GAP = 2.5; // so many steps without a point are a gap, not a slope

const number = (text) => (text === null || text === undefined ? null : Number(text));

/**
 * `{line, area, from, until, low, high, last, at}`, or null where there is nothing to draw. `low` and `high` are the
 * places of the extremes, `at(share)` that nearest to a share of the width: each `{point, value, x, y, time}`.
 */
export function shape(points, name, resolution) {
  const known = points.map((point) => ({ point, time: point.timestamp, value: number(point[name]) })).filter(({ value }) => Number.isFinite(value));
  if (known.length < 2) return null;
  const from = known[0].time;
  const until = known.at(-1).time;
  const values = known.map(({ value }) => value);
  const low = Math.min(...values);
  const high = Math.max(...values);
  // A line that hardly moves is drawn flat in the middle: noise blown up to the full height would look like a crash.
  const span = Math.max(high - low, Math.abs(high) * 0.002) || 1;
  const middle = (high + low) / 2;
  const x = (time) => ((time - from) / Math.max(1, until - from)) * WIDTH;
  const y = (value) => HEIGHT / 2 - ((value - middle) / span) * (HEIGHT - 2 * MARGIN);
  const places = known.map(({ point, time, value }) => ({ point, value, x: x(time), y: y(value), time }));
  const runs = [];
  for (const place of places) {
    const run = runs.at(-1);
    if (run === undefined || place.time - run.at(-1).time > GAP * Math.max(1, resolution)) runs.push([place]);
    else run.push(place);
  }
  const trace = (run) => run.map((place, index) => `${index ? "L" : "M"}${place.x.toFixed(1)} ${place.y.toFixed(1)}`).join("");
  return {
    line: runs.map((run) => (run.length > 1 ? trace(run) : `${trace(run)}h0.5`)).join(""),
    area: runs.filter((run) => run.length > 1).map((run) => `${trace(run)}V${HEIGHT}H${run[0].x.toFixed(1)}Z`).join(""),
    from,
    until,
    low: places.find(({ value }) => value === low),
    high: places.find(({ value }) => value === high),
    last: places.at(-1),
    at: (share) => places.reduce((best, place) => (Math.abs(place.x - share * WIDTH) < Math.abs(best.x - share * WIDTH) ? place : best)),
  };
}

/**
 * How much of the time a position was in range, as stripes: `{left, width, share}` in percent, neighbours joined. Of a gap
 * nothing is known but its last step.
 */
export function stripes(points, { from, until }, resolution) {
  const step = Math.max(1, resolution);
  const known = points.filter(({ timestamp, inRangeShare }) => timestamp >= from && timestamp <= until && inRangeShare !== null && inRangeShare !== undefined);
  const found = [];
  known.forEach(({ timestamp, inRangeShare }, index) => {
    const previous = index ? known[index - 1].timestamp : from;
    const isGap = timestamp - previous > GAP * step;
    const start = isGap ? timestamp - step : previous;
    const share = Math.round(Number(inRangeShare) * 4) * 25; // five shades are as many as anyone tells apart
    const width = ((timestamp - start) / Math.max(1, until - from)) * 100;
    const before = found.at(-1);
    if (!isGap && before?.share === share) before.width += width;
    else found.push({ left: ((start - from) / Math.max(1, until - from)) * 100, width, share });
  });
  return found.filter(({ width }) => width > 0);
}
