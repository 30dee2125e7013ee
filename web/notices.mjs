/**
 * What needs a word: a problem on the server, a pick that it did not take, a blind check that is ready. Never in the
 * way.
 */

import { el, icon } from "./dom.mjs";

/** @typedef {import("./types").Blind} Blind */
/** @typedef {import("./outbox.mjs").Entry} Entry */
/** @typedef {import("./types").Problem} Problem */
/** @typedef {import("./session.mjs").Session} Session */
/** @typedef {import("./types").ShellLike} ShellLike */
/** @typedef {import("./text.mjs").Text} Text */

/**
 * @typedef {object} Notice
 * @property {string} id
 * @property {Problem} message
 * @property {Entry} [entry] that the server refused
 * @property {string} [go] a view that is offered
 * @property {boolean} [calm] good news
 * @property {() => void} [close] it can be closed
 */

const NOTHING = { what: "", do: "", safe: "" };

export class Notices {
  /**
   * @param {Session} session
   * @param {Text} text
   * @param {ShellLike} shell
   */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    /** @type {string | undefined} the notice that was closed */
    this.dismissed = undefined;
    /** what the elements were made from */
    this.drawn = "";
    this.element = el("div", { class: "notices", role: "status" });
    session.addEventListener("state", () => this.refresh());
  }

  refresh() {
    const { state, outbox, api, notice } = this.session;
    /** @type {Notice[]} */
    const notices = [
      ...[state?.problem, api.trouble].flatMap((one) => (one ? [{ id: `problem-${one.what}`, message: one }] : [])),
      ...(notice ? [{ id: `notice-${notice.what}`, message: notice, close: () => this.#forgetNotice() }] : []),
      ...outbox.refused.map((entry) => ({ id: entry.id, message: this.#refusedWords(entry), entry })),
      ...this.#blind(state?.blind),
    ].filter(({ id }) => id !== this.dismissed);
    const drawn = JSON.stringify(notices.map(({ id }) => id));
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.element.replaceChildren(...notices.map((one) => this.#notice(one)));
  }

  /** @param {Entry} entry */
  #refusedWords({ kind, problem = NOTHING }) {
    return { what: `${this.text.t(`refused.${kind}`)} ${problem.what}`, do: problem.do, safe: problem.safe };
  }

  /** @param {Blind | null | undefined} blind @returns {Notice[]} */
  #blind(blind) {
    if (!blind || blind.decision || this.shell.view === "blind" || this.shell.view === "teach") return [];
    const message = { what: this.text.t(blind.result ? "notice.blind_done" : "notice.blind"), do: "", safe: "" };
    return [{ id: `blind-${blind.check}-${blind.result ? 1 : 0}`, message, go: "blind", calm: true, close: () => {} }];
  }

  #forgetNotice() {
    this.session.notice = null;
  }

  /** @param {Notice} notice */
  #notice({ id, message, entry, go, calm, close }) {
    const { outbox } = this.session;
    /** @param {string} key @param {(event: MouseEvent) => void} press */
    const button = (key, press) => el("button", { type: "button", class: "small", onclick: press }, this.text.t(key));
    const actions = [
      entry && button("refused.again", () => outbox.retry(entry.id)),
      entry && button("refused.drop", () => outbox.drop(entry.id)),
      go && button("notice.blind.go", () => this.shell.go(go)),
      close && this.#close(id, close),
    ];
    const words = [message.what, message.do, message.safe].filter(Boolean).join(" ");
    return el("div", { class: calm ? "notice calm" : "notice" }, el("p", {}, words), ...actions);
  }

  /** @param {string} id @param {() => void} close */
  #close(id, close) {
    const pressed = () => {
      this.dismissed = id;
      close();
      this.refresh();
      this.shell.focus();
    };
    return el(
      "button",
      { type: "button", class: "bare", "aria-label": this.text.t("close"), onclick: pressed },
      icon("close"),
    );
  }
}
