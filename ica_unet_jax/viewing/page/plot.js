// Lines over the last seconds.

const LEFT = 34; // css pixels for the numbers
const BOTTOM = 18;

// lines: [{colour, values}], of as many values as there are times (s); limit: a dashed line, or null; least: the top is no lower.
export function plot(canvas, times, lines, { limit = null, least = 1 } = {}) {
  const ratio = window.devicePixelRatio;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [pixelWidth, pixelHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelWidth || canvas.height !== pixelHeight) [canvas.width, canvas.height] = [pixelWidth, pixelHeight];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  const end = times[times.length - 1] ?? 0;
  const span = Math.max(end - (times[0] ?? 0), 1);
  const highest = lines.reduce((most, line) => line.values.reduce((a, b) => Math.max(a, b), most), least);
  const step = nice(highest / 3);
  const top = Math.ceil(highest / step) * step;
  const across = (time) => LEFT + ((time - end + span) / span) * (width - LEFT - 4);
  const up = (value) => 6 + (1 - value / top) * (height - BOTTOM - 6);

  context.lineWidth = 1;
  context.textAlign = "right";
  for (let value = 0; value <= top + step / 2; value += step) {
    context.strokeStyle = "#2b333d";
    context.beginPath();
    context.moveTo(LEFT, up(value));
    context.lineTo(width, up(value));
    context.stroke();
    context.fillStyle = "#96a2b0";
    context.fillText(Number(value.toPrecision(3)), LEFT - 6, up(value));
  }
  context.textAlign = "left";
  context.fillText(`−${span < 10 ? span.toFixed(1) : Math.round(span)} s`, LEFT, height - 7);
  context.textAlign = "right";
  context.fillText("now", width - 4, height - 7);

  if (limit !== null && limit <= top) {
    context.strokeStyle = "#f0b73c";
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(LEFT, up(limit));
    context.lineTo(width, up(limit));
    context.stroke();
    context.setLineDash([]);
  }
  context.lineWidth = 1.8;
  context.lineJoin = "round";
  for (const { colour, values } of lines) {
    context.strokeStyle = colour;
    context.beginPath();
    values.forEach((value, i) => context.lineTo(across(times[i]), up(Math.min(value, top))));
    context.stroke();
  }
}

// 1, 2 or 5 times a power of ten, not below x.
function nice(x) {
  const power = 10 ** Math.floor(Math.log10(x));
  return [1, 2, 5, 10].find((factor) => factor * power >= x) * power;
}
