// The page: a pad, the layers of the network as images, and where each number comes from.
"use strict";

const SIDE = 280, PEN = 18;  // of the pad, in pixels, as in notebook 07
const STEP = 20, ANGLE = 10;  // of a shift, in pixels, and of a rotation, in degrees
const COLORS = {  // of maps, from 0 to the largest number; of signed numbers, from - over 0 to +
  light: { map: ["#eef2f6", "#79b8e6", "#0a5f9e", "#04263f"], mark: "#d4570a",
    signed: ["#d9730d", "#ffffff", "#0a5f9e"], text: ["#16202b", "#ffffff"] },
  dark: { map: ["#1e2731", "#14609a", "#5cb6f2", "#f2faff"], mark: "#ffab4a",
    signed: ["#e08a2c", "#1c232b", "#3d9be0"], text: ["#eef2f6", "#08131c"] },
};

const find = (id) => document.getElementById(id);
const pad = find("pad"), origin = find("origin");
const pen = pad.getContext("2d", { willReadFrequently: true });

let model, layers;  // as they are in the file
let drawing;  // the pad: a grid of gray values, 0 = black to 1 = white
let history = [];  // earlier drawings, for "Undo"
let image, grids;  // what the network sees, and the output of every layer
let views = [];  // how each grid is shown
let pick = null;  // the number that is explained: { grid, channel, y, x }
let pinned = false;  // a click holds it, so that the mouse can go elsewhere
let theme, scales;  // "light" or "dark", and the colors for it

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
  makeBars();
  makeExamples();
  makeChanges();
  grids = forward(new Float32Array(784), layers);
  makeLayers();
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  drawing = model.examples.length ? enlargeExample(model.examples[0]) : blank(1);
  showDrawing();
  for (let k = 0; k < 3; k++) respond();  // browsers speed up what they have done before,
  find("times").textContent = "";  // so the first times would not be typical
}

// --- Small helpers -------------------------------------------------------------------------------

function percent(probability) {
  const value = 100 * probability;
  if (value > 99.9 && value < 100) return "> 99.9%";
  return `${value.toFixed(value < 99.5 ? 0 : 1)}%`;
}

function number(value) {
  if (value === 0) return "0";
  if (Math.abs(value) < 0.005) return "0.00";
  return value.toFixed(Math.abs(value) < 99.5 ? 2 : 0).replace("-", "−");
}

/** Make an HTML element with properties and content. */
function make(name, properties = {}, ...content) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...content);
  return element;
}

function makeButton(text, action, label = text) {
  const button = make("button", { type: "button", textContent: text, onclick: action });
  button.setAttribute("aria-label", label);
  return button;
}

// --- The pad -------------------------------------------------------------------------------------

function blank(gray) {
  return makeGrid(SIDE, SIDE, 1, new Float32Array(SIDE * SIDE).fill(gray));
}

/** Put a digit of 28 × 28 pixels on the pad, smoothly enlarged. */
function enlargeExample(example) {
  const pixels = Float32Array.from(decodeBytes(example.pixels), (ink) => 1 - ink / 255);
  const digit = makeGrid(28, 28, 1, pixels), result = blank(1);
  const inside = (place) => Math.min(Math.max((place + 0.5) * 28 / SIDE - 0.5, 0), 27);
  result.values.forEach((_, i) => {
    const y = inside(Math.floor(i / SIDE)), x = inside(i % SIDE);
    result.values[i] = interpolate(digit, y, x, 1);
  });
  return result;
}

function showDrawing() {
  const pixels = new ImageData(SIDE, SIDE);
  drawing.values.forEach((gray, i) => {
    pixels.data.fill(255 * gray, 4 * i, 4 * i + 3);
    pixels.data[4 * i + 3] = 255;
  });
  pen.putImageData(pixels, 0, 0);
}

function readDrawing() {
  const { data } = pen.getImageData(0, 0, SIDE, SIDE);
  drawing = blank(0);
  for (let i = 0; i < drawing.values.length; i++) drawing.values[i] = data[4 * i] / 255;
}

/** Keep the drawing for "Undo". */
function remember() {
  history.push(drawing);
  if (history.length > 50) history.shift();
}

function show(next) {
  drawing = next;
  showDrawing();
  respond();
}

function replace(next) {
  remember();
  show(next);
}

function undo() {
  if (history.length) show(history.pop());
}

let last = null;  // where the pen is, while it is down
let waiting = false;  // is an answer to the last stroke on its way?

function startStroke(point) {
  const untouched = history.length === 0;  // only the digit is there with which the page begins
  remember();
  if (untouched && model.examples.length) {
    drawing = blank(1);
    showDrawing();
  }
  pen.strokeStyle = paperIsDark(drawing) ? "white" : "black";
  pen.lineWidth = PEN;
  pen.lineCap = pen.lineJoin = "round";
  last = point;
  draw(point);
}

function draw(point) {
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...point);
  pen.stroke();
  last = point;
  if (waiting) return;
  waiting = true;  // one answer for each image that the screen shows is enough
  requestAnimationFrame(() => {
    waiting = false;
    readDrawing();
    respond();
  });
}

function pointOf(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.x) * SIDE / box.width, (event.clientY - box.y) * SIDE / box.height];
}

pad.onpointerdown = (event) => {  // mouse, pen, and finger alike
  if (event.button || !event.isPrimary) return;  // not a second finger or the palm
  pad.setPointerCapture(event.pointerId);
  startStroke(pointOf(event));
};
pad.onpointermove = (event) => {
  if (!last || !event.buttons || !event.isPrimary) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const one of events.length ? events : [event]) draw(pointOf(one));
};
pad.onpointerup = pad.onpointercancel = (event) => { if (event.isPrimary) last = null; };

// The pad with the keyboard
let cursor = [SIDE / 2, SIDE / 2];

pad.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const moves = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };
  const move = moves[event.key], example = model.examples.find((e) => `${e.label}` === event.key);
  if (move) {
    cursor = cursor.map((value, axis) => Math.min(Math.max(value + move[axis], 0), SIDE));
    if (last) draw(cursor);
  } else if (event.key === " ") {
    if (last) last = null;
    else startStroke(cursor);
  } else if (event.key === "Delete" || event.key === "Backspace") replace(blank(1));
  else if (example) replace(enlargeExample(example));
  else return;
  event.preventDefault();
  const mark = find("cursor");
  mark.hidden = false;
  mark.className = last ? "down" : "";
  [mark.style.left, mark.style.top] = cursor.map((value) => `${100 * value / SIDE}%`);
};
pad.onblur = () => {
  last = null;
  find("cursor").hidden = true;
};

find("undo").onclick = undo;
find("clear").onclick = () => replace(blank(1));
find("prepared").onchange = () => respond();
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") explain(null);
  if (!(event.ctrlKey || event.metaKey) || event.key !== "z") return;
  event.preventDefault();
  undo();
});

// --- Things to try -------------------------------------------------------------------------------

function makeExamples() {
  for (const example of model.examples) {
    const canvas = make("canvas", { width: 28, height: 28 }), pixels = new ImageData(28, 28);
    decodeBytes(example.pixels).forEach((ink, i) => {
      pixels.data.set([255 - ink, 255 - ink, 255 - ink, 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    const action = () => replace(enlargeExample(example));
    const button = makeButton("", action, `a ${example.label} of ${model.data}`);
    button.title = `a ${example.label}`;
    button.append(canvas);
    find("examples").append(button);
  }
}

function makeChanges() {
  const groups = {
    Shift: [
      ["←", "left", () => shift(-STEP, 0)], ["→", "right", () => shift(STEP, 0)],
      ["↑", "up", () => shift(0, -STEP)], ["↓", "down", () => shift(0, STEP)],
    ],
    Rotate: [
      ["↺", "counterclockwise", () => rotate(ANGLE)], ["↻", "clockwise", () => rotate(-ANGLE)],
    ],
    Strokes: [
      ["thicker", "thicker", () => changeWidth(3)], ["thinner", "thinner", () => changeWidth(-3)],
    ],
    Pixels: [["noise", "noise", addNoise], ["invert", "invert", invert]],
  };
  for (const [group, changes] of Object.entries(groups)) {
    const buttons = changes.map(([text, how, change]) =>
      makeButton(text, () => replace(change()), `${group}: ${how}`));
    find("changes").append(make("span", { className: "group" }, group, ...buttons));
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

/** Move the edges of all strokes outward (inward, if negative), by so many pixels. */
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
    const limit = make("span", { className: "limit" });
    limit.style.bottom = `${100 * (model.threshold ?? 1)}%`;
    const pickOutput = { grid: layers.length, channel: digit, y: 0, x: 0 };
    const bar = make("button", { type: "button", onclick: () => explain(pickOutput, true) });
    bar.title = `Where does the probability of ${digit} come from?`;
    bar.append(
      make("span", { className: "tube" }, make("span", { className: "fill" }), limit),
      make("b", { textContent: digit }), make("small"));
    find("bars").append(bar);
  }
}

/** Prepare the drawing, run the network, and show everything. */
function respond() {
  const started = performance.now();
  const prepared = find("prepared").checked ? toMnistStyle(drawing) : resizeAndInvert(drawing);
  image = prepared ?? new Float32Array(784);
  const ready = performance.now();
  grids = forward(image, layers);
  const predicted = performance.now();
  const [low, high] = minMax(drawing.values);
  showAnswer(high - low < 0.1);
  showGrids();
  find("undo").disabled = !history.length;
  const done = performance.now();
  const times = [done - started, ready - started, predicted - ready, done - predicted];
  const [all, a, b, c] = times.map((time) => time.toFixed(time < 9.95 ? 1 : 0));
  find("times").textContent = `${all} ms: preparation ${a}, network ${b}, maps ${c}`;
}

function showAnswer(isEmpty) {
  const probabilities = grids.at(-1).values, order = [...probabilities.keys()];
  order.sort((a, b) => probabilities[b] - probabilities[a]);
  const [top, second] = order, [first, next] = [top, second].map((k) => percent(probabilities[k]));
  const isSure = model.threshold !== null && probabilities[top] >= model.threshold;
  const [verdict, more] = isEmpty ? ["Draw a digit.", ""]
    : isSure ? [`Prediction: ${top}`, `with a confidence of ${first}`]
      : ["Not sure:", `perhaps ${top} (${first}) or ${second} (${next})?`];
  find("verdict").replaceChildren(`${verdict} `, make("small", { textContent: more }));
  [...find("bars").children].forEach((bar, digit) => {
    const p = isEmpty ? 0 : probabilities[digit];
    bar.querySelector(".fill").style.height = `${100 * p}%`;
    bar.querySelector("small").textContent = isEmpty ? "" : percent(p);
    bar.classList.toggle("top", !isEmpty && digit === top);
  });
}

// --- The layers in words -------------------------------------------------------------------------

/** Name a layer: "Convolution 2" is the second one of its kind. */
function nameOf(index) {
  const { kind, activation } = layers[index - 1];
  if (activation === "softmax") return "Output";
  const position = layers.slice(0, index).filter((layer) => layer.kind === kind).length;
  return `${kind[0].toUpperCase()}${kind.slice(1)} ${position}`;
}

function sizesOf(index) {
  const { kind, size, activation } = layers[index - 1], { channels, height, width } = grids[index];
  const before = grids[index - 1], inputs = before.values.length.toLocaleString("en");
  if (activation === "softmax") return `${inputs} numbers → ten probabilities`;
  if (kind === "dense") return `${inputs} numbers → ${channels} neurons`;
  const [first, last] = dependsOn(index, 0, 0), field = Math.min(28, last - first + 1);
  const slices = before.channels > 1 ? ` × ${before.channels}` : "";
  const what = kind === "pooling" ? "squares of 2 × 2"
    : `${channels} kernels of ${size} × ${size}${slices}`;
  return `${what} → ${channels} maps of ${height} × ${width}; ` +
    `each number sees ${field} × ${field} pixels`;
}

function textOf(index) {
  const { kind, size, activation } = layers[index - 1], before = grids[index - 1];
  const inputs = before.values.length.toLocaleString("en");
  if (kind === "pooling") {
    return "Each map is cut into squares of 2 × 2, and only the largest number of each is kept: " +
      "“the feature is somewhere in this square”. Some small shifts disappear here.";
  }
  if (activation === "softmax") {
    return `Ten neurons add up ${inputs} weighted numbers each. Softmax turns their sums, the ` +
      "logits, into probabilities, which add up to 1 even if the image is not a digit at all. " +
      (model.threshold === null
        ? "No threshold was reliable enough on the validation images, so the page is never sure."
        : `Below ${percent(model.threshold)} (dashed line), the page says “not sure”: on the ` +
          "validation images, at most 1 in 1,000 predictions above this was incorrect.");
  }
  if (kind === "dense") {
    return `Each neuron is connected to all ${inputs} numbers above, with a weight for each, so ` +
      "here it matters where in the image a feature is.";
  }
  if (before.channels === 1) {
    return `A kernel is a small grid of ${size} × ${size} weights. Place it on the image, ` +
      "multiply each weight by the pixel below it, and add up the products and a bias. ReLU " +
      "turns negative sums into 0. The same weights serve the whole image.";
  }
  return `A kernel has a slice of ${size} × ${size} weights for each of the ${before.channels} ` +
    "maps above, and all products are added up. In this way, the layer combines what the layer " +
    "before it has found.";
}

// --- The layers as images ------------------------------------------------------------------------

function makeLayers() {
  views = [{ canvas: find("seen"), index: 0 }];
  for (let index = 1; index <= layers.length; index++) {
    const canvas = make("canvas", { tabIndex: 0 }), largest = make("span", { className: "small" });
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${nameOf(index)}: ${sizesOf(index)}`);
    find("layers").append(make("div", { className: "layer" },
      make("div", { className: "head" },
        make("h2", { textContent: nameOf(index) }), make("span", { textContent: sizesOf(index) }),
        largest),
      make("p", { className: "text", textContent: textOf(index) }),
      canvas));
    views.push({ canvas, index, largest });
  }
  views.forEach(listen);
  layOut();
  new ResizeObserver(layOut).observe(find("layers"));
}

/** Decide how many maps stand in a row, and how large they are, for the width that there is. */
function layOut() {
  const ratio = devicePixelRatio, room = find("layers").clientWidth * ratio;
  for (const view of views) {
    const { channels, height, width } = grids[view.index];
    view.sheet = make("canvas", { width, height: height * channels });
    view.pixels = new ImageData(width, height * channels);
    if (view.index === 0) {
      Object.assign(view, { columns: 1, gap: 0, size: view.canvas.width });
    } else {
      const smallest = (height === 1 ? 4 : height < 10 ? 20 : 36) * ratio;
      view.columns = Math.min(channels, height === 1 ? 64 : height < 10 ? 32 : 16);
      while (view.columns > 1 && room / view.columns < smallest) {
        view.columns = Math.ceil(view.columns / 2);
      }
      view.gap = Math.round((height === 1 ? 1 : 3) * ratio);
      const largest = (channels === 10 ? 36 : 110) * ratio;
      view.size = Math.floor(Math.min(room / view.columns - view.gap, largest));
      const step = view.size + view.gap, rows = Math.ceil(channels / view.columns);
      view.canvas.width = view.columns * step - view.gap;
      view.canvas.height = rows * step - view.gap;
      view.canvas.style.width = `${view.canvas.width / ratio}px`;
    }
    view.scale = view.size / width;  // how large a number is
  }
  if (image) showGrids();
}

/** Return 256 colors between the given ones, each as [red, green, blue]. */
function colorScale(colors) {
  const parts = colors.map((color) => [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const place = i / 255 * (parts.length - 1), k = Math.min(Math.floor(place), parts.length - 2);
    return parts[k].map((part, c) => Math.round(part + (parts[k + 1][c] - part) * (place - k)));
  });
}

/** Return the same colors as an image holds them: the four bytes of a pixel as one number. */
function asPixels(colors) {
  return new Uint32Array(Uint8Array.from(colors.flatMap((color) => [...color, 255])).buffer);
}

/** Show all grids: first with one pixel for each number, on a sheet of its own, then in large. */
function showGrids() {
  for (const view of views) {
    const { channels, height, width, values } = grids[view.index], [, largest] = minMax(values);
    const top = view.index === 0 || view.index === layers.length ? 1 : largest || 1;
    const colors = view.index ? scales.map : scales.paper, area = height * width;
    const pixels = new Uint32Array(view.pixels.data.buffer);
    for (let i = 0; i < area; i++) {
      for (let c = 0; c < channels; c++) {
        pixels[c * area + i] = colors[Math.floor(255 * values[i * channels + c] / top)];
      }
    }
    view.sheet.getContext("2d").putImageData(view.pixels, 0, 0);
    if (view.largest) view.largest.textContent = `largest: ${number(largest)}`;
  }
  showOrigin();
  views.forEach(paint);
}

function placeOf(view, channel) {
  const step = view.size + view.gap;
  return [(channel % view.columns) * step, Math.floor(channel / view.columns) * step];
}

function paint(view) {
  const { channels, height, width, values } = grids[view.index], { size, canvas } = view;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (let c = 0; c < channels; c++) {
    const [left, top] = placeOf(view, c);
    context.drawImage(view.sheet, 0, c * height, width, height, left, top, size, size);
    if (view.index === layers.length) {
      context.fillStyle = COLORS[theme].text[values[c] > 0.4 ? 1 : 0];
      context.font = `${size / 2}px system-ui, sans-serif`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(c, left + size / 2, top + size / 2);
    }
    const bold = view.index === 0 || (pick?.grid === view.index + 1 && c === shown);
    outline(context, marked(view.index, c), view.scale, left, top, bold ? 2 : 1);
  }
}

/** Draw the outline of what is marked, at a place of the canvas. */
function outline(context, range, scale, left, top, width) {
  if (!range) return;
  const [y, x, bottom, right] = range.map((value) => value * scale);
  context.strokeStyle = COLORS[theme].mark;
  context.lineWidth = width * Math.max(2, Math.round(1.5 * devicePixelRatio));
  context.strokeRect(left + x - 0.5, top + y - 0.5, right - x + 1, bottom - y + 1);
}

// --- Which numbers depend on which ---------------------------------------------------------------

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
    const { stride, size } = layers[k - 1];
    first = Math.max(0, Math.ceil((first - size + 1) / stride));
    last = Math.min(grids[k].height - 1, Math.floor(last / stride));
  }
  return [first, last];
}

/** Return [top, left, bottom, right] of what is marked in a map, or null. */
function marked(index, channel) {
  if (!pick) return null;
  if (index <= pick.grid) {
    const onlyPooling = layers.slice(index, pick.grid).every((layer) => layer.kind === "pooling");
    if (onlyPooling && channel !== pick.channel) return null;
    const [top, bottom] = dependsOn(pick.grid, pick.y, index);
    const [left, right] = dependsOn(pick.grid, pick.x, index);
    // A neuron that depends on everything: only the map whose products are shown is marked
    const all = index < pick.grid && bottom - top + 1 >= grids[index].height;
    if (all && index > 0 && !(index === pick.grid - 1 && channel === shown)) return null;
    return [top, left, bottom + 1, right + 1];
  }
  if (pick.grid > 0) return null;
  const [top, bottom] = reaches(pick.y, index), [left, right] = reaches(pick.x, index);
  return bottom < top || right < left ? null : [top, left, bottom + 1, right + 1];
}

// --- Pointing at a number ------------------------------------------------------------------------

function listen(view) {
  const { canvas, index } = view;
  const at = (event) => {
    const box = canvas.getBoundingClientRect(), grid = grids[index], step = view.size + view.gap;
    const x = (event.clientX - box.x) * canvas.width / box.width;
    const y = (event.clientY - box.y) * canvas.height / box.height;
    const column = Math.floor(x / step), row = Math.floor(y / step);
    const channel = row * view.columns + column;
    if (column < 0 || column >= view.columns || row < 0 || channel >= grid.channels) return null;
    const inside = (value, side) => Math.min(side - 1, Math.floor(value / view.scale));
    return {
      grid: index, channel,
      y: inside(y - row * step, grid.height), x: inside(x - column * step, grid.width),
    };
  };
  canvas.onpointermove = (event) => {
    const moves = event.movementX || event.movementY;  // it may be the page that moves
    if (event.pointerType !== "mouse" || pinned || last || !moves) return;
    const there = at(event);
    if (there && !same(there, pick)) explain(there, false);
  };
  canvas.onclick = (event) => {
    const there = at(event);
    if (there) explain(there, !(pinned && same(there, pick)));
  };
  canvas.onkeydown = (event) => movePick(event, index);
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
  let next = { grid: index, channel: 0, y: height >> 1, x: width >> 1 };
  if (pick?.grid === index) {
    const [down, right, map] = height > 1 ? move : [0, 0, move[0] + move[1] + move[2]];
    const inside = (value, n) => Math.min(Math.max(value, 0), n - 1);
    next = {
      grid: index, channel: inside(pick.channel + map, channels),
      y: inside(pick.y + down, height), x: inside(pick.x + right, width),
    };
  }
  explain(next, true);
}

let chosen = null;  // the channel whose products were asked for; null: the one that counts most
let shown = null;  // the channel whose products are shown

/** Explain where a number comes from (null: none), and hold it there if pin is true. */
function explain(next, pin) {
  if (!same(next, pick)) chosen = null;
  [pick, pinned] = [next, Boolean(next && pin)];
  showOrigin();
  views.forEach(paint);
}

function showOrigin() {
  origin.hidden = !pick;
  if (!pick) return;
  const { grid: index, channel, y, x } = pick, grid = grids[index], isMap = grid.height > 1;
  const value = grid.values[(y * grid.width + x) * grid.channels + channel];
  const place = index === 0 ? "Image" : `${nameOf(index)}, ${isMap ? "map" : "neuron"} ${channel}`;
  const name = `${place}${isMap ? `, row ${y}, column ${x}` : ""}: ${number(value)}`;
  const sentence = make("span"), body = make("div", { className: "body", tabIndex: 0 });
  body.setAttribute("role", "group");
  body.setAttribute("aria-label", "The calculation");
  if (isMap) body.append(figure(inLarge(index, channel), index ? "this map" : "the image"));
  if (index === 0) {
    sentence.append("A pixel between 0 (paper) and 1 (ink). The maps mark every number that " +
      "depends on it.");
  } else if (layers[index - 1].kind === "pooling") {
    showPooling(body, sentence);
  } else {
    showProducts(body, sentence, value);
  }
  if (index > 0) body.append(figure(inLarge(0, 0), "its receptive field"));
  const hint = pinned ? "(Pinned: press Escape to release it.)" : "(Click to pin it.)";
  origin.replaceChildren(
    make("div", { className: "head" },
      make("p", {}, make("strong", { textContent: name }), " ", sentence, " ",
        make("span", { className: "small", textContent: hint })),
      makeButton("Close", () => explain(null))),
    body);
}

/** Draw a map in large, with what is marked in it; a click chooses a number. */
function inLarge(index, channel) {
  const { height, width } = grids[index], scale = Math.max(3, Math.floor(120 / width));
  const canvas = make("canvas", { width: width * scale, height: height * scale });
  const context = canvas.getContext("2d"), whole = [0, 0, canvas.width, canvas.height];
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", index ? `map ${channel} in large` : "the image in large");
  context.imageSmoothingEnabled = false;
  context.drawImage(views[index].sheet, 0, channel * height, width, height, ...whole);
  outline(context, marked(index, channel), scale, 0, 0, 1);
  canvas.onclick = (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (position, n) => Math.min(n - 1, Math.max(0, Math.floor(position / scale)));
    const y = at(event.clientY - box.y, height), x = at(event.clientX - box.x, width);
    explain({ grid: index, channel, y, x }, true);
  };
  return canvas;
}

/** Return the numbers below the kernel, its weights, and the products for one channel, as rows. */
function patchOf(c) {
  const { grid: index, channel, y, x } = pick, before = grids[index - 1];
  const { size, stride, kernel } = layers[index - 1], n = grids[index].channels;
  const rows = (value) => Array.from({ length: size }, (_, row) =>
    Array.from({ length: size }, (_, column) => value(row, column)));
  const patch = rows((row, column) => {
    const place = (y * stride + row) * before.width + x * stride + column;
    return before.values[place * before.channels + c];
  });
  if (!kernel) return { patch };
  const weights = rows((row, column) =>
    kernel[((row * size + column) * before.channels + c) * n + channel]);
  const products = rows((row, column) => patch[row][column] * weights[row][column]);
  return { patch, weights, products, sum: products.flat().reduce((a, b) => a + b, 0) };
}

function showPooling(body, sentence) {
  const { patch } = patchOf(pick.channel), flat = patch.flat(), largest = Math.max(...flat);
  body.append(figure(table(patch, flat.indexOf(largest)), "its square in the map above"));
  sentence.append("Of the four numbers in the map above, the largest is kept.");
}

function showProducts(body, sentence, value) {
  const layer = layers[pick.grid - 1], before = grids[pick.grid - 1], n = before.channels;
  const parts = Array.from({ length: n }, (_, c) => patchOf(c)), sums = parts.map((p) => p.sum);
  const sizes = sums.map(Math.abs);
  shown = chosen ?? sizes.indexOf(Math.max(...sizes));
  const { patch, weights, products, sum } = parts[shown], isMap = before.height > 1;
  const source = n === 1 ? "the image" : isMap ? `map ${shown}` : `neuron ${shown}`;
  const captions = isMap
    ? [`patch of ${source}`, "weights for it", `products, together ${number(sum)}`]
    : [source, "weight", "product"];
  body.append(
    figure(table(patch), captions[0]), sign("×"),
    figure(table(weights), captions[1]), sign("="), figure(table(products), captions[2]));
  if (n > 1) body.append(figure(sumsChart(sums), `all ${n} sums: click one`));
  const total = sums.reduce((a, b) => a + b, 0), bias = layer.bias[pick.channel];
  sentence.append(`The products add up to ${number(total)}; with the bias ${number(bias)}, ` +
    "this makes ", make("b", { textContent: number(total + bias) }));
  if (layer.activation === "relu") {
    sentence.append(total + bias > 0 ? ". ReLU keeps it." : ". ReLU turns it into 0.");
  } else {
    const powers = Array.from(grids[pick.grid].logits, (logit) => Math.exp(logit));
    const all = Number(powers.reduce((a, b) => a + b, 0).toPrecision(3)).toLocaleString("en");
    sentence.append(`, the logit. Softmax: e^${number(total + bias)}, divided by the sum of all ` +
      `ten such powers (${all}), is `, make("b", { textContent: percent(value) }), ".");
  }
}

function largestSize(rows) {
  return Math.max(1e-9, ...rows.flat().map(Math.abs));
}

/** Make a table of numbers, each on its color; the one at position `best` is outlined. */
function table(rows, best = -1) {
  const body = make("tbody"), limit = largestSize(rows);
  rows.forEach((row, y) => {
    const cells = row.map((value, x) => {
      const color = scales.signed[Math.round(127.5 + 127.5 * value / limit)];
      const cell = make("td", { textContent: number(value) });
      const [red, green, blue] = color.map((part) => (part / 255) ** 2.2);
      const light = 0.2126 * red + 0.7152 * green + 0.0722 * blue;  // 0 = black to 1 = white
      cell.style.background = `rgb(${color.join(" ")})`;
      cell.style.color = light > 0.18 ? "#000000" : "#ffffff";
      if (y * row.length + x === best) cell.className = "best";
      return cell;
    });
    body.append(make("tr", {}, ...cells));
  });
  return make("table", {}, body);
}

function figure(content, caption) {
  return make("figure", {}, content, make("figcaption", { textContent: caption }));
}

function sign(text) {
  return make("span", { className: "sign", textContent: text });
}

/** Draw one bar for each sum, up if it is positive; a click chooses a channel. */
function sumsChart(sums) {
  const bar = Math.max(2, Math.floor(192 / sums.length)), height = 90;
  const canvas = make("canvas", { width: bar * sums.length, height });
  const context = canvas.getContext("2d"), [negative, , positive] = COLORS[theme].signed;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `the sums of the products in all ${sums.length} channels`);
  sums.forEach((sum, c) => {
    context.fillStyle = sum < 0 ? negative : positive;
    const length = (height / 2 - 4) * sum / largestSize([sums]);
    context.fillRect(c * bar, height / 2, bar > 2 ? bar - 1 : bar, -length);
  });
  context.fillStyle = COLORS[theme].text[0];
  context.fillRect(0, height / 2, canvas.width, 1);
  outline(context, [0, shown * bar, height - 1, (shown + 1) * bar - 1], 1, 0, 0.5, 1);
  canvas.onclick = (event) => {
    const x = event.clientX - canvas.getBoundingClientRect().x;
    chosen = Math.min(sums.length - 1, Math.max(0, Math.floor(x / bar)));
    explain(pick, true);
  };
  return canvas;
}

// --- Light and dark, with and without texts ------------------------------------------------------

function setTheme(name) {
  theme = name;
  document.documentElement.dataset.theme = name;
  find("dark").setAttribute("aria-pressed", name === "dark");
  scales = {
    map: asPixels(colorScale(COLORS[name].map)), signed: colorScale(COLORS[name].signed),
    paper: asPixels(colorScale(["#ffffff", "#000000"])),
  };
  if (image) showGrids();
}

find("dark").onclick = () => setTheme(theme === "dark" ? "light" : "dark");
find("texts").onclick = () => {
  const hidden = document.body.classList.toggle("no-texts");
  find("texts").setAttribute("aria-pressed", !hidden);
};

start();
