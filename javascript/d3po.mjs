/** The D3PO tab's page: the gallery's element, and what shows the host that something of ours is being done. */

/** @import { D3POGallery, State } from "../web/types" */

if (Object.hasOwn(window, "d3po_cards")) {
  throw new Error("D3PO is installed twice: delete one of its folders in extensions.");
}

/** An element of the host's page; what it is, the host decides. @param {string} selector @returns {any} */
const find = (selector) => gradioApp().querySelector(selector);

const TITLES = {
  d3po_generate: "Draw more pictures to choose from (Ctrl+Enter). While you look, some are drawn ahead anyway.",
  d3po_interrupt: "Stop what is being done for this taste and what waits; all of it is kept (Esc).",
  d3po_skip: "Stop what is being done now and keep it; what waits, and drawing ahead, goes on (Alt+Enter).",
  d3po_use: "Put what this taste has learnt into txt2img's prompt, at the strength that suits it best.",
};
const TEACHING = ["checking", "teaching", "blind", "stopping"];

let task = "";

/**
 * The host's own progress bar, for as long as something of ours is done or waits in its queue. Each task is followed
 * once: the host ends at once where its server does not answer, and the gallery then shows what it last heard.
 * @param {State} state
 */
function showProgress(state) {
  const now = state?.work?.task ?? "";
  if (!now || now === task) return;
  task = now;
  requestProgress(now, find("#d3po_progress"), null, () => gallery()?.session?.hear());
}

/** @returns {D3POGallery | null} */
const gallery = () => find("#tab_d3po d3po-gallery");

/**
 * Only what is of use can be pressed. The host interrupts and skips with its keys where these buttons are shown.
 * @param {State | null} state
 */
function showButtons(state) {
  find("#d3po_generate").disabled = !state;
  find("#d3po_use").disabled = !state?.rounds.some((round) => round.lora);
  for (const button of [find("#d3po_interrupt"), find("#d3po_skip")]) {
    button.disabled = !state?.work;
    button.style.display = state?.work ? "block" : "none";
  }
}

/** @type {Map<string, string>} what each taste's LoRAs were when the cards were last looked at */
const shown = new Map();

/**
 * The host's cards of LoRAs are asked to look again whenever a taste has a new one, or an image for one.
 * @param {State} state
 */
function refreshCards(state) {
  const loras = state.rounds.flatMap(({ lora, strip }) => (lora ? [{ lora, images: strip.length }] : []));
  if (!loras.length || (state.work && TEACHING.includes(state.work.kind))) return;
  const now = JSON.stringify(loras);
  const before = shown.get(state.taste.id);
  shown.set(state.taste.id, now);
  if (before === undefined ? !hasCard(loras[loras.length - 1].lora) : before !== now) window.d3po_cards();
}

/**
 * Whether there is a card for a LoRA's file. Hosts keep their cards from one loading of the page to the next.
 * @param {string} file
 */
function hasCard(file) {
  const name = file.replace(/\.safetensors$/, "").replaceAll(" ", "-");
  /** @type {NodeListOf<HTMLElement>} */
  const cards = gradioApp().querySelectorAll("#txt2img_lora_cards .card");
  return [...cards].some((card) => card.dataset.name?.startsWith(name));
}

/** For gradio too. */
window.d3po_cards = () => {
  for (const tab of ["txt2img", "img2img"]) {
    find(`#${tab}_lora_extra_refresh_internal`)?.dispatchEvent(new Event("click"));
  }
  return [];
};

document.addEventListener("d3po-state", (event) => {
  if (event.target !== gallery()) return;
  showProgress(event.detail);
  showButtons(event.detail);
  refreshCards(event.detail);
});

/** The gallery comes when our tab is first opened. Its routes let in whoever has the key that came with the page. */
function fetchGallery() {
  const { pathname } = new URL("d3po", document.baseURI);
  const { key } = find("#d3po_progress").dataset;
  document.cookie = `d3po-key-${location.port}=${key}; path=${pathname}; samesite=strict`;
  import(`${pathname}/web/gallery.mjs`);
}

onUiLoaded(() => {
  if (!find("#d3po_top")) return; // hidden by the host's settings
  const opened = new IntersectionObserver((changes) => {
    if (!changes[changes.length - 1].isIntersecting) return;
    opened.disconnect();
    fetchGallery();
  });
  opened.observe(find("#d3po_top"));
  for (const [id, title] of Object.entries(TITLES)) {
    find(`#${id}`).title = title;
    find(`#${id}`).addEventListener("click", () => setTimeout(() => gallery()?.session?.hear(), 300));
  }
  showButtons(null);
});

onUiUpdate(() => {
  gallery()?.setAttribute("theme", document.body.classList.contains("dark") ? "dark" : "light");
  if (find("#d3po_generate") && !gallery()) showButtons(null);
});
