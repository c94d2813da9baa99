"use strict";
// One range of samples for all pictures over the run: by wheel, by dragging, by pinching, by keys and by buttons.
report.zoom = (() => {
  const { state } = report;
  const joined = new Map(); // charts, and how many zooms of ECharts each has
  const heard = new Set();
  let isSharing = false;

  function whole() {
    return [state.data.axis.min, Math.max(state.data.axis.max, state.data.axis.min + 1)];
  }

  function current() {
    return state.range ?? whole();
  }

  // Samples over which curves are averaged; 0: they are not.
  function smoothed() {
    const [low, high] = whole();
    return state.smoothing * (high - low);
  }

  // Args: samples; source: the chart that shows the range already; isAsked: false where the reader has not asked for it.
  function set(first, last, source = null, isAsked = true) {
    const [low, high] = whole();
    const least = (high - low) / 1e5;
    let from = Math.max(low, Math.min(first, high - least));
    const to = Math.min(high, Math.max(last, from + least));
    from = Math.min(from, to - least);
    state.range = from <= low && to >= high ? null : [from, to];
    isSharing = true;
    for (const [chart, zooms] of joined) {
      if (chart !== source && !chart.isDisposed()) apply(chart, zooms);
    }
    isSharing = false;
    for (const listener of heard) listener(current(), state.range === null, isAsked);
  }

  function apply(chart, zooms) {
    const [startValue, endValue] = current();
    const batch = Array.from({ length: zooms }, (_, dataZoomIndex) => ({ dataZoomIndex, startValue, endValue }));
    chart.dispatchAction({ type: "dataZoom", batch });
  }

  // The range that a chart shows. chart.getOption() has it, too, but copies all data of the chart to answer.
  function shown(chart) {
    const { startValue, endValue } = chart.getModel().getComponent("dataZoom", 0).option;
    return [startValue, endValue];
  }

  // Options of a chart whose x axis is that of the samples. `filter`: "filter" lets the other axis follow what is shown.
  function options(filter = "none") {
    const [startValue, endValue] = current();
    const isTouch = matchMedia("(pointer: coarse)").matches;
    return {
      dataZoom: [{
        type: "inside", xAxisIndex: 0, filterMode: filter, startValue, endValue, minSpan: 0.001,
        zoomOnMouseWheel: "ctrl", moveOnMouseMove: false, moveOnMouseWheel: false,
        preventDefaultMouseMove: !isTouch, throttle: 30,
      }],
      toolbox: {
        show: true, itemSize: 0, top: -40, showTitle: false,
        feature: { dataZoom: { yAxisIndex: "none", filterMode: filter, icon: { zoom: "none", back: "none" },
          brushStyle: { color: "rgba(120, 150, 200, 0.25)", borderWidth: 0 } } },
      },
    };
  }

  // Let a chart that has these options take part: it sets the range, and follows it.
  function join(chart) {
    joined.set(chart, chart.getOption().dataZoom.length);
    chart.on("datazoom", () => {
      if (!isSharing) set(...shown(chart), chart);
    });
    chart.getZr().on("dblclick", reset);
    select(chart);
    return () => joined.delete(chart);
  }

  // Dragging marks a range to zoom to; on a touch screen dragging scrolls the page, and two fingers zoom.
  function select(chart) {
    if (matchMedia("(pointer: coarse)").matches) return;
    chart.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
  }

  function reset() {
    set(...whole());
  }

  function scale(factor, centre = null) {
    const [from, to] = current();
    const middle = centre ?? (from + to) / 2;
    set(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }

  function move(share) {
    const [from, to] = current();
    const [low, high] = whole();
    const by = Math.max(low - from, Math.min((to - from) * share, high - to));
    set(from + by, to + by);
  }

  // The keys of a focused picture: they zoom the samples, or what the picture itself can scale, move and reset.
  function keys(element, own = { scale, move, reset }) {
    const acts = {
      "+": () => own.scale(0.5), "=": () => own.scale(0.5), "-": () => own.scale(2), "0": () => own.reset(),
      ArrowLeft: () => own.move(-0.25), ArrowRight: () => own.move(0.25),
      Home: () => own.move(-1e9), End: () => own.move(1e9),
    };
    element.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || !(event.key in acts)) return;
      event.preventDefault();
      acts[event.key]();
    });
  }

  function listen(listener) {
    heard.add(listener);
    return () => heard.delete(listener);
  }

  return { current, smoothed, set, reset, scale, move, options, join, select, keys, listen };
})();
