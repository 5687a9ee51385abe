// Draws a frame: all its slices side by side, or one of them, with the masks over them.

const GAP = 3; // css pixels between tiles
const MARGIN = 0.2; // of the heart's size, shown round it

const packed = (red, green, blue) => (255 << 24) | (blue << 16) | (green << 8) | red; // as a canvas has it, on little-endian machines
const GREYS = Uint32Array.from({ length: 256 }, (_, value) => packed(value, value, value));

export class Mosaic {
  constructor(canvas) {
    this.canvas = canvas;
    this.layers = [new OffscreenCanvas(1, 1), new OffscreenCanvas(1, 1)]; // grey values and masks, the slices one below the other
    this.frame = null;
    this.single = null; // the slice that is shown alone
    this.opacity = 0.45;
    this.zoomed = false;
    this.tiles = [];
  }

  // A frame {shape: [s, h, w], spacing: [dz, dy, dx], session}, its bytes, and colours as {name: "#rrggbb"} by label from 1.
  set(frame, planes, colours) {
    const [slices, height, width] = frame.shape;
    const size = slices * height * width;
    const begins = !this.frame || this.frame.session !== frame.session || String(this.frame.shape) !== String(frame.shape);
    this.frame = frame;
    if (begins) {
      this.box = null;
      for (const layer of this.layers) [layer.width, layer.height] = [width, slices * height];
      this.pixels = new ImageData(width, slices * height);
      if (this.single >= slices) this.single = slices - 1;
    }
    this.masks = planes.subarray(size);
    const masks = new Uint32Array(256);
    Object.values(colours).forEach((c, i) => {
      masks[i + 1] = packed(...[1, 3, 5].map((at) => parseInt(c.slice(at, at + 2), 16)));
    });
    this.fill(this.layers[0], planes.subarray(0, size), GREYS);
    this.fill(this.layers[1], this.masks, masks);
    this.grow();
  }

  fill(layer, values, table) {
    const pixels = new Uint32Array(this.pixels.data.buffer);
    for (let i = 0; i < values.length; i++) pixels[i] = table[values[i]];
    layer.getContext("2d").putImageData(this.pixels, 0, 0);
  }

  // The heart so far: its box never shrinks, so that the picture stands still.
  grow() {
    const [slices, height, width] = this.frame.shape;
    let [top, bottom, left, right] = this.box ?? [height, -1, width, -1];
    for (let i = 0; i < this.masks.length; i++) {
      if (!this.masks[i]) continue;
      const x = i % width;
      const y = ((i - x) / width) % height;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      if (y > bottom) bottom = y;
    }
    this.box = bottom < 0 ? null : [top, bottom, left, right];
  }

  // What of a slice is shown: [x, y, width, height] in pixels of the image.
  part() {
    const [, height, width] = this.frame.shape;
    if (!this.zoomed || !this.box) return [0, 0, width, height];
    const [top, bottom, left, right] = this.box;
    const margin = MARGIN * Math.max(bottom - top + 1, right - left + 1);
    const x = Math.max(0, Math.round(left - margin));
    const y = Math.max(0, Math.round(top - margin));
    return [x, y, Math.min(width, Math.round(right + 1 + margin)) - x, Math.min(height, Math.round(bottom + 1 + margin)) - y];
  }

  // Draws as large as fits into so many css pixels.
  draw(roomWidth, roomHeight, ratio) {
    const [slices, height] = this.frame.shape;
    const [, dy, dx] = this.frame.spacing;
    const [x, y, w, h] = this.part();
    const shown = this.single === null ? [...Array(slices).keys()] : [this.single];
    const { columns, scale } = fit(shown.length, w * dx, h * dy, roomWidth, roomHeight);
    const [tileWidth, tileHeight] = [Math.floor(w * dx * scale), Math.floor(h * dy * scale)];
    const rows = Math.ceil(shown.length / columns);
    const [cssWidth, cssHeight] = [columns * (tileWidth + GAP) - GAP, rows * (tileHeight + GAP) - GAP];
    const [pixelWidth, pixelHeight] = [Math.round(cssWidth * ratio), Math.round(cssHeight * ratio)];
    if (this.canvas.width !== pixelWidth || this.canvas.height !== pixelHeight) {
      [this.canvas.width, this.canvas.height] = [pixelWidth, pixelHeight];
      [this.canvas.style.width, this.canvas.style.height] = [`${cssWidth}px`, `${cssHeight}px`];
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, cssWidth, cssHeight);
    context.font = "12px system-ui, sans-serif";
    this.tiles = shown.map((slice, i) => {
      const tile = { slice, x: (i % columns) * (tileWidth + GAP), y: Math.floor(i / columns) * (tileHeight + GAP), width: tileWidth, height: tileHeight };
      this.layers.forEach((layer, k) => {
        context.imageSmoothingEnabled = k === 0; // masks are shown voxel by voxel
        context.globalAlpha = k === 0 ? 1 : this.opacity;
        context.drawImage(layer, x, slice * height + y, w, h, tile.x, tile.y, tileWidth, tileHeight);
      });
      context.globalAlpha = 1;
      context.fillStyle = "#d5dde6";
      context.fillText(slice + 1, tile.x + 5, tile.y + 15);
      return tile;
    });
  }

  // The slice at a place of the canvas, in css pixels; undefined between the tiles.
  at(x, y) {
    return this.tiles.find((tile) => x >= tile.x && x < tile.x + tile.width && y >= tile.y && y < tile.y + tile.height)?.slice;
  }
}

// How many columns show tiles of this size largest.
function fit(count, width, height, roomWidth, roomHeight) {
  let best = { columns: 1, scale: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const scale = Math.min((roomWidth - GAP * (columns - 1)) / columns / width, (roomHeight - GAP * (rows - 1)) / rows / height);
    if (scale > best.scale) best = { columns, scale };
  }
  return best;
}
