// The page: a pad, the network's layers as images, and where each number comes from.
"use strict";

const SIDE = 280, PEN = 18;  // of the pad, in pixels, as in notebook 07
const STEP = 20, ANGLE = 10;  // pixels and degrees of a shift and a rotation
const COLORS = {  // from 0 to the largest number; and negative, zero, positive
  light: { map: ["#ffffff", "#79b8e6", "#0a5f9e", "#04263f"], mark: "#d4570a",
    signed: ["#d9730d", "#ffffff", "#0a5f9e"] },
  dark: { map: ["#0c1014", "#135a8f", "#5cb6f2", "#f2faff"], mark: "#ffab4a",
    signed: ["#e08a2c", "#1c232b", "#3d9be0"] },
};

const find = (id) => document.getElementById(id);
const pad = find("pad"), seen = find("seen"), origin = find("origin");
const pen = pad.getContext("2d", { willReadFrequently: true });

let model, layers;  // as they are in the file
let drawing;  // the pad: a grid of gray values, 0 = black to 1 = white
let history = [];  // earlier drawings, for "Undo"
let image, grids;  // what the network sees, and the output of every layer
let views = [];  // how each grid is shown
let pick = null;  // the number that is explained: { grid, channel, y, x }
let pinned = false;  // a click holds it, so that the mouse can go elsewhere
let theme = "light";

// --- Start ---------------------------------------------------------------------------------------

function start() {
  try {
    model = JSON.parse(find("model").textContent);
    layers = readLayers(model.layers);
  } catch (error) {
    find("problem").textContent = error.message;
    find("problem").hidden = false;
    document.querySelector("main").hidden = true;
    return;
  }
  find("about").textContent = model.about;
  find("threshold").textContent = model.threshold === null
    ? "On the validation images, no threshold was reliable enough, so every digit is “not sure”."
    : `Below ${percent(model.threshold)} (dashed) it says “not sure”: on the validation images, ` +
      "at most 1 in 1,000 predictions above this confidence was incorrect.";
  makeBars();
  makeExamples();
  makeChanges();
  grids = forward(new Float32Array(784), layers);
  makeLayers();
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  drawing = model.examples.length ? enlargeExample(model.examples[0]) : blank(1);
  showDrawing();
  respond();
}

function percent(probability) {
  const value = 100 * probability;
  return value > 99.9 && value < 100 ? "> 99.9%" : `${value.toFixed(value < 99.5 ? 0 : 1)}%`;
}

function number(value) {
  const text = Math.abs(value) < 0.005 ? "0" : value.toFixed(Math.abs(value) < 99.5 ? 2 : 0);
  return value === 0 ? "0" : text.replace("-", "−");
}

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// --- The pad -------------------------------------------------------------------------------------

function blank(gray) {
  return makeGrid(SIDE, SIDE, 1, new Float32Array(SIDE * SIDE).fill(gray));
}

function enlargeExample(example) {
  const pixels = decodeBytes(example.pixels), result = blank(1), block = SIDE / 28;
  result.values.forEach((_, i) => {
    const y = Math.floor(i / SIDE / block), x = Math.floor((i % SIDE) / block);
    result.values[i] = 1 - pixels[28 * y + x] / 255;
  });
  return result;
}

function showDrawing() {
  const pixels = new ImageData(SIDE, SIDE);
  drawing.values.forEach((gray, i) => pixels.data.set([0, 1, 2].map(() => 255 * gray), 4 * i));
  for (let i = 3; i < pixels.data.length; i += 4) pixels.data[i] = 255;
  pen.putImageData(pixels, 0, 0);
}

function readDrawing() {
  const { data } = pen.getImageData(0, 0, SIDE, SIDE);
  drawing = makeGrid(SIDE, SIDE, 1, new Float32Array(SIDE * SIDE));
  for (let i = 0; i < drawing.values.length; i++) drawing.values[i] = data[4 * i] / 255;
}

/** Remember the drawing, so that "Undo" can bring it back. */
function remember() {
  history.push(drawing);
  if (history.length > 50) history.shift();
}

function replace(next) {
  remember();
  drawing = next;
  showDrawing();
  respond();
}

function undo() {
  if (!history.length) return;
  drawing = history.pop();
  showDrawing();
  respond();
}

function clear() {
  replace(blank(1));
}

let last = null, waiting = false;  // the pen's last point; is an answer on its way?
let cursor = [SIDE / 2, SIDE / 2];  // the pen of the keyboard

function startStroke(point) {
  if (history.length === 0 && model.examples.length) {  // the digit that was there at the start
    remember();
    drawing = blank(1);
    showDrawing();
  } else remember();
  pen.strokeStyle = paperIsDark(drawing) ? "white" : "black";
  last = point;
  draw(point);
}

function draw(point) {
  pen.lineWidth = PEN;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...point);
  pen.stroke();
  last = point;
  if (!waiting) {  // at most one answer for each image that the screen shows
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      readDrawing();
      respond();
    });
  }
}

function pointOf(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.x) * SIDE / box.width, (event.clientY - box.y) * SIDE / box.height];
}

pad.onpointerdown = (event) => {  // mouse, pen, and finger alike
  if (event.button) return;
  pad.setPointerCapture(event.pointerId);
  startStroke(pointOf(event));
};
pad.onpointermove = (event) => {
  if (!last) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const one of events.length ? events : [event]) draw(pointOf(one));
};
pad.onpointerup = pad.onpointercancel = () => { last = null; };

pad.onkeydown = (event) => {
  const moves = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };
  const move = moves[event.key], example = model.examples.find((e) => `${e.label}` === event.key);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (move) {
    cursor = cursor.map((value, axis) => Math.min(Math.max(value + move[axis], 0), SIDE));
    if (last) draw(cursor);
    showCursor();
  } else if (event.key === " ") {
    if (last) last = null;
    else startStroke(cursor);
    showCursor();
  } else if (event.key === "Delete" || event.key === "Backspace") clear();
  else if (example) replace(enlargeExample(example));
  else return;
  event.preventDefault();
};
pad.onblur = () => {
  last = null;
  find("cursor").hidden = true;
};

function showCursor() {
  const mark = find("cursor");
  mark.hidden = false;
  mark.className = last ? "down" : "";
  [mark.style.left, mark.style.top] = cursor.map((value) => `${100 * value / SIDE}%`);
}

find("undo").onclick = undo;
find("clear").onclick = clear;
find("prepared").onchange = respond;

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z") {
    event.preventDefault();
    undo();
  }
  if (event.key === "Escape") explain(null);
});

// --- Things to try -------------------------------------------------------------------------------

function makeExamples() {
  for (const example of model.examples) {
    const canvas = make("canvas", { width: 28, height: 28 });
    const pixels = new ImageData(28, 28);
    decodeBytes(example.pixels).forEach((ink, i) => {
      pixels.data.set([255 - ink, 255 - ink, 255 - ink, 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    const button = make("button", { type: "button", title: `a ${example.label}` }, canvas);
    button.setAttribute("aria-label", `a ${example.label} of ${model.data}`);
    button.onclick = () => replace(enlargeExample(example));
    find("examples").append(button);
  }
}

function makeChanges() {
  const changes = {
    "← Shift": () => shift(-STEP, 0), "Shift →": () => shift(STEP, 0),
    "↑ Shift": () => shift(0, -STEP), "Shift ↓": () => shift(0, STEP),
    "↺ Rotate": () => rotate(ANGLE), "Rotate ↻": () => rotate(-ANGLE),
    Thicker: () => changeWidth(3), Thinner: () => changeWidth(-3), Noise: addNoise, Invert: invert,
  };
  for (const [name, change] of Object.entries(changes)) {
    const button = make("button", { type: "button", textContent: name });
    button.onclick = () => replace(change());
    find("changes").append(button);
  }
}

/** Return the drawing with every pixel taken from another place: from(y, x) gives [y, x]. */
function moved(from) {
  const result = blank(0), paper = paperIsDark(drawing) ? 0 : 1;
  result.values.forEach((_, i) => {
    const [y, x] = from(Math.floor(i / SIDE), i % SIDE);
    result.values[i] = interpolate(drawing, y, x, paper);
  });
  return result;
}

function shift(right, down) {
  return moved((y, x) => [y - down, x - right]);
}

/** Rotate counterclockwise about the center, by so many degrees. */
function rotate(degrees) {
  const cos = Math.cos(degrees * Math.PI / 180), sin = Math.sin(degrees * Math.PI / 180);
  const center = (SIDE - 1) / 2;
  return moved((y, x) => [
    center + cos * (y - center) + sin * (x - center),
    center - sin * (y - center) + cos * (x - center),
  ]);
}

/** Move the edges of all strokes outward (or inward, if negative), by so many pixels. */
function changeWidth(pixels) {
  const dark = paperIsDark(drawing), mask = inkOf(drawing);
  mask.values = mask.values.map((ink) => (ink > 0.45 ? 1 : 0));
  const ink = moveEdges(mask, pixels);
  return { ...ink, values: ink.values.map((value) => (dark ? value : 1 - value)) };
}

/** Add random numbers with a standard deviation of 0.3, one for each block of 5 × 5 pixels. */
function addNoise() {
  const noise = Array.from({ length: (SIDE / 5) ** 2 }, () => {
    const distance = Math.sqrt(-2 * Math.log(1 - Math.random()));  // Box and Muller's method
    return 0.3 * distance * Math.cos(2 * Math.PI * Math.random());
  });
  const values = drawing.values.map((gray, i) => {
    const y = Math.floor(i / SIDE / 5), x = Math.floor((i % SIDE) / 5);
    return Math.min(Math.max(gray + noise[y * SIDE / 5 + x], 0), 1);
  });
  return { ...drawing, values };
}

function invert() {
  return { ...drawing, values: drawing.values.map((gray) => 1 - gray) };
}

// --- The answer ----------------------------------------------------------------------------------

function makeBars() {
  for (let digit = 0; digit < 10; digit++) {
    const fill = make("span", { className: "fill" });
    const limit = make("span", { className: "limit" });
    limit.style.bottom = `${100 * (model.threshold ?? 1)}%`;
    const tube = make("span", { className: "tube" }, fill, limit);
    const name = make("b", { textContent: digit }), value = make("small");
    const bar = make("button", { type: "button" }, tube, name, value);
    bar.onclick = () => explain({ grid: layers.length, channel: digit, y: 0, x: 0 }, true);
    find("bars").append(bar);
  }
}

/** Prepare the drawing, run the network, and show everything. */
function respond() {
  const started = performance.now();
  const [low, high] = minMax(drawing.values), isEmpty = high - low < 0.1;
  const prepared = find("prepared").checked ? toMnistStyle(drawing) : resizeAndInvert(drawing);
  image = prepared ?? new Float32Array(784);
  const ready = performance.now();
  grids = forward(image, layers);
  const predicted = performance.now();
  showAnswer(isEmpty);
  showGrids();
  showOrigin();
  const done = performance.now();
  find("undo").disabled = !history.length;
  find("times").textContent = `This took ${(done - started).toFixed(0)} ms: the network ` +
    `${(predicted - ready).toFixed(1)}, preparing the image ${(ready - started).toFixed(1)}, ` +
    `drawing the maps ${(done - predicted).toFixed(1)}.`;
}

function showAnswer(isEmpty) {
  const probabilities = grids.at(-1).values, order = [...probabilities.keys()];
  order.sort((a, b) => probabilities[b] - probabilities[a]);
  const [top, second] = order, verdict = find("verdict");
  const confidence = probabilities[top];
  if (isEmpty) verdict.textContent = "Draw a digit.";
  else if (model.threshold !== null && confidence >= model.threshold) {
    verdict.replaceChildren(`Prediction: ${top} `,
      make("small", { textContent: `with a confidence of ${percent(confidence)}` }));
  } else {
    verdict.replaceChildren("Not sure. ", make("small", {
      textContent: `Perhaps ${top} (${percent(confidence)}) or ${second} ` +
        `(${percent(probabilities[second])})?`,
    }));
  }
  [...find("bars").children].forEach((bar, digit) => {
    const p = isEmpty ? 0 : probabilities[digit];
    bar.querySelector(".fill").style.height = `${100 * p}%`;
    bar.querySelector("small").textContent = isEmpty ? "" : percent(p);
    bar.classList.toggle("top", !isEmpty && digit === top);
    bar.setAttribute("aria-label", `digit ${digit}: ${percent(p)}; where does this come from?`);
  });
}

// --- The layers as images ------------------------------------------------------------------------

function titleOf(index) {
  const layer = layers[index - 1], { channels, height, width } = grids[index];
  const before = grids[index - 1].channels;
  const slices = before > 1 ? ` × ${before}` : "";
  return {
    convolution: `Convolution: ${channels} kernels of ${layer.size} × ${layer.size}${slices}`,
    pooling: "Max pooling: squares of 2 × 2",
    dense: layer.activation === "softmax"
      ? "Dense layer with softmax: ten probabilities" : `Dense layer: ${channels} neurons`,
  }[layer.kind] + (height * width > 1 ? ` → ${channels} maps of ${height} × ${width}` : "");
}

function textOf(index) {
  const layer = layers[index - 1], before = grids[index - 1], n = before.values.length;
  const { size } = layer;
  if (layer.kind === "pooling") {
    return "Each map is cut into squares of 2 × 2, and only the largest number of each is kept: " +
      "“the feature is somewhere in this square”. Some small shifts disappear here.";
  }
  if (layer.activation === "softmax") {
    return `Ten neurons add up ${n} weighted numbers each. Softmax turns their sums, the logits, ` +
      "into probabilities that add up to 1, even if the image is not a digit at all.";
  }
  if (layer.kind === "dense") {
    return `Each neuron is connected to all ${n.toLocaleString("en")} numbers of the maps, with ` +
      "a weight for each. Here it matters where in the image a feature is. " +
      "(Dropout does nothing at inference time.)";
  }
  if (before.channels === 1) {
    return `A kernel is a small grid of ${size} × ${size} weights. Place it on the image, ` +
      "multiply each weight by the pixel below it, and add up the products and a bias. ReLU turns " +
      "negative sums into 0. The same weights serve the whole image.";
  }
  return `A kernel has a slice of ${size} × ${size} weights for each of the ${before.channels} ` +
    "maps before it, and all products are added up. In this way, the layer combines what the " +
    "layer before it has found.";
}

/** Return the first and last row (or column) of an earlier grid on which number `at` depends. */
function dependsOn(index, at, earlier) {
  let [first, last] = [at, at];
  for (let k = index; k > earlier; k--) {
    const { stride, size } = layers[k - 1];
    [first, last] = [first * stride, last * stride + size - 1];
  }
  return [first, last];
}

/** Return the first and last row (or column) of a later grid that depend on pixel `at`. */
function reaches(at, later) {
  let [first, last] = [at, at];
  for (let k = 1; k <= later; k++) {
    const { stride, size } = layers[k - 1], side = grids[k].height;
    first = Math.max(0, Math.ceil((first - size + 1) / stride));
    last = Math.min(side - 1, Math.floor(last / stride));
  }
  return [first, last];
}

function makeLayers() {
  views = [{ canvas: seen, index: 0, columns: 1 }];
  for (let index = 1; index <= layers.length; index++) {
    const canvas = make("canvas", { tabIndex: 0 }), value = make("span", { className: "small" });
    const [first, last] = dependsOn(index, 0, 0), field = Math.min(28, last - first + 1);
    const sees = make("span", {
      className: "small", textContent: `one number depends on ${field} × ${field} pixels`,
    });
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", titleOf(index));
    find("layers").append(make("div", { className: "layer" },
      make("div", { className: "head" },
        make("h2", { textContent: titleOf(index) }), sees, value),
      make("p", { className: "text", textContent: textOf(index) }),
      canvas));
    views.push({ canvas, index, value });
  }
  for (const view of views) listen(view);
  new ResizeObserver(layOut).observe(find("layers"));
  layOut();
}

/** Decide how many maps stand in a row, and how large they are, for the width that there is. */
function layOut() {
  const ratio = devicePixelRatio, room = find("layers").clientWidth * ratio;
  for (const view of views) {
    const { channels, height, width } = grids[view.index];
    view.sheet = make("canvas", { width, height: height * channels });  // one pixel a number
    if (view.index === 0) {
      Object.assign(view, { size: 280, gap: 0, columns: 1, scale: 10 });
      view.canvas.width = view.canvas.height = 280;
      continue;
    }
    const smallest = (height === 1 ? 4 : height < 10 ? 20 : 36) * ratio;
    const most = height === 1 ? 64 : height < 10 ? 32 : 16;
    view.gap = Math.round((height === 1 ? 1 : 3) * ratio);
    view.columns = Math.min(most, channels);
    while (view.columns > 1 && room / view.columns < smallest) {
      view.columns = Math.ceil(view.columns / 2);
    }
    const largest = (channels === 10 ? 36 : 110) * ratio;
    view.size = Math.floor(Math.min(room / view.columns - view.gap, largest));
    view.scale = view.size / width;
    const rows = Math.ceil(channels / view.columns), step = view.size + view.gap;
    view.canvas.width = view.columns * step - view.gap;
    view.canvas.height = rows * step - view.gap;
    view.canvas.style.width = `${view.canvas.width / ratio}px`;
    view.canvas.style.height = `${view.canvas.height / ratio}px`;
  }
  if (image) showGrids();
}

/** Return 256 colors between the given ones, each as [red, green, blue]. */
function colorScale(colors) {
  const parts = colors.map((color) => [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const place = i / 255 * (parts.length - 1), k = Math.min(Math.floor(place), parts.length - 2);
    return parts[k].map((part, c) => part + (parts[k + 1][c] - part) * (place - k));
  });
}

function placeOf(view, channel) {
  const step = view.size + view.gap;
  return [(channel % view.columns) * step, Math.floor(channel / view.columns) * step];
}

function showGrids() {
  for (const view of views) {
    const grid = grids[view.index], { channels, height, width, values } = grid;
    const isImage = view.index === 0, [, largest] = minMax(values);
    const top = isImage || view.index === layers.length ? 1 : largest || 1;
    const scale = isImage ? scales.paper : scales.map;
    const context = view.sheet.getContext("2d"), pixels = new ImageData(width, height * channels);
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < height * width; i++) {
        const value = values[i * channels + c] / top;
        const color = scale[Math.max(0, Math.min(255, Math.floor(255 * value)))];
        const at = 4 * (c * height * width + i);
        [pixels.data[at], pixels.data[at + 1], pixels.data[at + 2]] = color;
        pixels.data[at + 3] = 255;
      }
    }
    context.putImageData(pixels, 0, 0);
    if (view.value) view.value.textContent = `largest: ${number(largest)}`;
    paint(view);
  }
}

function paint(view) {
  const { channels, height, width } = grids[view.index], { size, canvas } = view;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (let c = 0; c < channels; c++) {
    const [left, top] = placeOf(view, c);
    context.drawImage(view.sheet, 0, c * height, width, height, left, top, size, size);
    context.strokeStyle = theme === "dark" ? "#3c4855" : "#c9d0d9";
    context.lineWidth = 1;
    if (view.index) context.strokeRect(left + 0.5, top + 0.5, size - 1, size - 1);
    if (view.index === layers.length) label(context, c, left, top, size);
    const range = marked(view.index, c);
    if (!range) continue;
    const [y, x, bottom, right] = range.map((value) => value * view.scale);
    context.strokeStyle = COLORS[theme].mark;
    context.lineWidth = Math.max(2, Math.round(1.5 * devicePixelRatio));
    context.strokeRect(left + x - 0.5, top + y - 0.5, right - x + 1, bottom - y + 1);
  }
}

function label(context, digit, left, top, size) {
  context.fillStyle = grids.at(-1).values[digit] > 0.5
    ? (theme === "dark" ? "#08131c" : "#ffffff") : (theme === "dark" ? "#eef2f6" : "#16202b");
  context.font = `${size / 2}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(digit, left + size / 2, top + size / 2);
}

/** Return [top, left, bottom, right] of what is marked in a map, or null. */
function marked(index, channel) {
  if (!pick) return null;
  if (index <= pick.grid) {
    const onlyPooling = layers.slice(index, pick.grid).every((layer) => layer.kind === "pooling");
    if (onlyPooling && channel !== pick.channel) return null;
    const [top, bottom] = dependsOn(pick.grid, pick.y, index);
    const [left, right] = dependsOn(pick.grid, pick.x, index);
    const side = grids[index].height;
    return [top, left, Math.min(bottom + 1, side), Math.min(right + 1, side)];
  }
  if (pick.grid > 0) return null;
  const [top, bottom] = reaches(pick.y, index), [left, right] = reaches(pick.x, index);
  return bottom < top || right < left ? null : [top, left, bottom + 1, right + 1];
}

// --- Pointing at a number ------------------------------------------------------------------------

function listen(view) {
  const { canvas } = view;
  const at = (event) => {
    const box = canvas.getBoundingClientRect(), grid = grids[view.index];
    const x = (event.clientX - box.x) * canvas.width / box.width;
    const y = (event.clientY - box.y) * canvas.height / box.height, step = view.size + view.gap;
    const column = Math.floor(x / step), row = Math.floor(y / step);
    const channel = row * view.columns + column;
    if (column >= view.columns || channel >= grid.channels || x < 0 || y < 0) return null;
    const inside = (value, side) => Math.min(side - 1, Math.floor(value / view.scale));
    return {
      grid: view.index, channel,
      y: inside(y - row * step, grid.height), x: inside(x - column * step, grid.width),
    };
  };
  canvas.onpointermove = (event) => {
    const moved = event.movementX || event.movementY;  // and not the page below the mouse
    if (event.pointerType !== "mouse" || pinned || last || !moved) return;
    const there = at(event);
    if (there && !same(there, pick)) explain(there, false);
  };
  canvas.onclick = (event) => {
    const there = at(event);
    if (there) explain(there, !(pinned && same(there, pick)));
  };
  canvas.onkeydown = (event) => movePick(event, view.index);
}

function same(a, b) {
  return a && b && ["grid", "channel", "y", "x"].every((key) => a[key] === b[key]);
}

/** Let the keyboard go from number to number and from map to map. */
function movePick(event, index) {
  const moves = {
    ArrowLeft: [0, -1, 0], ArrowRight: [0, 1, 0], ArrowUp: [-1, 0, 0], ArrowDown: [1, 0, 0],
    PageUp: [0, 0, -1], PageDown: [0, 0, 1],
  };
  const move = moves[event.key], { height, width, channels } = grids[index];
  if (!move) return;
  event.preventDefault();
  const middle = { grid: index, channel: 0, y: height >> 1, x: width >> 1 };
  let next = pick?.grid === index ? { ...pick } : middle;
  if (pick?.grid === index) {
    const [down, right, map] = height > 1 ? move : [0, 0, move[0] + move[1] + move[2]];
    next.y = Math.min(Math.max(next.y + down, 0), height - 1);
    next.x = Math.min(Math.max(next.x + right, 0), width - 1);
    next.channel = Math.min(Math.max(next.channel + map, 0), channels - 1);
  }
  explain(next, true);
}

let slice = null;  // the channel whose products are shown; null: the one with the largest sum

/** Explain where a number comes from (null: none). */
function explain(next, pin) {
  if (!same(next, pick)) slice = null;
  [pick, pinned] = [next, Boolean(next) && pin];
  views.forEach(paint);
  showOrigin();
}

function table(rows, limit, best = -1) {
  const body = make("tbody");
  rows.forEach((row, y) => {
    const line = make("tr");
    row.forEach((value, x) => {
      const cell = make("td", { textContent: number(value) });
      const place = Math.round(127.5 + 127.5 * Math.max(-1, Math.min(1, value / limit)));
      const color = scales.signed[place];
      const light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2];
      cell.style.background = `rgb(${color.map(Math.round).join(" ")})`;
      cell.style.color = light > 140 ? "#000000" : "#ffffff";
      if (y * row.length + x === best) cell.className = "best";
      line.append(cell);
    });
    body.append(line);
  });
  return make("table", {}, body);
}

function figure(content, caption) {
  return make("figure", {}, content, make("figcaption", { textContent: caption }));
}

function sign(text) {
  return make("span", { className: "sign", textContent: text });
}

function largestOf(rows) {
  return Math.max(1e-9, ...rows.flat().map(Math.abs));
}

/** Return the numbers below the kernel, the weights, and the products of one channel, as rows. */
function patchOf(index, { y, x, channel }, c) {
  const { size, stride, kernel } = layers[index - 1], before = grids[index - 1];
  const rows = (value) => Array.from({ length: size }, (_, row) =>
    Array.from({ length: size }, (_, column) => value(row, column)));
  const patch = rows((row, column) => {
    const place = (y * stride + row) * before.width + x * stride + column;
    return before.values[place * before.channels + c];
  });
  if (!kernel) return { patch };
  const n = grids[index].channels;
  const weights = rows((row, column) =>
    kernel[((row * size + column) * before.channels + c) * n + channel]);
  const products = rows((row, column) => patch[row][column] * weights[row][column]);
  return { patch, weights, products, sum: products.flat().reduce((a, b) => a + b, 0) };
}

function showOrigin() {
  origin.hidden = !pick;
  if (!pick) return;
  const { grid: index, channel, y, x } = pick, grid = grids[index];
  const value = grid.values[(y * grid.width + x) * grid.channels + channel];
  const where = grid.height > 1 ? `row ${y}, column ${x}` : "";
  const map = index === 0 ? "The image" : grid.height > 1 ? `map ${channel}` : `neuron ${channel}`;
  const name = index === 0 ? "" : `${titleOf(index).split(":")[0]}, `;
  const close = make("button", { type: "button", textContent: "Close" });
  close.onclick = () => explain(null);
  const hint = pinned ? "Held. Click it again, or press Escape, to let go." : "Click to hold it.";
  const head = make("div", { className: "head" },
    make("p", {}, make("strong", { textContent:
      `${name}${[map, where].filter(Boolean).join(", ")}: ${number(value)}` }), " ",
      make("span", { className: "small", textContent: hint })), close);
  const body = make("div", { className: "body" });
  if (grid.height > 1) body.append(figure(enlarged(index, channel), index ? "this map" : "image"));
  if (index === 0) body.append(make("p", { className: "sum", textContent:
    "This pixel is one number between 0 (paper) and 1 (ink). The marks in the maps show every " +
    "number that depends on it: the receptive field, seen from the other end." }));
  else if (layers[index - 1].kind === "pooling") showPooling(body, index);
  else showProducts(body, index, value);
  if (index > 0) body.append(figure(enlarged(0, 0), "its receptive field"));
  origin.replaceChildren(head, body);
}

/** Draw a map in large, with what is marked in it; pointing works here, too. */
function enlarged(index, channel) {
  const side = grids[index].width, scale = Math.max(3, Math.floor(130 / side));
  const canvas = make("canvas", { width: side * scale, height: side * scale });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", index ? `map ${channel} in large` : "the image");
  const view = views[index], context = canvas.getContext("2d"), height = grids[index].height;
  context.imageSmoothingEnabled = false;
  const whole = [0, 0, canvas.width, canvas.height];
  context.drawImage(view.sheet, 0, channel * height, side, height, ...whole);
  const range = marked(index, channel);
  if (range) {
    const [top, left, bottom, right] = range.map((value) => value * scale);
    context.strokeStyle = COLORS[theme].mark;
    context.lineWidth = 2;
    context.strokeRect(left, top, right - left, bottom - top);
  }
  canvas.onclick = (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (position) => Math.min(side - 1, Math.max(0, Math.floor(position / scale)));
    const there = { y: at(event.clientY - box.y), x: at(event.clientX - box.x) };
    explain({ grid: index, channel, ...there }, true);
  };
  return canvas;
}

function showPooling(body, index) {
  const { patch } = patchOf(index, pick, pick.channel), flat = patch.flat();
  const largest = Math.max(...flat);
  body.append(
    figure(table(patch, largestOf(patch), flat.indexOf(largest)), "its square in the map before"),
    make("p", { className: "sum" }, "The largest of the four is kept: ",
      make("b", { textContent: number(largest) })));
}

function showProducts(body, index, value) {
  const layer = layers[index - 1], before = grids[index - 1];
  const parts = Array.from({ length: before.channels }, (_, c) => patchOf(index, pick, c));
  const sums = parts.map((part) => part.sum), total = sums.reduce((a, b) => a + b, 0);
  const sizes = sums.map(Math.abs), strongest = sizes.indexOf(Math.max(...sizes));
  const shown = slice ?? strongest, part = parts[shown], bias = layer.bias[pick.channel];
  const several = before.channels > 1;
  if (before.height === 1) {
    body.append(make("p", { className: "sum", textContent:
      `Neuron ${shown} contributes ${number(part.patch[0][0])} × ` +
      `${number(part.weights[0][0])} = ${number(part.sum)}.` }));
  } else {
    body.append(
      figure(table(part.patch, largestOf(part.patch)), several ? `patch of map ${shown}` : "patch"),
      sign("×"),
      figure(table(part.weights, largestOf(part.weights)),
        several ? `slice ${shown} of the kernel` : "kernel"),
      sign("="),
      figure(table(part.products, largestOf(part.products)), `products, sum ${number(part.sum)}`));
  }
  if (several) {
    const caption = `the sums of all ${before.channels}: click one`;
    body.append(figure(sumsChart(sums, shown), caption));
  }
  const text = make("p", { className: "sum" },
    several ? `All sums together: ${number(total)}` : `Their sum: ${number(total)}`,
    ` + bias ${number(bias)} = `, make("b", { textContent: number(total + bias) }));
  if (layer.activation === "relu") {
    text.append(`; ReLU ${total + bias > 0 ? "keeps it" : "turns it into"} `,
      total + bias > 0 ? "" : make("b", { textContent: "0" }));
  } else {
    const powers = Array.from(grids[index].logits, (logit) => Math.exp(logit));
    const sum = powers.reduce((a, b) => a + b, 0);
    text.append(`, the logit. Softmax: e^${number(total + bias)} ÷ the sum of all ten such ` +
      `powers (${sum.toPrecision(3)}) = `, make("b", { textContent: percent(value) }));
  }
  body.append(text);
}

/** Draw one bar for each sum, up if it is positive; a click chooses a channel. */
function sumsChart(sums, shown) {
  const bar = Math.max(2, Math.floor(200 / sums.length)), height = 90;
  const canvas = make("canvas", { width: bar * sums.length, height }), limit = largestOf([sums]);
  const context = canvas.getContext("2d"), [negative, , positive] = COLORS[theme].signed;
  sums.forEach((sum, c) => {
    const length = (height / 2 - 4) * sum / limit;
    context.fillStyle = sum < 0 ? negative : positive;
    context.fillRect(c * bar, height / 2, bar - (bar > 2 ? 1 : 0), -length);
  });
  context.fillStyle = theme === "dark" ? "#b0bcc8" : "#4d5a68";
  context.fillRect(0, height / 2, canvas.width, 1);
  context.strokeStyle = COLORS[theme].mark;
  context.lineWidth = 2;
  context.strokeRect(shown * bar - 1, 1, bar + 1, height - 2);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `the sums of the products of all ${sums.length} channels`);
  canvas.onclick = (event) => {
    const x = event.clientX - canvas.getBoundingClientRect().x;
    slice = Math.min(sums.length - 1, Math.max(0, Math.floor(x / bar)));
    pinned = true;
    showOrigin();
  };
  return canvas;
}

// --- Light and dark, with and without texts ------------------------------------------------------

let scales;

function setTheme(name) {
  theme = name;
  document.documentElement.dataset.theme = name;
  find("dark").setAttribute("aria-pressed", name === "dark");
  scales = {
    map: colorScale(COLORS[name].map), signed: colorScale(COLORS[name].signed),
    paper: colorScale(["#ffffff", "#000000"]),
  };
  if (image) {
    showGrids();
    showOrigin();
  }
}

find("dark").onclick = () => setTheme(theme === "dark" ? "light" : "dark");
find("texts").onclick = () => {
  const hidden = document.body.classList.toggle("no-texts");
  find("texts").setAttribute("aria-pressed", !hidden);
};

start();
