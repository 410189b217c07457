// When to look at the server: soon after something may have changed there, one look at a time.

import { Unreachable } from "./api.js";

/** Several events come at once; one look at the server is enough for them. */
const SOON_MS = 100;
/** No event may follow a look that failed. */
const RETRY_MS = 2000;

/** Calls `look()` some time after each `soon()`; what it throws goes to `report`. */
export class Looks {
  #timer = null;
  #isLooking = false;
  #isWanted = false;

  constructor(look, report) {
    this.look = look;
    this.report = report;
  }

  soon(wait = SOON_MS) {
    if (this.#isLooking) this.#isWanted = true;
    else this.#timer ??= setTimeout(() => this.#now(), wait);
  }

  async #now() {
    [this.#timer, this.#isLooking, this.#isWanted] = [null, true, false];
    let hasFailed = false;
    try {
      await this.look();
    } catch (error) {
      hasFailed = error instanceof Unreachable;
      // That the server does not answer, the header says.
      if (!hasFailed) this.report(error);
    }
    this.#isLooking = false;
    if (hasFailed) this.soon(RETRY_MS);
    else if (this.#isWanted) this.soon();
  }
}
