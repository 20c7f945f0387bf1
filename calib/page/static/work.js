// What tools do: with a click in a view or on the plan, with a dragged mark, with a finished shape.

import { ask, edit, inHand, newest, pointOf, redraw, store, toast, ui } from "./store.js";

const GROUND = ["zone", "region"];

export const TOOLS = [
  ["select", "V", "Select", "Select and drag marks and corners; drag elsewhere to move the picture"],
  ["point", "P", "Point", "Mark a point: click it in every view that shows it"],
  ["zone", "Z", "Zone", "Draw a zone on the ground, in a view or on the plan"],
  ["region", "R", "Region", "Draw the region of interest on the ground"],
  ["occluder", "O", "Occluder", "Outline in a picture what hides people for good"],
  ["person", "G", "Person", "Put the person somewhere on the ground"],
];

export function choose(tool) {
  ui.tool = tool;
  ui.drawing = null;
  if (tool !== "select") ui.shape = null;
  if (tool === "occluder" || tool === "region" || tool === "zone") ui.tab = "shapes";
  if (tool === "point") ui.tab = "points";
  redraw(true);
}

export function hint() {
  const drawing = ui.drawing;
  if (drawing) {
    const left = 3 - drawing.corners.length;
    const more = left > 0 ? `${left} more corner${left > 1 ? "s" : ""}` : "Shift+Enter, a double click or a click on the first corner closes it";
    return `${drawing.kind}: ${more} · Backspace takes one back · Esc drops it`;
  }
  const point = inHand();
  if (ui.tool === "point" && point) {
    const seen = point.pixels[ui.active];
    const next = seen ? "click elsewhere for a new point" : "click where it is in this view";
    return `${point.name}: ${next} · M moves its mark to the cursor · T types its position · N new point · Del removes this mark`;
  }
  return {
    select: "Drag marks and corners · drag the picture, wheel zooms, F fits",
    point: "Click something that you measured, or that several views see · arrows and Enter do the same",
    zone: "Click corners on the ground, in a view or on the plan",
    region: "Click the corners of the ground on which people matter",
    occluder: "Click around what hides people: a pillar, a kiosk, a tree",
    person: "Click where the person should stand · Space walks",
  }[ui.tool];
}

const learn = newest(async (place) => {
  if (!place) return;
  const query = place.view
    ? `view=${encodeURIComponent(place.view)}&x=${place.x.toFixed(2)}&y=${place.y.toFixed(2)}`
    : `x=${place.x.toFixed(3)}&y=${place.y.toFixed(3)}`;
  const found = await ask(`/api/hover?${query}`);
  if (ui.hover === null) return;
  store.hover = place.view ? found : { ...found, ground: [place.x, place.y] };
  redraw();
});

export function hoverAt(place) {
  ui.hover = place;
  if (!place) store.hover = null;
  learn(place);
  redraw();
}

export const pickMark = (name) => {
  ui.point = name;
  ui.shape = null;
  ui.tab = "points";
};

const started = (stamp) => {
  performance.clearMarks("click");
  performance.mark("click", { startTime: stamp });
};

export function dropMark(name, view, pixel, stamp) {
  started(stamp);
  return edit({ do: "mark", view, pixel, point: name });
}

export function nudge(view, by) {
  const mark = inHand()?.pixels[view];
  if (mark) dropMark(ui.point, view, [mark[0] + by[0], mark[1] + by[1]], performance.now());
}

export function moveMarkHere() {
  const { hover, point } = ui;
  if (point && hover?.view) dropMark(point, hover.view, [hover.x, hover.y], performance.now());
}

let before = { at: -1e9, x: 0, y: 0 };

// Whether this is the second click of a double click: pointer events do not count them.
export function isSecond(event) {
  const { timeStamp: at, offsetX: x, offsetY: y } = event;
  const second = at - before.at < 400 && Math.hypot(x - before.x, y - before.y) < 6;
  before = { at: second ? -1e9 : at, x, y };
  return second;
}

let clicks = Promise.resolve();

// One after the other: a click that closes a shape comes after the corner that is still being looked up.
export function clicked(place, how) {
  clicks = clicks.then(() => click(place, how)).catch(() => {});
  return clicks;
}

async function click(place, { closes, stamp }) {
  if (ui.drawing && (closes || place === null)) return finish();
  if (place === null) return undefined;
  if (ui.tool === "point") return clickPoint(place, stamp);
  if (ui.tool === "person") {
    const ground = await groundOf(place);
    if (ground) standAt(ground);
    return undefined;
  }
  if (ui.tool === "occluder") return clickOccluder(place);
  if (GROUND.includes(ui.tool)) return clickGround(place);
  ui.point = null;
  ui.shape = place.view ? occluderAt(place) : null;
  if (ui.shape) ui.tab = "shapes";
  redraw(true);
  return undefined;
}

function clickPoint(place, stamp) {
  const point = inHand();
  started(stamp);
  if (!place.view) {
    const z = point?.world?.[2] ?? 0;
    return edit({ do: "place", point: point?.name ?? null, world: [place.x, place.y, z].map((v) => Math.round(v * 1000) / 1000) });
  }
  const goesOn = point && !point.pixels[place.view];
  return edit({ do: "mark", view: place.view, pixel: [place.x, place.y], point: goesOn ? point.name : null });
}

async function groundOf(place) {
  if (!place.view) return [place.x, place.y];
  const found = await ask(`/api/hover?view=${encodeURIComponent(place.view)}&x=${place.x}&y=${place.y}`);
  if (!found?.ground) toast(["There is no ground at that pixel: click below the horizon, in a view that has a pose."], true);
  return found?.ground ?? null;
}

async function clickGround(place) {
  const ground = await groundOf(place);
  if (!ground) return;
  ui.drawing ??= { kind: ui.tool, corners: [], pixels: {} };
  const drawing = ui.drawing;
  drawing.corners.push(ground);
  const found = await ask(`/api/hover?x=${ground[0]}&y=${ground[1]}`);
  for (const [view, pixel] of Object.entries(found?.pixels ?? {})) (drawing.pixels[view] ??= []).push(pixel);
  redraw(true);
}

function clickOccluder(place) {
  if (!place.view) {
    toast(["Occluders are outlined in a picture, not on the plan."], true);
    return;
  }
  if (ui.drawing?.view !== place.view) ui.drawing = { kind: "occluder", view: place.view, corners: [] };
  ui.drawing.corners.push([place.x, place.y]);
  redraw(true);
}

export async function finish() {
  const drawing = ui.drawing;
  if (!drawing) return;
  if (drawing.corners.length < 3) {
    toast(["A shape needs at least three corners: click more of them."], true);
    return;
  }
  ui.drawing = null;
  const [ok, state] = await edit({ do: drawing.kind, view: drawing.view ?? null, corners: drawing.corners });
  if (ok) {
    const group = drawing.kind === "zone" ? state.zones : state.views.find((v) => v.name === drawing.view)?.occluders;
    ui.shape = { kind: drawing.kind, view: drawing.view, name: group ? Object.keys(group).at(-1) : undefined };
    ui.tab = "shapes";
  } else ui.drawing = drawing;
  redraw(true);
}

export function takeBack() {
  const drawing = ui.drawing;
  if (!drawing) return;
  drawing.corners.pop();
  Object.values(drawing.pixels ?? {}).forEach((pixels) => pixels.pop());
  if (!drawing.corners.length) ui.drawing = null;
  redraw(true);
}

export const tellShape = (shape, corners) => edit({ do: shape.kind, name: shape.name ?? null, view: shape.view ?? null, corners });
export const eraseShape = (shape) => edit({ do: "erase", kind: shape.kind, name: shape.name ?? null, view: shape.view ?? null });

function occluderAt({ view, x, y }) {
  const occluders = store.state.views.find((v) => v.name === view).occluders;
  const name = Object.keys(occluders).find((key) => inside(occluders[key], x, y));
  return name ? { kind: "occluder", view, name } : null;
}

export function inside(polygon, x, y) {
  let odd = false;
  polygon.forEach(([ax, ay], i) => {
    const [bx, by] = polygon[(i + 1) % polygon.length];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  });
  return odd;
}

// The person: walks its round, or stands where it was put.
export const refreshPerson = newest(async () => {
  if (!store.state?.views.some((view) => view.camera)) {
    store.walker = null;
    return;
  }
  const query = ui.stands ? `x=${ui.stands[0]}&y=${ui.stands[1]}` : `share=${ui.share.toFixed(5)}`;
  store.walker = await ask(`/api/walker?${query}`);
  redraw();
});

function standAt(ground) {
  ui.stands = ground;
  ui.walking = false;
  refreshPerson();
  redraw(true);
}

const SPEED_M_PER_S = 1.3;
let last = 0;

export function walk(now = !ui.walking) {
  ui.walking = now;
  if (now) {
    ui.stands = null;
    last = performance.now();
    step();
  }
  redraw(true);
}

async function step() {
  if (!ui.walking) return;
  const now = performance.now();
  // A window that was hidden goes on where it was.
  const seconds = Math.min(0.25, (now - last) / 1000);
  last = now;
  ui.share = (ui.share + (SPEED_M_PER_S * seconds) / (store.walker?.round_m || 30)) % 1;
  await refreshPerson();
  setTimeout(step, 50);
}

export function otherPoint(by) {
  const names = store.state.points.map((point) => point.name);
  if (!names.length) return;
  const at = names.indexOf(ui.point);
  ui.point = names[(at + by + names.length) % names.length] ?? names[0];
  ui.tab = "points";
  redraw(true);
}

export function removeInHand(whole) {
  if (ui.shape) eraseShape(ui.shape);
  else if (ui.point && (whole || !pointOf(ui.point).pixels[ui.active])) edit({ do: "remove", point: ui.point });
  else if (ui.point) edit({ do: "unmark", point: ui.point, view: ui.active });
}
