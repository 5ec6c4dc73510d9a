"use strict";
// What the page can't do by itself: zoom the flame graph, sort and filter the table.
// Without this program all of it is there to be read.
(() => {
  const svgNS = "http://www.w3.org/2000/svg";
  const row = 20, minDrawn = 0.001, minNamed = 0.015, maxDrawn = 3000;

  const group = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
  const counted = (n, what) => group(n) + " " + what + (n === 1 ? "" : "s");

  function element(name, attributes, parent) {
    const e = document.createElementNS(svgNS, name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    if (parent) parent.append(e);
    return e;
  }

  // A graph's frames, from four numbers each: caller, name, bytes, objects.
  function readFrames(data) {
    const frames = [];
    for (let i = 0; i < data.frames.length; i += 4) {
      const [caller, name, bytes, objects] = data.frames.slice(i, i + 4);
      const f = { caller: frames[caller] || null, name: data.names[name], class: data.classes[name], bytes, objects, callees: [] };
      f.depth = f.caller ? f.caller.depth + 1 : 0;
      if (f.caller) f.caller.callees.push(f);
      frames.push(f);
    }
    return frames;
  }

  class Flame {
    constructor(box) {
      this.frames = readFrames(JSON.parse(box.querySelector("script").textContent));
      this.root = this.zoomed = this.frames[0];
      this.now = box.querySelector(".now");
      this.reset = box.querySelector(".reset");
      this.graphs = [...box.querySelectorAll(".graph")];
      this.graph = this.graphs[0];
      box.querySelectorAll("input").forEach((i) => i.addEventListener("change", () => {
        this.graph = this.graphs.find((g) => g.dataset.measure === i.value);
        this.draw();
      }));
      // A page that is gone back to has its switches as they were left.
      const on = box.querySelector("input:checked");
      if (on) this.graph = this.graphs.find((g) => g.dataset.measure === on.value);
      this.reset.addEventListener("click", () => this.zoom(this.root));
      for (const g of this.graphs) {
        const svg = g.querySelector("svg");
        svg.setAttribute("role", "tree");
        svg.setAttribute("aria-label", "Flame graph by " + g.dataset.measure + ": arrow keys go from frame to frame, Enter zooms, Escape shows all");
        svg.addEventListener("click", (e) => { const f = this.at(e); if (f) this.zoom(f); });
        svg.addEventListener("keydown", (e) => this.key(e));
        svg.addEventListener("focusin", (e) => this.say(this.at(e)));
        svg.addEventListener("mouseover", (e) => this.say(this.at(e)));
      }
      this.draw();
    }

    at(e) { const g = e.target.closest("g"); return g ? this.shown.get(g) : null; }
    measure() { return this.graph.dataset.measure; }
    value(f) { return f[this.measure()]; }
    say(f) { if (f) this.now.textContent = this.title(f); }

    title(f) {
      const m = this.measure(), share = this.value(f) / this.value(this.root) * 100;
      return `${f.name}: ${counted(f.bytes, "byte")}, ${counted(f.objects, "object")} (${share.toFixed(1)}% of the ${m})`;
    }

    // The zoomed frame gets all the width; its callers stay above it, as the way back.
    draw(focus) {
      const svg = this.graph.querySelector("svg"), total = this.value(this.zoomed);
      const narrow = this.graph.querySelector(".narrow");
      if (narrow) narrow.hidden = this.zoomed !== this.root;
      this.shown = new Map();
      this.element = new Map();
      this.rows = [];
      svg.replaceChildren();
      for (let f = this.zoomed.caller; f; f = f.caller) this.put(svg, f, 0, 1, "above");
      const todo = [[this.zoomed, 0]];
      let left = maxDrawn;
      while (todo.length && left-- > 0) {
        const [f, x] = todo.shift();
        this.put(svg, f, x, this.value(f) / total, "");
        let at = x;
        const callees = f.callees.filter((c) => this.value(c) >= total * minDrawn).sort((a, b) => this.value(b) - this.value(a));
        for (const c of callees) {
          todo.push([c, at]);
          at += this.value(c) / total;
        }
      }
      svg.setAttribute("height", this.rows.length * row);
      this.reset.disabled = this.zoomed === this.root;
      this.current = null;
      this.focus(focus || this.zoomed, Boolean(focus));
    }

    put(svg, f, x, width, kind) {
      const g = element("g", { class: f.class + (kind ? " " + kind : ""), tabindex: "-1", role: "treeitem", "aria-level": f.depth + 1, "aria-label": this.title(f) }, svg);
      element("title", {}, g).textContent = this.title(f);
      const inner = element("svg", { x: x * 100 + "%", y: f.depth * row, width: width * 100 + "%", height: row - 1 }, g);
      element("rect", { width: "100%", height: row - 1 }, inner);
      if (width >= minNamed) element("text", { x: 4, y: 14 }, inner).textContent = f.name;
      this.shown.set(g, f);
      this.element.set(f, g);
      (this.rows[f.depth] ||= []).push(f);
    }

    focus(f, take) {
      if (!this.element.has(f)) f = this.zoomed;
      if (this.current) this.element.get(this.current).setAttribute("tabindex", "-1");
      this.current = f;
      const g = this.element.get(f);
      g.setAttribute("tabindex", "0");
      if (take) g.focus();
    }

    zoom(f) {
      this.zoomed = f;
      this.draw(f);
    }

    key(e) {
      if (e.ctrlKey || e.altKey || e.metaKey) return;
      const f = this.current, beside = this.rows[f.depth], i = beside.indexOf(f);
      let to = null;
      switch (e.key) {
        case "ArrowUp": to = f.caller; break;
        case "ArrowDown": to = (this.rows[f.depth + 1] || []).find((c) => c.caller === f); break;
        case "ArrowLeft": to = beside[i - 1]; break;
        case "ArrowRight": to = beside[i + 1]; break;
        case "Home": to = this.root; break;
        case "Enter": case " ": this.zoom(f); break;
        case "Escape": this.zoom(this.root); break;
        default: return;
      }
      e.preventDefault();
      if (to) this.focus(to, true);
    }
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((th, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...th.childNodes);
      th.append(button);
      const numbers = th.dataset.sort === "number";
      button.addEventListener("click", () => {
        const down = th.ariaSort ? th.ariaSort === "ascending" : numbers;
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (body) => {
          const cell = body.rows[0].cells[column];
          return numbers ? Number(cell.dataset.v) : cell.textContent;
        };
        const order = numbers ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
        const bodies = [...table.tBodies].sort((a, b) => (down ? -1 : 1) * order(key(a), key(b)));
        table.append(...bodies);
      });
    });
    heads[0].setAttribute("aria-sort", "descending");
  }

  function controls(section) {
    const table = section.querySelector(".sites"), matches = section.querySelector(".matches");
    sortable(table);
    const filter = section.querySelector(".filter"), expand = section.querySelector(".expand");
    const apply = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const body of table.tBodies) {
        const text = (body.rows[0].textContent + " " + body.querySelector("summary").textContent).toLowerCase();
        body.hidden = !words.every((w) => text.includes(w));
        if (!body.hidden) n++;
      }
      matches.textContent = words.length ? n + " of " + counted(table.tBodies.length, "call stack") : "";
    };
    filter.addEventListener("input", apply);
    expand.addEventListener("click", () => {
      const open = expand.getAttribute("aria-pressed") !== "true";
      expand.setAttribute("aria-pressed", open);
      expand.textContent = open ? "Close all" : "Open all";
      table.querySelectorAll(".more > td > details").forEach((d) => { d.open = open; });
    });
    if (filter.value) apply();
  }

  // A link to a leak shows its stack.
  function openTarget() {
    const id = decodeURIComponent(location.hash.slice(1));
    const details = id && document.getElementById(id)?.querySelector("details");
    if (details) details.open = true;
  }

  document.querySelectorAll(".js").forEach((e) => { e.hidden = false; });
  document.querySelectorAll(".flame").forEach((box) => new Flame(box));
  document.querySelectorAll("section:has(> .scroll > .sites)").forEach(controls);
  window.addEventListener("hashchange", openTarget);
  openTarget();
})();
