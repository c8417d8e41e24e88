"use strict";

const page = document.getElementById("search");
const results = document.getElementById("results");
const status = document.getElementById("status");
const more = document.getElementById("more");
const player = document.getElementById("player");
const video = player.querySelector("video");
const note = player.querySelector(".note");
const timeline = document.getElementById("timeline");
const PAGE = 24;
const DAY = 86400; // seconds
const MARGIN = 2; // seconds around a moment in a preview

let moments = []; // of all pages so far
let example = null; // {file} that was dropped, or {like: "id:start:end", label}
let answer = 0; // number of the present search; later ones make earlier ones void
let current = null; // moment in the player
let offset = 0; // seconds of the video where what is played begins

const clock = (seconds) => {
  const whole = Math.floor(seconds), two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
};
const span = (moment) => `t0=${moment.start}&t1=${moment.end}`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// Searching

function parameters() {
  const given = new URLSearchParams();
  for (const [key, value] of new FormData(page)) {
    if (!value || value instanceof File) continue;
    const isDate = key === "since" || key === "until";
    given.set(key, isDate ? String(Date.parse(value) / 1000 + (key === "until" ? DAY : 0)) : value);
  }
  if (example && example.like) given.set("like", example.like);
  return given;
}

async function ask(address, options) {
  const response = await fetch(address, options);
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(value.error || `the server answers ${response.status}`);
  return value;
}

async function search({ append = false } = {}) {
  const own = ++answer, given = parameters();
  if (!append) {
    moments = [];
    results.replaceChildren();
    more.hidden = true;
  }
  if (!given.has("q") && !given.has("not") && !example) return overview();
  given.set("top", PAGE);
  given.set("skip", moments.length);
  tell("Searching …");
  try {
    const file = example && example.file;
    if (file) given.set("name", file.name);
    const found = await ask(`api/search?${given}`, file ? { method: "POST", body: file } : {});
    if (own !== answer) return;
    moments.push(...found.moments);
    show(found);
  } catch (error) {
    if (own === answer) tell(error.message, true);
  }
}

async function overview() {
  try {
    const known = await ask("api/status");
    const select = page.elements.folder;
    for (const folder of known.folders) {
      if (![...select.options].some((option) => option.value === folder)) select.add(new Option(folder, folder));
    }
    const bad = known.unreadable.length ? `, ${count(known.unreadable.length, "file")} cannot be read` : "";
    tell(known.num_files
      ? `${count(known.num_files, "video")}, ${clock(known.seconds)} of video${bad}. Describe a moment, or drop a picture or a clip.`
      : "The index is empty: alpro index FOLDER --model MODEL");
  } catch (error) {
    tell(error.message, true);
  }
}

function tell(text, isError = false) {
  status.textContent = text;
  status.className = isError ? "error" : "";
}

function show(found) {
  const files = Map.groupBy ? Map.groupBy(moments, (one) => one.file) : grouped();
  results.replaceChildren(...[...files.values()].map((some) => sectionOf(some, found.floor)));
  more.hidden = found.moments.length < PAGE;
  const best = moments.length ? Math.max(...moments.map((one) => one.score)) : 0;
  const gap = best - found.floor < 0.5 * (1 - found.floor) / 2 ? " Nothing stands out: the best score is near it." : "";
  tell(moments.length
    ? `${count(moments.length, "moment")} of ${count(found.num_windows, "window")}, ${found.seconds.toFixed(2)} s. The median of all windows scores ${found.floor.toFixed(3)}.${gap}`
    : "No moment matches these filters.");
}

function grouped() {
  const files = new Map();
  for (const one of moments) files.set(one.file, [...(files.get(one.file) || []), one]);
  return files;
}

function sectionOf(some, floor) {
  const section = document.getElementById("file-template").content.cloneNode(true).firstElementChild;
  section.querySelector("h2").textContent = some[0].name;
  section.querySelector("ul").append(...some.map((one) => itemOf(one, floor)));
  return section;
}

function itemOf(moment, floor) {
  const item = document.getElementById("moment-template").content.cloneNode(true).firstElementChild;
  const button = item.querySelector("button"), meter = item.querySelector("meter");
  const time = `${clock(moment.start)} – ${clock(moment.end)}`;
  item.querySelector("img").src = `strip/${moment.file}?t0=${moment.peak[0]}&t1=${moment.peak[1]}`;
  item.querySelector(".time").textContent = time;
  item.querySelector(".score").textContent = moment.match === null ? moment.score.toFixed(3) : `${Math.round(100 * moment.match)} %`;
  meter.min = Math.min(floor, moment.score);
  meter.value = moment.score;
  meter.setAttribute("aria-label", `score ${moment.score.toFixed(3)}, median ${floor.toFixed(3)}`);
  button.setAttribute("aria-label", `${moment.name}, ${time}, score ${moment.score.toFixed(3)}`);
  button.addEventListener("click", () => open(moment));
  button.addEventListener("mouseenter", () => hover(moment, item.querySelector(".strip")));
  button.addEventListener("mouseleave", () => item.querySelector("video")?.remove());
  return item;
}

function hover(moment, strip) {
  const small = document.createElement("video");
  Object.assign(small, { muted: true, autoplay: true, loop: true, playsInline: true });
  small.addEventListener("error", () => small.remove(), { once: true });
  small.src = `preview/${moment.file}?${span(moment)}`;
  strip.append(small);
}

// The player

function open(moment, at = moment.start) {
  current = moment;
  player.querySelector("h2").textContent = `${moment.name}, ${clock(moment.start)} – ${clock(moment.end)}`;
  player.querySelector("[data-do=download]").href = `preview/${moment.file}?${span(moment)}&download=1`;
  player.querySelector("#ask ol")?.replaceChildren();
  const own = moments.filter((one) => one.file === moment.file);
  timeline.replaceChildren(...(own.length ? own : [moment]).map(markOf));
  play(moment, at);
  describe(moment);
  if (!player.open) player.showModal();
  remember(moment, at);
}

async function describe(moment) {
  const line = document.getElementById("caption");
  if (!line) return;
  line.textContent = "";
  try {
    const { caption } = await ask(`api/caption/${moment.file}?${span(moment)}`);
    if (moment === current) line.textContent = caption;
  } catch (error) {
    line.textContent = error.message;
  }
}

function markOf(moment) {
  const mark = document.createElement("button"), length = Math.max(moment.duration, 0.001);
  mark.type = "button";
  mark.style.left = `${(100 * moment.start) / length}%`;
  mark.style.width = `${(100 * (moment.end - moment.start)) / length}%`;
  mark.setAttribute("aria-label", `moment at ${clock(moment.start)}, score ${moment.score.toFixed(3)}`);
  mark.setAttribute("aria-current", String(moment === current));
  mark.addEventListener("click", () => open(moment));
  return mark;
}

function play(moment, at) {
  note.textContent = "";
  offset = 0;
  const source = new URL(`media/${moment.file}`, location).href;
  const preview = () => {
    // The browser cannot play the file, or no more of it than the sound.
    video.onloadedmetadata = null;
    offset = Math.max(0, moment.start - MARGIN);
    note.textContent = "This browser cannot play the file itself; this is a preview of the moment.";
    video.onerror = () => { note.textContent = "This moment cannot be played."; };
    video.src = `preview/${moment.file}?t0=${offset}&t1=${moment.end + MARGIN}`;
    seek(at - offset);
  };
  video.onerror = preview;
  video.onloadedmetadata = () => { if (!video.videoWidth) preview(); };
  if (video.currentSrc === source && !video.error) seek(at);
  else {
    video.src = source;
    seek(at);
  }
}

function seek(time) {
  const go = () => {
    video.currentTime = time;
    video.play().catch(() => {});
  };
  if (video.readyState >= 1) go();
  else video.addEventListener("loadedmetadata", go, { once: true });
}

function remember(moment, at) {
  const given = parameters();
  if (moment) {
    given.set("id", moment.file);
    given.set("t", `${moment.start},${moment.end}`);
    if (at !== moment.start) given.set("at", at.toFixed(1));
  }
  history.replaceState(null, "", `?${given}`);
}

function like(moment) {
  setExample({ like: `${moment.file}:${moment.start}:${moment.end}`, label: `like ${moment.name}, ${clock(moment.start)}` });
  page.elements.q.value = "";
  player.close();
  remember(null);
  search();
}

function setExample(given) {
  example = given;
  const box = document.getElementById("example");
  box.hidden = !given;
  box.querySelector("span").textContent = given ? given.label : "";
}

async function dropped(file) {
  if (!file) return;
  setExample({ file, label: `like ${file.name}` });
  search();
}

// Events

page.addEventListener("submit", (event) => {
  event.preventDefault();
  remember(null);
  search();
});
document.getElementById("filters").addEventListener("change", () => search());
more.addEventListener("click", () => search({ append: true }));
document.querySelector("#example button").addEventListener("click", () => { setExample(null); search(); });
page.elements.file?.addEventListener("change", (event) => dropped(event.target.files[0]));
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  dropped(event.dataTransfer.files[0]);
});
player.addEventListener("close", () => { video.pause(); current = null; remember(null); });
player.addEventListener("click", (event) => {
  const action = event.target.dataset.do;
  if (action === "close" || event.target === player) player.close();
  if (action === "like") like(current);
  if (action === "link") {
    remember(current, offset + video.currentTime);
    navigator.clipboard?.writeText(location.href).then(() => { note.textContent = "Link copied."; }, () => {});
  }
});
document.getElementById("ask")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const list = event.target.querySelector("ol"), given = new URLSearchParams({ q: document.getElementById("question").value });
  try {
    const { answers } = await ask(`api/ask/${current.file}?${span(current)}&${given}`);
    list.replaceChildren(...answers.map((one) => lineOf(`${one.text} (${Math.round(100 * one.probability)} %)`)));
  } catch (error) {
    list.replaceChildren(lineOf(error.message));
  }
});
function lineOf(text) {
  const line = document.createElement("li");
  line.textContent = text;
  return line;
}
addEventListener("keydown", (event) => {
  const isTyping = document.activeElement.matches("input:not([type=file], [type=checkbox]), select");
  if (event.key === "/" && !isTyping && !player.open) {
    event.preventDefault();
    page.elements.q.focus();
  }
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step || isTyping || document.activeElement === video) return;
  const list = [...(player.open ? timeline : results).querySelectorAll("button")];
  const place = player.open ? list.findIndex((one) => one.getAttribute("aria-current") === "true") : list.indexOf(document.activeElement);
  const next = list[place + step] || (place < 0 && list[0]);
  if (!next) return;
  event.preventDefault();
  if (player.open) next.click();
  else next.focus();
});

// Deep links

async function begin() {
  const given = new URLSearchParams(location.search);
  for (const [key, value] of given) {
    const field = page.elements[key];
    if (!field) continue;
    if (field.type === "checkbox") field.checked = true;
    else if (field.type === "date") field.value = new Date(1000 * (value - (key === "until" ? DAY : 0))).toISOString().slice(0, 10);
    else field.value = value;
  }
  if (given.has("like")) setExample({ like: given.get("like"), label: "like a moment" });
  await overview();
  const folder = given.get("folder");
  if (folder) page.elements.folder.value = folder;
  if (given.has("q") || given.has("not") || given.has("like")) await search();
  if (given.has("id") && given.has("t")) {
    const [start, end] = given.get("t").split(",").map(Number), file = Number(given.get("id"));
    const known = moments.find((one) => one.file === file && one.start === start);
    const at = given.has("at") ? Number(given.get("at")) : start;
    if (known) open(known, at);
    else await openUnknown(file, start, end, at);
  }
}

async function openUnknown(file, start, end, at) {
  try {
    const known = await ask(`api/file/${file}`);
    open({ ...known, file, start, end, peak: [start, end], score: 0, match: null }, at);
  } catch (error) {
    tell(error.message, true);
  }
}

begin();
