// Search of a job's log: the broker searches, page by page; the hits are lines, which the viewer goes to and marks.
const HITS_MAX = 10_000; // lines in memory: a search with more ends early, and says so

export class Search {
  constructor(log) {
    Object.assign(this, { log, hits: [], at: -1, run: 0, searched: 0, going: false });
    this.form = log.section.querySelector(".log-search");
    this.form.addEventListener("submit", (event) => event.preventDefault() ?? this.find());
    this.form.addEventListener("change", ({ target }) => target.type === "checkbox" && this.find());
  }

  async find() {
    const { q, regex, cased } = this.form.elements;
    const query = { q: q.value, regex: regex.checked, ignore_case: !cased.checked };
    if (JSON.stringify(query) === this.asked) return this.step(1);
    [this.asked, this.hits, this.at, this.searched] = [JSON.stringify(query), [], -1, 0];
    const [run, from] = [++this.run, this.log.anchor.line];
    this.going = Boolean(query.q);
    try {
      for (let next = 1; this.going && this.hits.length < HITS_MAX; this.going &&= next !== null) {
        const page = await this.log.fetch(`find?${new URLSearchParams({ ...query, from: next })}`);
        if (run !== this.run) return; // another search has begun
        [next, this.searched] = [page.next, page.lines];
        this.hits.push(...page.hits);
        const first = this.hits.findIndex((line) => line >= from);
        if (this.at < 0 && first >= 0) this.show(first);
        this.say();
      }
      if (this.at < 0 && this.hits.length) this.show(this.going ? this.hits.length - 1 : 0); // the nearest one known
      this.going = false;
      this.say();
    } catch (error) {
      [this.asked, this.going] = ["", false];
      this.say(error.message);
    }
    this.mark();
  }

  step(by) {
    if (this.hits.length) this.show((this.at + by + this.hits.length) % this.hits.length);
  }

  show(at) {
    this.at = at;
    this.log.target = this.hits[at];
    this.log.go(this.hits[at], -this.log.view.clientHeight / 3);
    this.say();
  }

  say(error = "") {
    const { total } = this.log;
    const count = `${this.hits.length.toLocaleString()}${this.hits.length >= HITS_MAX ? " or more" : ""}`;
    const part = Math.min(99, Math.floor((100 * this.searched) / total));
    const progress = this.going && total ? `, ${part} % searched` : "";
    const found = this.hits.length ? `${(this.at + 1).toLocaleString()} of ${count}` : this.going ? "…" : "not found";
    this.form.querySelector(".log-hits").textContent = error || (this.form.elements.q.value ? found + progress : "");
  }

  mark() {
    const hits = new Set(this.hits);
    for (const [line, row] of this.log.shown) row.classList.toggle("hit", hits.has(line));
    if (!CSS.highlights) return;
    const { q, regex, cased } = this.form.elements;
    const ranges = [];
    const pattern = new RegExp(q.value.replace(/[^\p{L}\p{N}_\s]/gu, "\\$&"), cased.checked ? "g" : "gi");
    const nodes = document.createNodeIterator(this.log.rows, NodeFilter.SHOW_TEXT);
    // Of a regular expression only the lines are marked: the browser's own may take for ever where the broker's do not.
    for (let node; q.value && !regex.checked && (node = nodes.nextNode()); ) {
      if (!node.parentElement.closest(".hit .x")) continue;
      for (const { index, 0: { length } } of node.data.matchAll(pattern)) {
        const [startContainer, endContainer, startOffset, endOffset] = [node, node, index, index + length];
        ranges.push(new StaticRange({ startContainer, startOffset, endContainer, endOffset }));
      }
    }
    CSS.highlights.set("hit", new Highlight(...ranges));
  }
}
