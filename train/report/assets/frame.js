"use strict";
// The page around the pictures: head, figures, navigation, controls, and a card for each panel, drawn once it is in sight.
report.frame = (() => {
  const { el, number, state } = report;
  const HELP = "On a picture: drag or Ctrl + wheel to zoom, double-click for the whole run. "
    + "By keys, once it has the focus: + and \u2212 zoom, arrows move, 0 shows the whole run.";
  const LEAST = 0.00125; // share of the run over which the slider's first step averages
  let leave = null; // what the controls have heard of the range
  let watcher = null; // of what comes into sight
  let sizes = null; // of the pictures

  function show() {
    close();
    const { data } = state;
    document.getElementById("report").replaceChildren(
      el("a", { class: "skip", href: "#panels" }, "To the curves"),
      head(data),
      controls(),
      el("div", { class: "columns" }, navigation(data), el("main", { id: "panels" }, data.groups.map((group) => section(group, data)))),
      foot(data),
    );
    watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) draw(entry.target);
      }
    }, { rootMargin: "300px 0px" });
    sizes = new ResizeObserver((entries) => {
      for (const { target } of entries) report.handles.get(target.dataset.of)?.resize?.();
    });
    for (const card of document.querySelectorAll(".panel")) watcher.observe(card);
  }

  function close() {
    watcher?.disconnect();
    sizes?.disconnect();
    for (const handle of report.handles.values()) handle.dispose?.();
    report.handles.clear();
  }

  // Draw the picture of a card; nothing if it is drawn already.
  function draw(card) {
    const panel = state.data.panels[Number(card.dataset.place)];
    if (report.handles.has(panel.key)) return;
    watcher?.unobserve(card);
    const render = report.renderers[panel.kind];
    if (!render) throw new Error(`no renderer ${panel.kind}`);
    const context = {
      card,
      legend: card.querySelector(".legend-place"),
      tools: card.querySelector(".tools"),
      detail: card.querySelector(".detail"),
    };
    const plot = card.querySelector(".plot, .words");
    report.handles.set(panel.key, render(plot, panel, context));
    plot.dataset.of = panel.key;
    sizes.observe(plot);
    card.dataset.drawn = "true";
  }

  function drawAll() {
    for (const card of document.querySelectorAll(".panel")) draw(card);
  }

  function refresh() {
    for (const handle of report.handles.values()) handle.refresh?.();
  }

  function head(data) {
    const { runs } = data;
    const [run] = runs;
    const isOne = runs.length === 1;
    return el(
      "header", { class: "head" },
      el("div", { class: "title" },
        el("h1", {}, isOne ? run.name : `${runs.length} runs compared`),
        isOne ? pill(run) : null,
        themeSwitch()),
      isOne ? position(run) : null,
      isOne ? el("dl", { class: "figures" }, run.figures.map(figure)) : compared(runs),
      data.remarks.map((remark) => el("p", { class: "remark", role: "note" }, remark)),
    );
  }

  function pill(run) {
    return el("span", { class: `pill state-${run.state}` }, run.state);
  }

  function figure({ label, value }) {
    return el("div", { class: "figure" }, el("dt", {}, label), el("dd", {}, number(value)));
  }

  function position(run) {
    const facts = [
      [`${number(run.samples_seen)}${run.total_samples ? ` of ${number(run.total_samples)}` : ""}`, "samples"],
      [number(run.step), "steps"],
      [number(run.tokens_seen), "tokens"],
      [report.duration(run.seconds), "in steps"],
    ];
    if (run.seconds_left !== null && run.state !== "done") facts.push([report.duration(run.seconds_left), "left at this pace"]);
    if (run.last_checkpoint) facts.push([`sample ${number(run.last_checkpoint.samples_seen)}`, "last checkpoint"]);
    return el(
      "div", { class: "position" },
      run.total_samples ? el("progress", {
        max: run.total_samples, value: Math.min(run.samples_seen, run.total_samples), "aria-label": "Samples seen",
      }) : null,
      el("p", { class: "facts" }, facts.map(([value, what]) => el("span", {}, el("b", {}, value), ` ${what}`))),
      run.message ? el("p", { class: "quiet message" }, run.message) : null,
    );
  }

  function compared(runs) {
    const labels = [...new Set(runs.flatMap((run) => run.figures.map((each) => each.label)))];
    const value = (run, label) => run.figures.find((each) => each.label === label)?.value;
    return scrolled(el(
      "table", { class: "compared" },
      el("caption", { class: "sr" }, "The runs and their current figures"),
      el("thead", {}, el("tr", {}, ["Run", "State", "Samples", ...labels].map((label) => el("th", { scope: "col" }, label)))),
      el("tbody", {}, runs.map((run) => el(
        "tr", {},
        el("th", { scope: "row" }, el("span", { "data-swatch": run.color }, report.swatch(run.color)), " ", run.name),
        el("td", {}, pill(run)),
        el("td", { class: "num" }, number(run.samples_seen)),
        labels.map((label) => el("td", { class: "num" }, number(value(run, label)))),
      ))),
    ));
  }

  function otherTheme() {
    return report.isDark() ? "light" : "dark";
  }

  function themeSwitch() {
    return el("button", {
      type: "button", class: "switch theme", "aria-label": "Light or dark",
      onclick: () => {
        document.documentElement.dataset.theme = otherTheme();
        retheme();
      },
    }, otherTheme());
  }

  // The colours have changed, by the switch or by the system's choice.
  function retheme() {
    document.querySelector(".theme").textContent = otherTheme();
    for (const place of document.querySelectorAll("[data-swatch]")) {
      place.replaceChildren(report.swatch(Number(place.dataset.swatch)));
    }
    refresh();
  }

  function controls() {
    const range = el("span", { class: "range", role: "status" });
    const said = el("span", { class: "quiet" });
    const name = () => {
      said.textContent = state.smoothing
        ? `exponential moving average over ${number(Math.round(report.zoom.smoothed()))} samples` : "off";
      slider.setAttribute("aria-valuetext", said.textContent);
    };
    // Only what the reader has asked for is read out, not that the run has become longer.
    const tell = ([from, to], isWhole, isAsked) => {
      range.setAttribute("aria-live", isAsked ? "polite" : "off");
      range.textContent = `${isWhole ? "whole run: " : ""}samples ${number(Math.round(from))} to ${number(Math.round(to))}`;
      name();
    };
    leave?.();
    leave = report.zoom.listen(tell);
    const slider = el("input", {
      type: "range", min: 0, max: 8, step: 1, id: "smoothing",
      value: state.smoothing ? Math.round(Math.log2(state.smoothing / LEAST)) + 1 : 0,
      oninput: () => {
        const level = Number(slider.value);
        state.smoothing = level ? LEAST * 2 ** (level - 1) : 0;
        name();
        refresh();
      },
    });
    tell(report.zoom.current(), state.range === null, false);
    const button = (label, text, act) => el("button", { type: "button", class: "switch", "aria-label": label, title: label, onclick: act }, text);
    return el(
      "div", { class: "controls", role: "toolbar", "aria-label": "Range and smoothing" },
      el("div", { class: "buttons" },
        button("Zoom in", "+", () => report.zoom.scale(0.5)),
        button("Zoom out", "\u2212", () => report.zoom.scale(2)),
        button("Move back", "\u2190", () => report.zoom.move(-0.25)),
        button("Move on", "\u2192", () => report.zoom.move(0.25)),
        button("Whole run", "0", report.zoom.reset)),
      range,
      el("label", { class: "smoothing", for: "smoothing" }, "Smoothing ", slider, " ", said),
      el("p", { class: "help", id: "keys-help" }, HELP),
    );
  }

  function navigation(data) {
    return el("nav", { "aria-label": "Sections" }, el("ul", {}, data.groups.map((group) => el(
      "li", {}, el("a", { href: `#group-${group.key}` }, group.title),
    ))));
  }

  function section(group, data) {
    const inside = data.panels.map((panel, place) => [panel, place]).filter(([panel]) => panel.group === group.title);
    return el(
      "section", { class: "group", id: `group-${group.key}`, "aria-labelledby": `title-${group.key}` },
      el("h2", { id: `title-${group.key}` }, group.title),
      el("div", { class: "cards" }, inside.map(([panel, place]) => card(panel, place))),
    );
  }

  // A picture over the run has keys; other pictures can be focused; texts are read like the rest of the page.
  function card(panel, place) {
    const render = report.renderers[panel.kind] ?? {};
    const titleId = `panel-title-${place}`;
    const plot = el("div", render.isText ? { class: "words" } : {
      class: `plot kind-${panel.kind}`, tabindex: 0, role: "group", "aria-roledescription": "chart",
      "aria-labelledby": titleId, "aria-describedby": render.isOverRun ? "keys-help" : null,
    });
    if (render.isOverRun) report.zoom.keys(plot);
    if (panel.data.height) plot.style.flexBasis = `${Number(panel.data.height)}px`;
    return el(
      "article", { class: `panel${panel.wide ? " wide" : ""}`, "data-place": place, "data-key": panel.key },
      el("div", { class: "panel-head" }, el("h3", { id: titleId }, panel.title), el("div", { class: "tools" })),
      el("p", { class: "quiet note" }, panel.note),
      el("div", { class: "legend-place" }),
      plot,
      el("div", { class: "detail", "aria-live": "polite" }),
      render.isText && panel.kind !== "blanks" ? null : behind(panel),
    );
  }

  // The table behind a picture, filled when it is opened.
  function behind(panel) {
    const details = el("details", { class: "behind" }, el("summary", {}, "Table"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.childElementCount > 1) return;
      draw(details.closest(".panel"));
      const made = panel.columns.length ? panel : report.handles.get(panel.key).table?.();
      details.append(made ? table(made.columns, made.rows, panel.title) : el("p", {}, "There are no numbers behind this picture."));
    });
    return details;
  }

  function table(columns, rows, caption, isNamed = false) {
    const cell = (value) => el("td", typeof value === "number" ? { class: "num" } : {}, number(value));
    return scrolled(el(
      "table", {},
      el("caption", isNamed ? { class: "sr" } : {}, caption),
      el("thead", {}, el("tr", {}, columns.map((column, at) => el(
        "th", { scope: "col", class: typeof rows[0]?.[at] === "number" ? "num" : null }, column,
      )))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))),
    ));
  }

  function scrolled(inside) {
    return el("div", { class: "scrolled", tabindex: 0, role: "group", "aria-label": "Table" }, inside);
  }

  function foot(data) {
    return el("footer", { class: "quiet" },
      `Written ${report.date(data.written)} by glm-pretraining ${data.version}. Curves by Apache ECharts ${echarts.version}. `,
      data.live ? null : "This page loads nothing.");
  }

  return { show, head, foot, draw, drawAll, refresh, table, retheme };
})();
