/** A ranking in the making: positions on screen, best first. */

export class Ranking {
  constructor() {
    this.count = 0;
    /** @type {number[]} */
    this.order = [];
  }

  /** @param {number} count candidates of a new group */
  begin(count) {
    this.count = count;
    this.order = [];
  }

  /**
   * Ranks one more, or takes it out again if it is ranked.
   * @returns {boolean} whether the ranking is complete by that
   */
  add(at) {
    if (this.order.includes(at)) this.order = this.order.filter((one) => one !== at);
    else this.order = [...this.order, at];
    if (this.order.length < this.count - 1) return false;
    // Only one place is left for the last.
    for (let rest = 0; rest < this.count; rest++) if (!this.order.includes(rest)) this.order = [...this.order, rest];
    return true;
  }

  back() {
    this.order = this.order.slice(0, -1);
  }

  /** 1 for the best, or 0. */
  place(at) {
    return this.order.indexOf(at) + 1;
  }
}
