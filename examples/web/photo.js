// A photo's pixels to the tensor that a model takes: the numbers of examples/photo.py.

const PHOTO_SHARE = 0.875; // of the shorter side, where a card does not say
const BAND = 1 << 22; // pixels: phones refuse a large canvas, or hand back an empty one

/** The pixels of an ImageBitmap: {height, width, data}, data (height, width, 3) uint8. */
export function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const data = new Uint8Array(width * height * 3);
  const rows = Math.max(1, Math.min(height, Math.floor(BAND / width)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height: rows });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0, to = 0; top < height; top += rows) {
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const count = Math.min(rows, height - top);
    const rgba = context.getImageData(0, 0, width, count).data;
    for (let from = 0; from < rgba.length; from += 4) {
      data[to++] = rgba[from];
      data[to++] = rgba[from + 1];
      data[to++] = rgba[from + 2];
    }
  }
  return { height, width, data };
}

/**
 * {type, data, dims} of the tensor for one photo.
 *
 * `contract` is the entry "input" of a model card. Its name says what the model takes: "photos",
 * uint8 of any height and width; "pixels", uint8 of its own size; "images", float32 of its own
 * size, (pixel / 255 - mean) / std.
 */
export function tensorData(photo, contract) {
  if (!contract.any_size) {
    photo = cropAndResize(photo, contract.size, contract.crop_share ?? PHOTO_SHARE);
  }
  const { height, width } = photo;
  const floats = contract.name === "images";
  const planes = contract.layout === "nchw";
  let data = photo.data;
  if (floats || planes) {
    const area = height * width;
    data = new (floats ? Float32Array : Uint8Array)(3 * area);
    for (let i = 0; i < 3 * area; i++) {
      const channel = i % 3;
      const value = photo.data[i];
      data[planes ? channel * area + (i - channel) / 3 : i] = floats
        ? (value / 255 - contract.mean[channel]) / contract.std[channel]
        : value;
    }
  }
  const dims = planes ? [1, 3, height, width] : [1, height, width, 3];
  return { type: floats ? "float32" : "uint8", data, dims };
}

/**
 * The centred square of `share` of the shorter side, resized bilinearly and antialiased.
 *
 * Not by drawing on a smaller canvas: each browser has its own filter there.
 */
export function cropAndResize({ height, width, data }, size, share) {
  const side = share * Math.min(height, width);
  const rows = taps((height - side) / 2, side, height, size);
  const columns = taps((width - side) / 2, side, width, size);
  const first = rows[0].first;
  const last = rows[size - 1].first + rows[size - 1].weights.length;
  const narrow = new Float64Array((last - first) * size * 3);
  for (let y = first; y < last; y++) {
    for (let x = 0; x < size; x++) {
      sum(data, (y * width + columns[x].first) * 3, 3, columns[x].weights, narrow, ((y - first) * size + x) * 3);
    }
  }
  const result = new Float64Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      sum(narrow, ((rows[y].first - first) * size + x) * 3, size * 3, rows[y].weights, result, (y * size + x) * 3);
    }
  }
  return { height: size, width: size, data: Uint8Array.from(result, toByte) };
}

// For each output pixel its first input pixel, and the weights from there on: a triangle as wide as
// an output pixel, or as an input pixel where the photo is enlarged.
function taps(start, length, extent, size) {
  const step = length / size;
  const reach = Math.max(step, 1);
  return Array.from({ length: size }, (_, i) => {
    const centre = start + (i + 0.5) * step - 0.5;
    const first = Math.max(0, Math.ceil(centre - reach));
    const last = Math.min(extent - 1, Math.floor(centre + reach));
    const weights = [];
    for (let j = first; j <= last; j++) weights.push(1 - Math.abs(j - centre) / reach);
    const total = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

// The three channels of one pixel, from `source` by `weights`, `stride` apart, into `target`.
function sum(source, from, stride, weights, target, to) {
  for (const weight of weights) {
    target[to] += weight * source[from];
    target[to + 1] += weight * source[from + 1];
    target[to + 2] += weight * source[from + 2];
    from += stride;
  }
}

// Halves go to the even number, as in NumPy and TensorFlow.
function toByte(value) {
  const down = Math.floor(value);
  const up = value - down > 0.5 || (value - down === 0.5 && down % 2 === 1);
  return Math.min(255, Math.max(0, down + up));
}

/** Logits to probabilities. */
export function softmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const grown = Array.from(logits, (z) => Math.exp(z - most));
  const total = grown.reduce((a, b) => a + b);
  return grown.map((p) => p / total);
}
