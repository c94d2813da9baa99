"use strict";
// Draw the page, and anew when its size or its colours change.
report.frame.show();
addEventListener("resize", () => report.frame.resize());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => report.frame.retheme());
addEventListener("beforeprint", () => report.frame.drawAll());
