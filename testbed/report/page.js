"use strict";
// Under the pointer: which ping, when, and how long it took. Without scripts the page lacks only this.
for (const plot of document.querySelectorAll("svg[data-pings]")) {
  const pings = JSON.parse(plot.dataset.pings);
  const [left, right, top, bottom, seconds] = JSON.parse(plot.dataset.frame);
  const tip = plot.parentElement.appendChild(document.createElement("div"));
  const cursor = plot.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "line"));
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", top);
  cursor.setAttribute("y2", bottom);
  tip.className = "tip";
  const hide = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
  hide();
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const scale = plot.viewBox.baseVal.width / box.width;
    const at = ((event.clientX - box.left) * scale - left) / (right - left) * seconds;
    if (!pings.length || at < 0 || at > seconds) return hide();
    let low = 0, high = pings.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pings[middle][0] < at) low = middle + 1; else high = middle;
    }
    if (low > 0 && at - pings[low - 1][0] < pings[low][0] - at) low -= 1;
    const [sent, rtt, number] = pings[low];
    const x = left + (right - left) * sent / seconds;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    tip.textContent = "ping " + number + "  at " + sent.toFixed(2) + " s:  " + (rtt === null ? "lost" : rtt.toFixed(2) + " ms");
    const place = Math.min(Math.max(x / scale - tip.offsetWidth / 2, 0), box.width - tip.offsetWidth);
    tip.style.transform = "translate(" + place + "px, " + (bottom / scale + 24) + "px)";
  });
}
