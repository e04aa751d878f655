// Just enough of the Redis protocol (RESP2): one connection, replies in order, nothing sent twice.

import { connect } from "node:net";

/** An error that the server answered: it did not do what was asked. */
export class ReplyError extends Error {}

/** The connection ended before the answer: what was asked may have been done. */
export class LostError extends Error {}

export class Connection {
  #socket;
  #waiting = [];
  #data = Buffer.alloc(0);

  /** Open a connection to redis://:password@host:port/database. */
  static async open(url) {
    const { hostname, port, username, password, pathname } = new URL(url);
    const opened = new Connection();
    await new Promise((resolve, reject) => {
      opened.#socket = connect(Number(port || 6379), hostname, resolve).once("error", reject);
    });
    opened.#socket.setNoDelay(true);
    opened.#socket.on("data", (data) => opened.#read(data));
    opened.#socket.on("error", () => {});
    opened.#socket.on("close", () => opened.#end());
    if (password) {
      const user = username ? [decodeURIComponent(username)] : [];
      await opened.call("AUTH", ...user, decodeURIComponent(password));
    }
    await opened.call("SELECT", pathname.slice(1) || "0");
    return opened;
  }

  /** Send one command; arguments are text, numbers or buffers. Resolves to numbers, buffers, null and arrays. */
  call(...command) {
    const parts = [Buffer.from(`*${command.length}\r\n`)];
    for (const argument of command) {
      const bytes = Buffer.isBuffer(argument) ? argument : Buffer.from(String(argument));
      parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from("\r\n"));
    }
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) {
        reject(new LostError("the connection is closed"));
        return;
      }
      this.#waiting.push({ resolve, reject });
      this.#socket.write(Buffer.concat(parts));
    });
  }

  close() {
    this.#socket.destroy();
  }

  #end() {
    for (const { reject } of this.#waiting.splice(0)) {
      reject(new LostError("the connection was lost before the answer"));
    }
  }

  #read(data) {
    this.#data = Buffer.concat([this.#data, data]);
    let found;
    while ((found = parse(this.#data, 0)) !== undefined) {
      this.#data = this.#data.subarray(found.end);
      const { resolve, reject } = this.#waiting.shift();
      if (found.value instanceof ReplyError) {
        reject(found.value);
      } else {
        resolve(found.value);
      }
    }
  }
}

/** The reply that begins there and where it ends; undefined if it is not all there yet. */
function parse(data, start) {
  const stop = data.indexOf("\r\n", start);
  if (stop < 0) {
    return undefined;
  }
  const line = data.toString("utf8", start + 1, stop);
  const end = stop + 2;
  switch (data[start]) {
    case 0x2b: // +
      return { value: Buffer.from(line), end };
    case 0x2d: // -
      return { value: new ReplyError(line), end };
    case 0x3a: // :
      return { value: Number(line), end };
    case 0x24: // $
      return parseBulk(data, end, Number(line));
    case 0x2a: // *
      return parseArray(data, end, Number(line));
    default:
      throw new Error(`no reply begins with ${line}`);
  }
}

function parseBulk(data, start, length) {
  if (length < 0) {
    return { value: null, end: start };
  }
  const end = start + length + 2;
  return data.length < end ? undefined : { value: data.subarray(start, start + length), end };
}

function parseArray(data, start, length) {
  if (length < 0) {
    return { value: null, end: start };
  }
  const value = [];
  let end = start;
  for (let n = 0; n < length; n += 1) {
    const found = parse(data, end);
    if (found === undefined) {
      return undefined;
    }
    value.push(found.value);
    end = found.end;
  }
  return { value, end };
}
