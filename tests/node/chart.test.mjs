/** The chart's geometry: what is drawn where, and what is not drawn. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HEIGHT, shape, stripes, WIDTH } from "../../rtserver/web/static/chart.js";

const line = (...values) => values.map((value, index) => ({ timestamp: 1000 + index * 60, valueUSD: value, inRangeShare: "1" }));
const numbers = (text) => text.match(/-?\d+\.\d/g).map(Number);

test("a line goes from edge to edge and stays inside", () => {
  const found = shape(line("1.00", "3.00", "2.00"), "valueUSD", 60);
  assert.deepEqual([found.from, found.until], [1000, 1120]);
  const [x0, y0, x1, y1, x2, y2] = numbers(found.line);
  assert.deepEqual([x0, x1, x2], [0, WIDTH / 2, WIDTH]);
  assert.ok(y1 < y2 && y2 < y0, "higher is further up");
  assert.ok(Math.min(y0, y1, y2) > 0 && Math.max(y0, y1, y2) < HEIGHT);
  assert.deepEqual([found.low.value, found.high.value, found.last.value], [1, 3, 2]);
});

test("what hardly moves is drawn flat", () => {
  const found = shape(line("1000.00", "1000.01"), "valueUSD", 60);
  const [, y0, , y1] = numbers(found.line);
  assert.ok(Math.abs(y0 - y1) < 2);
  assert.ok(Math.abs(y0 - HEIGHT / 2) < 2);
});

test("nothing to draw", () => {
  for (const points of [[], line("1.00"), line(null, null), line(null, "1.00")]) assert.equal(shape(points, "valueUSD", 60), null);
});

test("unknown values and gaps break the line", () => {
  const points = line("1.00", "2.00", "2.00", "2.00", "2.00", "3.00", "4.00");
  points.splice(2, 3);
  assert.equal(shape(points, "valueUSD", 60).line.match(/M/g).length, 2);
  assert.equal(shape(line("1.00", null, "3.00"), "valueUSD", 60).line.match(/M/g).length, 1);
  // A lone point is a dot, with nothing under it.
  const lone = shape([...line("1.00", "2.00"), { timestamp: 9000, valueUSD: "2.00" }], "valueUSD", 60);
  assert.equal(lone.area.match(/Z/g).length, 1);
  assert.ok(lone.line.endsWith("h0.5"));
});

test("the nearest point to a place", () => {
  const found = shape(line("1.00", "2.00", "3.00"), "valueUSD", 60);
  assert.deepEqual([0, 0.2, 0.3, 0.9, 1].map((share) => found.at(share).value), [1, 1, 2, 3, 3]);
});

test("no stripe says anything of a gap", () => {
  const points = [1000, 1060, 1940, 2000].map((timestamp) => ({ timestamp, inRangeShare: "1" }));
  const found = stripes(points, { from: 1000, until: 2000 }, 60);
  assert.deepEqual(found.map(({ left, width }) => [Math.round(left), Math.round(width)]), [[0, 6], [88, 12]]);
});

test("stripes join neighbours and leave out what is unknown", () => {
  const points = line("1.00", "1.00", "1.00", "1.00", "1.00");
  points[3].inRangeShare = "0.01";
  points[4].inRangeShare = null;
  assert.deepEqual(stripes(points, { from: 1000, until: 1240 }, 60), [{ left: 0, width: 50, share: 100 }, { left: 50, width: 25, share: 0 }]);
});
