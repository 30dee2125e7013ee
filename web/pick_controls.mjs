/** What is below the images: the buttons, and the line that says how far one has come. */

import { button, el, icon, mark, say } from "./dom.mjs";
import { understoodWords } from "./text.mjs";

/** @import { IconName, Made, PickView, Session, ShellLike, Text } from "./types" */

const SAYINGS = /** @type {const} */ ([
  ["tie", "T"],
  ["all_bad", "X"],
  ["skipped", "S"],
]);

export class PickBar {
  /** @param {PickView} view @param {Text} text */
  constructor(view, text) {
    this.view = view;
    this.text = text;
    /** @type {string | undefined} id of the pick on the undo button */
    this.shownLast = "";
    this.thumb = el("span.thumb", { "aria-hidden": "true" });
    this.undo = this.#button("undo", "Z", () => view.undo());
    this.undo.prepend(this.thumb);
    this.sayings = SAYINGS.map(([kind, key]) => this.#button(kind, key, (event) => view.say(kind, event.timeStamp)));
    this.rank = this.#button("ranking", "", () => view.setRankMode(!view.rankMode));
    this.done = this.#button("favourite", "", (event) => view.confirm(event.timeStamp), "rank_done");
    this.done.classList.add("main");
    this.flag = this.#button("flag", "", () => view.setFlagMode(!view.flagMode));
    this.flag.append(...["D", "U"].map((key) => el("kbd", { "aria-hidden": "true" }, key)));
    this.brush = this.#button("brush", "B", () => view.setBrush(!view.brush.on));
    this.zoom = this.#button("zoom", "", () => view.stage.zoom.toggle());
    const tools = [this.undo, ...this.sayings, this.rank, this.flag, this.brush, this.zoom, this.done];
    this.element = el("div.bar", { role: "toolbar", "aria-label": text.t("bar.title") }, ...tools);
  }

  refresh() {
    const { session, stage, ranking, rankMode, flagMode, brush } = this.view;
    const idle = !session.current;
    this.undo.disabled = !session.canUndo && !ranking.order.length && !brush.strokes.length;
    for (const tool of [...this.sayings, this.rank, this.flag, this.brush, this.zoom]) tool.disabled = idle;
    // Between groups it stays as it was, so that the row of buttons does not move.
    if (!idle) this.rank.hidden = stage.frames.length === 2 && !rankMode;
    this.done.hidden = !ranking.order.length;
    this.rank.setAttribute("aria-pressed", String(rankMode));
    this.flag.setAttribute("aria-pressed", String(flagMode));
    this.brush.setAttribute("aria-pressed", String(brush.on));
    this.zoom.setAttribute("aria-pressed", String(stage.zoom.on));
    this.#lastPick(session.made.at(-1));
  }

  /**
   * What undo would take back, as a small image: the quiet answer to "did it take my click?"
   * @param {Made | undefined} last
   */
  #lastPick(last) {
    if (this.shownLast === last?.pick_id) return;
    this.shownLast = last?.pick_id;
    this.thumb.replaceChildren(...(last ? [this.#picture(last)] : []));
    mark(this.thumb, "empty", !last);
  }

  /** @param {Made} made */
  #picture({ card, kind, order }) {
    const best = card.images.find((image) => image.candidate === order[0]);
    if (!best) return icon(/** @type {IconName} */ (kind));
    return el("img", { src: this.view.session.api.url(best.url), alt: "", decoding: "async" });
  }

  /**
   * @param {IconName} name @param {string} key its key, or "" @param {(event: MouseEvent) => void} press
   * @param {string} label
   */
  #button(name, key, press, label = name) {
    const title = this.text.t(`bar.${label}.title`);
    const attributes = { "data-tool": label, title, "aria-keyshortcuts": key || null };
    return this.view.tool(name, key, `bar.${label}`, attributes, press);
  }
}

export class PickFoot {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.fill = el("span.fill");
    const bar = { role: "progressbar", "aria-label": text.t("foot.progress"), "aria-valuemin": 0 };
    this.track = el("div.track", bar, this.fill);
    this.progress = el("span.progress");
    this.teach = button("small", { onclick: () => shell.go("teach") }, text.t("foot.teach"));
    this.restWords = el("span.rest", { hidden: true });
    this.status = el("span.status", { role: "status" });
    const line = el("div.line", {}, el("span.first", {}, this.progress, this.restWords, this.teach), this.status);
    this.element = el("footer.foot", {}, this.track, line);
  }

  /** @param {string} hint what to do now, where there is nothing more important */
  refresh(hint) {
    const { session, text } = this;
    const progress = session.progress();
    if (!progress) return;
    const matches = session.tournament();
    const { done, of, previous } = matches ? { ...matches, previous: 0 } : progress;
    const seconds = matches ? session.pace.seconds(of - done) : session.secondsLeft();
    const left = seconds === null ? "" : text.t("foot.left", { time: text.duration(seconds) });
    say(this.progress, text.t(matches ? "foot.match" : "foot.done", { done, of }) + left);
    this.fill.style.inlineSize = `${Math.min(100, (100 * (done - previous)) / Math.max(1, of - previous))}%`;
    this.track.setAttribute("aria-valuemax", String(of));
    this.track.setAttribute("aria-valuenow", String(Math.min(done, of)));
    this.#refreshRest();
    this.#refreshStatus(hint);
  }

  #refreshRest() {
    const { rest, state } = this.session;
    this.restWords.hidden = !rest;
    this.progress.hidden = Boolean(rest);
    const worthwhile = state && state.picks.untaught >= state.picks.needed;
    this.teach.hidden = !(worthwhile && state.can.includes("teach"));
    if (rest) say(this.restWords, this.text.t("foot.rest", { n: rest }));
  }

  /** @param {string} hint */
  #refreshStatus(hint) {
    const { session, text } = this;
    const { api, outbox, state } = session;
    const waiting = outbox.waiting.length;
    const parts = [];
    // Without images, the place where they were says it.
    if (api.away && session.current) parts.push(text.t(api.trouble ? "foot.trouble" : "foot.away"));
    // One entry on its way for a moment is no news.
    if (waiting > 2 || (waiting && api.away)) parts.push(text.t("foot.waiting", { n: waiting }));
    if (!outbox.kept && waiting) parts.push(text.t("foot.not_kept"));
    if (!parts.length && hint) parts.push(hint);
    if (!parts.length && state?.understood) parts.push(understoodWords({ ...state.understood, more: false }, text));
    if (!parts.length && state?.groups.near) parts.push(text.t("foot.near", { n: state.groups.near }));
    say(this.status, parts.join(" · "));
    mark(this.status, "worry", api.away);
  }
}
