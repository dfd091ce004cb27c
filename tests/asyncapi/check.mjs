// Parses an AsyncAPI document with the reference parser, then validates real frames against its schemas.
// Usage: node check.mjs DOCUMENT FRAMES, run where the packages are installed; prints JSON, exits 1 if something is wrong.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const { Parser } = require("@asyncapi/parser");
const Ajv = require("ajv").default;

const [documentPath, framesPath] = process.argv.slice(2);
const text = readFileSync(documentPath, "utf8");
const { document, diagnostics } = await new Parser().parse(text);
const problems = diagnostics
  .filter((one) => one.severity === 0 || one.severity === 1)
  .map((one) => ({ path: one.path.join("."), message: one.message, code: one.code }));
const wrong = [];
const seen = {};

const raw = JSON.parse(text);
const schemas = raw.components.schemas;
for (const schema of Object.values(schemas)) {
  // Closed here only: a frame with a field that the document doesn't know is a field that someone forgot to document.
  if (schema.properties) schema.additionalProperties = false;
}
const ajv = new Ajv({ strict: false, allErrors: true });
ajv.addSchema({ $id: "here", components: { schemas } });
const validators = {};
for (const [name, message] of Object.entries(raw.components.messages)) {
  validators[name] = ajv.getSchema(`here${message.payload.$ref}`);
}
for (const line of readFileSync(framesPath, "utf8").split("\n").filter(Boolean)) {
  const frame = JSON.parse(line);
  const validate = validators[frame.type];
  seen[frame.type] = (seen[frame.type] ?? 0) + 1;
  if (!validate) wrong.push({ frame: line.slice(0, 300), errors: "no such message" });
  else if (!validate(frame)) wrong.push({ frame: line.slice(0, 300), errors: ajv.errorsText(validate.errors) });
}
for (const [name, message] of Object.entries(raw.components.messages)) {
  for (const example of message.examples) {
    if (!validators[name](example.payload)) wrong.push({ example: name, errors: ajv.errorsText(validators[name].errors) });
  }
}
const operations = document ? document.operations().all().map((one) => one.id()) : [];
console.log(JSON.stringify({ problems, wrong: wrong.slice(0, 20), seen, operations }));
process.exitCode = document && !problems.length && !wrong.length ? 0 : 1;
