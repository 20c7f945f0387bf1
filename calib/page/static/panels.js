// The tabs on the right: points, shapes, the ground grid and files, and what the check finds.

import { grade } from "./draw.js";
import { activate } from "./views.js";
import { choose, eraseShape, tellShape } from "./work.js";
import { changed, edit, inHand, on, pointOf, redraw, shapeCorners, store, ui } from "./store.js";

const panel = document.getElementById("panel");
const tabs = document.getElementById("tabs");
const TABS = { points: "Points", shapes: "Shapes", scene: "Ground", checks: "Checks" };

// h("div", {class: "x", onclick: f}, child, "text")
export function h(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const chip = (px, text = null) => h("span", { class: `chip ${grade(px)}` }, text ?? (px === null ? "–" : `${px.toFixed(2)} px`));

function field(id, name, value, commit, more = {}) {
  const input = h("input", { type: "text", id, value, autocomplete: "off", spellcheck: "false", ...more });
  // Enter, and then leaving the field, take what is typed once.
  let taken = value;
  const take = () => {
    if (input.value === taken) return;
    taken = input.value;
    commit(input);
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") take();
    else if (event.key === "Escape") {
      input.value = input.defaultValue;
      input.blur();
    } else return;
    event.stopPropagation();
  });
  input.addEventListener("change", take);
  return h("label", {}, name, input);
}

// "1,5" and "1.5" are the same number; nothing else is guessed.
function numberIn(input) {
  const text = input.value.trim().replace(",", ".");
  const value = text === "" ? NaN : Number(text);
  input.classList.toggle("wrong", !Number.isFinite(value) && text !== "");
  return value;
}

function pointCard(point) {
  const rename = (input) => {
    if (input.value.trim() && input.value.trim() !== point.name) edit({ do: "rename", point: point.name, name: input.value });
  };
  const axes = ["x", "y", "z"];
  const place = () => {
    const inputs = axes.map((axis) => document.getElementById(`world-${axis}`));
    const world = inputs.map(numberIn);
    const same = point.world && world.every((value, i) => value === point.world[i]);
    if (world.every(Number.isFinite) && !same) edit({ do: "place", point: point.name, world });
  };
  const inputs = axes.map((axis, i) => field(`world-${axis}`, axis, point.world ? String(point.world[i]) : "", place, { inputmode: "decimal", placeholder: point.found && !point.world ? point.found[i].toFixed(2) : "m" }));
  const marks = Object.keys(point.pixels).map((view) =>
    h("button", { class: "quiet", title: `Show in ${view}`, onclick: () => activate(view) }, `${view} `, chip(point.errors[view] ?? null)),
  );
  return h(
    "div",
    { class: "card" },
    h("div", { class: "row" }, h("span", { class: "grow" }, field("point-name", "name", point.name, rename)),
      h("button", { id: "remove-point", title: "Remove the point everywhere (Shift+Del)", onclick: () => edit({ do: "remove", point: point.name }) }, "Remove")),
    h("div", { class: "row" }, ...inputs, h("span", { class: "note" }, "m"),
      h("button", { id: "forget", disabled: !point.world, title: "Its world position is not known: use it as a cross-view click", onclick: () => edit({ do: "place", point: point.name, world: null }) }, "Clear")),
    h("div", { class: "row wrap" }, ...(marks.length ? marks : [h("span", { class: "note" }, "Not marked in any view yet: click it in a picture.")])),
  );
}

function pointsPanel() {
  const { points } = store.state;
  const card = inHand() ? pointCard(inHand()) : null;
  if (!points.length) {
    return [h("div", { class: "empty" }, h("b", {}, "No points yet."), h("br"),
      "Click something that you measured: a corner of a kerb, a door, a pillar. Click the same thing in the other views, and type its position in metres. Points without a position help too, if several views see them.")];
  }
  const number = (value) => (value === undefined || value === null ? "–" : value.toFixed(2));
  const rows = points.map((point) => {
    const place = point.world ?? point.found ?? [];
    const cells = [0, 1, 2].map((i) => h("td", { class: point.world ? "" : "off", title: point.world ? null : "found from the clicks" }, number(place[i])));
    return h("tr", { "aria-selected": String(point.name === ui.point), onclick: () => {
      ui.point = point.name === ui.point ? null : point.name;
      ui.shape = null;
      redraw(true);
    } }, h("td", { title: point.name }, point.name), ...cells, h("td", {}, String(Object.keys(point.pixels).length)), h("td", {}, chip(point.rms_px)));
  });
  const head = ["name", "x", "y", "z", "views", "off by"].map((name) => h("th", {}, name));
  const table = h("table", { class: "list", id: "point-list" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
  const prompt = card ? null : h("div", { class: "note", style: null }, "Choose a point to see it everywhere; N or a click in a picture makes a new one.");
  return [card, prompt, table];
}

function shapesPanel() {
  const { zones, region, views } = store.state;
  const all = [
    ...(region ? [{ kind: "region", name: undefined, shown: "region of interest", corners: region }] : []),
    ...Object.entries(zones).map(([name, corners]) => ({ kind: "zone", name, shown: name, corners })),
    ...views.flatMap((view) => Object.entries(view.occluders).map(([name, corners]) => ({ kind: "occluder", view: view.name, name, shown: `${name} in ${view.name}`, corners }))),
  ];
  const draw = h("div", { class: "row wrap" }, ...[["zone", "Draw a zone"], ["region", "Draw the region"], ["occluder", "Outline an occluder"]].map(([tool, text]) =>
    h("button", { id: `draw-${tool}`, onclick: () => choose(tool), "aria-pressed": String(ui.tool === tool) }, text)));
  const chosen = ui.shape && all.find((shape) => shape.kind === ui.shape.kind && shape.name === ui.shape.name && (shape.view ?? null) === (ui.shape.view ?? null));
  if (!all.length) {
    return [draw, h("div", { class: "empty" }, h("b", {}, "No shapes yet."), h("br"), "Zones are counted by themselves. The region of interest is the ground on which people matter. Occluders are what hides people for good in one picture.")];
  }
  const rows = all.map((shape) =>
    h("tr", { "aria-selected": String(shape === chosen), onclick: () => {
      ui.shape = shape === chosen ? null : { kind: shape.kind, name: shape.name, view: shape.view };
      ui.point = null;
      if (shape.view && ui.shape) activate(shape.view);
      redraw(true);
    } }, h("td", {}, shape.shown), h("td", {}, shape.kind), h("td", {}, `${shape.corners.length}`), h("td", {}, shape.kind === "occluder" ? "" : `${area(shape.corners).toFixed(1)} m²`)));
  const table = h("table", { class: "list" }, h("thead", {}, h("tr", {}, ...["name", "kind", "corners", "area"].map((name) => h("th", {}, name)))), h("tbody", {}, ...rows));
  return [draw, h("div", { class: "note" }, "\u00a0"), chosen ? shapeCard(chosen) : null, table];
}

function area(corners) {
  return Math.abs(corners.reduce((sum, [x, y], i) => {
    const [nx, ny] = corners[(i + 1) % corners.length];
    return sum + (x * ny - nx * y) / 2;
  }, 0));
}

function shapeCard(shape) {
  const corners = shapeCorners(shape);
  const commit = (input) => {
    const rename = input.value.trim();
    if (!rename || rename === shape.name) return;
    edit({ do: shape.kind, name: shape.name, view: shape.view ?? null, corners, rename }).then(([ok]) => {
      if (ok) ui.shape = { ...ui.shape, name: rename };
      redraw(true);
    });
    ui.shape = { ...ui.shape };
  };
  const unit = shape.kind === "occluder" ? "px" : "m";
  const lines = corners.map(([x, y]) => `${+x.toFixed(2)}, ${+y.toFixed(2)}`).join("\n");
  const text = h("textarea", { id: "corners", rows: String(Math.min(7, corners.length + 1)), spellcheck: "false", "aria-label": `Corners, one x, y a line, ${unit}` });
  text.value = lines;
  text.addEventListener("change", () => {
    const typed = text.value.trim().split("\n").map((line) => line.trim().split(/[,;\s]+/).map(Number));
    tellShape(shape, typed);
  });
  return h("div", { class: "card" },
    h("div", { class: "row" }, shape.kind === "region" ? h("b", { class: "grow" }, "region of interest") : h("span", { class: "grow" }, field("shape-name", "name", shape.name, commit)),
      h("button", { id: "remove-shape", onclick: () => eraseShape(shape) }, "Remove")),
    h("div", { class: "row" }, h("label", {}, `x, y (${unit})`, text)));
}

function groundPanel() {
  const { ground, files } = store.state;
  const commit = () => {
    const value = Object.fromEntries(["gx", "gy", "cell", "columns", "rows"].map((id) => [id, numberIn(document.getElementById(id))]));
    if (!Object.values(value).every(Number.isFinite)) return;
    const before = [ground.origin_m[0], ground.origin_m[1], ground.cell_m, ground.columns, ground.rows];
    if (Object.values(value).every((v, i) => v === before[i])) return;
    edit({ do: "ground", origin_m: [value.gx, value.gy], cell_m: value.cell, columns: value.columns, rows: value.rows });
  };
  const made = `${+(ground.columns * ground.cell_m).toFixed(2)} × ${+(ground.rows * ground.cell_m).toFixed(2)} m`;
  return [
    h("div", { class: "card" }, h("b", {}, "Ground grid"), h("span", { class: "note" }, `  ${made}: where people are counted`),
      h("div", { class: "row" }, field("gx", "from x", String(ground.origin_m[0]), commit), field("gy", "y", String(ground.origin_m[1]), commit), h("span", { class: "note" }, "m")),
      h("div", { class: "row" }, field("columns", "cells along x", String(ground.columns), commit), field("rows", "y", String(ground.rows), commit)),
      h("div", { class: "row" }, field("cell", "side of a cell", String(ground.cell_m), commit), h("span", { class: "note" }, "m"))),
    h("div", { class: "card note paths" }, h("div", {}, "Saves to"), h("div", {}, files.scene), h("div", {}, files.points)),
    h("div", { class: "card note" }, ...store.state.views.map((view) => h("div", {}, h("b", {}, view.name), view.camera
      ? ` at ${view.camera.centre?.map((v) => v.toFixed(2)).join(", ")} m, looks ${view.camera.down_deg?.toFixed(0)}° down, focal length ${view.camera.focal_px} px`
      : " has no pose yet"))),
  ];
}

function checksPanel() {
  const { findings, views } = store.state;
  const poseless = views.filter((view) => !view.camera);
  const rows = findings.map((finding) =>
    h("div", { class: "finding" }, h("span", { class: `chip ${finding.severity === "error" ? "bad" : "fair"}` }, finding.severity),
      h("div", {}, finding.view ? h("b", {}, `${finding.view}: `) : null, finding.message),
      finding.view && views.some((view) => view.name === finding.view) ? h("button", { class: "quiet", onclick: () => activate(finding.view) }, `Show ${finding.view}`) : null));
  const waiting = poseless.map((view) => h("div", { class: "finding" }, h("span", { class: "chip" }, "to do"), h("div", {}, h("b", {}, `${view.name}: `), "has no pose yet: mark points with world positions in it, then solve.")));
  if (!rows.length && !waiting.length) {
    return [h("div", { class: "empty" }, h("b", {}, "Nothing suspicious."), h("br"), "Cameras above the ground, axes and units that make sense, views that overlap, marked points within 3 px.")];
  }
  return [...rows, ...waiting];
}

const PANELS = { points: pointsPanel, shapes: shapesPanel, scene: groundPanel, checks: checksPanel };

function countOf(tab) {
  const { points, findings, zones, region, views } = store.state;
  if (tab === "points") return [points.length, ""];
  if (tab === "shapes") return [Object.keys(zones).length + (region ? 1 : 0) + views.reduce((sum, view) => sum + Object.keys(view.occluders).length, 0), ""];
  if (tab === "checks") return [findings.length, findings.some((f) => f.severity === "error") ? "bad" : "fair"];
  return [0, ""];
}

function drawTabs() {
  tabs.replaceChildren(...Object.entries(TABS).map(([tab, text]) => {
    const [count, look] = countOf(tab);
    const chosen = ui.tab === tab;
    return h("button", { role: "tab", id: `tab-${tab}`, "aria-selected": String(chosen), "aria-controls": "panel", onclick: () => {
      ui.tab = tab;
      redraw(true);
    } }, text, count ? h("span", { class: `chip count ${look}` }, String(count)) : null);
  }));
}

on("ui", () => {
  if (!changed("panel", store.state, ui.tab, ui.point, JSON.stringify(ui.shape), ui.tool)) return;
  // Whoever types goes on typing.
  const focus = document.activeElement;
  const at = focus?.id && (panel.contains(focus) || tabs.contains(focus)) ? focus.id : null;
  const typed = at && focus.matches("input[type=text], textarea") && focus.value !== focus.defaultValue ? focus.value : null;
  const where = typed !== null ? [focus.selectionStart, focus.selectionEnd] : null;
  drawTabs();
  panel.replaceChildren(...PANELS[ui.tab]().filter(Boolean));
  const again = at && document.getElementById(at);
  if (again) {
    if (typed !== null) {
      again.value = typed;
      again.setSelectionRange(...where);
    }
    again.focus({ preventScroll: true });
  }
  if (changed("in hand", ui.tab, ui.point, JSON.stringify(ui.shape))) {
    // When it is laid out anyway: asking for it now would take longer than everything else.
    requestAnimationFrame(() => panel.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" }));
  }
});

export function typePosition() {
  if (!pointOf(ui.point)) return;
  ui.tab = "points";
  redraw(true);
  requestAnimationFrame(() => {
    const input = document.getElementById("world-x");
    input?.focus();
    input?.select();
  });
}
