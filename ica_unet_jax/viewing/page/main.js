// The page: what it shows of each view, and its controls.

import { Mosaic } from "./mosaic.js";
import { plot } from "./plot.js";
import { Recording } from "./recording.js";
import { Views } from "./views.js";

const LAST = 200; // answers in the plots
const KEPT = 2000;
const QUIET = 2; // s without an answer that are said
const RATE_OVER = 2000; // ms over which this page's own rate is counted
const [SERIAL, SECONDS, , , , LATENCY, COMPUTE] = [0, 1, 2, 3, 4, 5, 6]; // of a point; between them the volumes

const at = (id) => document.getElementById(id);
const mosaic = new Mosaic(at("images"));
let points = [];
let drawn = []; // when, in ms
let figures = null;
let recording = null;

function say(text, kind = "warn") {
  at("state").textContent = text;
  at("state").dataset.kind = kind;
}

function see(view, planes) {
  figures = view;
  const begins = view.fresh || view.frame?.session !== points.session;
  if (view.frame) points = Object.assign(begins ? [] : points, { session: view.frame.session });
  points.push(...view.points);
  points.splice(0, points.length - KEPT);
  if (views.paused) return; // asked for before the pause
  if (view.frame) {
    mosaic.set(view.frame, planes, view.structures);
    at("hint").hidden = true;
    at("slice").max = view.frame.shape[0] - 1;
    drawn = [...drawn.filter((when) => when > performance.now() - RATE_OVER), performance.now()];
    draw();
    recording?.add(view.frame, points[points.length - 1][SECONDS], planes);
  }
  tell();
  if (view.quiet_s > QUIET) say(`${view.answered === undefined ? "waiting for the first frame" : "no frame"} for ${Math.round(view.quiet_s)} s`);
  else say("live", "good");
}

function draw() {
  if (!mosaic.frame) return;
  const stage = at("stage");
  const narrow = matchMedia("(max-width: 760px)").matches;
  const inside = parseFloat(getComputedStyle(stage).paddingLeft) * 2;
  mosaic.draw(stage.clientWidth - inside, narrow ? innerHeight * 0.55 : stage.clientHeight - inside, devicePixelRatio);
  at("choice").hidden = mosaic.single === null;
  at("layout").textContent = mosaic.single === null ? "One slice" : "All slices";
  if (mosaic.single !== null) at("slice").value = mosaic.single;
  at("which").textContent = `${(mosaic.single ?? 0) + 1} of ${mosaic.frame.shape[0]}`;
}

function rows(list, entries) {
  const parts = entries.map(([term, value, kind]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.append(...[term].flat());
    dd.append(...[value].flat());
    dd.className = kind ?? "";
    return [dt, dd];
  });
  list.replaceChildren(...parts.flat());
}

function tell() {
  const last = points[points.length - 1];
  if (!last) return;
  const shown = points.slice(-LAST);
  const times = shown.map((point) => point[SECONDS]);
  const colours = Object.entries(figures.structures);
  const percent = (x) => (x === null || x === undefined ? "–" : `${Math.round(100 * x)} %`);

  const cells = colours.map(([name, colour], i) => {
    const box = document.createElement("div");
    const mark = document.createElement("i");
    mark.style.background = colour;
    const [dt, dd, below] = ["dt", "dd", "small"].map((tag) => document.createElement(tag));
    dt.append(mark, name);
    below.textContent = name in figures.ejection_fraction ? `EF ${percent(figures.ejection_fraction[name])}` : "mL";
    dd.append(last[2 + i].toFixed(0), below);
    box.append(dt, dd);
    return box;
  });
  at("volumes").replaceChildren(...cells);
  plot(at("curves"), times, colours.map(([, colour], i) => ({ colour, values: shown.map((point) => point[2 + i]) })));
  plot(at("latency"), times, [{ colour: "#6db3ff", values: shown.map((point) => point[LATENCY]) }], { limit: figures.deadline_ms, least: figures.deadline_ms });

  const sorted = shown.map((point) => point[LATENCY]).sort((a, b) => a - b);
  const rate = (count, seconds) => (seconds > 0 ? (count / seconds).toFixed(1) : "–");
  const ms = (x) => `${x.toFixed(1)} ms`;
  rows(at("counts"), [
    ["arrival to mask, now", ms(last[LATENCY])],
    [`median, longest of ${sorted.length}`, `${sorted[sorted.length >> 1].toFixed(1)}, ${ms(sorted[sorted.length - 1])}`],
    ["compute", ms(last[COMPUTE])],
    [`later than ${figures.deadline_ms} ms`, figures.deadline_misses, figures.deadline_misses && "bad"],
    ["dropped", figures.dropped, figures.dropped && "bad"],
    ["refused", figures.refused, figures.refused && "bad"],
    ["answered", `${figures.answered} of ${figures.frames}`],
    ["frames a second", rate(times.length - 1, times[times.length - 1] - times[0])],
    ["drawn here", rate(drawn.length - 1, (drawn[drawn.length - 1] - drawn[0]) / 1000)],
    ["pages open", figures.viewers],
  ]);
  at("frame").textContent = figures.frame || !at("frame").textContent ? `frame ${figures.frame?.number ?? "–"}` : at("frame").textContent;
  if (!recording) at("note").textContent = figures.refusal;
}

function pause() {
  views.pause(!views.paused);
  at("pause").setAttribute("aria-pressed", views.paused);
  at("pause").textContent = views.paused ? "Go on" : "Pause";
  if (views.paused) say("paused");
}

async function record() {
  if (!recording) {
    at("files").replaceChildren();
    recording = new Recording(at("images"), record);
    at("note").textContent = "";
  } else {
    const [ended, count] = [recording, recording.frames.length];
    recording = null;
    const files = await ended.end();
    at("files").replaceChildren(
      ...files.map(({ name, blob }) => Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name, textContent: name })),
    );
    at("note").textContent = count ? `${count} frames:` : "nothing came";
  }
  at("record").setAttribute("aria-pressed", recording !== null);
  at("record").textContent = recording ? "Stop" : "Record";
}

function choose(slice) {
  mosaic.single = slice;
  draw();
}

function step(by) {
  if (mosaic.single !== null) choose(Math.min(Math.max(mosaic.single + by, 0), mosaic.frame.shape[0] - 1));
}

const layout = () => mosaic.frame && choose(mosaic.single === null ? mosaic.frame.shape[0] >> 1 : null);
at("pause").onclick = pause;
at("record").onclick = record;
at("layout").onclick = layout;
at("slice").oninput = (event) => choose(Number(event.target.value));
at("opacity").oninput = (event) => ((mosaic.opacity = event.target.value / 100), draw());
at("zoom").onchange = (event) => ((mosaic.zoomed = event.target.checked), draw());
at("images").onclick = (event) => {
  const slice = mosaic.at(event.offsetX, event.offsetY);
  if (slice !== undefined) choose(mosaic.single === null ? slice : null);
};
const KEYS = { r: record, m: layout, Escape: () => choose(null), " ": pause, ArrowLeft: () => step(-1), ArrowRight: () => step(1) };
const TAKEN = { " ": "a, button, input", ArrowLeft: "input", ArrowRight: "input" }; // what does something itself by these keys
document.onkeydown = (event) => {
  const { key, target } = event;
  if (!KEYS[key] || event.ctrlKey || event.metaKey || event.altKey || (TAKEN[key] && target.matches(TAKEN[key]))) return;
  event.preventDefault();
  KEYS[key]();
};
new ResizeObserver(() => (draw(), tell())).observe(at("stage"));
window.onhashchange = () => location.reload();

const views = new Views(see, say);
