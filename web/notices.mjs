/**
 * What needs a word: a problem on the server, a pick that it did not take, a blind check that is ready. Never in the
 * way.
 */

import { button, el, icon, refill } from "./dom.mjs";

/** @import { Blind, Entry, Lost, Notice, Session, ShellLike, Text } from "./types" */

const NOTHING = { what: "", do: "", safe: "" };

export class Notices {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    /** @type {string | undefined} the notice that was closed */
    this.dismissed = undefined;
    this.element = el("div.notices", { role: "status" });
    session.addEventListener("state", () => this.refresh());
  }

  refresh() {
    const { state, outbox, api, notice } = this.session;
    /** @type {Notice[]} */
    const notices = [
      ...[state?.problem, api.trouble].flatMap((one) => (one ? [{ id: `problem-${one.what}`, message: one }] : [])),
      ...this.#lost(state?.lost),
      ...(notice ? [{ id: `notice-${notice.what}`, message: notice, close: () => this.#forgetNotice() }] : []),
      ...outbox.refused.map((entry) => ({ id: entry.id, message: this.#refusedWords(entry), entry })),
      ...this.#blind(state?.blind),
    ].filter(({ id }) => id !== this.dismissed);
    const ids = notices.map(({ id }) => id);
    refill(this.element, ids, () => notices.map((one) => this.#notice(one)));
  }

  /** @param {Entry} entry */
  #refusedWords({ kind, problem = NOTHING }) {
    return { ...problem, what: `${this.text.t(`refused.${kind}`)} ${problem.what}` };
  }

  /** @param {Lost | null | undefined} lost @returns {Notice[]} */
  #lost(lost) {
    if (!lost) return [];
    const key = lost.restores ? "restore" : lost.to ? "round" : "original";
    const label = this.text.t(`lost.${key}`, { n: lost.to });
    return [{ id: `lost-${lost.what}-${key}`, message: lost, act: [label, () => this.session.ask("go_on")] }];
  }

  /** @param {Blind | null | undefined} blind @returns {Notice[]} */
  #blind(blind) {
    if (!blind || blind.decision || this.shell.view === "blind" || this.shell.view === "teach") return [];
    const message = { ...NOTHING, what: this.text.t(blind.result ? "notice.blind_done" : "notice.blind") };
    return [{ id: `blind-${blind.check}-${blind.result ? 1 : 0}`, message, go: "blind", calm: true, close: () => {} }];
  }

  #forgetNotice() {
    this.session.notice = null;
  }

  /** @param {Notice} notice */
  #notice({ id, message, entry, act, go, calm, close }) {
    const { outbox } = this.session;
    /** @param {string} key @param {() => void} onclick */
    const action = (key, onclick) => button("small", { onclick }, this.text.t(key));
    const closed = () => {
      this.dismissed = id;
      close?.();
      this.refresh();
      this.shell.focus();
    };
    const words = [message.what, message.do, message.safe].filter(Boolean).join(" ");
    return el(
      "div",
      { class: calm ? "notice calm" : "notice" },
      el("p", {}, words),
      entry && action("refused.again", () => outbox.retry(entry.id)),
      entry && action("refused.drop", () => outbox.drop(entry.id)),
      act && button("small", { onclick: act[1] }, act[0]),
      go && action("notice.blind.go", () => this.shell.go(go)),
      close && button("bare", { "aria-label": this.text.t("close"), onclick: closed }, icon("close")),
    );
  }
}
