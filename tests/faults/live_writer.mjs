// As live_writer.py, in Node: it writes the store while that is open, and nothing while the tables are.
// node live_writer.mjs BOOK SEED URL SCOPE LIBRARY

import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { Connection } from "../../examples/node-writer/resp.mjs";
import { AmbiguousWriteError, FencedWriter } from "../../examples/node-writer/writer.mjs";

const [book, seed, url, scope, library] = process.argv.slice(2);
const folder = dirname(book);
const within = join(folder, `within.${seed}`);
const pick = (count) => Math.floor(Math.random() * count);
const pause = (most) => new Promise((resolve) => setTimeout(resolve, most));
const note = (line) => appendFileSync(book, `${JSON.stringify(line)}\n`);
const now = () => Number(process.hrtime.bigint()) / 1e9;

function next(id) {
  if (pick(4) === 0) {
    return [`visit:${pick(6)}`, { writer: id }, [undefined, 300, 2000][pick(3)]];
  }
  const key = `order:${pick(24)}`;
  if (pick(7) === 0) {
    return [key, null];
  }
  const items = Array.from({ length: pick(5) }, () => ({ writer: id }));
  return [key, { client: String(pick(12)), writer: id, lines: items.length, items }];
}

async function open() {
  const connection = await Connection.open(url);
  return [connection, new FencedWriter(connection, readFileSync(library, "utf8"), scope)];
}

let [connection, writer] = await open();
for (let number = 1; ; number += 1) {
  if (existsSync(join(folder, "closed"))) {
    await pause(20);
    continue;
  }
  writeFileSync(within, "");
  try {
    if (!existsSync(join(folder, "closed"))) {
      const id = `n${seed}-${number}`;
      const [key, value, ttlMs] = next(id);
      note({ id, key, value, begun: now() });
      try {
        const done = value === null ? await writer.delete(key) : await writer.put(key, JSON.stringify(value), { ttlMs });
        const version = done.n ? [Number(done.epoch), done.n] : null;
        note({ id, outcome: "ok", version, mirrored: false, ended: now() });
      } catch (error) {
        const outcome = error instanceof AmbiguousWriteError ? "ambiguous" : `refused: ${error.constructor.name}`;
        note({ id, outcome, ended: now() });
        if (error instanceof AmbiguousWriteError) {
          connection.close();
          [connection, writer] = await open();
        }
        await pause(50);
      }
    }
  } finally {
    rmSync(within, { force: true });
  }
  await pause(pick(20));
}
