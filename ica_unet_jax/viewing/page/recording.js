// Keeps the frames that were seen, and hands them over as files: two NIfTI files and a film.

const MOST_BYTES = 2 ** 29; // kept at once
const HEADER = 352; // bytes before the voxels

export class Recording {
  // canvas: what the film shows; full: called when no more can be kept.
  constructor(canvas, full) {
    this.frames = [];
    this.bytes = 0;
    this.full = full;
    this.parts = [];
    const type = ["video/webm", "video/mp4"].find((name) => window.MediaRecorder?.isTypeSupported(name));
    if (type) {
      this.film = new MediaRecorder(canvas.captureStream(), { mimeType: type, videoBitsPerSecond: 8e6 });
      this.film.ondataavailable = (event) => this.parts.push(event.data);
      this.film.start();
    }
  }

  add(frame, seconds, planes) {
    const first = this.frames[0]?.frame ?? frame;
    if (first.session !== frame.session || String(first.shape) !== String(frame.shape) || this.bytes + planes.length > MOST_BYTES) {
      this.full();
      return;
    }
    this.frames.push({ frame, seconds, planes });
    this.bytes += planes.length;
  }

  // Files as [{name, blob}].
  async end() {
    const files = [];
    if (this.film) {
      await new Promise((done) => {
        this.film.onstop = done;
        this.film.stop();
      });
      const kind = this.film.mimeType.includes("mp4") ? "mp4" : "webm";
      if (this.parts.length) files.push({ name: `view.${kind}`, blob: new Blob(this.parts, { type: `video/${kind}` }) });
    }
    if (!this.frames.length) return files;
    const size = this.frames[0].planes.length / 2;
    for (const [name, from] of [["images", 0], ["masks", size]]) {
      const parts = [this.header(), ...this.frames.map(({ planes }) => planes.subarray(from, from + size))];
      files.push({ name: `view_${name}.nii.gz`, blob: await new Response(new Blob(parts).stream().pipeThrough(new CompressionStream("gzip"))).blob() });
    }
    return files;
  }

  // A NIfTI-1 header: bytes, (x, y, slice, time), in mm and seconds. Where the images lie in the patient it does not say: nobody told.
  header() {
    const { frame, seconds } = this.frames[0];
    const [slices, height, width] = frame.shape;
    const [dz, dy, dx] = frame.spacing;
    const count = this.frames.length;
    const step = count > 1 ? (this.frames[count - 1].seconds - seconds) / (count - 1) : 0;
    const view = new DataView(new ArrayBuffer(HEADER));
    view.setInt32(0, 348, true);
    [4, width, height, slices, count, 1, 1, 1].forEach((n, i) => view.setInt16(40 + 2 * i, n, true));
    view.setInt16(70, 2, true); // uint8
    view.setInt16(72, 8, true); // bits
    [1, dx, dy, dz, step].forEach((value, i) => view.setFloat32(76 + 4 * i, value, true));
    view.setFloat32(108, HEADER, true);
    view.setFloat32(112, 1, true); // slope
    view.setUint8(123, 2 + 8); // mm, seconds
    [..."n+1"].forEach((letter, i) => view.setUint8(344 + i, letter.charCodeAt(0)));
    return view.buffer;
  }
}
