"use strict";
const $ = (id) => document.getElementById(id);
const all = (what, within = document) => [...within.querySelectorAll(what)];
const fold = (text) => text.normalize("NFKC").toLowerCase();
const typed = (input, act) => { if (input) { input.addEventListener("input", () => act(fold(input.value.trim()))); act(""); } };

// Domains: one filter for all tables.
const lines = all("table.domains tbody tr");
const names = lines.map((line) => fold(line.dataset.domain));
const every = new Set(names).size;
typed($("domain-filter"), (wanted) => {
  const left = new Set();
  lines.forEach((line, at) => {
    line.hidden = !names[at].includes(wanted);
    if (!line.hidden) left.add(names[at]);
  });
  $("domain-count").value = wanted ? `${left.size} of ${every}` : "";
});

// Tables: a click on a column's head sorts by it.
const value = (row, at) => {
  const cell = row.cells[at];
  const text = cell.dataset.v ?? cell.textContent.trim();
  const number = Number(text.replace(/[,$%]/g, ""));
  return text !== "" && Number.isFinite(number) ? number : fold(text);
};
for (const table of all("table")) {
  const numeric = [...(table.tBodies[0].rows[0]?.cells ?? [])].map((cell) => cell.classList.contains("n"));
  all("thead th", table).forEach((head, at) => {
    head.classList.toggle("n", numeric[at] === true);
    if (!head.textContent.trim()) return;
    head.setAttribute("aria-sort", "none");
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      all("thead th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row, at), row]);
      rows.sort(([a], [b]) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1) * (down ? -1 : 1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}

// Stages: one panel at a time.
for (const select of all("select[data-stages]"))
  select.addEventListener("change", () => {
    for (const panel of all(`[data-panel="${select.dataset.stages}"]`)) panel.hidden = panel.dataset.stage !== select.value;
  });

// The map: its layers.
for (const box of all("input[data-layer]"))
  box.addEventListener("change", () => {
    const layer = $(`keep-map-${box.dataset.layer}`);
    if (layer) layer.style.display = box.checked ? "" : "none";
  });

// Refused rows: samples that hold a text.
const samples = all(".sample");
typed($("refusal-filter"), (wanted) => {
  let left = 0;
  for (const sample of samples) {
    sample.hidden = wanted !== "" && !fold(sample.textContent).includes(wanted);
    if (!sample.hidden) left += 1;
  }
  if (wanted) for (const reason of all(".reason")) reason.open = reason.querySelector(".sample:not([hidden])") !== null;
  $("refusal-count").value = wanted ? `${left} of ${samples.length} samples` : "";
});

// Rows: looked up in what the page holds.
const MOST = 25;
const held = JSON.parse($("rows").textContent);
const column = Object.fromEntries(held.columns.map((name, at) => [name, at]));
const inside = ["row_id", "domain", "prompt", "answer", "rationale", "example_id", "rationale_id", "call_key", "parents"];
const texts = held.rows.map((row) => inside.map((name) => fold(String(row[column[name]] ?? ""))).join("\n"));
const shown = (row) => {
  const get = (name) => row[column[name]];
  const box = document.createElement("article");
  box.className = "row";
  const list = document.createElement("dl");
  const say = (key, text) => {
    if (text === null || text === "" || text === undefined) return;
    const term = document.createElement("dt"), said = document.createElement("dd"), plain = document.createElement("bdi");
    term.textContent = key;
    plain.textContent = text;
    plain.className = "text";
    plain.dir = "auto";
    said.append(plain);
    list.append(term, said);
  };
  say("Row", `${get("row_id")}, place ${get("position")} of ${get("snapshot_id")}${get("copy") ? `, copy ${get("copy")}` : ""}`);
  say("Domain", get("domain"));
  say("Stage", `${get("stage")}, ${get("origin") === "source" ? "a real example" : "written by the teacher"}`);
  say("Prompt", get("prompt"));
  say("Answer", get("answer"));
  say("Worked answer", get("rationale"));
  say("Example", get("example_id"));
  say("Written after", get("parents"));
  say("Rationale", `${get("rationale_id")} by ${get("author")}`);
  const usd = get("cost_usd");
  say("Call", get("purpose") ? `${get("call_key")} to ${get("model")} (${get("purpose")}), $${usd}` : `${get("call_key")} (no call of the ledger)`);
  box.append(list);
  return box;
};
typed($("row-search"), (wanted) => {
  const parts = wanted.split(/\s+/).filter(Boolean);
  const found = parts.length ? held.rows.filter((_, at) => parts.every((part) => texts[at].includes(part))) : [];
  $("row-results").replaceChildren(...found.slice(0, MOST).map(shown));
  const more = found.length > MOST ? `, the first ${MOST} are shown` : "";
  $("row-count").value = parts.length ? `${found.length.toLocaleString("en")} of ${held.rows.length.toLocaleString("en")} rows${more}` : "";
});

// What a bar says.
const tip = $("tip");
const point = (event) => {
  const bar = event.target.closest?.("[data-tip]");
  tip.hidden = !bar;
  if (!bar) return;
  tip.textContent = bar.dataset.tip;
  const place = bar.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(place.left, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${place.top > 50 ? place.top - tip.offsetHeight - 5 : place.bottom + 5}px`;
};
for (const kind of ["pointerover", "focusin", "click"]) document.addEventListener(kind, point);
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
