"use strict";
const play = document.getElementById("play");
const slider = document.getElementById("pose");
const views = [...document.querySelectorAll("svg[data-poses]")].map((svg) => [svg, JSON.parse(svg.dataset.poses)]);
const SVG = "http://www.w3.org/2000/svg";
function shape(svg, tag, facts) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(facts)) element.setAttribute(key, value);
  svg.append(element);
}
function show() {
  for (const [svg, poses] of views) {
    svg.replaceChildren();
    const pose = poses[Number(slider.value)];
    if (!pose) continue;
    const [d, cx, cy, r, wide] = pose;
    for (const [look, more] of [["edge", 0.35 * wide], ["body", 0]]) {
      shape(svg, "path", { d, class: look, "stroke-width": wide + 2 * more, ...(look === "edge" ? { fill: "none" } : {}) });
      shape(svg, "circle", { cx, cy, r: r + more, class: look, stroke: "none" });
    }
  }
}
let timer = null;
play.onclick = () => {
  if (timer) clearInterval(timer);
  timer = timer ? null : setInterval(() => {
    slider.value = (Number(slider.value) + 1) % (Number(slider.max) + 1);
    show();
  }, 125);
  play.textContent = timer ? "Stand" : "Walk";
};
slider.oninput = show;
show();
