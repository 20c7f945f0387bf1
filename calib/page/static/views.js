// One canvas a view: its picture, what is drawn into it, and what mouse and keys do on it.

import { COLOURS, cross, dot, gradeColour, label, net, person, polygon, sharpen, strokeAll } from "./draw.js";
import { clicked, dropMark, hoverAt, isSecond, nudge, pickMark, tellShape } from "./work.js";
import { changed, inHand, on, redraw, sizeOf, store, ui, viewOf } from "./store.js";

const NEAR = 10; // css pixels around a mark or corner
const LIVE_MS = { active: 400, other: 2000 };
const box = document.getElementById("views");
const views = new Map();

class View {
  constructor(name, index) {
    this.name = name;
    this.zoom = 1;
    this.pan = [0, 0];
    this.image = null;
    this.wanted = null;
    this.element = document.createElement("div");
    this.element.className = "view";
    this.element.dataset.view = name;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", `Picture of ${name}: arrows move the cursor, Enter clicks`);
    this.tag = document.createElement("div");
    this.tag.className = "tag";
    this.none = document.createElement("div");
    this.none.className = "none";
    this.element.append(this.canvas, this.tag, this.none);
    this.element.title = index < 9 ? `${name} (key ${index + 1})` : name;
    this.listen();
    this.picture();
  }

  get facts() {
    return viewOf(this.name);
  }

  get small() {
    return ui.layout === "focus" && ui.active !== this.name;
  }

  // Place of the picture -> place on the canvas, and back.
  transform() {
    const { width, height } = this.facts;
    const [w, h] = sizeOf(this.canvas);
    const zoom = this.small ? 1 : this.zoom;
    const scale = Math.min(w / width, h / height) * zoom;
    const pan = this.small ? [0, 0] : this.pan;
    const ox = (w - width * scale) / 2 + pan[0];
    const oy = (h - height * scale) / 2 + pan[1];
    return {
      scale,
      to: (x, y) => [(x + 0.5) * scale + ox, (y + 0.5) * scale + oy],
      from: (x, y) => [(x - ox) / scale - 0.5, (y - oy) / scale - 0.5],
      corner: [ox, oy],
    };
  }

  async picture() {
    const source = store.state.pictures[this.name];
    const at = ui.times[this.name] ?? 0;
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    try {
      const response = await fetch(`/api/picture/${encodeURIComponent(this.name)}?at=${at}`);
      if (response.ok) {
        this.image = await createImageBitmap(await response.blob());
        this.none.textContent = "";
      } else {
        this.none.textContent = (await response.json()).error;
      }
    } catch {
      // the banner says it
    }
    this.loading = false;
    redraw();
    if (this.again) {
      this.again = false;
      this.picture();
    } else if (source?.kind === "live") {
      const wait = ui.active === this.name ? LIVE_MS.active : LIVE_MS.other;
      setTimeout(() => (ui.frozen ? this.thaw() : this.picture()), wait);
    }
  }

  thaw() {
    if (ui.frozen) setTimeout(() => this.thaw(), 300);
    else this.picture();
  }

  draw() {
    const facts = this.facts;
    this.element.classList.toggle("active", ui.active === this.name);
    this.canvas.tabIndex = this.small ? -1 : 0;
    const { scale, to, corner } = this.transform();
    const [w, h] = [facts.width * scale, facts.height * scale];
    this.paintBackdrop(facts, scale, to, corner);
    const ctx = sharpen(this.canvas, sizeOf(this.canvas));
    ctx.save();
    ctx.resetTransform();
    ctx.drawImage(this.backdrop, 0, 0);
    ctx.restore();
    ctx.save();
    ctx.beginPath();
    ctx.rect(...corner, w, h);
    ctx.clip();
    if (ui.shown.shapes) this.drawShapes(ctx, facts, to);
    if (ui.shown.rays && ui.hover?.view !== this.name) this.drawRays(ctx, to);
    const seen = store.walker?.views[this.name];
    if (seen && ui.shown.person) person(ctx, seen, to, scale);
    if (ui.shown.points) this.drawPoints(ctx, to);
    this.drawCursor(ctx, to);
    ctx.restore();
    this.drawTag(facts);
  }

  // Picture and net, which most changes leave as they are.
  paintBackdrop(facts, scale, to, corner) {
    const [wide, high] = sizeOf(this.canvas);
    const now = [this.image, wide, high, window.devicePixelRatio, scale, ...corner, ui.shown.grid, store.geometry];
    if (this.painted && now.every((part, i) => part === this.painted[i])) return;
    this.painted = now;
    this.backdrop ??= document.createElement("canvas");
    const ctx = sharpen(this.backdrop, [wide, high]);
    const [w, h] = [facts.width * scale, facts.height * scale];
    ctx.beginPath();
    ctx.rect(...corner, w, h);
    ctx.clip();
    ctx.fillStyle = "#181b22";
    ctx.fillRect(...corner, w, h);
    if (this.image) {
      ctx.imageSmoothingEnabled = scale < 4;
      ctx.drawImage(this.image, ...corner, w, h);
    }
    if (facts.camera && ui.shown.grid) net(ctx, facts.lines, to);
  }

  drawShapes(ctx, facts, to) {
    const chosen = (kind, name) => ui.shape?.kind === kind && ui.shape.name === name;
    if (facts.shapes) {
      strokeAll(ctx, facts.shapes.region, to, COLOURS.region, chosen("region", undefined) ? 3.4 : 2);
      for (const [name, parts] of Object.entries(facts.shapes.zones)) {
        strokeAll(ctx, parts, to, COLOURS.zone, chosen("zone", name) ? 3.6 : 2.2);
        if (parts.length && !this.small) label(ctx, name, ...to(parts[0][0], parts[0][1]), COLOURS.zone);
      }
    }
    for (const [name, corners] of Object.entries(facts.occluders)) {
      const mine = chosen("occluder", name) && ui.shape.view === this.name;
      const places = (mine && this.drag?.corners ? this.drag.corners : corners).map(([x, y]) => to(x, y));
      polygon(ctx, places, COLOURS.occluder, mine);
      if (!this.small) label(ctx, name, places[0][0] + 6, places[0][1] - 5, COLOURS.occluder);
    }
    const drawing = ui.drawing;
    const pixels = drawing?.kind === "occluder" ? (drawing.view === this.name ? drawing.corners : []) : drawing?.pixels?.[this.name];
    if (pixels) {
      const places = pixels.filter(Boolean).map(([x, y]) => to(x, y));
      if (ui.hover?.view === this.name) places.push(to(ui.hover.x, ui.hover.y));
      polygon(ctx, places, COLOURS[drawing.kind], true, true);
    }
  }

  drawRays(ctx, to) {
    const curve = store.hover?.curves?.[this.name];
    const there = curve ? curve.ground : store.hover?.pixels?.[this.name];
    if (curve) strokeAll(ctx, curve.parts, to, COLOURS.ray, 1.8);
    if (there) dot(ctx, ...to(...there), 4.5, COLOURS.ray, "#000");
  }

  drawPoints(ctx, to) {
    for (const point of store.state.points) {
      const mark = this.drag?.point === point.name ? this.drag.at : point.pixels[this.name];
      const projected = point.projected[this.name];
      const chosen = point.name === ui.point;
      if (!mark && !(chosen && projected)) continue;
      const colour = chosen ? COLOURS.chosen : gradeColour(point.errors[this.name] ?? null);
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
        cross(ctx, x, y, this.small ? 4 : chosen ? 10 : 7, colour, chosen ? 2 : 1.6);
        if (!this.small) label(ctx, point.name, x + 9, y - 7, colour);
      }
    }
  }

  drawCursor(ctx, to) {
    if (this.small || ui.hover?.view !== this.name || document.activeElement !== this.canvas || !this.byKey) return;
    cross(ctx, ...to(ui.hover.x, ui.hover.y), 16, "#ffffff", 1);
  }

  drawTag(facts) {
    const rms = facts.rms_px === null ? "" : ` ${facts.rms_px.toFixed(2)} px`;
    const text = `${facts.name}${facts.camera ? rms : " · no pose yet"}`;
    if (this.tag.textContent !== text) this.tag.textContent = text;
    if (!this.image && !this.none.textContent) this.none.textContent = "loading the picture …";
  }

  near(event, places) {
    const { to } = this.transform();
    const gap = ([x, y]) => Math.hypot(...to(x, y).map((v, i) => v - [event.offsetX, event.offsetY][i]));
    let best = null;
    for (const [key, place] of places) {
      const distance = gap(place);
      if (distance <= NEAR && (!best || distance < best[1])) best = [key, distance];
    }
    return best?.[0] ?? null;
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointerleave", () => hoverAt(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => {
      if (this.small || ui.active === this.name) return;
      ui.active = this.name;
      redraw(true);
    });
  }

  press(event) {
    if (this.small) {
      activate(this.name);
      this.skip = true;
      return;
    }
    this.skip = false;
    this.byKey = false;
    if (ui.active !== this.name) {
      ui.active = this.name;
      redraw(true);
    }
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const start = [event.offsetX, event.offsetY];
    this.drag = { start, pan: [...this.pan], panning: event.button !== 0, moved: false };
    if (event.button === 0 && (ui.tool === "point" || ui.tool === "select")) {
      const marks = store.state.points.filter((p) => p.pixels[this.name]).map((p) => [p.name, p.pixels[this.name]]);
      const shape = ui.shape;
      const corners = shape?.kind === "occluder" && shape.view === this.name ? this.facts.occluders[shape.name] : null;
      const corner = corners && this.near(event, corners.map((place, i) => [i, place]));
      const point = ui.shown.points ? this.near(event, marks) : null;
      if (corner !== null && corners) Object.assign(this.drag, { corner, was: corners });
      else if (point !== null) {
        Object.assign(this.drag, { point, at: store.state.points.find((p) => p.name === point).pixels[this.name] });
        pickMark(point);
        redraw(true);
      } else if (ui.tool === "select") this.drag.panning = true;
    }
    redraw();
  }

  move(event) {
    const { from } = this.transform();
    const place = from(event.offsetX, event.offsetY);
    const drag = this.drag;
    if (drag) {
      const by = [event.offsetX - drag.start[0], event.offsetY - drag.start[1]];
      drag.moved ||= Math.hypot(...by) > 3;
      if (drag.moved && drag.panning) this.pan = [drag.pan[0] + by[0], drag.pan[1] + by[1]];
      else if (drag.moved && drag.point) drag.at = place;
      else if (drag.moved && drag.corner !== undefined) {
        drag.corners = drag.was.map((corner, i) => (i === drag.corner ? place : corner));
      }
    }
    if (!this.small) {
      this.byKey = false;
      hoverAt({ view: this.name, x: place[0], y: place[1] });
    }
    redraw();
  }

  release(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag || this.skip) return;
    const place = this.transform().from(event.offsetX, event.offsetY);
    if (drag.moved && drag.point) {
      this.drag = null;
      dropMark(drag.point, this.name, drag.at, event.timeStamp);
    } else if (drag.moved && drag.corners) tellShape(ui.shape, drag.corners);
    else if (!drag.moved && !drag.point && drag.corner === undefined && event.button === 0) {
      const first = ui.drawing && (ui.drawing.kind === "occluder" ? ui.drawing.corners[0] : ui.drawing.pixels?.[this.name]?.[0]);
      const closes = isSecond(event) || (first && this.near(event, [["first", first]]) !== null);
      clicked({ view: this.name, x: place[0], y: place[1] }, { closes, stamp: event.timeStamp });
    }
    redraw();
  }

  wheel(event) {
    event.preventDefault();
    if (!this.small) this.zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }

  zoomBy(factor, x = sizeOf(this.canvas)[0] / 2, y = sizeOf(this.canvas)[1] / 2) {
    const zoom = Math.min(40, Math.max(1, this.zoom * factor));
    const middle = sizeOf(this.canvas).map((v) => v / 2);
    const ratio = zoom / this.zoom;
    this.pan = [x, y].map((v, i) => v - middle[i] - (v - middle[i] - this.pan[i]) * ratio);
    this.zoom = zoom;
    if (zoom === 1) this.pan = [0, 0];
    redraw();
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      event.preventDefault();
      const size = event.shiftKey ? 10 : 1;
      if (event.altKey) {
        nudge(this.name, step.map((v) => (v * size) / 4));
        return;
      }
      const { width, height } = this.facts;
      const now = ui.hover?.view === this.name ? [ui.hover.x, ui.hover.y] : inHand()?.pixels[this.name] ?? [width / 2, height / 2];
      const [x, y] = now.map((v, i) => Math.min([width, height][i] - 0.5, Math.max(-0.5, v + step[i] * size)));
      this.byKey = true;
      hoverAt({ view: this.name, x, y });
      redraw();
    } else if (event.key === "Enter" && !event.ctrlKey) {
      event.preventDefault();
      event.stopPropagation();
      if (event.shiftKey || ui.hover?.view !== this.name) clicked(null, { closes: true, stamp: event.timeStamp });
      else clicked({ view: this.name, x: ui.hover.x, y: ui.hover.y }, { closes: false, stamp: event.timeStamp });
    }
  }
}

export function activate(name) {
  ui.active = name;
  ui.hover = null;
  store.hover = null;
  redraw(true);
  views.get(name)?.canvas.focus({ preventScroll: true });
}

export const zoomActive = (factor) => {
  const view = views.get(ui.active);
  if (factor) view?.zoomBy(factor);
  else if (view) view.zoomBy(1e-9);
};

export const showPicture = (name) => views.get(name)?.picture();

// The small views go beneath the large one or beside it, whichever leaves it larger.
function arrange() {
  const count = views.size;
  const others = Math.max(1, count - 1);
  let [rows, columns] = ["", ""];
  let look = ui.layout;
  if (ui.layout === "grid") {
    const wide = Math.ceil(Math.sqrt(count));
    columns = `repeat(${wide}, minmax(0, 1fr))`;
    rows = `repeat(${Math.ceil(count / wide)}, minmax(0, 1fr))`;
  } else if (count < 2) look += " alone";
  else {
    const { width, height } = viewOf(ui.active);
    const fits = (w, h) => Math.min(w / width, h / height);
    const [w, h] = sizeOf(box, () => redraw(true));
    if (others <= 4 && fits(0.72 * w, h) > fits(w, 0.75 * h)) {
      look += " side";
      columns = "minmax(0, 72fr) minmax(0, 28fr)";
      rows = `repeat(${others}, minmax(0, 1fr))`;
    } else columns = `repeat(${others}, minmax(0, 1fr))`;
  }
  if (!changed("views", look, columns, rows)) return;
  box.className = `views ${look}`;
  box.style.gridTemplateColumns = columns;
  box.style.gridTemplateRows = rows;
}

on("state", () => {
  store.state.views.forEach(({ name }, index) => {
    if (views.has(name)) return;
    const view = new View(name, index);
    views.set(name, view);
    box.append(view.element);
  });
});
on("ui", arrange);
on("draw", () => views.forEach((view) => view.draw()));
