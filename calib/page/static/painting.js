// What is drawn into a view: its picture and net, shapes, rays, points, the cursor of the keyboard.

import { COLOURS, cross, dot, gradeColour, label, net, polygon, sharpen, strokeAll } from "./draw.js";
import { sizeOf, store, ui } from "./store.js";

// Picture and net, which most changes leave as they are.
export function paintBackdrop(view, facts, scale, to, corner) {
  const [wide, high] = sizeOf(view.canvas);
  const now = [view.image, wide, high, window.devicePixelRatio, scale, ...corner, ui.shown.grid, store.geometry];
  if (view.painted && now.every((part, i) => part === view.painted[i])) return;
  view.painted = now;
  view.backdrop ??= document.createElement("canvas");
  const ctx = sharpen(view.backdrop, [wide, high]);
  const [w, h] = [facts.width * scale, facts.height * scale];
  ctx.beginPath();
  ctx.rect(...corner, w, h);
  ctx.clip();
  ctx.fillStyle = "#181b22";
  ctx.fillRect(...corner, w, h);
  if (view.image) {
    ctx.imageSmoothingEnabled = scale < 4;
    ctx.drawImage(view.image, ...corner, w, h);
  }
  if (facts.camera && ui.shown.grid) net(ctx, facts.lines, to);
}

export function drawShapes(view, ctx, facts, to) {
  const chosen = (kind, name) => ui.shape?.kind === kind && ui.shape.name === name;
  if (facts.shapes) {
    strokeAll(ctx, facts.shapes.region, to, COLOURS.region, chosen("region", undefined) ? 3.4 : 2);
    for (const [name, parts] of Object.entries(facts.shapes.zones)) {
      strokeAll(ctx, parts, to, COLOURS.zone, chosen("zone", name) ? 3.6 : 2.2);
      if (parts.length && !view.small) label(ctx, name, ...to(parts[0][0], parts[0][1]), COLOURS.zone);
    }
  }
  for (const [name, corners] of Object.entries(facts.occluders)) {
    const mine = chosen("occluder", name) && ui.shape.view === view.name;
    const places = (mine && view.drag?.corners ? view.drag.corners : corners).map(([x, y]) => to(x, y));
    polygon(ctx, places, COLOURS.occluder, mine);
    if (!view.small) label(ctx, name, places[0][0] + 6, places[0][1] - 5, COLOURS.occluder);
  }
  const drawing = ui.drawing;
  const pixels = drawing?.kind === "occluder" ? (drawing.view === view.name ? drawing.corners : []) : drawing?.pixels?.[view.name];
  if (pixels) {
    const places = pixels.filter(Boolean).map(([x, y]) => to(x, y));
    if (ui.hover?.view === view.name) places.push(to(ui.hover.x, ui.hover.y));
    polygon(ctx, places, COLOURS[drawing.kind], true, true);
  }
}

export function drawRays(view, ctx, to) {
  const curve = store.hover?.curves?.[view.name];
  const there = curve ? curve.ground : store.hover?.pixels?.[view.name];
  if (curve) strokeAll(ctx, curve.parts, to, COLOURS.ray, 1.8);
  if (there) dot(ctx, ...to(...there), 4.5, COLOURS.ray, "#000");
}

export function drawPoints(view, ctx, to) {
  for (const point of store.state.points) {
    const mark = view.drag?.point === point.name ? view.drag.at : point.pixels[view.name];
    const projected = point.projected[view.name];
    const chosen = point.name === ui.point;
    if (!mark && !(chosen && projected)) continue;
    const colour = chosen ? COLOURS.chosen : gradeColour(point.errors[view.name] ?? null);
    if (projected) {
      const [x, y] = to(...projected);
      if (mark) strokeAll(ctx, [[...mark, ...projected]], to, colour, 1.5);
      ctx.beginPath();
      ctx.arc(x, y, chosen ? 7 : 5, 0, 7);
      ctx.strokeStyle = colour;
      ctx.setLineDash(mark ? [] : [3, 3]);
      ctx.lineWidth = 1.6;
      ctx.stroke();
      ctx.setLineDash([]);
    }
    if (mark) {
      const [x, y] = to(...mark);
      cross(ctx, x, y, view.small ? 4 : chosen ? 10 : 7, colour, chosen ? 2 : 1.6);
      if (!view.small) label(ctx, point.name, x + 9, y - 7, colour);
    }
  }
}

export function drawCursor(view, ctx, to) {
  if (view.small || ui.hover?.view !== view.name || document.activeElement !== view.canvas || !view.byKey) return;
  cross(ctx, ...to(ui.hover.x, ui.hover.y), 16, "#ffffff", 1);
}
