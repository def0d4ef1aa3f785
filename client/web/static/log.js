// Log viewer: shows any part of a job's log in a few dozen rows, however long the log is.
//
//   server ── lines by number ──► chunks (bounded) ──► rows from the anchor down ──► .log-rows (sticky)
//      └───── live: how many ───► total
//
// The anchor says what is shown: a line, and how many pixels of it are above the view. Scrolling moves the anchor, and
// the scroll bar is set from it. So rows may have any height, and a log may be higher than a browser's highest element.
import { Search } from "./search.js";

const CHUNK = 200; // lines of one request
const CHUNKS_MAX = 50; // in memory
const GROUPS_MAX = 10_000;
const ROW_PX = 20; // least height of a row, as in log.css
const HEIGHT_MAX = 8e6; // px of the scrolled element: browsers lay out none above 16 to 33 million
const SETTLED_MS = 150; // after the last movement, the scroll bar is set to where the anchor is
const RETRY_MS = 2000;

export const make = (tag, className, textContent = "") =>
  Object.assign(document.createElement(tag), { className, textContent });

export class Log {
  constructor(section) {
    this.section = section;
    this.view = section.querySelector(".log-view");
    [this.space, this.rows] = [section.querySelector(".log-space"), section.querySelector(".log-rows")];
    this.ended = "ended" in section.dataset;
    Object.assign(this, { total: 0, open: [], target: 0, scroll: 0, meanPx: ROW_PX });
    this.following = this.fitted = !this.ended || section.dataset.state === "FAILED";
    this.anchor = { line: 1, px: 0 };
    [this.chunks, this.loading, this.shown, this.groups] = [new Map(), new Map(), new Map(), new Map()];
    [this.folded, this.hidden] = [new Set(), []]; // groups by their first line, and the ranges of lines they hide
    this.search = new Search(this);
    this.view.addEventListener("scroll", () => this.scrolled());
    this.rows.addEventListener("click", ({ target }) => target.line && this.fold(target.line));
    const resized = new ResizeObserver(() => this.render());
    for (const element of [this.view, document.querySelector("main")]) resized.observe(element);
    addEventListener("hashchange", () => this.goToHash());
    document.addEventListener("visibilitychange", () => this.listen());
  }

  async start() {
    await (this.goToHash() ?? (this.following || this.load(1))); // the first screen comes before all that is counted
    this.listen();
  }

  // ---- Lines, by number, out of chunks.

  get count() {
    return this.total + this.open.length; // with the unfinished lines at the end
  }

  at(line) {
    if (line > this.total) return this.open[line - this.total - 1];
    return this.chunks.get(Math.floor((line - 1) / CHUNK))?.[(line - 1) % CHUNK];
  }

  load(line) {
    const chunk = Math.floor((line - 1) / CHUNK);
    if (!this.loading.has(chunk)) {
      const loaded = this.fetch(`lines?from=${chunk * CHUNK + 1}&limit=${CHUNK}`)
        .then(({ lines }) => this.keep(chunk, lines), () => new Promise((done) => setTimeout(done, RETRY_MS)))
        .then(() => this.loading.delete(chunk) && this.render());
      this.loading.set(chunk, loaded);
    }
    return this.loading.get(chunk);
  }

  async fetch(path) {
    const answer = await fetch(`${this.section.dataset.base}/${path}`);
    const body = await answer.json();
    if (this.gone(answer.status) || !answer.ok) throw new Error(body.detail ?? answer.statusText);
    return body;
  }

  gone(status, over = "logged-out") {
    if (status === 401) document.dispatchEvent(new CustomEvent("session-over", { detail: over }));
    const gone = [401, 403, 404].includes(status);
    if (gone) this.stop(status === 401 ? "" : "This job was removed.");
    return gone;
  }

  keep(chunk, lines) {
    if (lines.length < (this.chunks.get(chunk)?.length ?? 1)) return; // it has grown meanwhile
    this.chunks.delete(chunk);
    this.chunks.set(chunk, lines);
    if (this.chunks.size > CHUNKS_MAX) this.chunks.delete(this.chunks.keys().next().value);
    for (const { n, g } of lines) if (g && this.groups.size < GROUPS_MAX) this.groups.set(n, g);
    if (lines.at(-1).n > this.total) [this.total, this.open] = [lines.at(-1).n, []];
  }

  // ---- What is new.

  listen() {
    this.source?.close();
    clearTimeout(this.retry);
    if (document.hidden || this.stopped || this.paused) return;
    const { base, seen } = this.section.dataset;
    this.source = new EventSource(`${base}/live?from=${this.total}&seen=${seen}`);
    const on = (kind, take) => this.source.addEventListener(kind, ({ data }) => take(data && JSON.parse(data)));
    on("lines", (news) => this.grow(news));
    on("state", (detail) => document.dispatchEvent(new CustomEvent("job-state", { detail })));
    on("failed", ({ detail }) => this.stop(detail));
    on("end", ({ total }) => {
      [this.ended, this.section.dataset.ended] = [true, ""];
      this.stop("");
      this.grow({ total }).then(() => this.count || this.say("No output."));
    });
    this.source.addEventListener("over", ({ data }) => data !== "stopping" && this.gone(401, data));
    this.source.addEventListener("open", () => this.say(""));
    this.source.addEventListener("error", ({ target }) => {
      this.say("The connection is lost; trying again …");
      if (target.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      this.retry = setTimeout(() => this.fetch("lines?from=1&limit=1").finally(() => this.listen()), RETRY_MS);
    });
  }

  stop(why) {
    this.stopped = true;
    this.source?.close();
    this.say(why);
  }

  say(text) {
    this.section.querySelector(".log-state").textContent = text;
  }

  async grow({ total, lines = [], open = [], counting }) {
    if (this.following && counting) return;
    if (this.following && total > this.total + lines.length) await this.load(total); // no empty rows while following
    for (const line of lines) this.append(line);
    [this.total, this.open] = [Math.max(this.total, total), open.map((line) => ({ ...line, open: true }))];
    if (this.folded.size) this.hide();
    this.render();
    if (!counting) this.grouped ??= this.loadGroups().catch(() => {}); // without them the log is as readable
  }

  append(line) {
    const [chunk, place] = [Math.floor((line.n - 1) / CHUNK), (line.n - 1) % CHUNK];
    const lines = this.chunks.get(chunk) ?? [];
    if (lines.length === place) this.keep(chunk, [...lines, line]);
  }

  // ---- Groups: a folded one shows only its first line.

  hide() {
    const starts = [...this.groups.keys()].sort((a, b) => a - b);
    const ranges = starts.map((first, at) => [first + 1, (starts[at + 1] ?? this.total + 1) - 1]);
    this.hidden = ranges.filter(([from, to]) => this.folded.has(from - 1) && from <= to);
  }

  fold(line, folded = !this.folded.has(line)) {
    this.following = false; // what was clicked stays in view
    this.folded[folded ? "add" : "delete"](line);
    this.hide();
    this.shown.delete(line); // it is drawn again
    this.render();
  }

  unfold(line) {
    const range = this.hidden.find(([from, to]) => from <= line && line <= to);
    if (range) this.fold(range[0] - 1, false);
  }

  async loadGroups() {
    const { groups } = await this.fetch("groups");
    for (const { n, g } of groups) this.groups.set(n, g);
    for (const { n, g } of groups.slice(0, -1)) if (this.ended && g === "folded") this.folded.add(n);
    this.hide();
    this.unfold(this.target);
    for (const { n } of groups) this.shown.delete(n);
    this.render();
  }

  next(line) {
    const next = (this.hidden.find(([from]) => from === line + 1)?.[1] ?? line) + 1;
    return next <= this.count ? next : 0;
  }

  previous(line) {
    return (this.hidden.find(([, to]) => to === line - 1)?.[0] ?? line) - 1;
  }

  indexOf(line) {
    return this.hidden.reduce((index, [from, to]) => index - (from < line ? to - from + 1 : 0), line - 1);
  }

  lineAt(index) {
    return this.hidden.reduce((line, [from, to]) => line + (from <= line ? to - from + 1 : 0), Math.floor(index) + 1);
  }

  // ---- Rows: from the anchor down to the end of the view.

  render() {
    const height = this.view.clientHeight;
    if (!height || !this.count) return;
    if (this.following) this.anchor = { line: this.count, px: 0 }; // also where the view has got another height
    let { px } = this.anchor;
    const lines = [Math.min(Math.max(1, this.anchor.line), this.count)];
    this.extend(lines, height + px);
    this.place(lines);
    const missing = height + px - this.bottom(lines.at(-1)); // below the last line
    this.atEnd = !this.next(lines.at(-1)) && missing >= -1;
    if (this.atEnd) px -= Math.max(0, missing);
    const [first] = lines;
    for (let room = px; room < 0 && this.previous(lines[0]); room += ROW_PX) lines.unshift(this.previous(lines[0]));
    if (lines[0] !== first) this.place(lines);
    px = Math.max(0, px + this.shown.get(first).offsetTop);
    while (lines.length > 1 && px >= this.heightOf(lines[0])) px -= this.heightOf(lines.shift());
    this.anchor = { line: lines[0], px };
    this.place(lines);
    this.settle(height);
    const unloaded = lines.find((line) => !this.at(line));
    if (unloaded && !this.loading.size) this.load(unloaded);
    this.search.mark();
  }

  extend(lines, height) {
    for (let px = 0, next; px <= height && (next = this.next(lines.at(-1))); px += ROW_PX) lines.push(next);
  }

  place(lines) {
    const wanted = lines.map((line) => {
      const row = this.shown.get(line);
      const drawn = row && row.line === this.at(line) ? row : this.draw(line, this.at(line));
      drawn.classList.toggle("target", line === this.target);
      drawn.classList.toggle("again", drawn.line?.a > this.at(line - 1)?.a); // not of the same attempt
      return drawn;
    });
    for (const row of [...this.rows.children]) if (!wanted.includes(row)) row.remove();
    wanted.forEach((row, at) => row === this.rows.children[at] || this.rows.insertBefore(row, this.rows.children[at]));
    this.shown = new Map(lines.map((line, at) => [line, wanted[at]]));
  }

  draw(line, drawn) {
    const row = Object.assign(make("div", drawn?.e ? "line err" : "line"), { line: drawn });
    row.append(Object.assign(make("a", "n", drawn?.open ? "…" : line), { href: `#L${line}` }));
    if (!drawn) return row;
    const at = new Date(drawn.t);
    const shown = `${at.toTimeString().slice(0, 8)}.${String(at.getMilliseconds()).padStart(3, "0")}`;
    const [time, text] = [make("time", "t", shown), make("span", "x")];
    [time.dateTime, time.title, text.dataset.attempt] = [at.toJSON(), `${at.toJSON()}, attempt ${drawn.a}`, drawn.a];
    if (["open", "folded"].includes(this.groups.get(line))) {
      const button = Object.assign(make("button", "fold"), { line, ariaExpanded: String(!this.folded.has(line)) });
      button.ariaLabel = `Group at line ${line}`;
      row.classList.add("group");
      row.append(button);
    }
    for (const [content, classes = "", fg = "", bg = ""] of drawn.s) {
      const span = make("span", classes, content);
      [span.style.color, span.style.backgroundColor] = [fg, bg];
      text.append(classes || fg || bg ? span : content);
    }
    if (drawn.cut) text.append(make("span", "cut", ` … ${drawn.cut.toLocaleString()} more characters`));
    row.append(time, text);
    return row;
  }

  heightOf(line) {
    return this.shown.get(line)?.offsetHeight ?? ROW_PX;
  }

  bottom(line) {
    return this.shown.get(line).offsetTop + this.heightOf(line);
  }

  // ---- Scrolling.

  settle(height) {
    const [shown, lines] = [this.shown.size, this.indexOf(this.count) + 1];
    const bottom = this.bottom([...this.shown.keys()].at(-1));
    this.meanPx = Math.max(ROW_PX, bottom / shown);
    this.exact = !this.section.classList.contains("wrapped") && lines * ROW_PX <= HEIGHT_MAX;
    const whole = this.ended && this.atEnd && this.indexOf(this.anchor.line) + this.anchor.px === 0;
    const room = Math.floor(innerHeight - scrollY - this.view.getBoundingClientRect().top) - 1; // below the summary
    this.view.style.height = whole ? `${bottom}px` : this.fitted ? `max(240px, ${room}px)` : "";
    this.space.style.height = `${Math.min(lines * this.meanPx, HEIGHT_MAX)}px`;
    this.range = { px: this.space.offsetHeight - height, lines: Math.max(0, lines - height / this.meanPx) };
    this.rows.style.transform = `translateY(${-this.anchor.px}px)`;
    clearTimeout(this.settling);
    if (this.following || this.exact) this.sync();
    else this.settling = setTimeout(() => this.scrolled() ?? this.sync(), SETTLED_MS); // no event may have come yet
    this.section.querySelector("[data-act=follow]").ariaPressed = String(this.following);
  }

  sync() {
    const index = this.indexOf(this.anchor.line) + this.anchor.px / this.meanPx;
    const top = (this.atEnd ? 1 : Math.min(1, index / this.range.lines || 0)) * Math.max(0, this.range.px);
    if (Math.abs(this.view.scrollTop - top) >= 1) this.view.scrollTop = top;
    this.scroll = this.view.scrollTop;
  }

  scrolled() {
    const top = this.view.scrollTop;
    const by = top - this.scroll;
    if (Math.abs(by) < 1 || !this.range) return;
    this.scroll = top;
    if (this.exact || Math.abs(by) > 2 * this.view.clientHeight) {
      const index = (top / this.range.px) * this.range.lines;
      this.anchor = { line: this.lineAt(index), px: (index % 1) * this.meanPx };
    } else this.anchor.px += by;
    this.following = false;
    this.render();
    this.following = this.atEnd && by > 0 && !this.ended;
    if (top <= 0 || top >= this.range.px - 1) this.sync(); // the bar's end is not the log's, where rows are wrapped
  }

  go(line, px = 0) {
    this.following = false;
    this.unfold(line);
    this.anchor = { line, px };
    this.render();
  }

  goToHash() {
    this.target = Number(/^#L(\d+)$/.exec(location.hash)?.[1] ?? 0);
    if (!this.target) return undefined;
    this.section.scrollIntoView();
    this.following = false;
    const loaded = this.at(this.target) ? Promise.resolve() : this.load(this.target);
    return loaded.then(() => this.go(this.target, -3 * ROW_PX)); // with some lines above
  }

  follow(following = true) {
    this.following = following;
    this.render();
  }
}

const section = document.querySelector(".log[data-base]");
const log = new Log(section);
let terminal = null;

async function show(asTerminal) {
  section.classList.toggle("as-terminal", (log.paused = asTerminal));
  button("terminal").ariaPressed = String(asTerminal);
  terminal?.pause();
  if (!asTerminal) return log.start();
  log.listen(); // ends its stream
  terminal ??= new (await import("./terminal.js")).JobTerminal(log);
  terminal.run();
}

const button = (act) => section.querySelector(`[data-act=${act}]`);
const toggle = (act, name) => (button(act).ariaPressed = String(section.classList.toggle(name))) && log.render();
const ACTS = {
  ...{ follow: () => log.follow(!log.following), terminal: () => show(!log.paused) },
  ...{ top: () => log.go(1), end: () => log.go(log.count) },
  ...{ wrap: () => toggle("wrap", "wrapped"), times: () => toggle("times", "timed") },
  ...{ next: () => log.search.step(1), previous: () => log.search.step(-1) },
};
const KEYS = { f: "follow", g: "top", G: "end", w: "wrap", t: "times", n: "next", N: "previous" };
section.addEventListener("click", ({ target }) => ACTS[target.closest("[data-act]")?.dataset.act]?.());
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, dialog") || event.ctrlKey || event.altKey;
  if (!typing && !event.metaKey && !log.paused && event.key in KEYS) ACTS[KEYS[event.key]]();
});
for (const part of section.querySelectorAll("[hidden]")) part.hidden = false;
show("cols" in section.dataset && !location.hash);
