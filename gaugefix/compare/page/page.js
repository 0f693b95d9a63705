"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const readout = document.getElementById("readout");
  const hidden = new Set();

  // ---- legend: a method goes from every panel and table
  const toggles = [...document.querySelectorAll("button.method")];
  const show = () => {
    for (const button of toggles) {
      const off = hidden.has(Number(button.dataset.method));
      button.setAttribute("aria-pressed", String(!off));
      for (const artist of document.querySelectorAll(".m" + button.dataset.method)) artist.classList.toggle("off", off);
    }
  };
  for (const button of toggles) {
    button.addEventListener("click", () => {
      const method = Number(button.dataset.method);
      if (!hidden.delete(method)) hidden.add(method);
      show();
    });
  }
  document.querySelector("button.everything").addEventListener("click", () => {
    hidden.clear();
    show();
  });

  // ---- tables: a heading sorts by its column, rows without a value last
  for (const table of document.querySelectorAll("table.results")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => parseFloat(row.cells[column].dataset.value);
        const rows = [...table.tBodies[0].rows].sort((one, other) => {
          const a = value(one), b = value(other);
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
          return down ? b - a : a - b;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  // ---- read-out: what the panel has at a point, in points of its SVG
  const number = (value) => {
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  };
  const nearest = (values, target) => {
    let best = 0;
    values.forEach((value, k) => {
      if (Math.abs(value - target) < Math.abs(values[best] - target)) best = k;
    });
    return best;
  };
  const along = (probe, x) => probe.x[0] + ((x - probe.box[0]) / probe.box[2]) * (probe.x[1] - probe.x[0]);
  const at = (probe, step) => probe.box[0] + ((step - probe.x[0]) / (probe.x[1] - probe.x[0])) * probe.box[2];

  const readCurves = (probe, x) => {
    const shown = probe.curves.filter((curve) => !hidden.has(curve[0]));
    if (!shown.length) return null;
    const longest = shown.reduce((a, b) => (b[1].length > a[1].length ? b : a));
    const step = longest[1][nearest(longest[1], along(probe, x))];
    const lines = shown.map(([method, steps, mean, low, high]) => {
      const k = nearest(steps, step);
      const band = low ? ` (${number(low[k])} to ${number(high[k])})` : "";
      const when = steps[k] === step ? "" : ` at step ${steps[k]}`;
      return [mean[k], `${data.methods[method]}: ${number(mean[k])}${band}${when}`];
    });
    lines.sort((a, b) => b[0] - a[0]);
    return { x: at(probe, step), text: `${probe.title}, step ${step}\n` + lines.map((line) => line[1]).join("\n") };
  };
  const readMarks = (probe, x, y) => {
    let best = null, reach = Infinity;
    for (const [method, across, down, text] of probe.marks) {
      const distance = Math.hypot(across - x, down - y);
      if (!hidden.has(method) && distance < reach) [best, reach] = [{ x: across, y: down, text: `${probe.title}\n${text}` }, distance];
    }
    return best;
  };
  const readGrid = (probe, x, y) => {
    if (hidden.has(probe.method)) return null;
    const [steps, names, values] = probe.grid;
    const k = nearest(steps, along(probe, x));
    const row = Math.min(names.length - 1, Math.max(0, Math.floor(((y - probe.box[1]) / probe.box[3]) * names.length)));
    const [left, top, width, height] = probe.box;
    return {
      x: at(probe, steps[k]),
      y: top + ((row + 0.5) / names.length) * height,
      text: `${probe.title}\n${names[row]}, step ${steps[k]}: drift ${number(values[row][k])}`,
    };
  };
  const read = (probe, x, y) =>
    probe.curves ? readCurves(probe, x) : probe.grid ? readGrid(probe, x, y) : probe.marks ? readMarks(probe, x, y) : null;

  for (const [name, probes] of Object.entries(data.panels)) {
    const figure = document.getElementById(name);
    const svg = figure.querySelector("svg.plot");
    const cursor = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    cursor.setAttribute("class", "cursor");
    let focus = null; // [probe, x, y] that the arrow keys move

    const put = (probe, x, y) => {
      const found = read(probe, x, y);
      if (!found) return clear();
      const [left, top, width, height] = probe.box;
      const ring = `M${found.x - 7} ${found.y}a7 7 0 1 0 14 0a7 7 0 1 0 -14 0`;
      cursor.setAttribute("d", found.y === undefined ? `M${found.x} ${top}V${top + height}` : ring);
      readout.textContent = found.text;
      readout.hidden = false;
      const spot = new DOMPoint(found.x, found.y ?? top).matrixTransform(svg.getScreenCTM());
      const room = document.documentElement.clientWidth - readout.offsetWidth - 8;
      const leftward = spot.x + 14 > room ? spot.x - 14 - readout.offsetWidth : spot.x + 14;
      const floor = document.documentElement.clientHeight - readout.offsetHeight - 8;
      readout.style.left = Math.max(4, Math.min(leftward, room)) + "px";
      readout.style.top = Math.max(4, Math.min(spot.y + 10, floor)) + "px";
      focus = [probe, found.x, found.y ?? top + height / 2];
    };
    const clear = () => {
      cursor.removeAttribute("d");
      readout.hidden = true;
    };
    const inside = ([left, top, width, height], x, y) =>
      x >= left - 8 && x <= left + width + 8 && y >= top - 8 && y <= top + height + 8;

    svg.addEventListener("pointermove", (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const probe = probes.find((one) => inside(one.box, point.x, point.y));
      if (probe) put(probe, point.x, point.y);
      else clear();
    });
    svg.addEventListener("pointerleave", clear);
    figure.addEventListener("blur", clear);
    figure.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Escape") return clear();
      if (!move) return;
      event.preventDefault();
      if (!focus) {
        const [left, top, width, height] = probes[0].box;
        return put(probes[0], left + width / 2, top + height / 2);
      }
      step(...focus, ...move);
    });
    // One point on: walk until the read-out says something else, into the next axes at the edge.
    const step = (probe, x, y, right, down) => {
      const before = read(probe, x, y)?.text;
      for (let walked = 2; walked < 2000; walked += 2) {
        const to = [x + right * walked, y + down * walked];
        const there = probes.find((one) => inside(one.box, ...to)) ?? null;
        if (!there) continue;
        const found = read(there, ...to);
        if (found && found.text !== before) return put(there, ...to);
      }
    };
  }
})();
