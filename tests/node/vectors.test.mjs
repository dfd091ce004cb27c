/** Canonical JSON, checksums and merges, against vectors that Python wrote (path in RTSERVER_VECTORS). */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { canonicalJson, crc32, entryChecksum, mergePatch } from "../../rtserver/web/static/rtserver-client.js";

const vectors = JSON.parse(readFileSync(process.env.RTSERVER_VECTORS, "utf8"));

test("canonical JSON and entry checksums equal orjson's and zlib's", () => {
  assert.ok(vectors.length > 200);
  for (const { key, object, canonical, checksum } of vectors) {
    assert.equal(canonicalJson(object), canonical);
    assert.equal(entryChecksum(key, object), checksum);
  }
});

test("crc32's check value", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  assert.equal(crc32(new Uint8Array()), 0);
});

test("the examples of RFC 7396, appendix A, for objects", () => {
  for (const [target, patch, result] of [
    [{ a: "b" }, { a: "c" }, { a: "c" }],
    [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
    [{ a: "b" }, { a: null }, {}],
    [{ a: ["b"] }, { a: "c" }, { a: "c" }],
    [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
    [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
    [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
    [["a", "b"], { a: "b" }, { a: "b" }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ]) assert.deepEqual(mergePatch(target, patch), result);
});

test("a field named __proto__ is data", () => {
  const merged = mergePatch({}, JSON.parse('{"__proto__":{"polluted":true},"constructor":"x"}'));
  assert.equal({}.polluted, undefined);
  assert.equal(merged.polluted, undefined);
  assert.equal(canonicalJson(merged), '{"__proto__":{"polluted":true},"constructor":"x"}');
});
