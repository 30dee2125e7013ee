/** Waiting that can be cut short, and waiting a little longer each time. */

export class Pause {
  #cut = () => {};

  /** Resolves after so many milliseconds, or as soon as cut() is called. */
  wait(ms) {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      this.#cut = () => {
        clearTimeout(timer);
        done(undefined);
      };
    });
  }

  cut() {
    this.#cut();
  }
}

export class Backoff {
  constructor(first, longest) {
    this.first = first;
    this.longest = longest;
    this.reset();
  }

  reset() {
    this.next = this.first;
  }

  /** How long to wait this time. A little chance keeps many tabs from calling at the same moment. */
  step() {
    const now = this.next * (0.85 + 0.3 * Math.random());
    this.next = Math.min(this.longest, this.next * 2);
    return now;
  }
}
