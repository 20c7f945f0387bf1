// The ground from above: coverage, the cameras, points, shapes and the person; x to the right, y up.

import { COLOURS, cross, dot, gradeColour, label, polygon, sharpen } from "./draw.js";
import { clicked, hoverAt, inside, isSecond, tellShape } from "./work.js";
import { ask, changed, newest, on, redraw, sizeOf, store, ui } from "./store.js";

const canvas = document.getElementById("plan");
const legend = document.getElementById("legend");
const layer = document.getElementById("layer");
const STEPS = {
  views: [[1, "#46327e", "1"], [2, "#277f8e", "2"], [3, "#4ac16d", "3"], [4, "#fde725", "4 or more"]],
  pixels: [[1, "#46327e", "under 20"], [20, "#365c8d", "20"], [40, "#277f8e", "40"], [60, "#1fa187", "60"], [80, "#4ac16d", "80"], [120, "#fde725", "120 and more"]],
};
let raster = null;
let drag = null;
let byKey = false;

function colourOf(steps, value) {
  let found = null;
  for (const [from, colour] of steps) if (value >= from) found = colour;
  return found;
}

function paintRaster() {
  const plan = store.plan;
  if (!changed("raster", plan, ui.layer, ui.layer === "active" && ui.active)) return;
  raster = null;
  legend.textContent = "";
  if (ui.layer === "none") return;
  if (!plan) {
    legend.textContent = "Coverage appears when a view has a pose.";
    return;
  }
  const steps = ui.layer === "views" ? STEPS.views : STEPS.pixels;
  const own = ui.layer === "active" ? [plan.pixels[ui.active] ?? []] : Object.values(plan.pixels);
  raster = document.createElement("canvas");
  raster.width = plan.columns;
  raster.height = plan.rows;
  const ctx = raster.getContext("2d");
  for (let row = 0; row < plan.rows; row++) {
    for (let column = 0; column < plan.columns; column++) {
      const values = own.map((pixels) => pixels[row * plan.columns + column] ?? 0);
      const value = ui.layer === "views" ? values.filter((v) => v > 0).length : Math.max(0, ...values);
      const colour = colourOf(steps, value);
      if (!colour) continue;
      ctx.fillStyle = colour;
      ctx.fillRect(column, plan.rows - 1 - row, 1, 1);
    }
  }
  const parts = steps.filter(([from]) => ui.layer !== "views" || from <= Math.max(1, own.length));
  for (const [, colour, text] of parts) {
    const item = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.style.background = colour;
    item.append(swatch, text);
    legend.append(item);
  }
  const shares = plan.shares;
  const note = document.createElement("span");
  if (ui.layer === "views") note.textContent = shares.length > 1 ? `${Math.round(100 * shares[1])} % of the ground by 2 or more` : `${Math.round(100 * shares[0])} % of the ground`;
  else note.textContent = "pixels";
  legend.append(note);
}

function frame() {
  const { ground, views } = store.state;
  const [x0, y0] = ground.origin_m;
  const [x1, y1] = [x0 + ground.cell_m * ground.columns, y0 + ground.cell_m * ground.rows];
  let [left, low, right, high] = [x0, y0, x1, y1];
  // A camera that is far away does not make the ground a dot.
  const reach = 0.6 * Math.max(x1 - x0, y1 - y0);
  for (const { camera } of views) {
    if (!camera?.centre) continue;
    const [x, y] = camera.centre;
    left = Math.min(left, Math.max(x, x0 - reach));
    right = Math.max(right, Math.min(x, x1 + reach));
    low = Math.min(low, Math.max(y, y0 - reach));
    high = Math.max(high, Math.min(y, y1 + reach));
  }
  const [w, h] = sizeOf(canvas);
  const scale = Math.min((w - 56) / (right - left), (h - 34) / (high - low));
  const ox = (w - scale * (left + right)) / 2;
  const oy = (h + scale * (low + high)) / 2;
  return { scale, to: (x, y) => [x * scale + ox, oy - y * scale], from: (x, y) => [(x - ox) / scale, (oy - y) / scale], ground: [x0, y0, x1, y1] };
}

function draw() {
  const ctx = sharpen(canvas, sizeOf(canvas));
  const { scale, to, ground } = frame();
  const [x0, y0, x1, y1] = ground;
  const [left, top] = to(x0, y1);
  const [w, h] = [(x1 - x0) * scale, (y1 - y0) * scale];
  ctx.fillStyle = "#101217";
  ctx.fillRect(left, top, w, h);
  const plan = store.plan;
  if (raster && plan) {
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, w, h);
    ctx.clip();
    ctx.imageSmoothingEnabled = false;
    ctx.globalAlpha = 0.75;
    const [px, py] = to(plan.origin_m[0], plan.origin_m[1] + plan.rows * plan.cell_m);
    ctx.drawImage(raster, px, py, plan.columns * plan.cell_m * scale, plan.rows * plan.cell_m * scale);
    ctx.restore();
  }
  drawNet(ctx, to, ground);
  drawShapes(ctx, to);
  drawCameras(ctx, to);
  for (const point of store.state.points) {
    const place = point.world ?? point.found;
    if (!place) continue;
    const [x, y] = to(place[0], place[1]);
    const chosen = point.name === ui.point;
    const colour = chosen ? COLOURS.chosen : gradeColour(point.rms_px);
    dot(ctx, x, y, chosen ? 5.5 : 3.5, point.world ? colour : "#0000", point.world ? "#000" : colour);
    if (chosen) label(ctx, point.name, x + 8, y - 6, colour);
  }
  const at = store.walker?.at;
  if (at && ui.shown.person) dot(ctx, ...to(...at), 5, COLOURS.person, "#000");
  const under = ui.hover && store.hover?.ground;
  if (under) cross(ctx, ...to(...under), byKey ? 12 : 7, COLOURS.ray, 1.6);
}

function drawNet(ctx, to, [x0, y0, x1, y1]) {
  const step = store.state.ground.step_m;
  ctx.beginPath();
  for (let x = Math.ceil(x0 / step - 1e-9) * step; x <= x1 + 1e-9; x += step) {
    ctx.moveTo(...to(x, y0));
    ctx.lineTo(...to(x, y1));
  }
  for (let y = Math.ceil(y0 / step - 1e-9) * step; y <= y1 + 1e-9; y += step) {
    ctx.moveTo(...to(x0, y));
    ctx.lineTo(...to(x1, y));
  }
  ctx.strokeStyle = "rgba(255, 255, 255, 0.13)";
  ctx.lineWidth = 1;
  ctx.stroke();
  const [left, top] = to(x0, y1);
  const [right, bottom] = to(x1, y0);
  ctx.strokeStyle = COLOURS.border;
  ctx.strokeRect(left, top, right - left, bottom - top);
  const far = step * Math.max(1, Math.round((x1 - x0) / step / 5));
  for (let x = Math.ceil(x0 / far) * far; x <= x1 + 1e-9; x += far) label(ctx, `${round(x)}`, to(x, y0)[0] - 5, bottom + 13, "#a4acbb", 10.5);
  for (let y = Math.ceil(y0 / far) * far; y <= y1 + 1e-9; y += far) label(ctx, `${round(y)}`, right + 5, to(x1, y)[1] + 4, "#a4acbb", 10.5);
  const origin = to(0, 0);
  [[2, 0], [0, 2]].forEach((axis, i) => {
    ctx.beginPath();
    ctx.moveTo(...origin);
    ctx.lineTo(...to(...axis));
    ctx.strokeStyle = COLOURS.axes[i];
    ctx.lineWidth = 2.4;
    ctx.stroke();
  });
}

const round = (value) => Math.round(value * 100) / 100;

function drawShapes(ctx, to) {
  if (!ui.shown.shapes) return;
  const { zones, region } = store.state;
  const moved = (kind, name, corners) => (drag?.corners && ui.shape.kind === kind && ui.shape.name === name ? drag.corners : corners);
  const chosen = (kind, name) => ui.shape?.kind === kind && ui.shape.name === name;
  if (region) polygon(ctx, moved("region", undefined, region).map((c) => to(...c)), COLOURS.region, chosen("region", undefined));
  for (const [name, corners] of Object.entries(zones)) {
    const places = moved("zone", name, corners).map((c) => to(...c));
    polygon(ctx, places, COLOURS.zone, chosen("zone", name));
    const middle = [0, 1].map((axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length);
    label(ctx, name, middle[0] - 3.2 * name.length, middle[1] + 4, COLOURS.zone);
  }
  const drawing = ui.drawing;
  if (drawing && drawing.kind !== "occluder") {
    const places = drawing.corners.map((c) => to(...c));
    if (ui.hover && store.hover?.ground) places.push(to(...store.hover.ground));
    polygon(ctx, places, COLOURS[drawing.kind], true, true);
  }
}

function drawCameras(ctx, to) {
  for (const { name, camera } of store.state.views) {
    if (!camera?.centre) continue;
    const [w, h] = sizeOf(canvas);
    const exact = to(camera.centre[0], camera.centre[1]);
    const [x, y] = [Math.min(w - 8, Math.max(8, exact[0])), Math.min(h - 8, Math.max(8, exact[1]))];
    const mine = name === ui.active;
    const colour = mine ? COLOURS.chosen : "#d5dae5";
    ctx.beginPath();
    ctx.moveTo(x, y);
    for (const side of [-1, 1]) {
      const angle = camera.heading_rad + side * camera.half_view_rad;
      ctx.lineTo(x + 24 * Math.cos(angle), y - 24 * Math.sin(angle));
    }
    ctx.closePath();
    ctx.fillStyle = colour + "59";
    ctx.fill();
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.2;
    ctx.stroke();
    dot(ctx, x, y, 4, colour, "#000");
    label(ctx, name, Math.min(w - 8 * name.length - 4, x + 7), Math.min(h - 4, y + 14), colour);
  }
}

const place = (event) => {
  const [x, y] = frame().from(event.offsetX, event.offsetY);
  return { x, y };
};

function near(event, places) {
  const { to } = frame();
  return places.findIndex((corner) => Math.hypot(to(...corner)[0] - event.offsetX, to(...corner)[1] - event.offsetY) < 10);
}

canvas.addEventListener("pointerdown", (event) => {
  byKey = false;
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  drag = { moved: false };
  const shape = ui.shape;
  const corners = shape && (shape.kind === "region" ? store.state.region : store.state.zones[shape.name]);
  if (corners && ui.tool === "select") {
    const corner = near(event, corners);
    if (corner >= 0) Object.assign(drag, { corner, was: corners, start: [event.offsetX, event.offsetY] });
  }
});
canvas.addEventListener("pointermove", (event) => {
  byKey = false;
  const here = place(event);
  if (drag?.was && Math.hypot(event.offsetX - drag.start[0], event.offsetY - drag.start[1]) > 3) {
    drag.corners = drag.was.map((corner, i) => (i === drag.corner ? [here.x, here.y] : corner));
  }
  hoverAt(here);
});
canvas.addEventListener("pointerup", (event) => {
  const done = drag;
  drag = null;
  if (done?.corners) tellShape(ui.shape, done.corners);
  else if (done && !done.was) choosePlace(place(event), event);
});
canvas.addEventListener("pointerleave", () => hoverAt(null));

function choosePlace(here, event) {
  if (ui.tool === "select") {
    const point = store.state.points.find((p) => (p.world ?? p.found) && near(event, [(p.world ?? p.found).slice(0, 2)]) === 0);
    const zone = Object.entries(store.state.zones).find(([, corners]) => inside(corners, here.x, here.y));
    const region = store.state.region && inside(store.state.region, here.x, here.y);
    ui.point = point?.name ?? null;
    ui.shape = point ? null : zone ? { kind: "zone", name: zone[0] } : region ? { kind: "region" } : null;
    if (ui.shape) ui.tab = "shapes";
    redraw(true);
    return;
  }
  const first = ui.drawing && ui.drawing.kind !== "occluder" && ui.drawing.corners[0];
  const closes = isSecond(event) || (first && near(event, [first]) === 0);
  clicked(here, { closes, stamp: event.timeStamp });
}

canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (step) {
    event.preventDefault();
    const size = event.shiftKey ? 1 : 0.1;
    const [x0, y0, x1, y1] = frame().ground;
    const now = ui.hover && !ui.hover.view ? [ui.hover.x, ui.hover.y] : [(x0 + x1) / 2, (y0 + y1) / 2];
    byKey = true;
    hoverAt({ x: round(now[0] + step[0] * size), y: round(now[1] + step[1] * size) });
  } else if (event.key === "Enter" && !event.ctrlKey) {
    event.preventDefault();
    event.stopPropagation();
    const here = ui.hover && !ui.hover.view && !event.shiftKey ? ui.hover : null;
    clicked(here, { closes: !here, stamp: event.timeStamp });
  }
});
layer.addEventListener("change", () => {
  ui.layer = layer.value;
  redraw(true);
});

const learnPlan = newest(async () => {
  store.plan = await ask("/api/plan");
  redraw(true);
});
on("state", (moved) => moved && learnPlan());
on("ui", paintRaster);
on("draw", draw);
