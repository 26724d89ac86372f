"use strict";
// Indices are (x, y, z): towards the patient's left, back and head, or as near as the grid runs to that.
// Every plane shows two of the axes; z is drawn upwards, so that the head is on top.

const about = JSON.parse(document.getElementById("description").textContent);
const PLANES = [
  { across: 2, right: 0, down: 1, upwards: false },
  { across: 1, right: 0, down: 2, upwards: true },
  { across: 0, right: 1, down: 2, upwards: true },
];
const TYPES = { int16: Int16Array, int32: Int32Array, float32: Float32Array, float64: Float64Array };
const MOVED = 4; // CSS pixels: what moves less was a click
const step = [1, about.shape[0], about.shape[0] * about.shape[1]];
const state = {
  place: about.shape.map((n) => Math.floor(n / 2)),
  centre: about.windows[0].centre,
  width: about.windows[0].width,
  curve: about.windows[0].function,
  inverted: about.inverted,
  zoom: 1,
  move: [0, 0, 0], // mm by which the middle of a picture is moved along x, y, z
  opacity: 0.4,
  visible: about.segments.map(() => true),
};
let voxels;
let layers = [];
const views = [];
const byId = (name) => document.getElementById(name);

async function inflate(name) {
  const element = byId(name);
  const text = atob(element.textContent);
  element.textContent = ""; // half of the memory
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function patient(index) {
  return about.affine.map((row) => row[0] * index[0] + row[1] * index[1] + row[2] * index[2] + row[3]);
}

function indexOf(point) {
  // The axes are at right angles: the inverse is the transpose over the squared spacing.
  return about.shape.map((_, axis) =>
    about.affine.reduce((sum, row, i) => sum + row[axis] * (point[i] - row[3]), 0) / about.spacing[axis] ** 2);
}

const within = (axis, value) => Math.min(about.shape[axis] - 1, Math.max(0, Math.round(value)));
const voxelAt = (index) => index[0] * step[0] + index[1] * step[1] + index[2] * step[2];
const number = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(5));

function describe(index) {
  const at = voxelAt(index);
  const point = patient(index);
  const letters = [["R", "L"], ["A", "P"], ["F", "H"]];
  const sides = point.map((mm, axis) => `${letters[axis][mm < 0 ? 0 : 1]} ${Math.abs(mm).toFixed(1)}`).join("  ");
  const inside = about.segments.filter((one) => layers[one.layer][at] === one.value).map((one) => one.label);
  return `${number(voxels[at])}${about.unit && ` ${about.unit}`}\n${sides} mm\n` +
    `LPS ${point.map((mm) => mm.toFixed(1)).join(", ")}\n${inside.join(", ")}`;
}

function makeView(plane) {
  const section = document.createElement("section");
  section.classList.toggle("acquired", plane.across === about.acquired);
  const heading = document.createElement("h2");
  const picture = document.createElement("div");
  picture.className = "picture";
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  picture.append(canvas);
  const down = about.sides[plane.down];
  const ends = { left: about.sides[plane.right][0], right: about.sides[plane.right][1],
    top: down[plane.upwards ? 1 : 0], bottom: down[plane.upwards ? 0 : 1] };
  for (const [end, letters] of Object.entries(ends)) {
    const side = document.createElement("span");
    side.className = `side ${end}`;
    side.textContent = letters;
    picture.append(side);
  }
  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = 1;
  slider.max = about.shape[plane.across];
  slider.setAttribute("aria-label", `Slice of the plane ${about.planes[plane.across]}`);
  section.append(heading, picture, slider);
  const grey = document.createElement("canvas");
  const colour = document.createElement("canvas");
  for (const one of [grey, colour]) {
    one.width = about.shape[plane.right];
    one.height = about.shape[plane.down];
  }
  const view = { ...plane, ends, section, heading, canvas, slider, grey, colour, drawn: "", covered: "" };
  slider.addEventListener("input", () => go(view, slider.value - 1));
  listen(view);
  return view;
}

function label(view) {
  const slice = state.place[view.across] + 1;
  const title = `${about.planes[view.across]}: ${slice} of ${about.shape[view.across]}`;
  view.heading.textContent = title;
  view.slider.value = slice;
  view.canvas.setAttribute("aria-label", `${title}. Left of the picture ${view.ends.left}, right ` +
    `${view.ends.right}, top ${view.ends.top}, bottom ${view.ends.bottom}.`);
}

let asked = false;
function redraw() {
  if (!voxels) return;
  views.forEach(label);
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    views.forEach(draw);
  });
}

function go(view, slice) {
  state.place[view.across] = within(view.across, slice);
  tell(state.place);
  redraw();
}

function tell(index) {
  byId("readout").textContent = describe(index);
}

function setWindow(centre, width, curve = state.curve) {
  state.curve = curve;
  state.centre = centre;
  state.width = Math.max(width, 1e-6);
  byId("centre").value = number(centre);
  byId("width").value = number(state.width);
  const named = about.windows.findIndex((one) => one.centre === centre && one.width === width &&
    one.function === curve);
  byId("preset").value = named;
  redraw();
}

function setZoom(zoom) {
  state.zoom = Math.min(40, Math.max(0.2, zoom));
  redraw();
}

function fit() {
  state.move = [0, 0, 0];
  setZoom(1);
}

function alone(view) {
  const chosen = !view.section.classList.contains("chosen");
  views.forEach((one) => one.section.classList.toggle("chosen", chosen && one === view));
  byId("views").classList.toggle("alone", chosen);
  redraw();
}

function under(view, event) {
  const box = view.canvas.getBoundingClientRect();
  const at = frame(view);
  const column = Math.floor(((event.clientX - box.left - at.left) / at.width) * view.grey.width);
  const row = Math.floor(((event.clientY - box.top - at.top) / at.height) * view.grey.height);
  if (column < 0 || row < 0 || column >= view.grey.width || row >= view.grey.height) return null;
  const index = [...state.place];
  index[view.right] = column;
  index[view.down] = view.upwards ? view.grey.height - 1 - row : row;
  return index;
}

function drag(view, x, y, begun) {
  const tool = document.querySelector("input[name=tool]:checked").value;
  if (tool === "window") {
    const unit = begun.width / 300;
    setWindow(begun.centre + y * unit, begun.width + x * unit);
  } else if (tool === "scroll") {
    go(view, begun.slice - y / 5);
  } else {
    const scale = frame(view).scale;
    state.move[view.right] = begun.move[view.right] + x / scale;
    state.move[view.down] = begun.move[view.down] + (y / scale) * (view.upwards ? -1 : 1);
    redraw();
  }
}

function listen(view) {
  const { canvas } = view;
  const fingers = new Map();
  let begun = null;
  const apart = () => {
    const [one, other] = [...fingers.values()];
    return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    const { centre, width, zoom } = state;
    begun = { x: event.clientX, y: event.clientY, centre, width, zoom, move: [...state.move],
      slice: state.place[view.across], apart: fingers.size === 2 ? apart() : 0, moved: fingers.size > 1 };
  });
  canvas.addEventListener("pointermove", (event) => {
    const index = voxels && under(view, event);
    if (index) tell(index);
    if (!begun || !fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, event);
    if (begun.apart && fingers.size === 2) {
      setZoom((begun.zoom * apart()) / begun.apart);
      return;
    }
    const [x, y] = [event.clientX - begun.x, event.clientY - begun.y];
    begun.moved = begun.moved || Math.hypot(x, y) > MOVED;
    if (begun.moved && fingers.size === 1 && !begun.apart) drag(view, x, y, begun);
  });
  canvas.addEventListener("pointerup", (event) => {
    const index = voxels && begun && !begun.moved && under(view, event);
    fingers.delete(event.pointerId);
    if (!fingers.size) begun = null;
    if (!index) return;
    state.place = index;
    tell(index);
    redraw();
  });
  canvas.addEventListener("pointerleave", () => voxels && tell(state.place));
  canvas.addEventListener("pointercancel", (event) => {
    fingers.delete(event.pointerId);
    begun = null;
  });
  canvas.addEventListener("dblclick", () => alone(view));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey) setZoom(state.zoom * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
    else go(view, state.place[view.across] + Math.sign(event.deltaY));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const slice = state.place[view.across];
    const keys = {
      ArrowUp: () => go(view, slice + 1), ArrowDown: () => go(view, slice - 1),
      PageUp: () => go(view, slice + 10), PageDown: () => go(view, slice - 10),
      Home: () => go(view, 0), End: () => go(view, about.shape[view.across] - 1),
      "+": () => setZoom(state.zoom * 1.25), "-": () => setZoom(state.zoom / 1.25), 0: fit, m: () => alone(view),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
}

function segmentRow(one, number) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => {
    state.visible[number] = box.checked;
    redraw();
  });
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.backgroundColor = `rgb(${one.colour.join()})`;
  const amount = document.createElement("span");
  amount.className = "amount";
  amount.textContent = ` ${one.millilitres.toFixed(1)} ml, of ${one.image_set_id}`;
  label.append(box, swatch, one.label, amount);
  return label;
}

function controls() {
  const preset = byId("preset");
  about.windows.forEach((one, i) => preset.append(new Option(one.name, i)));
  preset.append(new Option("own", -1));
  preset.addEventListener("change", () => {
    const chosen = about.windows[preset.value];
    if (chosen) setWindow(chosen.centre, chosen.width, chosen.function);
  });
  for (const name of ["centre", "width"]) {
    byId(name).addEventListener("change", () => {
      const value = byId(name).valueAsNumber;
      if (Number.isFinite(value)) setWindow(name === "centre" ? value : state.centre, name === "width" ? value : state.width);
    });
  }
  byId("inverted").checked = state.inverted;
  byId("inverted").addEventListener("change", (event) => {
    state.inverted = event.target.checked;
    redraw();
  });
  byId("cross").addEventListener("change", redraw);
  byId("closer").addEventListener("click", () => setZoom(state.zoom * 1.25));
  byId("farther").addEventListener("click", () => setZoom(state.zoom / 1.25));
  byId("fit").addEventListener("click", fit);
  byId("overlay").hidden = !about.segments.length;
  byId("segments").append(...about.segments.map(segmentRow));
  byId("opacity").addEventListener("input", (event) => {
    state.opacity = event.target.valueAsNumber;
    redraw();
  });
}

function followAddress() {
  // #lps=x,y,z leads to a place in the patient, in mm.
  const found = /^#lps=([-\d.]+),([-\d.]+),([-\d.]+)$/.exec(location.hash);
  if (found) state.place = indexOf(found.slice(1).map(Number)).map((value, axis) => within(axis, value));
  tell(state.place);
  redraw();
}

async function start() {
  // The plane in which the slices were acquired comes first: it is the sharpest.
  const first = (plane) => (plane.across === about.acquired ? 0 : 1);
  views.push(...[...PLANES].sort((one, other) => first(one) - first(other)).map(makeView));
  byId("views").append(...views.map((view) => view.section));
  controls();
  if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old to unpack it");
  voxels = new TYPES[about.type](await inflate("voxels"));
  for (let i = 0; i < about.layers; i++) layers.push(new Uint8Array(await inflate(`layer-${i}`)));
  setWindow(state.centre, state.width);
  followAddress();
  window.addEventListener("hashchange", followAddress);
  new ResizeObserver(redraw).observe(byId("views"));
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  byId("readout").textContent = `The volume cannot be shown: ${error.message}`;
});
