// The network, and the preparation of its input. Nothing here touches the page.
//
// A grid holds numbers as Keras does: height × width × channels, the number of channel c in row y
// and column x at values[(y * width + x) * channels + c].
"use strict";

function makeGrid(height, width, channels, values) {
  return { height, width, channels, values: values ?? new Float32Array(height * width * channels) };
}

// --- What the file holds -------------------------------------------------------------------------

function decodeBytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** Turn base64 text into numbers that were stored as float16, two bytes each. */
function decodeFloat16(base64) {
  const bytes = decodeBytes(base64), numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const bits = bytes[2 * i] + 256 * bytes[2 * i + 1];
    const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
    const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
    numbers[i] = bits & 0x8000 ? -size : size;
  }
  return numbers;
}

/** Decode the weights of all layers; throw an Error with a sentence if they do not fit together. */
function readLayers(layers) {
  let side = 28, channels = 1;
  const read = layers.map((layer) => {
    if (layer.kind === "pooling") {
      side = Math.floor(side / 2);
      return { ...layer, size: 2, stride: 2 };
    }
    // A dense layer is a convolution whose kernel is as large as its input: it has one place
    const size = layer.kind === "dense" ? side : layer.size;
    const kernel = decodeFloat16(layer.kernel), bias = decodeFloat16(layer.bias);
    if (kernel.length !== size * size * channels * bias.length || size > side) {
      throw new Error(
        `This page cannot run the model: a ${layer.kind} layer has ${kernel.length} weights, ` +
        `which do not fit ${side} × ${side} numbers in ${channels} channels.`);
    }
    side = side - size + 1;
    channels = bias.length;
    return { ...layer, size, stride: 1, kernel, bias };
  });
  if (side !== 1 || channels !== 10 || layers.at(-1)?.kind !== "dense") {
    throw new Error(
      `This page cannot run the model: its output should be ten probabilities, ` +
      `and it is ${side} × ${side} numbers in ${channels} channels.`);
  }
  return read;
}

// --- The forward pass ----------------------------------------------------------------------------

/** Multiply each patch of the input by the kernels, add up the products and the bias. */
function convolve(input, layer) {
  const { size, kernel, bias } = layer, n = bias.length, { channels } = input;
  const output = makeGrid(input.height - size + 1, input.width - size + 1, n);
  const sums = output.values;
  for (let y = 0; y < output.height; y++) {
    for (let x = 0; x < output.width; x++) {
      const here = (y * output.width + x) * n;
      sums.set(bias, here);
      for (let row = 0; row < size; row++) {
        for (let column = 0; column < size; column++) {
          const from = ((y + row) * input.width + x + column) * channels;
          const place = (row * size + column) * channels;
          for (let c = 0; c < channels; c++) {
            const value = input.values[from + c];
            if (value === 0) continue;  // paper, and whatever ReLU has removed
            const weights = (place + c) * n;
            for (let k = 0; k < n; k++) sums[here + k] += value * kernel[weights + k];
          }
        }
      }
    }
  }
  return output;
}

/** Keep the largest number of each square of 2 × 2, in every channel. */
function maxPool(input) {
  const { width, channels } = input;
  const output = makeGrid(Math.floor(input.height / 2), Math.floor(width / 2), channels);
  for (let y = 0; y < output.height; y++) {
    for (let x = 0; x < output.width; x++) {
      for (let c = 0; c < channels; c++) {
        const first = (2 * y * width + 2 * x) * channels + c;
        const second = first + channels, third = first + width * channels;
        output.values[(y * output.width + x) * channels + c] = Math.max(
          input.values[first], input.values[second],
          input.values[third], input.values[third + channels]);
      }
    }
  }
  return output;
}

function relu(values) {
  for (let i = 0; i < values.length; i++) if (values[i] < 0) values[i] = 0;
}

function softmax(values) {
  const largest = Math.max(...values);  // subtracted, so that no power is too large
  const powers = Array.from(values, (value) => Math.exp(value - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  powers.forEach((power, i) => { values[i] = power / total; });
}

/** Return one grid for the image (784 numbers, 0 = paper to 1 = ink) and one for each layer. */
function forward(image, layers) {
  const grids = [makeGrid(28, 28, 1, image)];
  for (const layer of layers) {
    const input = grids.at(-1);
    const output = layer.kind === "pooling" ? maxPool(input) : convolve(input, layer);
    if (layer.activation === "relu") relu(output.values);
    if (layer.activation === "softmax") {
      output.logits = output.values.slice();
      softmax(output.values);
    }
    grids.push(output);
  }
  return grids;
}

// --- The preparation -----------------------------------------------------------------------------
// The steps of notebook 07's to_mnist_style, for drawings: their paper is the same everywhere, so
// it need not be estimated. Grids here have one channel.

/** Is the paper dark and the ink light? There is mostly paper at the edges of an image. */
function paperIsDark(gray) {
  const { height, width, values } = gray, edges = [];
  for (let x = 0; x < width; x++) edges.push(values[x], values[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) edges.push(values[y * width], values[(y + 1) * width - 1]);
  edges.sort((a, b) => a - b);
  let total = 0;
  for (const value of values) total += value;
  const middle = edges.length / 2;  // their number is even
  const edge = (edges[middle - 1] + edges[middle]) / 2, mean = total / values.length;
  return edge < mean || edge === mean && edge < 0.5;  // an empty pad may be dark, too
}

/** Turn gray values, 0 = black to 1 = white, into ink: 0 = paper to 1 = ink. */
function inkOf(gray) {
  const dark = paperIsDark(gray);
  return makeGrid(gray.height, gray.width, 1, gray.values.map((v) => (dark ? v : 1 - v)));
}

/** Average square blocks, so that a drawing becomes 28 × 28 pixels. Nothing else is prepared. */
function resizeAndInvert(gray) {
  const block = gray.width / 28, image = new Float32Array(784);
  for (let y = 0; y < gray.height; y++) {
    for (let x = 0; x < gray.width; x++) {
      const pixel = 28 * Math.floor(y / block) + Math.floor(x / block);
      image[pixel] += (1 - gray.values[y * gray.width + x]) / (block * block);
    }
  }
  return image;
}

/** Return the smallest and the largest of many numbers. */
function minMax(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Return Otsu's threshold: the value that best separates the numbers into two groups. */
function otsu(values) {
  const [low, high] = minMax(values), step = (high - low) / 256, counts = new Float64Array(256);
  for (const value of values) counts[Math.min(255, Math.floor((value - low) / step))]++;
  const center = (bin) => low + (bin + 0.5) * step;
  let total = 0;
  counts.forEach((count, bin) => { total += count * center(bin); });
  let below = 0, sumBelow = 0, best = -1, threshold = low;
  for (let bin = 0; bin < 255; bin++) {
    below += counts[bin];
    sumBelow += counts[bin] * center(bin);
    const above = values.length - below;
    const variance = below * above * (sumBelow / below - (total - sumBelow) / above) ** 2;
    if (variance > best) [best, threshold] = [variance, center(bin)];
  }
  return threshold;
}

/** Return [top, left, bottom, right] of what is not 0; bottom and right are one beyond it. */
function extent(grid) {
  let top = grid.height, left = grid.width, bottom = 0, right = 0;
  for (let y = 0; y < grid.height; y++) {
    for (let x = 0; x < grid.width; x++) {
      if (grid.values[y * grid.width + x] === 0) continue;
      if (y < top) top = y;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      bottom = y + 1;
    }
  }
  return [top, left, bottom, right];
}

/** Cut off what is empty around the ink, and put a margin of paper around it. */
function cropAndPad(grid, margin) {
  const [top, left, bottom, right] = extent(grid);
  const result = makeGrid(bottom - top + 2 * margin, right - left + 2 * margin, 1);
  for (let y = top; y < bottom; y++) {
    const row = grid.values.subarray(y * grid.width + left, y * grid.width + right);
    result.values.set(row, (y - top + margin) * result.width + margin);
  }
  return result;
}

/** Set parts to 0 that have less than 3% of the largest part's area. Diagonal neighbors touch. */
function dropSpecks(grid) {
  const { height, width, values } = grid, seen = new Uint8Array(values.length), parts = [];
  for (let start = 0; start < values.length; start++) {
    if (!values[start] || seen[start]) continue;
    const part = [start];
    seen[start] = 1;
    for (let i = 0; i < part.length; i++) {  // part grows while we walk through it
      const y = Math.floor(part[i] / width), x = part[i] % width;
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const there = v * width + u;
          if (values[there] && !seen[there]) {
            seen[there] = 1;
            part.push(there);
          }
        }
      }
    }
    parts.push(part);
  }
  const largest = Math.max(...parts.map((part) => part.length));
  for (const part of parts) {
    if (part.length < 0.03 * largest) for (const i of part) values[i] = 0;
  }
}

/** Enlarge a grid with bilinear interpolation. */
function enlarge(grid, factor) {
  const height = Math.round(grid.height * factor), width = Math.round(grid.width * factor);
  const result = makeGrid(height, width, 1);
  const down = (grid.height - 1) / (height - 1), across = (grid.width - 1) / (width - 1);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      result.values[y * width + x] = interpolate(grid, y * down, x * across, 0);
    }
  }
  return result;
}

/** Return the weighted mean of the four numbers around (y, x); `outside` where there are none. */
function interpolate(grid, y, x, outside) {
  const { values, width, height } = grid;
  if (y < 0 || x < 0 || y > height - 1 || x > width - 1) return outside;
  const top = Math.floor(y), left = Math.floor(x), down = y - top, across = x - left;
  const upper = top * width, lower = Math.min(top + 1, height - 1) * width;
  const right = Math.min(left + 1, width - 1);
  return (values[upper + left] * (1 - across) + values[upper + right] * across) * (1 - down)
    + (values[lower + left] * (1 - across) + values[lower + right] * across) * down;
}

/** Return the distance of each cell to the nearest cell that is 0, or `limit` if that is less. */
function distanceToZero({ height, width, values }, limit) {
  const squared = new Float64Array(values.length);  // first the distance within the column
  for (let x = 0; x < width; x++) {
    for (let y = 0, d = limit; y < height; y++) {
      d = values[y * width + x] ? Math.min(d + 1, limit) : 0;
      squared[y * width + x] = d;
    }
    for (let y = height - 1, d = limit; y >= 0; y--) {
      d = Math.min(squared[y * width + x], d + 1);
      squared[y * width + x] = d * d;
    }
  }
  return values.map((value, i) => {  // then the nearest of these along the row, by Pythagoras
    const x = i % width;
    let nearest = squared[i];
    for (let step = 1; step * step < nearest; step++) {
      const left = step <= x ? squared[i - step] : Infinity;
      const right = x + step < width ? squared[i + step] : Infinity;
      nearest = Math.min(nearest, step * step + Math.min(left, right));
    }
    return Math.sqrt(nearest);
  });
}

/** Move the edges of a mask outward (inward, if negative), and leave soft gray edges, 0 to 1. */
function moveEdges(mask, moved, inside = distanceToZero(mask, mask.width + mask.height)) {
  const paper = { ...mask, values: mask.values.map((value) => 1 - value) };
  const outside = distanceToZero(paper, Math.abs(moved) + 2);  // beyond that it stays paper
  const values = inside.map((distance, i) => {
    return Math.min(Math.max(0.5 + distance - outside[i] + moved, 0), 1);
  });
  return { ...mask, values };
}

/** For each pattern of eight neighbors: may a cell go in the first pass (1), the second (2)? */
const REMOVABLE = Uint8Array.from({ length: 256 }, (_, pattern) => {
  const on = Array.from({ length: 8 }, (_, k) => (pattern >> k) & 1);  // clockwise from north
  const [north, , east, , south, , west] = on, n = on.reduce((sum, one) => sum + one, 0);
  const changes = on.filter((one, k) => !one && on[(k + 1) % 8]).length;
  if (n < 2 || n > 6 || changes !== 1) return 0;
  const first = (north && east && south) || (east && south && west) ? 0 : 1;
  const second = (north && east && west) || (north && south && west) ? 0 : 2;
  return first + second;
});

/**
 * Return the positions of the center lines of a mask that does not touch its border.
 * T. Zhang and C. Suen, Communications of the ACM 27 (1984), pages 236-239.
 */
function skeletonize({ width, values }) {
  const cells = Uint8Array.from(values);
  const around = [-width, 1 - width, 1, 1 + width, width, width - 1, -1, -1 - width];
  let line = [], before = Infinity;
  cells.forEach((cell, i) => { if (cell) line.push(i); });
  while (line.length < before) {
    before = line.length;
    for (const pass of [1, 2]) {
      const gone = line.filter((i) => {
        let pattern = 0;
        for (let k = 0; k < 8; k++) pattern |= cells[i + around[k]] << k;
        return REMOVABLE[pattern] & pass;
      });
      for (const i of gone) cells[i] = 0;
      line = line.filter((i) => cells[i]);
    }
  }
  return line;
}

/** Widen or narrow the strokes of a mask to 0.1 to 0.17 of the digit's longer side. */
function limitStroke(mask) {
  const [top, left, bottom, right] = extent(mask), longest = Math.max(bottom - top, right - left);
  const inside = distanceToZero(mask, mask.width + mask.height), line = skeletonize(mask);
  const width = line.reduce((sum, i) => sum + 2 * inside[i], 0) / line.length;
  const target = Math.min(Math.max(width, 0.1 * longest), 0.17 * longest);
  return moveEdges(mask, (target - width) / 2, inside);
}

/** Round as Python does: halves to the even number. */
function roundEven(number) {
  const down = Math.floor(number);
  return number - down === 0.5 ? down + (down % 2) : Math.round(number);
}

/** Return a function that gives the mean of n × n numbers around (y, x). Beyond the grid is 0. */
function meanAround(grid, n) {
  const { height, width, values } = grid, sums = new Float64Array((height + 1) * (width + 1));
  for (let y = 0; y < height; y++) {  // of everything above and to the left
    for (let x = 0, row = 0; x < width; x++) {
      row += values[y * width + x];
      sums[(y + 1) * (width + 1) + x + 1] = sums[y * (width + 1) + x + 1] + row;
    }
  }
  const inside = (i, end) => Math.min(Math.max(i, 0), end);
  return (y, x) => {
    const top = y - Math.floor(n / 2), left = x - Math.floor(n / 2);
    const [above, below] = [top, top + n].map((i) => inside(i, height) * (width + 1));
    const [before, after] = [left, left + n].map((i) => inside(i, width));
    return (sums[below + after] - sums[above + after] - sums[below + before]
      + sums[above + before]) / (n * n);
  };
}

/** Scale a digit to 20 pixels and put its center of mass into the middle of 28 × 28 pixels. */
function fitInFrame(shape) {
  const [top, left, bottom, right] = extent(shape);
  const step = Math.max(bottom - top, right - left) / 20, margin = roundEven(step);
  const padded = cropAndPad(shape, margin), { height, width } = padded;
  let mass = 0, massY = 0, massX = 0;
  padded.values.forEach((ink, i) => {
    mass += ink;
    massY += ink * Math.floor(i / width);
    massX += ink * (i % width);
  });
  // The center of mass, but never so far from the middle that the digit would be cut off
  const limit = (center, n) => Math.min(Math.max(center - (n - 1) / 2, -4 * step), 4 * step);
  const fromY = (height - 1) / 2 + limit(massY / mass, height) - 14 * step;
  const fromX = (width - 1) / 2 + limit(massX / mass, width) - 14 * step;
  const mean = meanAround(padded, Math.max(1, margin)), image = new Float32Array(784);
  for (let i = 0; i < 784; i++) {
    const y = fromY + step * Math.floor(i / 28), x = fromX + step * (i % 28);
    if (y < 0 || x < 0 || y > height - 1 || x > width - 1) continue;
    const row = Math.floor(y), column = Math.floor(x), down = y - row, across = x - column;
    image[i] = (mean(row, column) * (1 - across) + mean(row, column + 1) * across) * (1 - down)
      + (mean(row + 1, column) * (1 - across) + mean(row + 1, column + 1) * across) * down;
  }
  return image.map((ink) => Math.min(Math.max(ink, 0), 1));
}

/** Bring a drawing (gray values, 0 = black to 1 = white) into MNIST's form; null if it is empty. */
function toMnistStyle(gray) {
  const ink = inkOf(gray), [, most] = minMax(ink.values);
  if (most < 0.1) return null;
  const threshold = otsu(ink.values);
  ink.values.forEach((value, i) => { ink.values[i] = value > threshold ? value / most : 0; });
  dropSpecks(ink);
  let digit = cropAndPad(ink, 2);
  digit = enlarge(digit, Math.max(1, 160 / Math.max(digit.height, digit.width)));
  digit.values = digit.values.map((value) => (value > 0.45 ? 1 : 0));
  const margin = Math.ceil(0.06 * Math.max(digit.height, digit.width)) + 3;
  return fitInFrame(limitStroke(cropAndPad(digit, margin)));
}
