// What mouse and keys do on a view.

import { clicked, dropMark, hoverAt, isSecond, nudge, pickMark, tellShape } from "./work.js";
import { inHand, redraw, store, ui } from "./store.js";

const NEAR = 10; // css pixels around a mark or corner

export function listen(view, activate) {
  const canvas = view.canvas;
  canvas.addEventListener("pointerdown", (event) => press(view, event, activate));
  canvas.addEventListener("pointermove", (event) => move(view, event));
  canvas.addEventListener("pointerup", (event) => release(view, event));
  canvas.addEventListener("pointerleave", () => hoverAt(null));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => wheel(view, event), { passive: false });
  canvas.addEventListener("keydown", (event) => key(view, event));
  canvas.addEventListener("focus", () => {
    if (view.small || ui.active === view.name) return;
    ui.active = view.name;
    redraw(true);
  });
}

function near(view, event, places) {
  const { to } = view.transform();
  const gap = ([x, y]) => Math.hypot(...to(x, y).map((v, i) => v - [event.offsetX, event.offsetY][i]));
  let best = null;
  for (const [key, place] of places) {
    const distance = gap(place);
    if (distance <= NEAR && (!best || distance < best[1])) best = [key, distance];
  }
  return best?.[0] ?? null;
}

function press(view, event, activate) {
  if (view.small) {
    activate(view.name);
    view.skip = true;
    return;
  }
  view.skip = false;
  view.byKey = false;
  if (ui.active !== view.name) {
    ui.active = view.name;
    redraw(true);
  }
  view.canvas.focus({ preventScroll: true });
  view.canvas.setPointerCapture(event.pointerId);
  const start = [event.offsetX, event.offsetY];
  view.drag = { start, pan: [...view.pan], panning: event.button !== 0, moved: false };
  if (event.button === 0 && (ui.tool === "point" || ui.tool === "select")) {
    const marks = store.state.points.filter((p) => p.pixels[view.name]).map((p) => [p.name, p.pixels[view.name]]);
    const shape = ui.shape;
    const corners = shape?.kind === "occluder" && shape.view === view.name ? view.facts.occluders[shape.name] : null;
    const corner = corners && near(view, event, corners.map((place, i) => [i, place]));
    const point = ui.shown.points ? near(view, event, marks) : null;
    if (corner !== null && corners) Object.assign(view.drag, { corner, was: corners });
    else if (point !== null) {
      Object.assign(view.drag, { point, at: store.state.points.find((p) => p.name === point).pixels[view.name] });
      pickMark(point);
      redraw(true);
    } else if (ui.tool === "select") view.drag.panning = true;
  }
  redraw();
}

function move(view, event) {
  const { from } = view.transform();
  const place = from(event.offsetX, event.offsetY);
  const drag = view.drag;
  if (drag) {
    const by = [event.offsetX - drag.start[0], event.offsetY - drag.start[1]];
    drag.moved ||= Math.hypot(...by) > 3;
    if (drag.moved && drag.panning) view.pan = [drag.pan[0] + by[0], drag.pan[1] + by[1]];
    else if (drag.moved && drag.point) drag.at = place;
    else if (drag.moved && drag.corner !== undefined) {
      drag.corners = drag.was.map((corner, i) => (i === drag.corner ? place : corner));
    }
  }
  if (!view.small) {
    view.byKey = false;
    hoverAt({ view: view.name, x: place[0], y: place[1] });
  }
  redraw();
}

function release(view, event) {
  const drag = view.drag;
  view.drag = null;
  if (!drag || view.skip) return;
  const place = view.transform().from(event.offsetX, event.offsetY);
  if (drag.moved && drag.point) {
    view.drag = null;
    dropMark(drag.point, view.name, drag.at, event.timeStamp);
  } else if (drag.moved && drag.corners) tellShape(ui.shape, drag.corners);
  else if (!drag.moved && !drag.point && drag.corner === undefined && event.button === 0) {
    const first = ui.drawing && (ui.drawing.kind === "occluder" ? ui.drawing.corners[0] : ui.drawing.pixels?.[view.name]?.[0]);
    const closes = isSecond(event) || (first && near(view, event, [["first", first]]) !== null);
    clicked({ view: view.name, x: place[0], y: place[1] }, { closes, stamp: event.timeStamp });
  }
  redraw();
}

function wheel(view, event) {
  event.preventDefault();
  if (!view.small) view.zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}

function key(view, event) {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (step) {
    event.preventDefault();
    const size = event.shiftKey ? 10 : 1;
    if (event.altKey) {
      nudge(view.name, step.map((v) => (v * size) / 4));
      return;
    }
    const { width, height } = view.facts;
    const now = ui.hover?.view === view.name ? [ui.hover.x, ui.hover.y] : inHand()?.pixels[view.name] ?? [width / 2, height / 2];
    const [x, y] = now.map((v, i) => Math.min([width, height][i] - 0.5, Math.max(-0.5, v + step[i] * size)));
    view.byKey = true;
    hoverAt({ view: view.name, x, y });
    redraw();
  } else if (event.key === "Enter" && !event.ctrlKey) {
    event.preventDefault();
    event.stopPropagation();
    if (event.shiftKey || ui.hover?.view !== view.name) clicked(null, { closes: true, stamp: event.timeStamp });
    else clicked({ view: view.name, x: ui.hover.x, y: ui.hover.y }, { closes: false, stamp: event.timeStamp });
  }
}
