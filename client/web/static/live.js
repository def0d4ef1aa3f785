// Pages that stay current: rows and summaries that change, times that pass, keys. No page needs this to be read.

const find = (selector, within = document) => within.querySelector(selector);
const offset = document.documentElement.dataset.now - Date.now(); // of the server's clock, by which times are counted

// Times: the words are those of showing.py.
const STEPS = [["d", 86400e3], ["h", 3600e3], ["min", 60e3], ["s", 1e3]];
const two = (number) => String(Math.floor(number)).padStart(2, "0");

function agoText(ms) {
  const [unit, step] = STEPS.find(([, step]) => ms >= step) ?? STEPS.at(-1);
  return `${Math.floor(Math.max(0, ms) / step)} ${unit} ago`;
}

function sinceText(ms) {
  const s = Math.floor(Math.max(0, ms) / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${two((s % 86400) / 3600)} h`;
}

function tick() {
  for (const time of document.hidden ? [] : document.querySelectorAll("time[data-form]")) {
    const text = (time.dataset.form === "ago" ? agoText : sinceText)(Date.now() + offset - time.dataset.ms);
    if (time.textContent !== text) time.textContent = text;
  }
}

// Parts that the server has rendered: parsed without running anything; focus, and what is folded open, stay.
const parse = (html) => new DOMParser().parseFromString(html, "text/html");

function replace(old, fresh) {
  const focused = old.contains(document.activeElement) && document.activeElement;
  for (const { id } of old.querySelectorAll("details[id][open]")) find(`#${id}`, fresh)?.setAttribute("open", "");
  old.replaceWith(fresh);
  if (focused) find(focused.id ? `#${focused.id}` : ":is(td, th) :is(a, button)", fresh)?.focus();
}

// End of the session: the page stays as it was, and says so. Other modules of a page send this event too.
document.addEventListener("session-over", ({ detail }) => {
  find("#over").hidden = false;
  find("#over span").textContent = detail === "expired" ? "This login has expired." : "You were logged out.";
});
const sayOver = (detail) => document.dispatchEvent(new CustomEvent("session-over", { detail }));

// Live table: one stream, closed while nobody sees the page; it begins with all rows, so none is missed.
function follow(table) {
  const body = find("tbody", table);
  let events;

  function say(on, text) {
    find("#live").dataset.on = on;
    if (find("#live").textContent !== text) find("#live").textContent = text;
  }

  function take({ data }) {
    const { order, rows } = JSON.parse(data);
    for (const row of parse(`<table>${Object.values(rows).join("")}</table>`).querySelectorAll("tr")) {
      const old = document.getElementById(row.id)?.cells;
      if (!old) body.append(row);
      else [...row.cells].forEach((cell, at) => cell.isEqualNode(old[at]) || replace(old[at], cell));
    }
    for (const row of [...body.children]) if (!order.includes(row.id)) row.remove();
    for (const [at, id] of order.entries())
      if (body.children[at].id !== id) body.insertBefore(document.getElementById(id), body.children[at]);
    find(".empty").hidden = order.length > 0;
    say("yes", "Live");
    tick();
  }

  function open() {
    if (document.hidden || events) return;
    events = new EventSource(table.dataset.live);
    events.addEventListener("rows", take);
    events.addEventListener("over", ({ data }) => data !== "stopping" && end(data));
    events.addEventListener("error", () => {
      say("no", "Reconnecting …");
      if (events.readyState === EventSource.CLOSED) refused();
    });
  }

  const close = () => (events = events?.close());

  function end(detail) {
    close();
    open = () => {};
    say("no", "Not live");
    sayOver(detail);
  }

  async function refused() {
    close();
    const { status } = await fetch(table.dataset.live, { method: "HEAD" }).catch(() => ({ status: 0 }));
    if (status === 401) end("logged-out");
    else setTimeout(() => open(), 2000);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}

// Summary of a job: asked for again when the log's stream says that the job has changed, and while it waits.
function keepSummary() {
  let wanted = false;
  let asking = false;

  async function refresh() {
    wanted = true;
    if (asking || document.hidden) return;
    for (asking = true; wanted; await new Promise((done) => setTimeout(done, 1000))) {
      wanted = false;
      const answer = await fetch(find("#summary").dataset.summary).catch(() => null);
      if (answer?.status === 401) sayOver("logged-out");
      if (answer?.ok) replace(find("#summary"), find("#summary", parse(await answer.text())));
    }
    asking = false;
  }

  document.addEventListener("job-state", refresh);
  document.addEventListener("visibilitychange", () => wanted && refresh());
  setInterval(() => find("#summary").dataset.state.match(/SCHEDULED|BLOCKED/) && refresh(), 10000);
}

// Keys
function move(step) {
  const links = [...document.querySelectorAll(".rows tbody .title a")];
  links[Math.min(links.length - 1, Math.max(0, links.indexOf(document.activeElement) + step))]?.focus();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  "/": () => find("[data-key='/']")?.select(),
  "?": () => find("#keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, dialog, .xterm");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

const filters = find("form.filters");
filters?.addEventListener("submit", () => {
  for (const input of filters.elements) if (input.name && !input.value) input.disabled = true; // a short address
});
filters?.addEventListener("change", ({ target }) => target.type === "checkbox" && filters.requestSubmit());
if (filters && !location.search && matchMedia("(max-width: 720px)").matches) filters.parentElement.open = false;

find(".keys")?.removeAttribute("hidden");
if (find("table[data-live]")) follow(find("table[data-live]"));
if (find("#summary")) keepSummary();
setInterval(tick, 1000);
