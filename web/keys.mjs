/**
 * Which key means what. Digits go by their place on the keyboard (event.code), so that they work where they need Shift
 * to be typed (AZERTY). Letters go by what is printed on the key, as that is how the page names them, and by place
 * where the keyboard has no Latin letters.
 */

/** @import { Command } from "./types" */

/** @type {Record<string, string>} */
const LETTERS = { T: "tie", X: "all_bad", S: "skip", Z: "undo", D: "defective", U: "unsafe", B: "brush", F: "full", H: "history" };
/** @type {Record<string, string>} the brush's, as in programs that paint: as they are printed, and by their place */
const SIZES = { "[": "smaller", "]": "larger", BracketLeft: "smaller", BracketRight: "larger" };
/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TYPING = new Set(["INPUT", "TEXTAREA", "SELECT"]);
const PRESSABLE = new Set(["BUTTON", "A", "SUMMARY"]);

/** What a key press asks for, or null. @param {KeyboardEvent} event @returns {Command | null} */
export function commandFor(event) {
  if (event.code === "Escape" || event.key === "Escape") return { name: "leave" };
  const target = /** @type {Element} */ (event.composedPath()[0]);
  if (TYPING.has(target.tagName)) return null;
  const size = brushSize(event);
  if (size) return size;
  if (event.ctrlKey || event.metaKey) {
    if (event.altKey || event.shiftKey) return null;
    // The browser would mark all text of the page around.
    const name = { Z: "undo", A: "nothing" }[letterOf(event)];
    return name ? { name } : null;
  }
  if (event.altKey) return null;
  return digit(event) ?? arrow(event) ?? big(event, target) ?? (isHelp(event) ? { name: "help" } : letter(event));
}

/** Brackets need AltGr on many keyboards, which Windows tells as Ctrl and Alt. @param {KeyboardEvent} event */
function brushSize(event) {
  if (event.metaKey || event.ctrlKey !== event.altKey) return null;
  const name = SIZES[event.key] ?? (event.altKey || event.shiftKey ? undefined : SIZES[event.code]);
  return name ? { name } : null;
}

/** @param {KeyboardEvent} event */
function digit(event) {
  const match = /^(Digit|Numpad)([1-8])$/.exec(event.code);
  if (!match) return null;
  // Windows hides Shift from a numpad with NumLock on, and sends End for 1 and so on.
  const hiddenShift = match[1] === "Numpad" && !/^\d$/.test(event.key) && event.getModifierState("NumLock");
  return { name: event.shiftKey || hiddenShift ? "rank" : "choose", at: Number(match[2]) - 1 };
}

/** @param {KeyboardEvent} event */
function arrow(event) {
  const by = ARROWS[event.key] ?? ARROWS[event.code];
  return by ? { name: "move", by } : null;
}

/** Space and Enter press the button that has the focus. @param {KeyboardEvent} event @param {Element} target */
function big(event, target) {
  if (PRESSABLE.has(target.tagName)) return null;
  if (event.code === "Space") return { name: "zoom" };
  if (event.code === "Enter" || event.code === "NumpadEnter") return { name: "confirm" };
  return null;
}

/** @param {KeyboardEvent} event */
function isHelp(event) {
  return event.key === "?" || event.key === "？" || (event.code === "Slash" && event.shiftKey);
}

/** @param {KeyboardEvent} event */
function letter(event) {
  const name = event.shiftKey ? undefined : LETTERS[letterOf(event)];
  return name ? { name } : null;
}

/** @param {KeyboardEvent} event */
function letterOf(event) {
  if (/^[a-z]$/i.test(event.key)) return event.key.toUpperCase();
  return /^Key[A-Z]$/.test(event.code) ? event.code.slice(3) : "";
}
