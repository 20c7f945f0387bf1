// Puts the page together: header, tools, toggles, keys.

import { chip, h, typePosition } from "./panels.js";
import { activate, showPicture, zoomActive } from "./views.js";
import "./plan.js";
import { choose, finish, hint, moveMarkHere, otherPoint, refreshPerson, removeInHand, takeBack, TOOLS, walk } from "./work.js";
import { active, changed, edit, load, on, redraw, send, store, toast, ui } from "./store.js";

const $ = (id) => document.getElementById(id);

const ICONS = {
  select: '<path d="M5 3l6 16 2-7 7-2z"/>',
  point: '<circle cx="12" cy="12" r="6"/><path d="M12 2v7M12 15v7M2 12h7M15 12h7"/>',
  zone: '<path d="M4 8l9-4 7 6-4 10-10-2z"/>',
  region: '<path d="M4 8l9-4 7 6-4 10-10-2z" stroke-dasharray="3 3"/><circle cx="11" cy="12" r="1.6"/>',
  occluder: '<path d="M7 21V4h10v17zM7 9l10-5M7 15l10-6M7 20l10-6"/>',
  person: '<circle cx="12" cy="4.5" r="2.3"/><path d="M12 7v7M12 9l-4 4M12 9l4 3M12 14l-3 7M12 14l3 7"/>',
  walk: '<path d="M7 4l12 8-12 8z"/>',
  stand: '<path d="M8 4v16M16 4v16"/>',
  focus: '<rect x="3" y="4" width="18" height="10"/><rect x="3" y="17" width="5" height="3"/><rect x="10" y="17" width="5" height="3"/>',
  grid: '<rect x="3" y="4" width="8" height="7"/><rect x="13" y="4" width="8" height="7"/><rect x="3" y="13" width="8" height="7"/><rect x="13" y="13" width="8" height="7"/>',
};

const KEYS = [
  ["1 … 9", "Choose a view"], ["V P Z R O G", "Tools: select, point, zone, region, occluder, person"],
  ["← ↑ → ↓", "Move the cursor by 1 px (0.1 m on the plan), with Shift 10"], ["Enter", "Click at the cursor; in a field: take what is typed"],
  ["Alt + arrows", "Move the mark in hand by ¼ px"], ["M", "Move the mark in hand to the cursor"],
  ["N", "New point at the next click"], ["[  ]", "Point before, point after"],
  ["T", "Type the point's world position"], ["Del", "Remove this mark or shape; with Shift the whole point"],
  ["Shift + Enter", "Close the shape being drawn"], ["Backspace, Esc", "Take a corner back; drop the shape"],
  ["S", "Solve the pose of this view"], ["Space", "Let the person walk, or stand"],
  ["L", "One large view, or all alike"], ["+  −  F", "Zoom in, out, fit; so does the wheel"],
  ["Ctrl + Z, Ctrl + Shift + Z", "Undo, redo"], ["Ctrl + S", "Save"],
  ["Tab, Shift + Tab", "Go to the next field, picture or button"], ["?", "This"],
];

const TOGGLES = [["grid", "Grid", "#7dd3fc"], ["person", "Person", "#ffb454"], ["rays", "Epipolar", "#ff79c6"], ["points", "Points", "#ffffff"], ["shapes", "Shapes", "#4fd1c5"]];

const icon = (name) => {
  const holder = document.createElement("span");
  holder.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true">${ICONS[name]}</svg>`;
  return holder.firstChild;
};

function drawTools() {
  if (!changed("tools", ui.tool, ui.walking, ui.layout)) return;
  const tools = TOOLS.map(([tool, key, text, title]) =>
    h("button", { id: `tool-${tool}`, "aria-pressed": String(ui.tool === tool), title: `${title} (${key})`, onclick: () => choose(tool) }, icon(tool), text));
  keepFocus($("tools"), [
    ...tools, h("hr"),
    h("button", { id: "walk", "aria-pressed": String(ui.walking), title: "A person walks over the ground (Space)", onclick: () => walk() }, icon(ui.walking ? "stand" : "walk"), ui.walking ? "Stand" : "Walk"),
    h("button", { id: "layout", title: "One large view, or all alike (L)", onclick: flip }, icon(ui.layout === "focus" ? "grid" : "focus"), ui.layout === "focus" ? "All views" : "One view"),
  ]);
}

function keepFocus(parent, children) {
  const id = parent.contains(document.activeElement) ? document.activeElement.id : null;
  parent.replaceChildren(...children);
  if (id) $(id)?.focus();
}

function flip() {
  ui.layout = ui.layout === "focus" ? "grid" : "focus";
  redraw(true);
}

function drawHeader() {
  const state = store.state;
  if (!changed("header", state)) return;
  $("scene-name").textContent = state.name;
  $("saved").textContent = state.saved ? "saved" : "not saved";
  $("saved").classList.toggle("no", !state.saved);
  document.title = `${state.saved ? "" : "• "}${state.name} – viewsync calibration`;
  const posed = state.views.filter((view) => view.camera).length;
  const off = state.rms_px === null ? "" : ` · ${state.clicks} clicks, ${state.rms_px.toFixed(2)} px RMS`;
  $("summary").textContent = `${posed} of ${state.views.length} views have a pose · ${state.points.length} points${off}`;
  for (const way of ["undo", "redo"]) {
    $(way).disabled = !state[way];
    $(way).title = state[way] ? `${way === "undo" ? "Undo" : "Redo"}: ${state[way]} (Ctrl+${way === "undo" ? "" : "Shift+"}Z)` : "";
  }
  $("refine").disabled = posed < 1 || state.clicks < 4;
  $("refine").title = "All cameras and points together: bundle adjustment";
}

function drawStageHead() {
  const view = active();
  if (!changed("head", view, ui.frozen, ui.focalToo, JSON.stringify(ui.shown))) return;
  $("view-name").textContent = view?.name ?? "";
  if (!view) {
    $("view-facts").textContent = "";
    return;
  }
  const usable = store.state.points.filter((point) => point.world && point.pixels[view.name]).length;
  $("view-facts").replaceChildren(`${view.width} × ${view.height}  `, view.camera ? chip(view.rms_px) : chip(null, "no pose yet"));
  // What was asked for is kept for views that have a choice.
  $("focal-too").disabled = !view.lens_known;
  $("focal-too").checked = ui.focalToo || !view.lens_known;
  const needed = $("focal-too").checked ? 6 : 4;
  $("solve").textContent = `Solve pose (${usable} points)`;
  $("solve").disabled = usable < needed;
  $("solve").title = usable < needed ? `Needs ${needed} points with a world position, marked in this view` : `Find where ${view.name} stands from its points (S)`;
  drawMedia(view.name);
  if (!changed("toggles", JSON.stringify(ui.shown))) return;
  const toggles = TOGGLES.map(([key, text, colour]) => {
    const dot = h("i");
    dot.style.background = colour;
    return h("button", { id: `show-${key}`, "aria-pressed": String(ui.shown[key]), onclick: () => {
      ui.shown[key] = !ui.shown[key];
      redraw(true);
    } }, dot, text);
  });
  keepFocus($("toggles"), toggles);
}

let media = null;

function drawMedia(name) {
  const source = store.state.pictures[name];
  const key = `${name} ${source?.kind} ${ui.frozen}`;
  if (key === media) return;
  media = key;
  const box = $("media");
  if (source?.kind === "video") {
    const time = h("span", {}, `${(ui.times[name] ?? 0).toFixed(1)} s`);
    const slider = h("input", { type: "range", min: "0", max: String(source.length_s), step: "0.1", value: String(ui.times[name] ?? 0), "aria-label": "Time in the video", oninput: () => {
      ui.times[name] = Number(slider.value);
      time.textContent = `${ui.times[name].toFixed(1)} s`;
      showPicture(name);
    } });
    box.replaceChildren(slider, time);
  } else if (source?.kind === "live") {
    box.replaceChildren(h("span", { class: `chip ${ui.frozen ? "" : "good"}` }, ui.frozen ? "held" : "live"), h("button", { id: "hold", class: "quiet", title: "Hold the live pictures, or let them go on", onclick: () => {
      ui.frozen = !ui.frozen;
      redraw(true);
    } }, ui.frozen ? "Go on" : "Hold"));
  } else box.replaceChildren();
  box.title = source?.where ?? "";
}

function drawStatus() {
  const { hover } = ui;
  const found = store.hover;
  const parts = [];
  if (hover?.view) parts.push(`${hover.view}  ${hover.x.toFixed(1)}, ${hover.y.toFixed(1)} px`);
  if (hover && found?.ground) parts.push(`ground ${found.ground[0].toFixed(2)}, ${found.ground[1].toFixed(2)} m`);
  if (hover?.view && found?.person_px) parts.push(`a person there is ${found.person_px} px tall`);
  $("where").textContent = parts.join("   ·   ");
  $("hint").textContent = hint();
}

async function save(force = false) {
  const [ok, answer] = await send("/api/save", { force });
  if (ok || !answer.can_force) return;
  if (await confirmed("Save over a better file?", answer.error)) await save(true);
}

function confirmed(title, text) {
  const dialog = $("ask");
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("p").textContent = text;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

async function solve() {
  const button = $("solve");
  if (button.disabled) return;
  await busy(button, () => edit({ do: "solve", view: ui.active, focal_too: $("focal-too").checked }));
}

async function busy(button, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  await work();
  button.removeAttribute("aria-busy");
  button.disabled = false;
  drawHeader();
  redraw(true);
}

const undo = () => (ui.drawing ? takeBack() : store.state.undo && send("/api/undo"));
const redo = () => store.state.redo && send("/api/redo");

const PLAIN = {
  n: () => {
    ui.tool = "point";
    ui.point = null;
    redraw(true);
  },
  m: moveMarkHere, t: typePosition, s: solve, l: flip, f: () => zoomActive(0), "+": () => zoomActive(1.4), "=": () => zoomActive(1.4), "-": () => zoomActive(1 / 1.4),
  "[": () => otherPoint(-1), "]": () => otherPoint(1), "?": () => $("keys").showModal(), " ": () => walk(),
  backspace: takeBack,
  delete: (event) => removeInHand(event.shiftKey),
  escape: () => {
    if (ui.drawing) ui.drawing = null;
    else {
      ui.point = null;
      ui.shape = null;
    }
    redraw(true);
  },
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || !store.state) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    const act = { z: event.shiftKey ? redo : undo, y: redo, s: () => save() }[key];
    const typing = event.target.matches("input[type=text], textarea");
    if (!act || (typing && key !== "s")) return;
    event.preventDefault();
    if (typing) event.target.blur();
    act();
    return;
  }
  if (event.altKey || event.target.matches("input[type=text], textarea, select")) return;
  if (key === " " && event.target.matches("button, input")) return;
  const tool = TOOLS.find(([, letter]) => letter.toLowerCase() === key);
  const view = /^[1-9]$/.test(key) && store.state.views[Number(key) - 1];
  if (tool) choose(tool[0]);
  else if (view) activate(view.name);
  else if (key === "enter" && event.shiftKey) finish();
  else if (PLAIN[key]) PLAIN[key](event);
  else return;
  event.preventDefault();
});

$("undo").onclick = undo;
$("redo").onclick = redo;
$("save").onclick = () => save();
$("refine").onclick = () => busy($("refine"), () => edit({ do: "refine" }));
$("solve").onclick = solve;
$("focal-too").onchange = () => {
  ui.focalToo = $("focal-too").checked;
  redraw(true);
};
$("help").onclick = () => $("keys").showModal();
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelectorAll("button").forEach((button) => (button.onclick = () => dialog.close(button.value)));
}
$("keys-grid").append(...KEYS.flatMap(([key, text]) => [h("span", {}, h("kbd", {}, key)), h("span", {}, text)]));
on("state", (moved) => moved && refreshPerson());
on("ui", () => {
  drawHeader();
  drawTools();
  drawStageHead();
});
on("draw", drawStatus);
load().catch(() => toast(["The page cannot reach viewsync calib serve: is it running?"], true));
