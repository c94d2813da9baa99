"use strict";
// One range of samples for all pictures over the run: by wheel, by dragging, by pinching, by keys and by buttons.
report.zoom = (() => {
  const { state } = report;
  const joined = new Set();
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

  function set(first, last, source = null) {
    const [low, high] = whole();
    const least = (high - low) / 1e5;
    let from = Math.max(low, Math.min(first, high - least));
    const to = Math.min(high, Math.max(last, from + least));
    from = Math.min(from, to - least);
    state.range = from <= low && to >= high ? null : [from, to];
    isSharing = true;
    for (const chart of joined) {
      if (chart !== source && !chart.isDisposed()) apply(chart);
    }
    isSharing = false;
    for (const listener of heard) listener(current(), state.range === null);
  }

  function apply(chart) {
    const [from, to] = current();
    chart.dispatchAction({ type: "dataZoom", batch: zoomsOf(chart).map((index) => ({
      dataZoomIndex: index, startValue: from, endValue: to,
    })) });
  }

  function zoomsOf(chart) {
    return (chart.getOption().dataZoom ?? []).map((_, index) => index);
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
    joined.add(chart);
    chart.on("datazoom", () => {
      if (isSharing) return;
      const zoom = chart.getOption().dataZoom[0];
      set(zoom.startValue, zoom.endValue, chart);
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

  const KEYS = {
    "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2), "0": reset,
    ArrowLeft: () => move(-0.25), ArrowRight: () => move(0.25),
    Home: () => move(-1e9), End: () => move(1e9),
  };

  // The keys of a focused picture.
  function keys(element) {
    element.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || !(event.key in KEYS)) return;
      event.preventDefault();
      KEYS[event.key]();
    });
  }

  function listen(listener) {
    heard.add(listener);
    return () => heard.delete(listener);
  }

  return { current, smoothed, set, reset, scale, move, options, join, select, keys, listen };
})();
