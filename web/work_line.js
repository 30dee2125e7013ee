/** What the server is doing: in words, with a bar and the time left. */

import { el, mark, say } from "./dom.js";

export class WorkLine {
  constructor(text) {
    this.text = text;
    this.words = el("p", { class: "words" });
    this.fill = el("span", { class: "fill" });
    const bar = { class: "track", role: "progressbar", "aria-valuemin": 0, "aria-label": text.t("work.title") };
    this.track = el("div", bar, this.fill);
    this.element = el("div", { class: "work", hidden: true }, this.words, this.track);
  }

  /**
   * @param {null | {kind: string, done: number, of: number, left_s: number|null, queued: number, text: string}} work
   */
  refresh(work) {
    this.element.hidden = !work;
    if (!work) return;
    const { text } = this;
    const counted = work.of || !text.has(`work.${work.kind}.begin`);
    const parts = [text.t(counted ? `work.${work.kind}` : `work.${work.kind}.begin`, { done: work.done, of: work.of })];
    if (work.left_s !== null && work.left_s !== undefined)
      parts.push(text.t("work.left", { time: text.duration(work.left_s) }));
    if (work.queued) parts.push(text.t("work.queued", { n: work.queued }));
    if (work.text) parts.push(work.text);
    say(this.words, parts.join(" · "));
    this.fill.style.inlineSize = `${work.of ? Math.min(100, (100 * work.done) / work.of) : 0}%`;
    this.track.setAttribute("aria-valuemax", String(work.of || 1));
    this.track.setAttribute("aria-valuenow", String(work.done));
    mark(this.track, "unknown", !work.of);
  }
}
