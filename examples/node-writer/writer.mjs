// A writer of a Redis that is migrated meanwhile. The contract: docs/reference/wire.md.

import { LostError, ReplyError } from "./resp.mjs";

const PATIENCE_MS = 5000;

/** The tables are open: write there. Nothing was written. */
export class TablesOpenError extends Error {}

/** There is no fence. Nothing was written; only the controller may create one. */
export class NoFenceError extends Error {}

/** No answer came: the write may have happened or not. Read the key, then decide. */
export class AmbiguousWriteError extends Error {}

export class FencedWriter {
  #connection;
  #library;
  #keys;
  #epoch;
  #isScripted = false;

  /** Write through a connection; library is the text of kvmigrate.lua, scope the name of the mapping. */
  constructor(connection, library, scope) {
    this.#connection = connection;
    this.#library = library;
    this.#keys = ["f", "c", "d"].map((letter) => `kvm:${letter}:{kvm}:${scope}`);
  }

  /** Write a string; ttlMs from now on, or none. Resolves to {epoch, n, log, expiresAtMs}. */
  put(key, value, { ttlMs } = {}) {
    const expiry = ttlMs === undefined ? ["", ""] : ["in", ttlMs];
    return this.#write("put", key, ["SET", ...expiry, 1, value]);
  }

  /** Write a string only if the one there is what was expected; resolves to null if it is not. */
  replace(key, expected, value) {
    return this.#write("put", key, ["SET", "keep", "", 1, value, "value", expected]);
  }

  /** Write a field of a hash that is an item by itself. */
  putField(key, field, value) {
    return this.#write("put", key, ["FIELD", "keep", "", 2, field, value]);
  }

  /** Delete a key, whether it exists or not. */
  delete(key) {
    return this.#write("delete", key, ["DEL", "", "", 0]);
  }

  /** Repeat what the fence refused: nothing was written then. Nothing else is repeated. */
  async #write(name, key, change) {
    const end = Date.now() + PATIENCE_MS;
    this.#epoch ??= await this.#openEpoch(end);
    for (;;) {
      const epoch = this.#epoch;
      try {
        const reply = await this.#call(name, [...this.#keys, key], [epoch, ...change]);
        if (reply === null) {
          return null;
        }
        const [n, log, expiresAtMs] = reply;
        return { epoch, n, log, expiresAtMs };
      } catch (error) {
        if (error instanceof LostError) {
          throw new AmbiguousWriteError(error.message);
        }
        if (!error.message.startsWith("KVMSTALE")) {
          throw error.message.startsWith("KVMNOFENCE") ? new NoFenceError(error.message) : error;
        }
        this.#epoch = await this.#openEpoch(end);
      }
    }
  }

  /** The epoch at which the store is open. Sealed takes well under a second; then somebody opens. */
  async #openEpoch(end) {
    for (;;) {
      const fence = await this.#call("fence", this.#keys.slice(0, 2), []);
      if (fence === null) {
        throw new NoFenceError("there is no fence");
      }
      const [epoch, authority] = fence.map(String);
      if (authority === "K") {
        return epoch;
      }
      if (authority !== "S") {
        throw new TablesOpenError(`the authority is ${authority} at epoch ${epoch}`);
      }
      if (Date.now() > end) {
        throw new Error(`still sealed at epoch ${epoch}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 2 + Math.random() * 48));
    }
  }

  async #call(name, keys, rest) {
    for (let tries = 0; ; tries += 1) {
      const head = this.#isScripted ? ["EVAL", this.#script(name)] : ["FCALL", `kvm1_${name}`];
      try {
        return await this.#connection.call(...head, keys.length, ...keys, ...rest);
      } catch (error) {
        if (!(error instanceof ReplyError) || tries > 2) {
          throw error;
        }
        await this.#prepare(error);
      }
    }
  }

  /** Do what makes another try worth while: the server did nothing. */
  async #prepare(error) {
    if (error.message.includes("Function not found")) {
      try {
        await this.#connection.call("FUNCTION", "LOAD", this.#library);
      } catch (refused) {
        // Another writer may have been faster; a server that takes no libraries takes scripts.
        this.#isScripted = !refused.message.includes("already exists");
      }
    } else if (/unknown command.*fcall|permissions.*'fcall'/i.test(error.message)) {
      this.#isScripted = true;
    } else {
      throw error;
    }
  }

  /** The function as a script, for servers before Redis 7. A real writer sends its SHA-1 with EVALSHA. */
  #script(name) {
    const lines = this.#library.split("\n").slice(1);
    const kept = lines.filter((line) => !line.startsWith("redis.register_function"));
    return [...kept, `return ${name === "delete" ? "put" : name}(KEYS, ARGV)`].join("\n");
  }
}
