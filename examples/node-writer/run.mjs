// Random writes of a few keys: node run.mjs URL SCOPE LIBRARY WRITES. One line of JSON for each that is accepted.

import { readFileSync } from "node:fs";

import { Connection } from "./resp.mjs";
import { FencedWriter } from "./writer.mjs";

const [url, scope, library, writes] = process.argv.slice(2);
const connection = await Connection.open(url);
const writer = new FencedWriter(connection, readFileSync(library, "utf8"), scope);
const pick = (count) => Math.floor(Math.random() * count);

const own = new Map();

for (let number = 0, accepted = 0; accepted < Number(writes); number += 1) {
  const key = `order:${pick(8)}`;
  const value = `node ${number} ü \u0000`;
  let done;
  let field;
  let left = value;
  switch (pick(6)) {
    case 0:
      done = await writer.delete(key);
      left = null;
      break;
    case 1:
      field = `f${pick(3)}`;
      done = await writer.putField("basket:1", field, value);
      break;
    case 2:
      done = await writer.put(key, value, { ttlMs: 600_000 });
      break;
    case 3:
      // Only if nobody wrote it since; otherwise nothing happens.
      done = await writer.replace(key, own.get(key) ?? "", value);
      break;
    default:
      done = await writer.put(key, value);
  }
  if (done === null) {
    continue;
  }
  accepted += 1;
  if (field === undefined) {
    own.set(key, left);
  }
  const address = field === undefined ? key : `basket:1\u241f${field}`;
  console.log(JSON.stringify({ key: address, value: left, ...done }));
}
connection.close();
