// One canvas a view: where it is on the page, its picture, and how far it is zoomed.

import { person, sharpen } from "./draw.js";
import { listen } from "./hands.js";
import { drawCursor, drawPoints, drawRays, drawShapes, paintBackdrop } from "./painting.js";
import { changed, on, redraw, sizeOf, store, ui, viewOf } from "./store.js";

const LIVE_MS = { active: 400, other: 2000 };
const box = document.getElementById("views");
const views = new Map();

class View {
  constructor(name, index) {
    this.name = name;
    this.zoom = 1;
    this.pan = [0, 0];
    this.image = null;
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
    listen(this, activate);
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
    paintBackdrop(this, facts, scale, to, corner);
    const ctx = sharpen(this.canvas, sizeOf(this.canvas));
    ctx.save();
    ctx.resetTransform();
    ctx.drawImage(this.backdrop, 0, 0);
    ctx.restore();
    ctx.save();
    ctx.beginPath();
    ctx.rect(...corner, w, h);
    ctx.clip();
    if (ui.shown.shapes) drawShapes(this, ctx, facts, to);
    if (ui.shown.rays && ui.hover?.view !== this.name) drawRays(this, ctx, to);
    const seen = store.walker?.views[this.name];
    if (seen && ui.shown.person) person(ctx, seen, to, scale);
    if (ui.shown.points) drawPoints(this, ctx, to);
    drawCursor(this, ctx, to);
    ctx.restore();
    this.drawTag(facts);
  }

  drawTag(facts) {
    const rms = facts.rms_px === null ? "" : ` ${facts.rms_px.toFixed(2)} px`;
    const text = `${facts.name}${facts.camera ? rms : " · no pose yet"}`;
    if (this.tag.textContent !== text) this.tag.textContent = text;
    if (!this.image && !this.none.textContent) this.none.textContent = "loading the picture …";
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
