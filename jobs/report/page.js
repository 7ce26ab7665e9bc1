"use strict";
// Draws the charts from the JSON beside them, in the colours of the theme; draws them again when it changes.
(() => {
  // Height on paper, as in page.css: without one a drawing of fixed width is cut off.
  const PRINTED = 340, SQUARE = 430;
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const hovers = matchMedia("(hover: hover)");
  const coarse = matchMedia("(pointer: coarse)");
  const button = document.getElementById("theme");
  const charts = [...document.querySelectorAll(".chart")].map((box) => ({
    drawing: box.querySelector(".drawing"),
    source: box.querySelector("script").textContent,
    box,
  }));

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);

  // The browser resolves light-dark() only in a real property, so a probe wears each colour once.
  function palette() {
    const probe = document.body.appendChild(document.createElement("i"));
    const known = new Map();
    const resolve = (name) => {
      if (!known.has(name)) {
        probe.style.color = name;
        known.set(name, getComputedStyle(probe).color);
      }
      return known.get(name);
    };
    return { resolve, done: () => probe.remove() };
  }

  function draw(width) {
    const { resolve, done } = palette();
    const revive = (key, value) =>
      typeof value === "string" && value.startsWith("var(--") ? resolve(value) : value;
    const config = { responsive: !width, displaylogo: false, displayModeBar: hovers.matches && !narrow.matches ? "hover" : false, showLink: false, plotlyServerURL: "",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] }; // named, so that none sends data away
    for (const { box, drawing, source } of charts) {
      box.classList.add("drawn");
      const { data, layout } = JSON.parse(source, revive);
      const soft = resolve("var(--soft)");
      for (const axis of [layout.xaxis, layout.yaxis, layout.xaxis2]) {
        if (axis) Object.assign(axis, { tickcolor: soft, fixedrange: coarse.matches });
      }
      if (narrow.matches) {
        for (const trace of data) if (trace.meta === "roomy") trace.mode = "markers";
        layout.xaxis.nticks = 5;
        if (layout.xaxis2) layout.xaxis2.title.text = "finished epochs";
      }
      const square = box.parentElement.classList.contains("beside");
      Plotly.react(drawing, data, {
        ...layout,
        width: (square && width ? SQUARE : width) || drawing.clientWidth, height: width ? (square ? SQUARE : PRINTED) : undefined, autosize: !width, showlegend: false, hovermode: layout.hovermode || "x unified",
        dragmode: coarse.matches ? false : "zoom",
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: soft },
        hoverlabel: { namelength: -1, bgcolor: resolve("var(--card)"), bordercolor: resolve("var(--edge)"), font: { color: resolve("var(--ink)") } },
        margin: { l: 48, r: 14, t: layout.xaxis2 ? 48 : 16, b: 44 },
      }, config);
    }
    done();
    button.textContent = isDark() ? "Light colours" : "Dark colours";
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    draw();
  });
  dark.addEventListener("change", () => draw());
  narrow.addEventListener("change", () => draw());
  // Paper is white and narrower than the window.
  let before;
  addEventListener("beforeprint", () => { before = root.dataset.theme; root.dataset.theme = "light"; draw(680); });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before; else delete root.dataset.theme;
    draw();
  });
  draw();
})();
