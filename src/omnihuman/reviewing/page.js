"use strict";
// The page of omnihuman review: one row at a time, judged by keys.

const $ = (id) => document.getElementById(id);
const COLORS = ["#fbbf24", "#22d3ee", "#f472b6", "#a3e635", "#c084fc", "#fb923c"];
const MARGIN = 0.3; // seconds around the first and the last box of a track in which it is drawn

let reviewer = localStorage.getItem("reviewer") || "";
let row = null;
let past = [];       // keys of rows that were judged here, for Back
let begin = 0;       // when the row was shown
let boxes = true;
let busy = false;

async function request(path, body) {
  const options = body ? { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) } : {};
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer: is omnihuman review still running?");
  }
  if (!(reply.headers.get("content-type") || "").startsWith("application/json")) throw new Error(await reply.text());
  const content = await reply.json();
  if (content.error) throw new Error(content.error);
  return content;
}

// One request at a time: a key that is held down judges one row.
async function act(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
    $("failure").hidden = true;
  } catch (error) {
    $("failure").textContent = error.message;
    $("failure").hidden = false;
    if ($("columns").hidden) finish(error.message);
  } finally {
    busy = false;
  }
}

const query = () => `reviewer=${encodeURIComponent(reviewer)}`;
const showNext = () => act(async () => show(await request(`next?${query()}`)));

const showBack = () => act(async () => {
  const key = past.filter((other) => !row || other !== row.key).pop();
  if (!key) return;
  past = past.slice(0, past.lastIndexOf(key));
  show(await request(`row/${key}?${query()}`));
});

const judge = (verdict) => act(async () => {
  const values = verdict === "edit" ? readValues() : {};
  const seconds = (performance.now() - begin) / 1000;
  const content = await request("verdict", { reviewer, key: row.key, verdict, values, seconds });
  past.push(row.key);
  document.activeElement.blur();
  row = content.row;
  showProgress(content.progress);
  showVerdict();
  if (!row.num_hidden) show(await request(`next?${query()}`)); // nothing is hidden: on to the next row
});

function showProgress(progress) {
  const second = progress.second ? `, ${progress.second} for a second person` : "";
  $("progress").textContent = `${progress.done} of ${progress.rows} rows judged${second}; ${progress.mine} by you`;
}

function show(content) {
  row = content.row;
  showProgress(content.progress);
  if (!row) {
    const rest = content.progress.rows - content.progress.done;
    finish(rest ? `There is no row for you now. ${rest} wait for another person, who opens the same address.`
                : "All rows are judged. Stop omnihuman review, and give the command of omnihuman curate again.");
    return;
  }
  $("columns").hidden = false;
  $("end").hidden = true;
  $("name").textContent = row.name;
  showMedia();
  fill($("show"), row.show);
  $("fields").replaceChildren(...row.edit.map(buildField));
  showVerdict();
  begin = performance.now();
}

function finish(text) {
  $("columns").hidden = true;
  $("media").replaceChildren();
  $("name").textContent = "";
  $("end").hidden = false;
  $("end").textContent = text;
  row = null;
}

function showVerdict() {
  const verdict = row.verdict;
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.classList.toggle("chosen", button.dataset.verdict === verdict);
  }
  document.querySelector("[data-verdict=edit]").hidden = !row.edit.length;
  $("hidden").hidden = !row.num_hidden;
  $("hidden_title").textContent = row.hidden ? "What the models say; the keys change your verdict" : "What the models say is shown after your verdict";
  fill($("hidden_values"), row.hidden || {});
  $("next").disabled = !verdict;
  $("back").disabled = !past.some((key) => key !== row.key);
}

function fill(list, values) {
  const parts = [];
  for (const [title, value] of Object.entries(values)) {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = title;
    text.textContent = format(value);
    parts.push(term, text);
  }
  list.replaceChildren(...parts);
}

function format(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return String(Math.round(value * 1000) / 1000);
  if (Array.isArray(value) && value.every((entry) => typeof entry !== "object")) return value.join(", ");
  if (Array.isArray(value)) return value.map((entry) => Object.values(entry).map(format).join(": ")).join("\n");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// ------------------------------------------------------------------------------------------------ texts that can be edited

function buildText(text, label) {
  const area = document.createElement("textarea");
  area.rows = 1;
  area.value = text;
  area.readOnly = true;
  area.dataset.before = text;
  area.setAttribute("aria-label", label);
  area.addEventListener("input", () => area.classList.toggle("changed", area.value !== area.dataset.before));
  area.addEventListener("pointerdown", allowEdits);
  return area;
}

function buildField(field) {
  const part = document.createElement("section"), title = document.createElement("h3");
  title.textContent = field.column.replaceAll("_", " ");
  part.dataset.column = field.column;
  part.dataset.kind = field.kind;
  part.append(title);
  if (field.kind === "pairs") {
    for (const pair of field.value || []) {
      const box = document.createElement("div");
      box.className = "pair";
      box.append(buildText(pair.question, "question"), buildText(pair.answer, "answer"));
      part.append(box);
    }
  } else if (field.kind === "texts") {
    part.append(buildText((field.value || []).join("\n"), field.column)); // one a line
  } else {
    part.append(buildText(field.value || "", field.column));
  }
  return part;
}

function readValues() {
  const values = {};
  for (const part of $("fields").children) {
    const texts = [...part.querySelectorAll("textarea")].map((area) => area.value.trim());
    if (!part.querySelector(".changed")) continue;
    if (part.dataset.kind === "text") values[part.dataset.column] = texts[0];
    if (part.dataset.kind === "texts") values[part.dataset.column] = texts[0].split("\n").map((line) => line.trim()).filter(Boolean);
    if (part.dataset.kind === "pairs") {
      values[part.dataset.column] = [];
      for (let number = 0; number < texts.length; number += 2) {
        // a pair without a text is taken out
        if (texts[number] || texts[number + 1]) values[part.dataset.column].push({ question: texts[number], answer: texts[number + 1] });
      }
    }
  }
  return values;
}

function allowEdits() {
  for (const area of $("fields").querySelectorAll("textarea")) area.readOnly = false;
}

function leaveEdits() {
  for (const area of $("fields").querySelectorAll("textarea")) {
    area.value = area.dataset.before;
    area.classList.remove("changed");
    area.readOnly = true;
    area.blur();
  }
}

function startEdit() {
  if (!row.edit.length) return;
  const areas = $("fields").querySelectorAll("textarea");
  if ([...areas].some((area) => area.classList.contains("changed"))) {
    judge("edit");
    return;
  }
  allowEdits();
  areas[0].focus();
  areas[0].setSelectionRange(areas[0].value.length, areas[0].value.length);
}

// ----------------------------------------------------------------------------------------------------- the clip and its boxes

const STILLS = /\.(jpe?g|png|webp|gif|bmp|heic)$/i, SOUNDS = /\.(wav|mp3|m4a|flac|ogg|opus)$/i;

function showMedia() {
  const kind = STILLS.test(row.name) ? "img" : SOUNDS.test(row.name) ? "audio" : "video";
  const medium = document.createElement(kind);
  medium.src = `media/${row.key}` + (row.start || row.end ? `#t=${row.start}${row.end ? `,${row.end}` : ""}` : "");
  if (kind !== "img") {
    medium.controls = true;
    medium.autoplay = true;
    medium.loop = !row.end;
    medium.addEventListener("timeupdate", () => {
      if (row && row.end && medium.currentTime >= row.end - 0.02) medium.currentTime = row.start;
    });
  }
  medium.addEventListener("error", () => {
    const text = document.createElement("p");
    text.textContent = `This browser cannot play ${row.name}.`;
    $("media").replaceChildren(text);
  });
  $("media").replaceChildren(medium);
  const faces = row.tracks.length === 1 ? "1 face" : `${row.tracks.length} faces`;
  $("about").textContent = [row.tracks.length ? faces : "", row.people > 1 ? "judged by two people" : ""].filter(Boolean).join(", ");
}

// The box of a track at a time, between two of its boxes.
function findBox(track, time) {
  const { times, boxes } = track, last = times.length - 1;
  if (last < 0 || time < times[0] - MARGIN || time > times[last] + MARGIN) return null;
  let index = 0;
  while (index < last && times[index + 1] <= time) index += 1;
  const next = Math.min(index + 1, last), gap = times[next] - times[index];
  const share = gap > 0 ? Math.min(1, Math.max(0, (time - times[index]) / gap)) : 0;
  return boxes[index].map((side, number) => side + share * (boxes[next][number] - side));
}

function draw() {
  requestAnimationFrame(draw);
  const canvas = $("boxes"), medium = $("media").firstElementChild;
  const width = medium && (medium.videoWidth || medium.naturalWidth), height = medium && (medium.videoHeight || medium.naturalHeight);
  if (!row || !width) { canvas.width = 0; return; }
  const shown = { width: medium.clientWidth, height: medium.clientHeight };
  const density = devicePixelRatio || 1;
  canvas.width = shown.width * density;
  canvas.height = shown.height * density;
  canvas.style.width = `${shown.width}px`;
  canvas.style.height = `${shown.height}px`;
  if (!boxes) return;
  const scale = Math.min(shown.width / width, shown.height / height); // object-fit: contain
  const left = (shown.width - scale * width) / 2, top = (shown.height - scale * height) / 2;
  const context = canvas.getContext("2d");
  context.scale(density, density);
  context.lineWidth = 2;
  context.font = "600 12px system-ui, sans-serif";
  const time = (medium.currentTime || 0) + row.shift;
  let number = 0;
  for (const track of row.tracks) {
    const box = findBox(track, time);
    if (!box) continue;
    const color = COLORS[track.track % COLORS.length];
    const [x0, y0, x1, y1] = box.map((side, index) => (index % 2 ? top : left) + scale * side);
    context.strokeStyle = context.fillStyle = color;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    if (row.tracks.length > 1) {
      context.fillRect(x0 - 1, y0 - 16, 9 + 8 * String(track.track).length, 16);
      context.fillStyle = "#0f172a";
      context.fillText(track.track, x0 + 3, y0 - 4);
    }
    number += 1;
  }
  canvas.dataset.boxes = number; // of this frame
}

// -------------------------------------------------------------------------------------------------------------------- people

function askName() {
  $("reviewer").value = reviewer;
  $("ask").showModal();
  $("reviewer").select();
}

$("ask").addEventListener("cancel", (event) => { if (!reviewer) event.preventDefault(); });
$("ask").addEventListener("close", () => {
  reviewer = $("reviewer").value.trim() || reviewer;
  if (!reviewer) { askName(); return; }
  localStorage.setItem("reviewer", reviewer);
  $("who").textContent = reviewer;
  past = [];
  showNext();
});

$("who").addEventListener("click", askName);
$("next").addEventListener("click", showNext);
$("back").addEventListener("click", showBack);
for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => (button.dataset.verdict === "edit" ? startEdit() : judge(button.dataset.verdict)));
}

document.addEventListener("keydown", (event) => {
  if ($("ask").open || !row) return;
  const isWriting = event.target.tagName === "TEXTAREA" && !event.target.readOnly;
  if (isWriting) {
    if (event.key === "Escape") leaveEdits();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); judge("edit"); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const media = $("media").firstElementChild;
  const actions = {
    a: () => judge("accept"), e: startEdit, r: () => judge("reject"), u: () => judge("unsure"),
    b: () => { boxes = !boxes; },
    " ": () => { if (media.play) media.paused ? media.play() : media.pause(); },
    ArrowRight: () => { if (row.verdict) showNext(); }, Enter: () => { if (row.verdict) showNext(); },
    ArrowLeft: showBack,
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) { event.preventDefault(); action(); }
});

$("who").textContent = reviewer;
draw();
if (reviewer) showNext(); else askName();
