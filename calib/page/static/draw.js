// Drawing on canvases: lines of the world, points, people, shapes. Places are pixels of the view.

export const COLOURS = {
  net: "rgba(125, 211, 252, 0.55)", border: "rgba(125, 211, 252, 0.95)", axes: ["#ff6b6b", "#7ee787", "#79a8ff"],
  person: "#ffb454", ray: "#ff79c6", zone: "#4fd1c5", region: "#f3e04b", occluder: "#ff7b72", mark: "#ffffff",
  chosen: "#5fb0ff",
};

// A cleared canvas whose unit is a css pixel, as sharp as the screen.
export function sharpen(canvas, [wide, high]) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(wide * ratio);
  const height = Math.round(high * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, wide, high);
  ctx.lineJoin = "round";
  ctx.lineCap = "round";
  return ctx;
}

// flat: x, y, x, y …; to: place of the view -> place on the canvas
export function trace(ctx, flat, to) {
  for (let i = 0; i < flat.length; i += 2) {
    const [x, y] = to(flat[i], flat[i + 1]);
    if (i) ctx.lineTo(x, y);
    else ctx.moveTo(x, y);
  }
}

export function strokeAll(ctx, parts, to, colour, width) {
  ctx.beginPath();
  for (const part of parts) trace(ctx, part, to);
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.stroke();
}

export function net(ctx, lines, to) {
  strokeAll(ctx, lines.net, to, COLOURS.net, 1);
  strokeAll(ctx, lines.border, to, COLOURS.border, 1.6);
  lines.axes.forEach((parts, axis) => strokeAll(ctx, parts, to, COLOURS.axes[axis], 2.4));
}

// Translucent: whoever really stands there must be seen too.
export function person(ctx, seen, to, scale) {
  ctx.globalAlpha = 0.8;
  const width = Math.max(1.6, 0.07 * seen.height * scale);
  for (const [colour, wide] of [["rgba(0, 0, 0, 0.55)", width + 2.5], [COLOURS.person, width]]) {
    ctx.beginPath();
    for (const limb of seen.limbs) trace(ctx, limb, to);
    ctx.strokeStyle = colour;
    ctx.lineWidth = wide;
    ctx.stroke();
    const [x, y] = to(...seen.head);
    ctx.beginPath();
    ctx.arc(x, y, Math.max(2, seen.radius * scale) + (wide - width) / 2, 0, 7);
    ctx.fillStyle = colour;
    ctx.fill();
  }
  ctx.globalAlpha = 1;
}

export function polygon(ctx, places, colour, chosen, open = false) {
  if (!places.length) return;
  ctx.beginPath();
  places.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  if (!open) ctx.closePath();
  if (!open) {
    ctx.fillStyle = colour + (chosen ? "4d" : "26");
    ctx.fill();
  }
  ctx.strokeStyle = colour;
  ctx.lineWidth = chosen ? 2.4 : 1.5;
  ctx.stroke();
  if (chosen || open) for (const [x, y] of places) dot(ctx, x, y, 4, colour, "#000");
}

export function dot(ctx, x, y, radius, fill, edge) {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 7);
  ctx.fillStyle = fill;
  ctx.fill();
  ctx.lineWidth = 1.2;
  ctx.strokeStyle = edge;
  ctx.stroke();
}

export function cross(ctx, x, y, size, colour, width = 1.5) {
  for (const [stroke, wide] of [["rgba(0, 0, 0, 0.75)", width + 2], [colour, width]]) {
    ctx.beginPath();
    ctx.moveTo(x - size, y);
    ctx.lineTo(x + size, y);
    ctx.moveTo(x, y - size);
    ctx.lineTo(x, y + size);
    ctx.strokeStyle = stroke;
    ctx.lineWidth = wide;
    ctx.stroke();
  }
}

export function label(ctx, text, x, y, colour = "#fff", size = 11.5) {
  ctx.font = `${size}px system-ui, "DejaVu Sans", sans-serif`;
  ctx.lineWidth = 3;
  ctx.strokeStyle = "rgba(0, 0, 0, 0.8)";
  ctx.strokeText(text, x, y);
  ctx.fillStyle = colour;
  ctx.fillText(text, x, y);
}

export const grade = (px) => (px === null || px === undefined ? "" : px <= 1 ? "good" : px <= 3 ? "fair" : "bad");
const GRADES = { good: "#63d297", fair: "#f3c04b", bad: "#ff7b72", "": "#c3cad6" };
export const gradeColour = (px) => GRADES[grade(px)];
