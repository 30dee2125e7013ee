/** The line at the bottom: how far, how long, a word at a milestone, and what is on its way to the server. */

import { el, mark, say } from "./dom.js";

export class PickFoot {
  /** @param {import("./session.js").Session} session */
  constructor(session, text, shell) {
    Object.assign(this, { session, text });
    this.fill = el("span", { class: "fill" });
    this.track = el(
      "div",
      { class: "track", role: "progressbar", "aria-label": text.t("foot.progress"), "aria-valuemin": 0 },
      this.fill,
    );
    this.progress = el("span", { class: "progress" });
    this.teach = el(
      "button",
      { class: "small", type: "button", onclick: () => shell.go("teach") },
      text.t("foot.teach"),
    );
    this.rest = el("span", { class: "rest", hidden: true }, el("span", { class: "words" }), this.teach);
    this.status = el("span", { class: "status", role: "status" });
    this.element = el(
      "footer",
      { class: "foot" },
      this.track,
      el("div", { class: "line" }, this.progress, this.rest, this.status),
    );
  }

  refresh() {
    const { session, text } = this;
    const progress = session.progress();
    if (!progress) return;
    const { done, of, previous } = progress;
    const seconds = session.secondsLeft();
    const left = seconds === null ? "" : text.t("foot.left", { time: text.duration(seconds) });
    say(this.progress, text.t("foot.done", { done, of }) + left);
    this.fill.style.inlineSize = `${Math.min(100, (100 * (done - previous)) / Math.max(1, of - previous))}%`;
    this.track.setAttribute("aria-valuemax", String(of));
    this.track.setAttribute("aria-valuenow", String(Math.min(done, of)));
    this.#refreshRest();
    this.#refreshStatus();
  }

  #refreshRest() {
    const { rest, state } = this.session;
    this.rest.hidden = !rest;
    this.progress.hidden = Boolean(rest);
    this.teach.hidden = !state.can.includes("teach");
    if (rest) say(this.rest.firstElementChild, this.text.t("foot.rest", { n: rest }));
  }

  #refreshStatus() {
    const { session, text } = this;
    const { api, outbox, state } = session;
    const waiting = outbox.waiting.length;
    const parts = [];
    // Without pictures, the place where they were says it.
    if (api.away && session.current) parts.push(text.t(api.trouble ? "foot.trouble" : "foot.away"));
    // One entry on its way for a moment is no news.
    if (waiting > 2 || (waiting && api.away)) parts.push(text.t("foot.waiting", { n: waiting }));
    if (outbox.kept === false && waiting) parts.push(text.t("foot.not_kept"));
    if (!parts.length && state.groups.near) parts.push(text.t("foot.near", { n: state.groups.near }));
    say(this.status, parts.join(" · "));
    mark(this.status, "worry", api.away);
  }
}
