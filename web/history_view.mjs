/** All picks, newest first: to find, correct, delete and take along. Loaded page by page as one scrolls. */

import { agreementOf } from "./agreement.mjs";
import { Refused } from "./api.mjs";
import { el, icon, options, say } from "./dom.mjs";
import { FLAGS, isFlag } from "./flags.mjs";
import { HistoryItem } from "./history_item.mjs";

/** @import { Command, History, Option, Session, ShellLike, Text } from "./types" */

const PAGE = 60;
const TYPING_MS = 250;
const RETRY_MS = 2000;
const TAKE_BACK_MS = 10000; // a program that teaches meanwhile still learns from what was deleted here
const KINDS = ["favourite", "ranking", "tie", "all_bad", "skipped", ...FLAGS];

export class HistoryView {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    /** @type {HistoryItem | null} deleted here, and not yet on the server: it can be taken back for a while */
    this.removed = null;
    /** @type {number | undefined} */
    this.settling = undefined;
    /** @type {HTMLElement | null} the picture that was looked at last, for the keyboard */
    this.lookedAt = null;
    /** a new one for each time that the list is begun anew */
    this.edition = {};
    this.loaded = 0;
    this.total = Infinity;
    this.busy = false;
    /** @type {number | undefined} */
    this.typing = undefined;
    this.filters = { text: "", kind: "", by: "", round: "" };
    /** @type {Option[]} */
    const kinds = KINDS.map((kind) => [kind, text.t(`kind.${kind}`)]);
    this.kind = this.#menu("kind", kinds);
    this.who = this.#menu("by");
    this.round = this.#menu("round");
    const forms = session.api.guest ? [] : ["jsonl", "d3po"];
    const exports = el("span.exports", {}, ...forms.map((form) => this.#export(form)));
    this.count = el("p.hint", { role: "status" });
    this.agreement = el("div.agreement");
    this.grid = el("ul.grid");
    /** @type {WeakMap<Element, HistoryItem>} */
    this.items = new WeakMap();
    this.end = el("div.end");
    const menus = [this.kind, this.who, this.round];
    const filters = el("div.filters", { role: "search" }, this.#search(), ...menus, exports);
    const page = el("div.page.wide", {}, filters, this.count, this.agreement, this.grid, this.end);
    this.element = el("section.scroll.history", { tabindex: -1, "aria-label": text.t("history.title") }, page);
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.#more(), {
      root: this.element,
      rootMargin: "600px",
    }).observe(this.end);
    const { signal } = session.ending;
    window.addEventListener("pagehide", () => this.settle(), { signal }); // a page can come back, and be left again
    signal.addEventListener("abort", () => this.settle(), { once: true });
  }

  focus() {
    (this.lookedAt?.isConnected ? this.lookedAt : this.element).focus({ preventScroll: true });
  }

  /** What was deleted is deleted on the server too: something else is done now. @param {HistoryItem | null} next */
  settle(next = null) {
    const { removed } = this;
    clearTimeout(this.settling);
    this.removed = next;
    removed?.settle();
    if (next) this.settling = setTimeout(() => this.settle(), TAKE_BACK_MS);
  }

  /** The deletion is taken back. */
  unsettle() {
    clearTimeout(this.settling);
    this.removed = null;
  }

  /**
   * A flag's key is for the image that has the keyboard's focus, or is under the mouse.
   * @param {Command} command @param {KeyboardEvent} event
   */
  command(command, event) {
    if (command.name === "undo" && this.removed) {
      this.removed.restore();
      return true;
    }
    if (!isFlag(command.name)) return false;
    const cell = this.grid.querySelector(".cell:has(:focus-visible)") ?? this.grid.querySelector(".cell:hover");
    const card = cell?.closest(".pickcard");
    if (!cell?.parentElement || !card || event.repeat) return true;
    this.items.get(card)?.flag([...cell.parentElement.children].indexOf(cell), command.name);
    return true;
  }

  /** @param {boolean} on */
  shown(on) {
    if (on) this.#again();
    else this.settle();
  }

  /** Starts over, with the picks that are still on their way delivered first if the server is there. */
  async #again() {
    this.settle();
    this.edition = {};
    this.loaded = 0;
    this.total = Infinity;
    this.busy = false;
    this.grid.replaceChildren();
    if (!this.session.api.away) await this.session.outbox.empty();
    await this.#more();
  }

  async #more() {
    if (this.element.hidden || this.busy || this.loaded >= this.total) return;
    const { edition } = this;
    this.busy = true;
    const answer = await this.#page();
    if (edition !== this.edition) return;
    this.busy = false;
    if (!answer) return void setTimeout(() => edition === this.edition && this.#more(), RETRY_MS);
    this.total = answer.total;
    this.loaded += answer.items.length || this.total;
    this.#fillMenus(answer);
    this.#headline(answer);
    for (const pick of answer.items) {
      const item = new HistoryItem(pick, this);
      this.items.set(item.element, item);
      this.grid.append(item.element);
    }
    // A tall screen may have room for another page, which no scrolling would ask for.
    if (this.end.getBoundingClientRect().top < this.element.getBoundingClientRect().bottom + PAGE) this.#more();
  }

  /** @returns {Promise<History | null>} */
  async #page() {
    try {
      const query = { offset: this.loaded, limit: PAGE, ...this.filters };
      return await this.session.api.get(`${this.session.path}/history`, query);
    } catch (error) {
      say(this.count, error instanceof Refused ? error.problem.what : this.text.t("waiting.away"));
      return null;
    }
  }

  /** A deleted pick moves all later ones up by one, here as on the server. */
  oneLess() {
    this.loaded -= 1;
    this.total -= 1;
    this.#counted();
  }

  #counted() {
    const filtered = Object.values(this.filters).some(Boolean);
    const key = this.total ? "history.count" : filtered ? "history.nothing" : "history.empty";
    say(this.count, this.text.t(key, { n: this.total }));
  }

  /** @param {History} page */
  #headline(page) {
    this.#counted();
    if (this.loaded > page.items.length) return; // it was shown with the first page, and may have been unfolded
    const shown = agreementOf(page, this.text);
    this.agreement.hidden = !shown;
    this.agreement.replaceChildren(...(shown ? [shown] : []));
  }

  /** @param {History} page */
  #fillMenus({ people, rounds }) {
    const { text } = this;
    /** @type {Option[]} */
    const names = people.map((name) => [name, name || text.t("history.nobody")]);
    this.#setOptions(this.who, names);
    /** @type {Option[]} */
    const numbers = rounds.map((number) => [number, text.t("history.round", { n: number })]);
    this.#setOptions(this.round, numbers);
  }

  /** @param {HTMLSelectElement} menu @param {Option[]} entries */
  #setOptions(menu, entries) {
    menu.hidden = entries.length < 2;
    const chosen = menu.value;
    menu.replaceChildren(menu.options[0], ...options(entries.filter(([value]) => value !== "")));
    menu.value = chosen;
  }

  /** @param {string} name @param {Option[]} entries @returns {HTMLSelectElement} */
  #menu(name, entries = []) {
    const label = this.text.t(`history.${name}`);
    const onchange = () => this.#filter(name, menu.value);
    /** @type {Option} */
    const all = ["", this.text.t(`history.${name}.all`)];
    const menu = el("select", { "aria-label": label, onchange }, ...options([all, ...entries]));
    return menu;
  }

  #search() {
    const changed = () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.#filter("text", field.value.trim()), TYPING_MS);
    };
    const label = this.text.t("history.search");
    const field = el("input", { type: "search", placeholder: label, "aria-label": label, oninput: changed });
    return field;
  }

  /** @param {string} name @param {string} value */
  #filter(name, value) {
    this.filters = { ...this.filters, [name]: value };
    this.#again();
  }

  /** @param {string} form */
  #export(form) {
    const href = this.session.api.url(`${this.session.path}/export?form=${form}`);
    return el("a.small.link", { href, download: true }, icon("save"), this.text.t(`history.export.${form}`));
  }
}
