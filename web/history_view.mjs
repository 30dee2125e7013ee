/** All picks, newest first: to find, correct, delete and take along. Loaded page by page as one scrolls. */

import { Refused } from "./api.mjs";
import { el, icon, say } from "./dom.mjs";
import { FLAGS, isFlag } from "./flags.mjs";
import { HistoryItem } from "./history_item.mjs";

/** @typedef {import("./types").Command} Command */
/** @typedef {import("./types").History} History */
/** @typedef {import("./session.mjs").Session} Session */
/** @typedef {import("./text.mjs").Text} Text */

const PAGE = 60;
const TYPING_MS = 250;
const RETRY_MS = 2000;
const KINDS = ["favourite", "ranking", "tie", "all_bad", "skipped", ...FLAGS];

/** @typedef {[value: string | number, label: string]} Option */

export class HistoryView {
  /** @param {Session} session @param {Text} text */
  constructor(session, text) {
    this.session = session;
    this.text = text;
    this.visible = false;
    /** a new one for each time that the list is begun anew */
    this.edition = {};
    this.loaded = 0;
    this.total = Infinity;
    this.busy = false;
    /** @type {number | undefined} */
    this.typing = undefined;
    this.filters = { text: "", kind: "", by: "", round: "" };
    this.search = this.#search();
    this.kind = this.#menu(
      "kind",
      KINDS.map((kind) => [kind, text.t(`kind.${kind}`)]),
    );
    this.who = this.#menu("by", []);
    this.round = this.#menu("round", []);
    this.exports = el("span", { class: "exports" }, ...["jsonl", "d3po"].map((form) => this.#export(form)));
    this.count = el("p", { class: "hint", role: "status" });
    this.consistency = el("p", { class: "hint" });
    this.grid = el("ul", { class: "grid" });
    /** @type {WeakMap<Element, HistoryItem>} */
    this.items = new WeakMap();
    this.end = el("div", { class: "end" });
    const filters = el(
      "div",
      { class: "filters", role: "search" },
      this.search,
      this.kind,
      this.who,
      this.round,
      this.exports,
    );
    const page = el("div", { class: "page wide" }, filters, this.count, this.consistency, this.grid, this.end);
    this.element = el(
      "section",
      { class: "scroll history", tabindex: -1, "aria-label": text.t("history.title") },
      page,
    );
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.#more(), {
      root: this.element,
      rootMargin: "600px",
    }).observe(this.end);
  }

  focus() {
    this.element.focus({ preventScroll: true });
  }

  /**
   * A flag's key is for the image that has the keyboard's focus, or is under the mouse.
   * @param {Command} command
   * @param {KeyboardEvent} event
   */
  command(command, event) {
    if (!isFlag(command.name)) return false;
    const cell = this.grid.querySelector(".cell:has(:focus-visible)") ?? this.grid.querySelector(".cell:hover");
    const card = cell?.closest(".pickcard");
    if (!cell?.parentElement || !card || event.repeat) return true;
    this.items.get(card)?.flag([...cell.parentElement.children].indexOf(cell), command.name);
    return true;
  }

  /** @param {boolean} on */
  shown(on) {
    this.visible = on;
    if (on) this.#again();
  }

  /** Starts over, with the picks that are still on their way delivered first if the server is there. */
  async #again() {
    this.edition = {};
    this.loaded = 0;
    this.total = Infinity;
    this.busy = false;
    this.grid.replaceChildren();
    if (!this.session.api.away) await this.session.outbox.empty();
    await this.#more();
  }

  async #more() {
    if (!this.visible || this.busy || this.loaded >= this.total) return;
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
      const item = new HistoryItem(pick, this.session, this.text, () => this.#oneLess());
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
  #oneLess() {
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
  #headline({ consistency }) {
    this.#counted();
    this.consistency.hidden = !consistency;
    if (!consistency) return;
    const { same, of } = consistency;
    say(this.consistency, this.text.t("history.consistency", { same, n: of }));
  }

  /** @param {History} page */
  #fillMenus({ people, rounds }) {
    this.#options(
      this.who,
      people.map((name) => [name, name || this.text.t("history.nobody")]),
    );
    this.#options(
      this.round,
      rounds.map((number) => [number, this.text.t("history.round", { n: number })]),
    );
  }

  /** @param {HTMLSelectElement} menu @param {Option[]} options */
  #options(menu, options) {
    menu.hidden = options.length < 2;
    const chosen = menu.value;
    menu.replaceChildren(
      menu.options[0],
      ...options.filter(([value]) => value !== "").map(([value, label]) => el("option", { value }, label)),
    );
    menu.value = chosen;
  }

  /** @param {string} name @param {Option[]} options @returns {HTMLSelectElement} */
  #menu(name, options) {
    const all = el("option", { value: "" }, this.text.t(`history.${name}.all`));
    const changed = () => this.#filter(name, menu.value);
    const menu = el(
      "select",
      { "aria-label": this.text.t(`history.${name}`), onchange: changed },
      all,
      ...options.map(([value, label]) => el("option", { value }, label)),
    );
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
    const address = this.session.api.url(`${this.session.path}/export?form=${form}`);
    return el(
      "a",
      { class: "small link", href: address, download: true },
      icon("save"),
      this.text.t(`history.export.${form}`),
    );
  }
}
