"use strict";
// Curves over the samples seen. `panel.data`: unit, log, stacked, and series of
// {run, label, cut, total, x, y, mean_x, mean_y}; y is null at a gap, the means are those of stretches of a long curve.
report.renderers.lines = (() => {
  const { number } = report;
  const DENSE = 300; // points; the y axis follows the shown part of a curve that has more

  function smoothed(xs, ys, width) {
    let mean = null;
    let before = null;
    return xs.map((x, place) => {
      const y = ys[place];
      if (y !== null) {
        const weight = mean === null ? 1 : 1 - Math.exp(-(x - before) / width);
        mean = mean === null ? y : mean + weight * (y - mean);
        before = x;
      }
      return [x, mean];
    });
  }

  function pairs(series, isLog) {
    return series.x.map((x, place) => {
      const y = series.y[place];
      return [x, isLog && y !== null && y <= 0 ? null : y];
    });
  }

  // Which style a curve has: that of its run where runs are compared, else its own.
  function places(panel) {
    const isCompared = report.state.data.runs.length > 1;
    const labels = [...new Set(panel.data.series.map((each) => each.label))];
    return panel.data.series.map((each) => (isCompared ? each.run : labels.indexOf(each.label)));
  }

  function label(series) {
    const { runs } = report.state.data;
    return runs.length > 1 ? runs[series.run].name : series.label;
  }

  function name(series) {
    return series.cut ? `${label(series)} (rolled back)` : label(series);
  }

  function marks(colours) {
    const areas = [];
    const lines = [];
    const { events, runs } = report.state.data;
    for (const event of runs.length > 1 ? [] : events) { // of several runs they would hide the curves
      if (event.lane === "rollbacks" && event.until !== null) areas.push([{ xAxis: event.at }, { xAxis: event.until }]);
      else if (event.lane === "faults" || event.kind === "resume") lines.push({ xAxis: event.at });
    }
    return {
      type: "line", name: "events", data: [], silent: true, tooltip: { show: false },
      markArea: { silent: true, itemStyle: { color: colours.fault, opacity: 0.1 }, data: areas.slice(0, 200) },
      markLine: {
        silent: true, symbol: "none", label: { show: false },
        lineStyle: { color: colours.quiet, type: [2, 4], width: 1, opacity: 0.7 }, data: lines.slice(0, 200),
      },
    };
  }

  function draw(chart, panel, view) {
    const colours = report.theme();
    const { data } = panel;
    const place = places(panel);
    const width = report.zoom.smoothed();
    const isDense = data.series.some((each) => each.x.length > DENSE);
    const values = data.series.flatMap((each) => each.y.filter((y) => y !== null && y > 0));
    const least = values.reduce((a, b) => Math.min(a, b), Infinity);
    const greatest = values.reduce((a, b) => Math.max(a, b), 0);
    const series = data.series.flatMap((each, index) => {
      if (view.hidden.has(label(each))) return [];
      const { colour, dash, symbol } = report.style(place[index]);
      const isSmooth = width > 0 && !data.stacked && !each.cut && each.x.length > 2;
      const base = {
        type: "line", name: name(each), symbol, symbolSize: 6,
        showSymbol: each.x.length <= 40 && !data.stacked && (!each.cut || each.x.length === 1),
        itemStyle: { color: colour }, emphasis: { disabled: true }, connectNulls: false, animation: false,
        // What falls on one pixel is drawn once; at a gap this would lose extremes.
        sampling: data.stacked || each.y.includes(null) ? undefined : "minmax",
      };
      const raw = {
        ...base,
        data: pairs(each, view.isLog),
        stack: data.stacked ? `run ${each.run}` : undefined,
        areaStyle: data.stacked ? { color: colour, opacity: 0.55 } : undefined,
        lineStyle: {
          color: colour, width: each.cut || data.stacked ? 1.1 : 1.6, type: each.cut ? [1, 3] : dash,
          opacity: isSmooth ? 0.25 : each.cut ? 0.8 : 1,
        },
      };
      if (!isSmooth) return [raw];
      const [xs, ys] = each.mean_x.length ? [each.mean_x, each.mean_y] : [each.x, each.y];
      return [
        { ...raw, name: `${name(each)} (raw)`, lineStyle: { ...raw.lineStyle, type: "solid", width: 1 }, showSymbol: false },
        { ...base, data: smoothed(xs, ys, width), showSymbol: false, lineStyle: { color: colour, width: 2, type: dash } },
      ];
    });
    const axis = report.axisStyle(colours);
    chart.setOption({
      grid: { left: 8, right: 16, top: data.unit ? 26 : 12, bottom: 8, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
      xAxis: report.samplesAxis(colours),
      yAxis: {
        ...axis,
        type: view.isLog ? "log" : "value",
        logBase: greatest / least < 100 ? 2 : 10,
        scale: !data.stacked,
        name: data.unit, nameLocation: "end", nameGap: 10,
        nameTextStyle: { ...axis.nameTextStyle, align: "left" },
        axisLabel: { ...axis.axisLabel, formatter: (value) => report.compact(value) },
      },
      tooltip: { ...report.tooltip(colours), formatter: (shown) => content(shown, panel, place) },
      ...report.zoom.options(isDense && !data.stacked ? "filter" : "none"),
      series: [...series, marks(colours)],
    }, { notMerge: true });
    report.zoom.select(chart);
  }

  function content(shown, panel, place) {
    const points = shown.filter((each) => each.value && each.value[1] !== null);
    if (!points.length) return "";
    const index = new Map(panel.data.series.map((each, at) => [name(each), place[at]]));
    const at = points[0].value[0];
    return report.tooltipContent(`sample ${number(at)}`, points.map((each) => [
      index.get(each.seriesName.replace(/ \(raw\)$/, "")) ?? null, each.seriesName, number(each.value[1]),
    ]));
  }

  function legend(panel, view, redraw) {
    const place = places(panel);
    const shown = new Map();
    panel.data.series.forEach((each, index) => {
      if (!shown.has(label(each))) shown.set(label(each), place[index]);
    });
    return report.el("div", { class: "legend" }, [...shown].map(([curve, at]) => report.el("button", {
      type: "button", class: "key", "aria-pressed": String(!view.hidden.has(curve)),
      onclick: (event) => {
        const isHidden = view.hidden.delete(curve) ? false : Boolean(view.hidden.add(curve));
        event.currentTarget.setAttribute("aria-pressed", String(!isHidden));
        redraw();
      },
    }, report.swatch(at), report.el("span", {}, curve))));
  }

  function logSwitch(panel, view, redraw) {
    const isPossible = !panel.data.stacked && panel.data.series.every((each) => each.y.every((y) => y === null || y > 0));
    return isPossible ? report.el("button", {
      type: "button", class: "switch", "aria-pressed": String(view.isLog), title: "Logarithmic axis",
      onclick: (event) => {
        view.isLog = !view.isLog;
        event.currentTarget.setAttribute("aria-pressed", String(view.isLog));
        redraw();
      },
    }, "log") : null;
  }

  const render = (element, panel, context) => {
    const view = { isLog: panel.data.log, hidden: new Set() };
    const chart = report.chart(element);
    const redraw = () => draw(chart, panel, view);
    redraw();
    const leave = report.zoom.join(chart);
    const fill = () => context.legend.replaceChildren(legend(panel, view, redraw));
    fill();
    context.tools.replaceChildren(logSwitch(panel, view, redraw) ?? "");
    return {
      chart,
      resize: () => chart.resize(),
      refresh: () => { redraw(); fill(); },
      dispose: () => { leave(); chart.dispose(); },
      table: () => tableOf(panel),
    };
  };

  // The curves in numbers: what each begins and ends with, and where its extremes are.
  function tableOf(panel) {
    const columns = ["curve", "points", "of", "first", "last", "least", "at sample", "greatest", "at sample"];
    const rows = panel.data.series.map((each) => {
      const known = each.y.map((y, at) => [y, each.x[at]]).filter(([y]) => y !== null);
      if (!known.length) return [name(each), each.x.length, each.total, ...Array(6).fill(null)];
      const low = known.reduce((a, b) => (b[0] < a[0] ? b : a));
      const high = known.reduce((a, b) => (b[0] > a[0] ? b : a));
      const title = report.state.data.runs.length > 1 ? `${name(each)}: ${each.label}` : name(each);
      return [title, each.x.length, each.total, known[0][0], known.at(-1)[0], low[0], low[1], high[0], high[1]];
    });
    return { columns, rows };
  }

  render.isOverRun = true;
  return render;
})();
