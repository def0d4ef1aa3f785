// Terminal of a job: xterm.js shows the bytes that the job wrote, as fast as it can and no faster.
//
//   server ── frames: length, kind, sequence, bytes ──► reader ──► xterm.js ── a window is shown ──► reads on
//
// Between two windows the browser draws, and answers keys. After a lost connection it reads on from the last sequence
// that it has: no byte comes twice, none is missed.
import { Terminal } from "./vendor/xterm.mjs";
import { Unicode11Addon } from "./vendor/addon-unicode11.mjs";

const [OUTPUT, SIZE, ATTEMPT, STATE, END] = [1, 2, 3, 4, 5]; // kinds of frames, as in terminalstream.py
const HEAD_BYTES = 16;
const WINDOW_BYTES = 1 << 17; // handed to xterm.js between two frames of the browser: some 7 ms of work
const PIECE_BYTES = 1 << 14; // of one write: xterm.js looks at its clock between two of them
const SCROLLBACK_ROWS = 10_000;
const RETRY_MS = 2000;
const scrolled = (rows) => `\x1b[?1049l\x1b[!p\x1b[r\x1b[${rows};1H${"\n".repeat(rows)}\x1b[H`; // out of view

// xterm.js makes <style> elements and style attributes, which the page's policy refuses; it allows style objects.
const create = document.createElement.bind(document);
function createStyled(tag, ...options) {
  const element = create(tag === "style" ? "template" : tag, ...options);
  const set = element.setAttribute.bind(element);
  element.setAttribute = (name, value) => (name === "style" ? (element.style.cssText = value) : set(name, value));
  if (tag !== "style") return element;
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  return Object.defineProperty(element, "textContent", { set: (css) => sheet.replaceSync(css) });
}

async function* framesOf(body) {
  const reader = body.getReader();
  for (let rest = new Uint8Array(), part; !(part = await reader.read()).done; ) {
    const bytes = new Uint8Array(rest.length + part.value.length);
    bytes.set(rest);
    bytes.set(part.value, rest.length);
    const head = new DataView(bytes.buffer);
    let at = 0;
    while (at + HEAD_BYTES <= bytes.length) {
      const [start, kind, sequence] = [at + HEAD_BYTES, head.getUint32(at + 4), head.getFloat64(at + 8)];
      const end = start + head.getUint32(at);
      if (end > bytes.length) break;
      yield { kind, sequence, bytes: bytes.subarray(start, end) };
      at = end;
    }
    rest = bytes.subarray(at);
  }
}

export class JobTerminal {
  constructor(log) {
    const { base, cols, rows } = log.section.dataset;
    Object.assign(this, { log, base, sequence: 0, handed: 0 });
    document.createElement = createStyled;
    this.term = new Terminal({
      ...{ cols: Number(cols), rows: Number(rows), scrollback: SCROLLBACK_ROWS },
      ...{ minimumContrastRatio: 4.5, disableStdin: true, allowProposedApi: true }, // Unicode is a proposal
      ...{ fontSize: 13, fontFamily: "ui-monospace, Menlo, Consolas, monospace" },
      ...{ theme: { background: "#0d1117", foreground: "#e6edf3" } },
    });
    this.term.loadAddon(new Unicode11Addon());
    this.term.unicode.activeVersion = "11";
    this.term.parser.registerOscHandler(8, () => true); // a link's text is shown, and leads nowhere
    const element = log.section.querySelector(".terminal");
    element.terminal = this.term; // for tests, and for the curious
    this.term.open(element);
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.run()));
  }

  pause = () => (this.running = this.running?.abort());

  async run() {
    const running = new AbortController();
    this.running?.abort();
    this.running = running;
    while (!this.ended && this.log.paused && this.running === running && !document.hidden) {
      try {
        await this.read(running.signal);
      } catch {
        if (this.running === running) this.log.say("The connection is lost; trying again …");
      }
      if (!this.ended) await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }

  async read(signal) {
    const answer = await fetch(`${this.base}/terminal?from_sequence=${this.sequence + 1}`, { signal });
    if ((this.ended = this.log.gone(answer.status))) return;
    if (!answer.ok) throw new Error(answer.statusText);
    this.log.say("");
    for await (const { kind, sequence, bytes } of framesOf(answer.body)) {
      if (kind !== OUTPUT) await this.drained();
      else if (this.handed + bytes.length > WINDOW_BYTES) await this.frame();
      if (signal.aborted) return;
      this.take(kind, bytes);
      this.sequence = Math.max(this.sequence, sequence); // at once: an end between the two would repeat the bytes
    }
  }

  take(kind, bytes) {
    if (kind === OUTPUT) this.write(bytes);
    if (kind === STATE || kind === END) document.dispatchEvent(new CustomEvent("job-state"));
    if (kind === SIZE) this.term.resize((bytes[0] << 8) | bytes[1], (bytes[2] << 8) | bytes[3]);
    if (kind === ATTEMPT) this.write(scrolled(this.term.rows));
    if (kind === END) this.ended = true;
  }

  write(content) {
    this.handed += content.length;
    for (let at = 0; at < content.length; at += PIECE_BYTES) this.term.write(content.slice(at, at + PIECE_BYTES));
  }

  drained = () => new Promise((done) => this.term.write("", done));

  async frame() {
    await this.drained();
    await new Promise((drawn) => requestAnimationFrame(drawn)); // a hidden page has none, and reads nothing
    this.handed = 0;
  }
}
