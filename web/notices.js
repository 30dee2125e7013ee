/**
 * What needs a word: a problem on the server, a pick that it did not take, a blind check that is ready. Never in the
 * way.
 */

import { el } from "./dom.js";
import { icon } from "./icons.js";

export class Notices {
  constructor(session, text, shell) {
    Object.assign(this, { session, text, shell });
    this.element = el("div", { class: "notices", role: "status" });
    session.addEventListener("state", () => this.refresh());
  }

  refresh() {
    const { state, outbox, api, notice } = this.session;
    const wanted = [
      ...[state?.problem, api.trouble].filter(Boolean).map((said) => ({ id: `problem-${said.what}`, said })),
      ...(notice ? [{ id: `notice-${notice.what}`, said: notice, close: () => this.#forgetNotice() }] : []),
      ...outbox.refused.map((entry) => ({ id: entry.id, said: this.#refusedWords(entry), entry })),
      ...this.#blind(state?.blind),
    ].filter(({ id }) => id !== this.dismissed);
    const told = JSON.stringify(wanted.map(({ id }) => id));
    if (told === this.told) return;
    this.told = told;
    this.element.replaceChildren(...wanted.map((one) => this.#notice(one)));
  }

  #refusedWords({ kind, said }) {
    return { what: `${this.text.t(`refused.${kind}`)} ${said.what}`, do: said.do, safe: said.safe };
  }

  #blind(blind) {
    if (!blind || blind.decision || this.shell.view === "blind" || this.shell.view === "teach") return [];
    const said = { what: this.text.t(blind.result ? "notice.blind_done" : "notice.blind"), do: "", safe: "" };
    return [{ id: `blind-${blind.check}-${blind.result ? 1 : 0}`, said, go: "blind", calm: true, close: () => {} }];
  }

  #forgetNotice() {
    this.session.notice = null;
  }

  #notice({ id, said, entry, go, calm, close }) {
    const { outbox } = this.session;
    const button = (key, press) => el("button", { type: "button", class: "small", onclick: press }, this.text.t(key));
    const actions = [
      entry && button("refused.again", () => outbox.retry(entry.id)),
      entry && button("refused.drop", () => outbox.drop(entry.id)),
      go && button("notice.blind.go", () => this.shell.go(go)),
      close && this.#close(id, close),
    ];
    const words = [said.what, said.do, said.safe].filter(Boolean).join(" ");
    return el("div", { class: calm ? "notice calm" : "notice" }, el("p", {}, words), ...actions);
  }

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
