/* The first page: a click on a day of a picture opens the list behind it. Live figures are in live.js. */
"use strict";

window.addEventListener("load", () => {
  for (const canvas of document.querySelectorAll("canvas[data-links]")) {
    const chart = window.Chart?.getChart(canvas);
    const links = JSON.parse(canvas.dataset.links);
    if (!chart || !links.some(Boolean)) {
      continue;
    }
    canvas.style.cursor = "pointer";
    chart.options.onClick = (_event, _elements, drawn) => {
      const [hit] = drawn.getActiveElements();
      if (hit && links[hit.index]) {
        window.location.assign(links[hit.index]);
      }
    };
    chart.update();
  }
});
