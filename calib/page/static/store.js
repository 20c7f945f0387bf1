// What the server said last (`store.state`), what this window shows (`ui`), and the only ways to change either.

// geometry: what lines, person and plan are made of, as text: where it is the same, they are.
export const store = { state: null, geometry: null, plan: null, walker: null, hover: null };

export const ui = {
  active: null, // view in hand
  tool: "point",
  point: null, // name of the point in hand
  shape: null, // {kind, name, view} in hand
  drawing: null, // {kind, view, corners: [[x, y]], pixels: {view: [[x, y]]}}
  layout: "focus",
  tab: "points",
  layer: "views",
  walking: false,
  share: 0.08,
  shown: { grid: true, person: true, rays: true, points: true, shapes: true },
  hover: null, // {view, x, y} image pixels, or {x, y} metres on the plan
  times: {}, // of videos, s
  frozen: false,
  focalToo: false, // asked for where the lens is known
};

const heard = { state: [], draw: [], ui: [] };

export function on(what, listener) {
  heard[what].push(listener);
}

let asked = false;
let touched = false;

// Everything is drawn at most once a frame, whatever changed how often.
export function redraw(panels = false) {
  touched ||= panels;
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (!store.state) return;
    if (touched) heard.ui.forEach((listener) => listener());
    touched = false;
    heard.draw.forEach((listener) => listener());
    if (performance.getEntriesByName("answered").length) {
      performance.clearMarks("answered");
      // What the eye waits for: the click, the server, this drawing, and the frame that it is in.
      setTimeout(() => {
        if (performance.getEntriesByName("click").length) performance.measure("click-to-drawn", "click");
        performance.clearMarks("click");
      });
    }
  });
}

export const active = () => store.state?.views.find((view) => view.name === ui.active) ?? null;
export const viewOf = (name) => store.state?.views.find((view) => view.name === name) ?? null;
export const pointOf = (name) => store.state?.points.find((point) => point.name === name) ?? null;
export const inHand = () => pointOf(ui.point);

let underWay = 0;

// Said to whoever cannot see it too: something was asked for and is not there yet.
function waits(by) {
  underWay += by;
  document.body.setAttribute("aria-busy", String(underWay > 0));
}

async function talk(path, body) {
  waits(1);
  try {
    return await fetched(path, body);
  } finally {
    waits(-1);
  }
}

async function fetched(path, body) {
  let response;
  try {
    response = await fetch(path, body && {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    gone(true);
    throw new Error("no server");
  }
  gone(false);
  return [response.ok, await response.json()];
}

let isGone = false;

// Nothing is lost that was saved; what was not is in the server that went.
function gone(now) {
  if (now === isGone) return;
  isGone = now;
  const banner = document.getElementById("banner");
  banner.hidden = !now;
  banner.textContent = "No answer from viewsync calib serve: start it again. This page goes on when it answers.";
  if (now) {
    const again = setInterval(async () => {
      try {
        await load();
        clearInterval(again);
      } catch {
        // still gone
      }
    }, 1500);
  }
}

export function show(state) {
  const before = store.geometry;
  store.state = state;
  const { ground, region, views } = state;
  store.geometry = JSON.stringify([ground, region, views.map((view) => [view.name, view.camera, view.occluders])]);
  if (!state.views.some((view) => view.name === ui.active)) ui.active = state.views[0]?.name ?? null;
  if (ui.point && !pointOf(ui.point)) ui.point = null;
  const shape = ui.shape;
  if (shape && !shapeCorners(shape)) ui.shape = null;
  heard.state.forEach((listener) => listener(before !== store.geometry));
  redraw(true);
}

export function shapeCorners({ kind, name, view }) {
  const state = store.state;
  if (kind === "region") return state.region;
  if (kind === "zone") return state.zones[name] ?? null;
  return viewOf(view)?.occluders[name] ?? null;
}

export async function load() {
  const [, state] = await talk("/api/state");
  show(state);
}

let chain = Promise.resolve();

// One change after the other: the second of two quick clicks carries the revision that the first one made.
export function send(path, body = {}) {
  const next = chain.then(async () => {
    const [ok, answer] = await talk(path, { ...body, revision: store.state.revision });
    if (ok) {
      if (performance.getEntriesByName("click").length) performance.mark("answered");
      if ("point" in answer && answer.point !== null) ui.point = answer.point;
      show(answer);
      if (answer.notes?.length) toast(answer.notes);
    } else {
      performance.clearMarks("click");
      if (answer.state) show(answer.state);
      if (!answer.can_force) toast([answer.error], true);
    }
    return [ok, answer];
  });
  chain = next.catch(() => {});
  return next.catch(() => [false, {}]);
}

export const edit = (action) => send("/api/edit", action);

export async function ask(path) {
  const [ok, answer] = await talk(path);
  return ok ? answer : null;
}

export function toast(lines, bad = false) {
  const box = document.createElement("div");
  box.className = bad ? "toast bad" : "toast";
  for (const line of lines) {
    const row = document.createElement("div");
    row.textContent = line;
    box.append(row);
  }
  const toasts = document.getElementById("toasts");
  toasts.append(box);
  while (toasts.children.length > 3) toasts.firstChild.remove();
  setTimeout(() => box.remove(), bad ? 9000 : 5000);
}

const seen = new Map();

// Whether what `part` of the page shows is not what it showed before; building it anew costs more than drawing.
export function changed(part, ...now) {
  const before = seen.get(part);
  if (before && before.length === now.length && now.every((value, i) => value === before[i])) return false;
  seen.set(part, now);
  return true;
}

const sizes = new WeakMap();

// Width and height of an element, css pixels, without making the browser lay the page out to answer.
export function sizeOf(element, whenever = redraw) {
  if (!sizes.has(element)) {
    sizes.set(element, [element.clientWidth, element.clientHeight]);
    new ResizeObserver(([entry]) => {
      sizes.set(element, [entry.contentRect.width, entry.contentRect.height]);
      whenever();
    }).observe(element);
  }
  return sizes.get(element);
}

// Only the newest question matters: while one is under way, later ones wait as one.
export function newest(run) {
  let busy = false;
  let waiting = null;
  return async function go(...given) {
    if (busy) {
      waiting = given;
      return;
    }
    busy = true;
    try {
      await run(...given);
    } catch {
      // the banner says it
    }
    busy = false;
    if (waiting) {
      const then = waiting;
      waiting = null;
      go(...then);
    }
  };
}
